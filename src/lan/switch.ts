// A user-space Ethernet switch for one machine: every port is a Unix socket connection that speaks QEMU's netdev
// format. It learns which port an address lives behind, floods what it does not know, and forgets a port when it
// closes: so a dead node's frames reach the survivor, and the survivor's announcement moves the guest's address, as on
// a real bridge.
//
//   gateway (QEMU's user network) ── port ┐
//   node a's uplink ──────────────── port ┼─ switch
//   node b's uplink ──────────────── port ┘
//
// It also keeps, per port, when an address last spoke: tests read from it that never two nodes spoke for one guest.

import type { Server, Socket } from 'node:net';
import { listenForFrames } from '../netdev/endpoint.ts';
import { FrameSocket } from '../netdev/frame-socket.ts';
import { addressAgeMs, addressesMax, portsMax, turnsMax } from './limits.ts';
import { noteTurn, type Turn } from './turns.ts';

interface Port {
  id: number;
  frames: FrameSocket;
}

/** Where an address lives, and when it last spoke, within `refreshMs`. */
interface Place {
  port: Port;
  at: number;
}

/** How exactly the order of addresses is kept: to move one costs more than to look. */
const refreshMs = 1000;

export class Switch {
  private readonly ports = new Map<number, Port>();
  /** Who has not spoken for longest comes first. */
  private readonly addresses = new Map<number, Place>();
  private readonly spoken = new Map<number, Turn[]>();
  private server: Server | undefined;
  private portCount = 0;
  private readonly waiting: (() => void)[] = [];
  private readonly now: () => number;

  constructor(now: () => number) {
    this.now = now;
  }

  async listen(path: string): Promise<void> {
    this.server = await listenForFrames(path, (socket) => this.addPort(socket));
  }

  async close(): Promise<void> {
    for (const port of this.ports.values()) port.frames.close();
    this.ports.clear();
    const server = this.server;
    if (server !== undefined) await new Promise<void>((resolve) => server.close(() => resolve()));
  }

  /** Resolves when another port has been connected. */
  nextPort(): Promise<void> {
    return new Promise((resolve) => this.waiting.push(resolve));
  }

  /** Which ports sent frames from `mac` ("52:54:00:..."), oldest first; a port that spoke again later appears again. */
  spokenBy(mac: string): readonly Turn[] {
    return this.spoken.get(Number.parseInt(mac.replaceAll(':', ''), 16)) ?? [];
  }

  private addPort(socket: Socket): void {
    if (this.ports.size >= portsMax) {
      socket.destroy();
      return;
    }
    const id = this.portCount++;
    const frames = new FrameSocket(socket, {
      frame: (frame) => this.forward(id, frame),
      closed: () => this.removePort(id),
    });
    this.ports.set(id, { id, frames });
    this.waiting.shift()?.();
  }

  private removePort(id: number): void {
    this.ports.delete(id);
    for (const [address, { port }] of this.addresses) if (port.id === id) this.addresses.delete(address);
  }

  private forward(from: number, frame: Uint8Array): void {
    if (frame.length < 14) return;
    const source = this.ports.get(from);
    if (source === undefined) return;
    this.learn(addressAt(frame, 6), source, frame.length);
    const target = ((frame[0] ?? 0) & 1) === 1 ? undefined : this.placeOf(addressAt(frame, 0));
    if (target !== undefined) {
      if (target.id !== from) target.frames.send(frame);
      return;
    }
    for (const port of this.ports.values()) if (port.id !== from) port.frames.send(frame);
  }

  /** Somebody who makes up addresses pushes out those that are silent, and no others. */
  private place(address: number, port: Port, now: number): void {
    const place = this.addresses.get(address);
    if (place?.port === port && now - place.at < refreshMs) return;
    this.addresses.delete(address);
    const [oldest] = this.addresses.keys();
    if (this.addresses.size >= addressesMax && oldest !== undefined) this.addresses.delete(oldest);
    this.addresses.set(address, { port, at: now });
  }

  private placeOf(address: number): Port | undefined {
    const place = this.addresses.get(address);
    return place === undefined || this.now() - place.at >= addressAgeMs ? undefined : place.port;
  }

  private learn(address: number, port: Port, bytes: number): void {
    this.place(address, port, this.now());
    let turns = this.spoken.get(address);
    if (turns === undefined) {
      turns = [];
      if (this.spoken.size < addressesMax) this.spoken.set(address, turns);
    }
    noteTurn(turns, { port: port.id, bytes, now: this.now() }, turnsMax);
  }
}

/** Six bytes as a number: 48 bits fit a double exactly. */
function addressAt(frame: Uint8Array, at: number): number {
  let value = 0;
  for (let index = 0; index < 6; index += 1) value = value * 256 + (frame[at + index] ?? 0);
  return value;
}
