// One host with its node: starts it, lets it die, stop or wake, and starts it again, as a supervisor of the real
// product would. The node itself is the production ColoNode on the simulated platform.
//
//   a node whose part in the VM has ended  ─► its process is ended, and started again
//   a dead process                         ─► started again with role `auto`: it does what the arbiter's record says
//   no copy of the guest anywhere          ─► its operator boots a fresh one (world/world.ts)

import { crc32 } from 'node:zlib';
import type { Terms } from '../../src/arbiter/memory.ts';
import { ColoError, errorCodes } from '../../src/base/errors.ts';
import type { Log } from '../../src/base/log.ts';
import { type LinkKind, linkKinds } from '../../src/channel/hello.ts';
import { openCompressor } from '../../src/checkpoint/compress.ts';
import type { Shared } from '../../src/cluster/memory-store.ts';
import type { WantedRole } from '../../src/controller/role.ts';
import { Replica } from '../../src/disk/replica.ts';
import type { NodeConfig } from '../../src/node/config.ts';
import type { NodeContext } from '../../src/node/context.ts';
import type { FaultPoint } from '../../src/node/fault-points.ts';
import { ColoNode } from '../../src/node/node.ts';
import type { PeerLinks, Platform } from '../../src/node/platform.ts';
import type { Address } from '../../src/packet/build.ts';
import type { Wire } from '../guest/wire.ts';
import { type Path, SimLink } from '../network/link.ts';
import type { SimSwitch } from '../network/network.ts';
import type { HostName, Plan } from '../world/plan.ts';
import type { Random } from '../world/random.ts';
import type { Schedule } from '../world/schedule.ts';
import type { Trace } from '../world/trace.ts';
import { type Reach, SimArbiter } from './arbiter.ts';
import { hashOf, SimDisk } from './disk.ts';
import type { Members } from './members.ts';
import { SimProcess } from './process.ts';
import { SimFolder, SimStorage, sectorBytes } from './storage.ts';
import { SimCard, SimVm, type VmObserver } from './vm.ts';

export const vmName = 'vm';
const connectTimeoutMs = 2000;

interface Acceptor {
  busy: () => string | undefined;
  paired: (links: PeerLinks) => void;
}

/** How a node ends: its process alone, or its whole host without a word. */
export type Death = 'process' | 'host';

/** What lies around a host, and is told of it (world/world.ts). */
export interface Surroundings extends VmObserver {
  readonly plan: Plan;
  readonly random: Random;
  readonly schedule: Schedule;
  readonly trace: Trace;
  readonly terms: Terms;
  readonly captureIds: { next: number };
  readonly paths: Record<HostName, Path>;
  readonly reach: Record<HostName, Reach>;
  readonly members: Members;
  readonly network: SimSwitch;
  readonly a: SimNode;
  readonly b: SimNode;
  /** All hosts. */
  readonly nodes: readonly SimNode[];
  /** What the registry of a cluster holds, and whether it takes nothing now. */
  readonly registry: Shared;
  registryRefuses: boolean;
  readonly wire: Wire;
  readonly calls: { clients: Address[]; everyMs: number } | undefined;
  /** Its copy is lost through a fault. */
  strike(node: SimNode): void;
  /** A disk has failed: its node gives its copy up, as long as another one runs. */
  hinder(node: SimNode): void;
  crashed(node: SimNode | undefined, error: unknown): void;
  folderLeft(node: SimNode, death: Death): void;
  machineStarted(node: SimNode, vm: SimVm, isSecondary: boolean): void;
  reached(node: SimNode, point: FaultPoint, epoch: number): void;
  termChanged(): void;
}

/** What starts and ends a host's nodes in a cluster (colod.ts). */
export interface HostService {
  readonly process: SimProcess | undefined;
  start(): void;
  kill(againMs: number): void;
  end(): void;
}

