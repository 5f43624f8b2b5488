// One run: two hosts, the network between and around them, the arbiter, clients, faults and checkers, from one seed.

import { crc32 } from 'node:zlib';
import type { TermRecord } from '../../src/arbiter/arbiter.ts';
import type { Terms } from '../../src/arbiter/memory.ts';
import { MemoryStore, newShared } from '../../src/cluster/memory-store.ts';
import { recordName } from '../../src/node/config.ts';
import type { FaultPoint } from '../../src/node/fault-points.ts';
import type { Address } from '../../src/packet/build.ts';
import { FrameView } from '../../src/packet/frame-view.ts';
import type { TcpState } from '../guest/tcp.ts';
import { plainWire, type Wire } from '../guest/wire.ts';
import type { Reach } from '../host/arbiter.ts';
import { SimColod } from '../host/colod.ts';
import { Members } from '../host/members.ts';
import { type Death, SimNode, type Surroundings, vmName } from '../host/node.ts';
import type { SimVm } from '../host/vm.ts';
import { Client } from '../network/client.ts';
import { Path } from '../network/link.ts';
import { SimSwitch } from '../network/network.ts';
import type { Checker } from './checker.ts';
import { Faults, type FaultyWorld } from './faults.ts';
import { lower } from './low-limits.ts';
import { type DrawnPlan, drawPlan, type HostName, type Plan } from './plan.ts';
import { Random } from './random.ts';
import { Schedule } from './schedule.ts';
import { Trace } from './trace.ts';

export type MakeChecker = (world: World) => Checker;

export interface RunOptions {
  /** Takes every line of the trace. */
  write?: (line: string) => void;
  /**
   * Instead of what the seed draws: a kept seed keeps its plan, so that it means the same when plans are drawn anew.
   */
  plan?: DrawnPlan;
  /** A checker that is not asked: whether any other one notices what it finds. */
  without?: string;
}

export interface Violation {
  checker: string;
  sentence: string;
  detail: string;
  atMs: number;
}

/** How long after the last fault everything must be well again. */
export const recoverMs = 9000;
/** In a cluster: who comes back with nothing waits for its service, a restart for its pause, a boot for both. */
const recoverMsOfCluster = 45_000;

export function recoverMsOf({ cluster }: Pick<Plan, 'cluster'>): number {
  return cluster === true ? recoverMsOfCluster : recoverMs;
}

const pollMs = 10;
const traceView = new FrameView();

function frameText(frame: Uint8Array): string {
  const view = traceView.parse(frame);
  if (view.kind !== 'tcp') return `${view.kind} ${frame.length} bytes`;
  const flags = `${view.isSyn ? 'S' : ''}${view.isFin ? 'F' : ''}${view.isReset ? 'R' : ''}`;
  const bytes = crc32(frame.subarray(view.payloadAt, view.payloadAt + view.payloadBytes)).toString(16);
  return (
    `${view.targetPort} ${flags} seq ${view.sequence} +${view.payloadBytes} ack ${view.ack} win ` +
    `${view.window} [${bytes}]${stampText(view)}`
  );
}

function stampText(view: FrameView): string {
  return view.timestampsAt === 0 ? '' : ` at ${view.timestamp}`;
}

/** A VM that nobody holds is booted anew by its operator after this. */
const operatorMs = 1500;
const eventsMaxOfTwo = 400_000;
const life = '0000000a';

export class World implements Surroundings, FaultyWorld {
  readonly plan: Plan;
  readonly random: Random;
  readonly schedule = new Schedule();
  readonly trace: Trace;
  readonly terms: Terms = new Map();
  readonly captureIds = { next: 1 };
  readonly paths: Record<HostName, Path>;
  readonly reach: Record<HostName, Reach>;
  readonly registry = newShared();
  registryRefuses = false;
  readonly members: Members;
  readonly network: SimSwitch;
  readonly a: SimNode;
  readonly b: SimNode;
  readonly nodes: SimNode[];
  readonly clients: Client[] = [];
  readonly faults: Faults;
  violation: Violation | undefined = undefined;
  isHealed = false;
  boots = 0;
  /** Machines whose loss is nobody's fault but that of the faults. */
  private readonly struck = new WeakSet<SimVm>();
  /** Machines whose disk has failed: their node says so and gives them up, as long as another one runs. */
  private readonly hindered = new WeakSet<SimVm>();
  private readonly checkers: Checker[];
  /** Those that look after every event. */
  private readonly stepping: Checker[];
  private readonly without: string | undefined;
  /** The machines that could run the guest when one last could, and since when none can. */
  lastHolders: SimVm[] = [];
  nobodySince: number | undefined = undefined;

