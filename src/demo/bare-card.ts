// The other end of the bare guest's network card: frames can be sent to it, seen, lost on purpose, or passed on to a
// switch with ordinary sockets behind it.
//
//   guest ── QEMU ── socket ── BareCard ─┬─ say(), ask()
//                                        └─ join(): a port of a switch

import type { Server } from 'node:net';
import { dirname } from 'node:path';
import { barePorts, parseFields } from '../../guest/bare/guest.ts';
import { systemClock } from '../base/clock.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import { makeFolder } from '../base/make-folder.ts';
import { connectForFrames, listenForFrames } from '../netdev/endpoint.ts';
import { FrameSocket } from '../netdev/frame-socket.ts';
import { buildUdp } from '../packet/build.ts';
import { FrameView } from '../packet/frame-view.ts';

export const bareMac = '52:54:00:00:00:01';

const host = { mac: Buffer.from('525500000002', 'hex'), ip: 0x0a000202 };
const guest = { mac: Buffer.from(bareMac.replaceAll(':', ''), 'hex'), ip: 0x0a00020f };
const sayPort = 19_999;
const firstAskPort = 20_000;
const askPortsMax = 10_000;
const answerTimeoutMs = 30_000;

export class BareCard {
  /** QEMU has connected. */
  readonly connected: Promise<void>;
  /** Gets the words of every datagram to `say`, and everything else that the guest sends while no switch was joined. */
  onDatagram: (text: string) => void = () => undefined;
  private readonly server: Server;
  private readonly sockets: FrameSocket[] = [];
  private readonly view = new FrameView();
  private readonly answers = new Map<number, (text: string) => void>();
  private lan: FrameSocket | undefined;
  private loses: (frame: Uint8Array) => boolean = () => false;
  private asked = 0;

  private constructor(server: Server, connected: Promise<void>) {
    this.server = server;
    this.connected = connected;
  }

  static async listen(path: string): Promise<BareCard> {
    makeFolder(dirname(path), 0o700);
    const connected = Promise.withResolvers<void>();
    const card: BareCard = new BareCard(
      await listenForFrames(path, (socket) => {
        card.sockets.push(new FrameSocket(socket, { frame: (frame) => card.take(frame), closed: () => undefined }));
        connected.resolve();
      }),
      connected.promise,
    );
    return card;
  }

  /** From now on the guest is a port of the switch at `path`; frames for which `loses` is true vanish, both ways. */
  async join(path: string, loses: (frame: Uint8Array) => boolean = () => false): Promise<void> {
    this.loses = loses;
    const handlers = { frame: (frame: Uint8Array) => this.send(frame), closed: () => undefined };
    this.lan = await connectForFrames(path, handlers);
  }

  send(frame: Uint8Array): void {
    if (!this.loses(frame)) this.sockets.at(-1)?.send(frame);
  }

  /** A datagram to one of the guest's UDP ports; what it answers comes to `onDatagram`. */
  say(port: number, text: string): void {
    this.send(buildUdp({ ...host, port: sayPort }, { ...guest, port }, Buffer.from(text)));
  }

  /** Has the guest do a command (ask.c), once; what it answers. */
  async ask(command: string): Promise<Map<string, bigint>> {
    const port = firstAskPort + (this.asked++ % askPortsMax);
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const cancel = systemClock.after(answerTimeoutMs, () =>
      reject(new ColoError(errorCodes.timeout, `the bare guest did not answer "${command}"`)),
    );
    this.answers.set(port, resolve);
    this.send(buildUdp({ ...host, port }, { ...guest, port: barePorts.commands }, Buffer.from(command)));
    try {
      return parseFields(await promise);
    } finally {
      cancel();
      this.answers.delete(port);
    }
  }

  async close(): Promise<void> {
    this.lan?.close();
    for (const socket of this.sockets) socket.close();
    await new Promise((resolve) => this.server.close(resolve));
  }

  private take(frame: Uint8Array): void {
    const port = this.view.parse(frame).kind === 'udp' ? this.view.targetPort : 0;
    const answer = this.answers.get(port);
    if (answer === undefined && port !== sayPort) {
      if (this.lan !== undefined && !this.loses(frame)) this.lan.send(frame);
      return;
    }
    const text = Buffer.from(frame.subarray(this.view.contentFrom, this.view.contentTo)).toString('latin1');
    (answer ?? this.onDatagram)(text);
  }
}