export class SimNode {
  readonly name: HostName;
  readonly world: Surroundings;
  node: ColoNode | undefined;
  process: SimProcess | undefined;
  vm: SimVm | undefined;
  /** The process of the node that it is, or was, paired with. */
  peerProcess: SimProcess | undefined;
  /** Faults of its checkpoints: the next batches of pages cannot be decoded. */
  spoilBatches = 0;
  failNextLoad = false;
  /** Since then no state loads on this host. */
  loadsFailSince: number | undefined = undefined;
  failNextCapture: 'before' | 'stopped' | 'saved' | undefined = undefined;
  incarnation = 0;
  startedAt = 0;
  /**
   * Names the newest pair of links that it is, or was, an end of: another one for every pairing, also of the same
   * processes.
   */
  session = '';
  /** There is no room on the disk where its host has the guest's own image. */
  ownDiskFull = false;
  /** Where its host keeps the replica of the disks, and of which session that replica is. */
  readonly folder: SimFolder;
  replicaOf = '';
  /** In a cluster. */
  service: HostService | undefined = undefined;
  /** Which life of the VM the node here has, or had before its process ended. */
  child: { vm: string; life: string } | undefined = undefined;
  /** The host is off. */
  isDown = false;
  private acceptor: Acceptor | undefined;
  private card: SimCard | undefined;
  private readonly random: Random;
  private links: SimLink[] = [];
  private restarting = false;

  constructor(world: Surroundings, name: HostName) {
    this.world = world;
    this.name = name;
    this.random = world.random.fork(`node ${name}`);
    this.folder = new SimFolder(`${name}'s folder`, world.random.fork(`folder ${name}`));
    this.folder.onRefused = () => world.strike(this);
    this.folder.onTrouble = () => world.hinder(this);
  }

  /** The other node of the pair: in a cluster the one that it is, or was, paired with. */
  get other(): SimNode {
    const { nodes, a, b } = this.world;
    if (nodes.length === 2) return this.name === 'a' ? b : a;
    const others = nodes.filter((one) => one !== this);
    const peer = others.find(({ name }) => this.peerProcess?.name.startsWith(name) === true);
    return peer ?? others.find(({ isUp }) => isUp) ?? b;
  }

  get liveLinks(): SimLink[] {
    return this.links.filter((link) => !link.ended);
  }

  get isUp(): boolean {
    return this.process?.alive === true;
  }

  start(role: WantedRole): void {
    const { world } = this;
    this.incarnation += 1;
    this.startedAt = world.schedule.now;
    const rate = 1 + (this.random.next() - 0.5) * 0.001;
    const process = new SimProcess(`${this.name}${this.incarnation}`, world.schedule, {
      rate,
      origin: 1000 + this.random.between(0, 1e6),
    });
    this.process = process;
    this.vm = undefined;
    this.acceptor = undefined;
    for (const link of this.links.splice(0)) link.hostReturned();
    const context = this.newContext(process, role);
    const node = new ColoNode(context);
    this.node = node;
    this.say(`starts as ${role}`);
    node.start().catch((error: unknown) => {
      if (!process.alive) return;
      this.say(`could not start: ${error instanceof Error ? error.message : String(error)}`);
      if (!(error instanceof ColoError)) world.crashed(this, error);
      this.kill('process');
    });
  }

  /** The end of the process, or of the host: QEMU goes with it. */
  kill(death: Death): void {
    const { process } = this;
    if (death === 'host' && this.service !== undefined) this.powerOff(this.service);
    if (process === undefined || !process.alive) return;
    this.say(death === 'host' ? 'its host is gone' : 'its process is killed');
    const loseEvent = this.random.chance(0.7) ? this.world.schedule.count : undefined;
    for (const link of this.links) link.processEnded({ silent: death === 'host', loseEvent });
    if (death === 'process') this.links = [];
    this.vm?.die();
    process.kill();
    if (death === 'host') this.folder.hostEnded();
    else this.folder.processEnded();
    this.world.folderLeft(this, death);
    this.node = undefined;
    this.supervise(death === 'host' ? this.random.between(300, 2500) : this.random.between(20, 1500));
  }

  /** The service goes with its host, and comes back with it; of the node nothing is left. */
  private powerOff(service: HostService): void {
    if (this.isDown) return;
    this.isDown = true;
    this.child = undefined;
    service.end();
    const offMs = this.random.pick([this.random.between(300, 2500), this.random.between(4000, 9000)]);
    this.world.schedule.after(offMs, () => {
      this.isDown = false;
      service.start();
    });
  }

