// Puts a door (door.ts) before the handshakes of a TLS server: who is not admitted is reset before anything is
// computed.
//
// Node begins the handshake in the server's own listener of `connection`; that one is called for those who are admitted
// only.

import type { Server, Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { Clock } from '../base/clock.ts';
import type { Door, Verdict } from './door.ts';

export interface GuardOptions {
  door: Door;
  clock: Clock;
  /** Whether who has got through has proven who it is; everybody unless given. */
  isProven?: (socket: TLSSocket) => boolean;
  /** Somebody was not admitted. */
  refused: (verdict: Exclude<Verdict, 'admitted'>, address: string) => void;
}

/** `server`: a TLS or HTTPS server, before it listens. */
export function guard(server: Server, { door, clock, isProven = () => true, refused }: GuardOptions): void {
  const begin = server.listeners('connection');
  const begun = new Map<string, string>();
  const over = (end: string, proven: boolean) => {
    const address = begun.get(end);
    if (address !== undefined && begun.delete(end)) door.done(address, proven, clock.now());
  };
  server.removeAllListeners('connection');
  server.on('connection', (socket: Socket) => {
    const address = socket.remoteAddress ?? '';
    const verdict = door.knock(address, clock.now());
    if (verdict !== 'admitted') {
      socket.on('error', () => undefined);
      socket.resetAndDestroy();
      refused(verdict, address);
      return;
    }
    const end = endOf(socket);
    begun.set(end, address);
    socket.once('close', () => over(end, false));
    for (const listener of begin) Reflect.apply(listener, server, [socket]);
  });
  server.on('secureConnection', (socket: TLSSocket) => over(endOf(socket), isProven(socket)));
}

function endOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}