  constructor(seed: number, makers: readonly MakeChecker[], options: RunOptions = {}) {
    this.random = new Random(seed);
    this.without = options.without;
    this.trace = new Trace(options.write);
    const verbose = options.write !== undefined;
    this.plan = { ...(options.plan ?? drawPlan(seed, this.random.fork('plan'))), verbose };
    const { path, arbiter } = this.plan;
    this.paths = {
      a: new Path(path.delayMs, path.jitterMs, path.bytesPerMs),
      b: new Path(path.delayMs, path.jitterMs, path.bytesPerMs),
      c: new Path(path.delayMs, path.jitterMs, path.bytesPerMs),
    };
    this.reach = { a: { ...arbiter, cut: false }, b: { ...arbiter, cut: false }, c: { ...arbiter, cut: false } };
    this.members = new Members(this.schedule, this.random.fork('members'));
    this.network = new SimSwitch(this.schedule, this.random.fork('network'), this.plan.wide);
    this.a = new SimNode(this, 'a');
    this.b = new SimNode(this, 'b');
    this.nodes = [this.a, this.b];
    if (this.plan.cluster === true) {
      this.nodes.push(new SimNode(this, 'c'));
      for (const node of this.nodes) node.service = new SimColod(node);
    }
    this.checkers = makers.map((make) => make(this));
    this.stepping = this.checkers.filter((checker) => 'stepped' in checker);
    this.network.onFrame = (name, frame, late) => {
      const node = this.hostOf(name);
      if (this.plan.verbose) node.say(`uplink  ${frameText(frame)}${late ? ' (late)' : ''}`);
      for (const checker of this.checkers) checker.frameLeft?.(node, frame, late);
    };
    this.network.onRelease = (name, frame) => {
      for (const checker of this.checkers) checker.frameReleased?.(this.hostOf(name), frame);
    };
    this.faults = new Faults(this);
    this.addClients();
  }

  private hostOf(name: string): SimNode {
    return this.nodes.find((one) => one.name === name) ?? this.a;
  }

  get wire(): Wire {
    return this.plan.wire ?? plainWire;
  }

  /** Whom the guest calls itself. */
  get calls(): { clients: Address[]; everyMs: number } | undefined {
    const everyMs = this.plan.callsEveryMs;
    return everyMs === undefined ? undefined : { clients: this.clients.map(({ place }) => place), everyMs };
  }

  get record(): TermRecord | undefined {
    return this.terms.get(this.plan.cluster === true ? recordName({ vm: vmName, life }) : vmName);
  }

  run(): void {
    const putBack = lower(this.plan.limits);
    try {
      this.runLowered();
    } finally {
      putBack();
    }
  }

  private runLowered(): void {
    if (this.plan.cluster === true) this.startCluster();
    else {
      this.a.start('primary');
      this.b.start('secondary');
    }
    this.schedule.settle();
    this.schedule.after(pollMs, () => this.poll());
    this.schedule.at(this.plan.healMs, () => this.heal());
    const until = this.plan.healMs + recoverMsOf(this.plan) + 1000;
    while (this.violation === undefined && !this.isDone()) {
      if (this.schedule.count > this.eventsMax) {
        for (const checker of this.checkers) checker.endless?.(this.eventsMax);
        break;
      }
      try {
        if (!this.schedule.step(until)) break;
        for (const checker of this.stepping) checker.stepped?.();
      } catch (error) {
        this.crashed(undefined, error);
      }
    }
    if (this.violation === undefined) for (const checker of this.checkers) checker.ended?.();
  }

  private get eventsMax(): number {
    return this.plan.cluster === true ? 4 * eventsMaxOfTwo : eventsMaxOfTwo;
  }

  /** Three services on an empty registry, and an operator who runs a VM. */
  private startCluster(): void {
    for (const { service } of this.nodes) service?.start();
    const home = this.a.name;
    const store = new MemoryStore(this.registry, { now: () => this.schedule.now });
    const record = { vm: vmName, life, home, spec: {}, memoryBytes: this.plan.ramBytes, protect: true };
    void store.change(`vms/${vmName}`, 0, JSON.stringify(record));
  }

  /** Set by the liveness checker. */
  isDone: () => boolean = () => false;

  violate(checker: string, sentence: string, detail: string): void {
    if (this.violation !== undefined || checker === this.without) return;
    this.violation = { checker, sentence, detail, atMs: this.schedule.now };
    this.trace.add(this.schedule.now, '-', `VIOLATED ${checker}: ${detail}`);
  }

  crashed(node: SimNode | undefined, error: unknown): void {
    for (const checker of this.checkers) checker.uncaught?.(node, error);
  }

  private heal(): void {
    this.isHealed = true;
    this.faults.heal();
    for (const checker of this.checkers) checker.healed?.();
  }