  /** In a cluster: the service starts the node. */
  startChild(child: { vm: string; life: string }, role: WantedRole): void {
    this.child = child;
    this.start(role);
  }

  /** What the supervisor looks at now and then. */
  look(): void {
    if (this.service !== undefined) return;
    if (this.node?.role.state.kind !== 'ended' || this.restarting || this.process?.paused === true) return;
    this.restarting = true;
    const { node, process } = this;
    this.world.schedule.after(this.random.between(20, 400), () => {
      this.restarting = false;
      if (this.process !== process || process?.alive !== true || process.paused) return;
      this.say('is ended, to start anew');
      process.run(() => void node.stop().catch(() => undefined));
      this.world.schedule.after(30, () => {
        if (this.process === process && process.alive) this.kill('process');
      });
    });
  }

  /** SIGTERM: the process ends when its node has given the VM up. */
  signal(): void {
    const { node, process } = this;
    if (node === undefined || process === undefined) return;
    const end = () => {
      if (this.process === process && process.alive) this.kill('process');
    };
    process.run(() => void node.retire('SIGTERM').then(end));
  }

  private supervise(delayMs: number): void {
    if (this.service !== undefined) return;
    const { incarnation } = this;
    this.world.schedule.after(delayMs, () => {
      if (this.incarnation === incarnation && !this.isUp) this.startAgain();
    });
  }

  startAgain(): void {
    this.start('auto');
  }

  pause(withQemu: boolean): void {
    this.say(withQemu ? 'host stands still' : 'node stands still');
    this.process?.pause();
    if (!withQemu) return;
    this.vm?.parts.qemu.pause();
    this.service?.process?.pause();
  }

  wake(timersFirst = false): void {
    this.service?.process?.wake(timersFirst);
    if (this.process?.paused !== true && this.vm?.parts.qemu.paused !== true) return;
    this.say('wakes up');
    this.process?.wake(timersFirst);
    this.vm?.parts.qemu.wake();
  }

  say(what: string): void {
    this.world.trace.add(this.world.schedule.now, this.name, what);
  }

  /** A link of this node breaks, as its receiver notices. */
  damageLink(kind: number): void {
    const open = this.liveLinks;
    const link = open[kind % Math.max(1, open.length)];
    if (link !== undefined) link.damageNext = true;
  }

  /** This side's kernel or a middlebox ends the connection at this side alone. */
  resetLink(kind: number): void {
    const open = this.liveLinks;
    const link = open[kind % Math.max(1, open.length)];
    link?.process.run(() => link.fail('broke'));
  }

  /** The kernel ends one connection, or all: the other side hears at once, the owner here so much later. */
  abortLinks(choice: number, heardMs: number): void {
    const open = this.liveLinks;
    const links = choice % 2 === 0 ? open : [open[choice % Math.max(1, open.length)]];
    for (const link of links) link?.abort(heardMs);
  }

  // ---- the platform ----

  private newContext(process: SimProcess, role: WantedRole): NodeContext {
    const { world } = this;
    const arbiter = new SimArbiter(process, world, {
      reach: world.reach[this.name],
      random: this.random.fork(`arbiter ${this.incarnation}`),
      changed: () => world.termChanged(),
    });
    const config: NodeConfig = {
      ...{ vm: vmName, node: this.name, role, listen: { path: this.name } },
      ...(this.child === undefined ? {} : { life: this.child.life }),
      peers: this.service === undefined ? [{ node: this.other.name, address: { path: this.other.name } }] : [],
      machine: {
        ...{ machine: 'q35', accel: 'tcg', cpu: undefined, vcpus: 1, ramBytes: world.plan.ramBytes },
        ...{ kernel: undefined, initrd: undefined, cmdline: '', nics: [], serialLog: '', extraArgs: [] },
      },
      protect: world.plan.protect,
      guest: { mac: '52:54:00:12:34:56', address: '10.0.2.15' },
      ...{ runDir: '', spillDir: '', identityFolder: undefined, qemuPath: undefined, armedBy: undefined },
      uplink: { kind: 'switch', path: '' },
      arbiter: { kind: 'folder', folder: '' },
    };
    const { disk } = world.plan;
    if (disk !== undefined) {
      config.disks = [{ path: '', format: 'raw', flush: disk.flush }];
      config.replicaDir = this.folder.path;
    }
    return {
      config,
      clock: process.clock,
      wallMs: () => process.clock.now(),
      log: this.newLog(process),
      arbiter,
      platform: this.newPlatform(process),
    };
  }

