// The network outside: a switch that learns addresses like src/lan/switch.ts, a port for each node's uplink, and one
// port behind which all clients live. Frames on one way stay in order; between the switch and the clients some get
// lost, doubled, or overtaken, as on a real way through the Internet.

import type { Uplink } from '../../src/netdev/endpoint.ts';
import type { FrameHandlers, FrameSocket } from '../../src/netdev/frame-socket.ts';
import type { SimProcess } from '../host/process.ts';
import type { Random } from '../world/random.ts';
import type { Schedule } from '../world/schedule.ts';
import { openUplink, type SimKernel } from './uplink.ts';

export interface WideArea {
  delayMs: number;
  lose: number;
  double: number;
  overtake: number;
}

/** From a node to the switch. */
const wireMs = 0.03;

interface Port {
  name: string;
  deliver: (frame: Uint8Array) => void;
  lastArrival: number;
}

export class SimSwitch {
  readonly ports = new Map<string, Port>();
  /** Uplinks that are unplugged. */
  readonly unplugged = new Set<string>();
  /** The kernel's side of each uplink that is plugged in. */
  readonly kernels = new Map<string, SimKernel>();
  readonly uplinks = new Map<string, FrameSocket>();
  /** Set by the checkers: every frame that a node sends into the network; `late`: uplink.ts. */
  onFrame: (node: string, frame: Uint8Array, late: boolean) => void = () => undefined;
  /** As above: handed to its uplink. */
  onRelease: (node: string, frame: Uint8Array) => void = () => undefined;
  wide: WideArea;
  private readonly learned = new Map<number, string>();
  private readonly schedule: Schedule;
  private readonly random: Random;
  private lastAcross = 0;
  private toClients: (frame: Uint8Array) => void = () => undefined;

  constructor(schedule: Schedule, random: Random, wide: WideArea) {
    this.schedule = schedule;
    this.random = random;
    this.wide = wide;
  }

  attachClients(deliver: (frame: Uint8Array) => void): void {
    this.toClients = deliver;
  }

  /** The uplink of a node's process; it is gone with the process. */
  plug(name: string, process: SimProcess, handlers: FrameHandlers): Uplink {
    const deliver = (frame: Uint8Array) => process.run(() => handlers.frame(frame));
    const port: Port = { name, deliver, lastArrival: 0 };
    const unplug = () => {
      if (this.ports.get(name) !== port) return;
      this.ports.delete(name);
      this.kernels.delete(name);
      this.uplinks.delete(name);
      for (const [address, at] of this.learned) if (at === name) this.learned.delete(address);
    };
    const leave = (frame: Uint8Array, late: boolean) => {
      if (!process.alive || this.ports.get(name) !== port) return;
      this.onFrame(name, frame, late);
      if (this.unplugged.has(name)) return;
      const copy = Uint8Array.from(frame);
      this.schedule.after(wireMs, () => this.forward(name, copy));
    };
    const { uplink, frames, kernel } = openUplink(process, handlers, {
      ...{ leave, close: unplug },
      release: (frame) => this.onRelease(name, frame),
    });
    this.ports.set(name, port);
    this.kernels.set(name, kernel);
    this.uplinks.set(name, frames);
    process.onEnd(unplug);
    Object.defineProperty(uplink, 'problem', { get: () => (this.unplugged.has(name) ? 'it is unplugged' : '') });
    return uplink;
  }

  /** A frame of a client. */
  fromClients(frame: Uint8Array): void {
    this.across(frame, (copy) => this.forward('net', copy));
  }

  private forward(from: string, frame: Uint8Array): void {
    this.learned.set(addressAt(frame, 6), from);
    const isForAll = ((frame[0] ?? 0) & 1) === 1;
    const target = isForAll ? undefined : this.learned.get(addressAt(frame, 0));
    if (from !== 'net' && (target === undefined || target === 'net')) this.across(frame, this.toClients);
    for (const port of this.ports.values()) {
      if (port.name === from || (target !== undefined && target !== port.name)) continue;
      if (!this.unplugged.has(port.name)) this.deliver(port, frame);
    }
  }

  private deliver(port: Port, frame: Uint8Array): void {
    port.lastArrival = Math.max(port.lastArrival, this.schedule.now + 0.02 + 0.05 * this.random.next());
    this.schedule.at(port.lastArrival, () => port.deliver(frame));
  }

  private across(frame: Uint8Array, deliver: (frame: Uint8Array) => void): void {
    const { wide, random, schedule } = this;
    if (random.chance(wide.lose)) return;
    this.lastAcross = Math.max(this.lastAcross, schedule.now + wide.delayMs * (0.8 + 0.4 * random.next()));
    const extra = random.chance(wide.overtake) ? wide.delayMs * 3 * random.next() : 0;
    schedule.at(this.lastAcross + extra, () => deliver(frame));
    if (random.chance(wide.double)) schedule.at(this.lastAcross + extra + random.next(), () => deliver(frame));
  }
}

function addressAt(frame: Uint8Array, at: number): number {
  let value = 0;
  for (let index = 0; index < 6; index += 1) value = value * 256 + (frame[at + index] ?? 0);
  return value;
}
