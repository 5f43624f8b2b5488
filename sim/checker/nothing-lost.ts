// What the secondary's guest has said in the primary's stead, and what a checkpoint brought along that had not left
// yet, leaves at a takeover; and a node that takes over speaks at once, so that the network learns where the guest
// lives now.
//
// Watched on all that is no TCP (datagrams.ts), which nobody sends again, and on TCP's bytes, SYNs and FINs: these the
// guest would repeat, but later than they are due here. What was handed to the uplink counts as said: the primary tells
// its secondary in the same turn, and is not asked when the kernel had it.

import { FrameView } from '../../src/packet/frame-view.ts';
import type { SimNode } from '../host/node.ts';
import type { SimProcess } from '../host/process.ts';
import type { SimVm } from '../host/vm.ts';
import type { Checker } from '../world/checker.ts';
import { DatagramNames } from '../world/datagrams.ts';
import { keyOf, LeftStreams } from '../world/left-streams.ts';
import type { World } from '../world/world.ts';

const withinMs = 60;
const capturesKept = 16;

export const sentence =
  'What the survivor has said and nobody was told leaves at the takeover, and the network learns its place.';

export function nothingLost(world: World): Checker {
  return new NothingLost(world);
}

interface Takeover {
  process: SimProcess;
  vm: SimVm;
  due: Set<string>;
  /** How far each connection must have left. */
  streams: Map<string, number>;
  deadline: number;
  spoke: boolean;
}

class NothingLost implements Checker {
  readonly name = 'nothing-lost';
  readonly sentence = sentence;
  private readonly world: World;
  private readonly view = new FrameView();
  private readonly saidNames = new WeakMap<SimVm, DatagramNames>();
  private readonly leftNames = new WeakMap<SimNode, DatagramNames>();
  private readonly streams = new LeftStreams();
  /** Datagrams said since a machine was loaded, that have not left. */
  private readonly waiting = new Map<SimVm, Set<string>>();
  private readonly takeovers: Takeover[] = [];
  private readonly known = new Set<SimVm>();
  /** What the PVM has said and has not left; and the same as it was at each capture. */
  private unsaid = new Set<string>();
  private readonly atCapture = new Map<number, Set<string>>();

  constructor(world: World) {
    this.world = world;
  }

  captured(_vm: SimVm, captureId: number): void {
    this.atCapture.set(captureId, new Set(this.unsaid));
    this.atCapture.delete(captureId - capturesKept);
  }

  resumedFrom(vm: SimVm, captureId: number): void {
    this.waiting.set(vm, new Set(this.atCapture.get(captureId)));
  }

  booted(): void {
    this.unsaid = new Set();
    this.waiting.clear();
    this.atCapture.clear();
  }

  guestSaid(vm: SimVm, frame: Uint8Array): void {
    const name = namesOf(this.saidNames, vm).nameOf(frame);
    if (name === undefined) return;
    const node = this.world.nodes.find((one) => one.vm === vm && one.node?.primary !== undefined);
    // What a primary says that has lost the term, and does not know it yet, nobody is to say for it.
    if (node !== undefined && (this.world.record?.owner ?? node.name) !== node.name) return;
    if (node !== undefined) this.unsaid.add(name);
    else this.waiting.get(vm)?.add(name);
  }

  frameLeft(node: SimNode): void {
    this.look();
    for (const takeover of this.takeovers) if (takeover.process === node.process) takeover.spoke = true;
  }

  frameReleased(node: SimNode, frame: Uint8Array): void {
    this.look();
    const released = this.view.parse(frame);
    if (released.kind === 'tcp') this.streams.left(released);
    const content = namesOf(this.leftNames, node).nameOf(frame);
    if (content === undefined) return;
    this.unsaid.delete(content);
    for (const one of this.atCapture.values()) one.delete(content);
    for (const one of this.waiting.values()) one.delete(content);
    for (const one of this.takeovers) one.due.delete(content);
  }

  polled(): void {
    this.look();
    const { takeovers } = this;
    for (let takeover = takeovers[0]; takeover !== undefined; takeover = takeovers[0]) {
      if (this.world.schedule.now < takeover.deadline) return;
      takeovers.shift();
      this.judge(takeover);
    }
  }

  private look(): void {
    for (const { node, process, vm } of this.world.nodes) {
      if (process === undefined || vm === undefined || node?.primary === undefined || this.known.has(vm)) continue;
      // By its machine: one process may take over again and again.
      this.known.add(vm);
      const due = new Set(this.waiting.get(vm) ?? []);
      if (vm.loadedFrom === 0) continue;
      // What the lost primary had said beyond it is gone with it, and was never promised.
      this.unsaid = new Set(due);
      const deadline = this.world.schedule.now + withinMs;
      this.takeovers.push({ process, vm, due, streams: this.dueStreams(vm), deadline, spoke: false });
    }
  }

  /** What was said of each connection whose beginning has left: the frames of this event are said behind it. */
  private dueStreams(vm: SimVm): Map<string, number> {
    const open = vm.guest.connections.filter(({ phase }) => phase === 'open');
    const ends = open.map((tcp) => [keyOf(tcp), tcp.max] as const);
    return new Map(ends.filter(([key, end]) => this.streams.isBehind(key, end)));
  }

  private judge({ process, vm, due, streams, spoke }: Takeover): void {
    if (!process.alive || process.paused || !vm.alive || this.isHindered(process)) return;
    if (!spoke) this.world.violate(this.name, sentence, `${process.name} took over and said nothing`);
    else if (due.size > 0 && !this.mayBeDropped)
      this.world.violate(this.name, sentence, `${process.name} kept ${due.size} datagrams to itself at its takeover`);
    const isKept = ([key, end]: [string, number]) => this.streams.isBehind(key, end);
    const kept = [...streams].find(isKept);
    if (kept !== undefined && !this.mayBeDropped)
      this.world.violate(this.name, sentence, `${process.name} kept a part of ${kept[0]} to itself at its takeover`);
  }

  /** At some limits datagrams are forgotten, as src/proxy/limits.ts says. */
  private get mayBeDropped(): boolean {
    return this.world.plan.limits !== undefined;
  }

  /** Its kernel takes nothing, or has only just begun to. */
  private isHindered(process: SimProcess): boolean {
    const { nodes, network } = this.world;
    return nodes.some((node) => node.process === process && network.kernels.get(node.name)?.isFull === true);
  }
}

function namesOf<T extends object>(map: WeakMap<T, DatagramNames>, of: T): DatagramNames {
  const names = map.get(of) ?? new DatagramNames();
  map.set(of, names);
  return names;
}