  private newLog(process: SimProcess): Log {
    const line = (fields: unknown, text: unknown) => {
      if (process.alive) this.say(`${String(text)} ${JSON.stringify(fields)}`);
    };
    const nothing = () => undefined;
    const debug = this.world.plan.verbose ? line : nothing;
    return { error: line, warn: line, info: line, debug, trace: nothing } as unknown as Log;
  }

  private newPlatform(process: SimProcess): Platform {
    const { world } = this;
    const plain = openCompressor({ only: 'none' });
    return {
      connectUplink: async (handlers) => world.network.plug(this.name, process, handlers),
      listenCard: async () => {
        const card = new SimCard(process, () => world.plan.times.cardMs * (0.5 + this.random.next()));
        if (process.alive) this.card = card;
        return card;
      },
      startVm: (options) => this.startVm(process, options.vmstateTemplate !== undefined),
      diskSource: () => {
        const disk = this.vm?.parts.disk;
        if (disk === undefined) throw new Error('bug: a disk source without a disk');
        return disk;
      },
      openReplica: (options) => {
        this.replicaOf = this.session;
        return Replica.begin({ folder: this.storage(process), vm: vmName, ...options });
      },
      hashFile: async () => hashOf(this.folder.bytes('disk0.raw') ?? Buffer.alloc(0)),
      openLinks: (to, term, signal) => this.openLinks(process, { to: to.node, term, signal }),
      acceptLinks: async (acceptor) => {
        if (process.alive) this.acceptor = acceptor;
        return { close: async () => this.closeAcceptor(process, acceptor) };
      },
      compressor: () => ({
        ...plain,
        name: plain.name,
        encoding: plain.encoding,
        compress: (raw) => plain.compress(raw),
        decode: (encoding, data, target, rawBytes) =>
          !this.isSpoiled() && plain.decode(encoding, data, target, rawBytes),
      }),
      openSpill: () => {
        throw new ColoError(errorCodes.host, 'there is no disk to spill to (simulated)');
      },
      hashRam: (ram) => crc32(ram).toString(16),
      turn: () => new Promise((resolve) => void world.schedule.after(0.01, () => process.run(() => resolve()))),
      reached: (point, epoch) => {
        if (process.alive) world.reached(this, point, epoch);
      },
    };
  }

  private storage(process: SimProcess): SimStorage {
    const random = this.random.fork(`storage ${this.incarnation}`);
    const ms = this.world.plan.disk?.storageMs ?? 0;
    return new SimStorage(this.folder, process, () => ms * (0.5 + random.next()));
  }

  /** A fresh image when the guest boots (its operator has brought older disks away), or an overlay over the replica. */
  private newDisk(qemu: SimProcess, isSecondary: boolean): { disk?: SimDisk } {
    const { disk } = this.world.plan;
    if (disk === undefined) return {};
    if (!isSecondary) this.folder.clear();
    const base = isSecondary ? this.folder.bytes('disk0.raw') : Buffer.alloc(disk.sectors * sectorBytes);
    if (base === undefined) throw new ColoError(errorCodes.qemu, 'there is no replica to start from (simulated)');
    const random = this.random.fork(`disk ${this.incarnation} ${this.world.schedule.count}`);
    const renewBytes = 3000;
    const full = () => this.ownDiskFull;
    return { disk: new SimDisk({ qemu, random, base, writeMs: disk.writeMs, overlay: isSecondary, renewBytes, full }) };
  }

  private isSpoiled(): boolean {
    if (this.spoilBatches === 0) return false;
    this.spoilBatches -= 1;
    this.say('a batch of pages cannot be decoded');
    return true;
  }

  private closeAcceptor(process: SimProcess, acceptor: Acceptor): void {
    if (process.alive && this.acceptor === acceptor) this.acceptor = undefined;
  }