  private addClients(): void {
    const { schedule, plan } = this;
    plan.clients.forEach((traits, index) => {
      const client = new Client({
        id: index + 1,
        schedule,
        random: this.random.fork(`client ${index}`),
        traits,
        wire: this.wire,
        send: (frame) => this.network.fromClients(frame),
        complain: (what) => {
          for (const checker of this.checkers) checker.clientComplains?.(what);
        },
      });
      this.clients.push(client);
      client.begin(20 + 100 * index);
    });
    this.network.attachClients((frame) => {
      for (const client of this.clients) client.frame(frame);
    });
  }

  // ---- who holds a complete copy of the guest ----

  /** The machine of a node from which the guest can go on. */
  heldBy({ name, node, process, vm }: SimNode): SimVm | undefined {
    // What the arbiter gave to another one is void, whatever this node still believes.
    if (this.record !== undefined && this.record.owner !== name && this.record.peer !== name) return undefined;
    if (process?.alive !== true || vm?.alive !== true || node === undefined) return undefined;
    if (node.primary !== undefined) return vm;
    const kind = node.secondary?.pair.state.kind;
    const holds = kind === 'protected' || kind === 'suspecting' || kind === 'taking-over';
    return holds && node.secondary?.applier !== undefined ? vm : undefined;
  }

  hinder(node: SimNode): void {
    if (node.vm !== undefined) this.hindered.add(node.vm);
  }

  isHindered(vm: SimVm): boolean {
    return this.hindered.has(vm);
  }

  isStruck(vm: SimVm): boolean {
    return this.struck.has(vm);
  }

  strike(node: SimNode): void {
    if (node.vm !== undefined) this.struck.add(node.vm);
  }

  private lookForHolders(): void {
    const holders = this.nodes.map((node) => this.heldBy(node)).filter((vm) => vm !== undefined);
    if (holders.length > 0) {
      this.lastHolders = holders;
      this.nobodySince = undefined;
      return;
    }
    this.nobodySince ??= this.schedule.now;
  }

  /** Before a fault, or any command of an operator. */
  aboutToStrike(node: SimNode, what: string): void {
    this.lookForHolders();
    for (const checker of this.checkers) checker.aboutToStrike?.(node, what);
  }

  private poll(): void {
    this.schedule.after(pollMs, () => this.poll());
    this.lookForHolders();
    for (const node of this.nodes) node.look();
    for (const checker of this.checkers) checker.polled?.();
    this.bootWhenNobodyHolds();
  }

  private bootWhenNobodyHolds(): void {
    // The services of a cluster do that, when both nodes are there and say that they have nothing.
    if (this.plan.cluster === true) return;
    if (this.nobodySince === undefined || this.schedule.now - this.nobodySince < operatorMs) return;
    const isComing = this.nodes.some(({ process, node }) => process?.alive === true && node?.primary !== undefined);
    const owner = this.record?.owner === 'b' ? this.b : this.a;
    if (isComing || this.schedule.now - owner.startedAt < operatorMs) return;
    owner.say('no copy is left: its operator boots the guest anew');
    owner.kill('process');
    owner.start('primary');
  }

  machineStarted(node: SimNode, vm: SimVm, isSecondary: boolean): void {
    if (isSecondary) return;
    this.boots += 1;
    if (this.boots === 1) return;
    node.say('boots a fresh guest');
    for (const checker of this.checkers) checker.aboutToBoot?.(node);
    this.lastHolders = [];
    for (const checker of this.checkers) checker.booted?.();
    for (const client of this.clients) client.forget();
  }

  // ---- what the checkers are told ----

  reached(node: SimNode, point: FaultPoint, epoch: number): void {
    if (this.plan.verbose) node.say(`reached ${point} of epoch ${epoch}`);
    for (const checker of this.checkers) checker.reached?.(node, point, epoch);
    this.faults.reached(node, point);
  }

  /** The primary of the guest has ended because its operator wanted so. */
  stopped(node: SimNode): void {
    for (const checker of this.checkers) checker.stopped?.(node);
  }

  folderLeft(node: SimNode, death: Death): void {
    for (const checker of this.checkers) checker.folderLeft?.(node, death);
  }

  termChanged(): void {
    for (const checker of this.checkers) checker.termChanged?.();
  }

  captured(vm: SimVm, captureId: number): void {
    for (const checker of this.checkers) checker.captured?.(vm, captureId);
  }

  resumedFrom(vm: SimVm, captureId: number): void {
    for (const checker of this.checkers) checker.resumedFrom?.(vm, captureId);
  }

  guestSaid(vm: SimVm, frame: Uint8Array, connection: TcpState | undefined): void {
    if (this.plan.verbose) this.trace.add(this.schedule.now, vm.parts.name, `guest   ${frameText(frame)}`);
    for (const checker of this.checkers) checker.guestSaid?.(vm, frame, connection);
  }
}