  private startVm(process: SimProcess, isSecondary: boolean): Promise<SimVm> {
    const { world } = this;
    const { promise, resolve } = Promise.withResolvers<SimVm>();
    const { plan } = world;
    process.clock.after(plan.times.startMs, () => {
      const qemu = new SimProcess(`${process.name}-qemu`, world.schedule, { rate: 1, origin: 0 });
      const card = this.card;
      if (card === undefined) throw new Error('bug: a machine starts before its card');
      const vm = new SimVm({
        name: process.name,
        ramBytes: plan.ramBytes,
        schedule: world.schedule,
        node: process,
        qemu,
        card,
        random: this.random.fork(`vm ${this.incarnation} ${world.schedule.count}`),
        traits: plan.guestTraits[this.name === 'c' ? 'a' : this.name],
        times: plan.times,
        observer: world,
        captureIds: world.captureIds,
        ...this.newDisk(qemu, isSecondary),
        loadsFail: () => this.loadsFailSince !== undefined,
        calls: world.calls,
        wire: world.wire,
      });
      vm.faults.failLoad = this.failNextLoad;
      this.failNextLoad = false;
      this.vm = vm;
      if (vm.faults.failLoad || this.loadsFailSince !== undefined) world.strike(this);
      world.machineStarted(this, vm, isSecondary);
      resolve(vm);
    });
    return promise;
  }

  private openLinks(
    process: SimProcess,
    { to, term, signal }: { to: string; term: number; signal: AbortSignal },
  ): Promise<PeerLinks> {
    const { world } = this;
    const other = world.nodes.find(({ name }) => name === to) ?? this.other;
    const { promise, resolve, reject } = Promise.withResolvers<PeerLinks>();
    const refuse = (why: string, delayMs: number) =>
      void process.clock.after(delayMs, () => reject(new ColoError(errorCodes.channel, why)));
    const out = world.paths[this.name];
    const back = world.paths[other.name];
    process.clock.after(2 * (out.delayMs + back.delayMs), () => {
      const { acceptor, process: peer } = other;
      if (signal.aborted) refuse('given up', 0);
      else if (out.cut || back.cut || peer?.paused === true) refuse('no answer in time', connectTimeoutMs);
      else if (peer?.alive !== true || acceptor === undefined) refuse('nobody listens', out.delayMs);
      else {
        const busy = acceptor.busy();
        if (busy !== undefined) refuse(busy, back.delayMs);
        else this.pair(process, other, peer, acceptor, { term, resolve });
      }
    });
    return promise;
  }

  private pair(
    process: SimProcess,
    other: SimNode,
    peer: SimProcess,
    acceptor: Acceptor,
    on: { term: number; resolve: (links: PeerLinks) => void },
  ): void {
    const { world } = this;
    const session = `${process.name}-${peer.name}-${world.schedule.count}`;
    const make = (owner: SimNode, own: SimProcess, { kind, to }: { kind: LinkKind; to: SimNode }): SimLink => {
      const random = owner.random.fork(`${session} ${kind}`);
      const link = new SimLink({
        peer: { vm: vmName, node: to.name, kind, term: on.term, session },
        process: own,
        kind,
        path: world.paths[owner.name],
        random: () => random.next(),
        congestedBytes: world.plan.congestedBytes,
      });
      owner.links = owner.links.filter((one) => !one.ended);
      owner.links.push(link);
      return link;
    };
    const join = (kind: LinkKind): { near: SimLink; far: SimLink } => {
      const near = make(this, process, { kind, to: other });
      const far = make(other, peer, { kind, to: this });
      near.other = far;
      far.other = near;
      return { near, far };
    };
    const [beat, packet, bulk] = linkKinds.map(join);
    if (beat === undefined || packet === undefined || bulk === undefined) return;
    other.peerProcess = process;
    this.peerProcess = peer;
    other.session = session;
    this.session = session;
    acceptor.paired({ beat: beat.far, packet: packet.far, bulk: bulk.far });
    process.clock.after(world.paths[other.name].delayMs, () =>
      on.resolve({ beat: beat.near, packet: packet.near, bulk: bulk.near }),
    );
  }
}
