// Does what a plan's faults say, and undoes all of them when the world heals.

import { MemoryStore } from '../../src/cluster/memory-store.ts';
import type { FaultPoint } from '../../src/node/fault-points.ts';
import type { SimNode, Surroundings } from '../host/node.ts';
import type { SimVm } from '../host/vm.ts';
import { type Fault, faultText } from './plan.ts';

/** What faults change, and what is told of them. */
export interface FaultyWorld extends Surroundings {
  readonly nodes: readonly SimNode[];
  /** Before a fault: what it takes away is still there. */
  aboutToStrike(node: SimNode, what: string): void;
  /** An operator's stop of a primary is done. */
  stopped(node: SimNode): void;
}

/** Losses among three members: whether the leader is lost, and how many followers. */
const memberLosses = [
  [true, 0],
  [true, 0],
  [false, 1],
  [true, 1],
  [false, 2],
] as const;

export class Faults {
  private readonly world: FaultyWorld;
  private readonly undo: (() => void)[] = [];
  private readonly waiting: { fault: Fault; left: number }[] = [];
  private over = false;

  constructor(world: FaultyWorld) {
    this.world = world;
    for (const fault of world.plan.faults) {
      if ('atMs' in fault.when) world.schedule.at(fault.when.atMs, () => this.strike(fault, undefined));
      else this.waiting.push({ fault, left: fault.when.nth });
    }
  }

  /** A node reached a named point: a fault may wait for it. */
  reached(node: SimNode, point: FaultPoint): void {
    if (this.over) return;
    for (const waiting of this.waiting) {
      const { fault } = waiting;
      if (!('point' in fault.when) || fault.when.point !== point || waiting.left === 0) continue;
      waiting.left -= 1;
      if (waiting.left > 0) continue;
      const { afterMs } = fault.when;
      if (afterMs === undefined) this.strike(fault, node);
      else this.world.schedule.after(afterMs, () => this.strike(fault, node));
    }
  }

  /** From here on nothing fails. */
  heal(): void {
    this.over = true;
    for (const undo of this.undo.splice(0)) undo();
    for (const reach of Object.values(this.world.reach)) reach.lose = 0;
    for (const node of this.world.nodes) {
      node.spoilBatches = 0;
      node.failNextLoad = false;
      if (node.vm !== undefined) {
        node.vm.faults.failCapture = undefined;
        node.vm.faults.failLoad = undefined;
      }
    }
    this.world.trace.add(this.world.schedule.now, '-', 'all faults are over');
  }

  private strike(fault: Fault, at: SimNode | undefined): void {
    if (this.over) return;
    // At a named point: the node that reached it, or the one that the plan names.
    const node = at !== undefined && fault.choice % 2 === 0 ? at : this.nodeOf(fault.on);
    this.world.trace.add(this.world.schedule.now, node.name, `FAULT ${faultText(fault)}`);
    this.world.aboutToStrike(node, fault.kind);
    this.perform(fault, node);
  }

  private nodeOf(on: Fault['on']): SimNode {
    const { a, nodes } = this.world;
    const named = nodes.find(({ name }) => name === on);
    if (named !== undefined) return named;
    const primary = nodes.find(({ node }) => node?.primary !== undefined) ?? a;
    return on === 'primary' ? primary : primary.other;
  }

  private later(fault: Fault, undo: () => void): void {
    this.undo.push(undo);
    // When all is healed it has been undone: what heals is better than what the plan began with.
    this.world.schedule.after(fault.forMs, () => this.over || undo());
  }

  private perform(fault: Fault, node: SimNode): void {
    const { world } = this;
    const path = world.paths[node.name];
    const back = world.paths[node.other.name];
    const reach = world.reach[node.name];
    switch (fault.kind) {
      case 'kill-process':
        world.strike(node);
        node.kill('process');
        return;
      case 'kill-host':
        world.strike(node);
        node.kill('host');
        return;
      case 'pause-node':
      case 'pause-host':
        node.pause(fault.kind === 'pause-host');
        this.later(fault, () => node.wake());
        return;
      case 'stall':
        this.stall(fault, [node]);
        return;
      case 'stall-all':
        this.stall(fault, world.nodes);
        return;
      case 'cut':
        path.cut = true;
        back.cut = true;
        this.later(fault, () => {
          path.heal();
          back.heal();
        });
        return;
      case 'cut-one-way':
        path.cut = true;
        this.later(fault, () => path.heal());
        return;
      case 'slow-link': {
        const { delayMs, bytesPerMs } = world.plan.path;
        path.delayMs = delayMs + (fault.choice % 120);
        path.bytesPerMs = 50 + fault.choice;
        this.later(fault, () => Object.assign(path, { delayMs, bytesPerMs }));
        return;
      }
      case 'unplug':
        world.network.unplugged.add(node.name);
        this.later(fault, () => world.network.unplugged.delete(node.name));
        return;
      case 'kill-vm':
        if (node.vm === undefined) return;
        world.strike(node);
        node.vm.die();
        return;
      case 'kill-vm-unheard':
        if (node.vm === undefined) return;
        world.strike(node);
        node.vm.die(fault.forMs);
        return;
      case 'hang-vm':
        this.hang(fault, node);
        return;
      case 'fail-capture':
        if (node.vm !== undefined)
          node.vm.faults.failCapture = (['before', 'stopped', 'saved'] as const)[fault.choice % 3];
        return;
      case 'signal':
        this.signal(node);
        return;
      case 'shutdown':
        this.signal(node);
        this.cutPower(fault, node);
        return;
      case 'keep-fails':
        if (node.vm === undefined) return;
        node.vm.faults.failKeep = true;
        this.keepAgain(fault, node.vm);
        return;
      case 'disk-hang':
        // Until its primary gives it up: the loss of that one in between is a second fault.
        world.hinder(node);
        node.folder.hang();
        this.later(fault, () => node.folder.answer());
        return;
      case 'fail-load':
        world.strike(node);
        if (node.vm === undefined) node.failNextLoad = true;
        else node.vm.faults.failLoad = true;
        return;
      case 'spoil-checkpoint':
        node.other.spoilBatches = 1 + (fault.choice % 4);
        return;
      case 'damage-link':
        node.damageLink(fault.choice);
        return;
      case 'reset-link':
        node.resetLink(fault.choice);
        return;
      case 'colod-killed':
        node.service?.kill(100 + 4 * fault.choice);
        return;
      case 'drain':
        this.drain(fault, node);
        return;
      case 'registry-refuses':
        world.registryRefuses = true;
        this.later(fault, () => {
          world.registryRefuses = false;
        });
        return;
      case 'abort-link':
        node.abortLinks(fault.choice, fault.forMs);
        return;
      case 'loads-fail':
        this.failLoads(fault, node);
        return;
      case 'arbiter-cut':
        reach.cut = true;
        this.later(fault, () => Object.assign(reach, { cut: false }));
        return;
      case 'arbiter-slow':
        reach.delayMs = 20 + fault.choice;
        this.later(fault, () => Object.assign(reach, { delayMs: world.plan.arbiter.delayMs }));
        return;
      case 'arbiter-lossy':
        reach.lose = 0.6;
        this.later(fault, () => Object.assign(reach, { lose: world.plan.arbiter.lose }));
        return;
      case 'arbiter-member': {
        const [leader, followers] = memberLosses[fault.choice % memberLosses.length] ?? [true, 0];
        this.later(fault, world.members.lose({ leader, followers }));
        return;
      }
      case 'clock-jump':
        // Within the margin that the lease leaves (src/heartbeat/limits.ts); a monotonic clock does not jump further.
        node.process?.jump(fault.choice % 40);
        return;
      case 'disk-slow':
        node.folder.slowMs = 5 + (fault.choice % 60);
        this.later(fault, () => Object.assign(node.folder, { slowMs: 0 }));
        return;
      case 'disk-error':
        node.folder.failing = true;
        this.later(fault, () => Object.assign(node.folder, { failing: false }));
        return;
      case 'disk-full':
        node.folder.full = true;
        this.later(fault, () => Object.assign(node.folder, { full: false }));
        return;
      case 'own-disk-full':
        node.ownDiskFull = true;
        this.later(fault, () => Object.assign(node, { ownDiskFull: false }));
        return;
      case 'stop-amid':
        this.stopAmid(fault, node);
        return;
      case 'uplink-full': {
        const kernel = world.network.kernels.get(node.name);
        kernel?.fill((fault.choice % 4) * 100);
        this.later(fault, () => kernel?.empty());
        return;
      }
      case 'operator-checkpoint':
        node.process?.run(() => void node.node?.primary?.checkpoint().catch(() => undefined));
        return;
      case 'operator-failover':
        node.process?.run(() => this.failover(node));
        return;
      case 'operator-stop':
        world.strike(node);
        node.process?.run(() => {
          const wasPrimary = node.node?.primary !== undefined;
          if (wasPrimary) world.strike(node.other);
          // Without an answer of the arbiter nothing is confirmed, and the stop says so.
          const { answers, outages } = world.members;
          const confirms = () => answers && world.members.outages === outages;
          void node.node?.stop().then(() => wasPrimary && confirms() && world.stopped(node));
        });
        return;
    }
  }

  /**
   * In the middle of an event: before its look at whether it may speak, between that and its write, or before it tells.
   */
  private stopAmid(fault: Fault, node: SimNode): void {
    const { process } = node;
    const before = (['release', 'write', 'send'] as const)[fault.choice % 3] ?? 'write';
    const act = () => {
      if (this.over) return;
      node.pause(fault.choice % 2 === 0);
      this.later(fault, () => node.wake());
    };
    process?.stopBefore({ before, nth: 1 + (fault.choice % 5), act });
    this.undo.push(() => process?.stopBefore(undefined));
  }

  /** An operator wants the host empty for a while. */
  private drain(fault: Fault, { name }: SimNode): void {
    const store = new MemoryStore(this.world.registry, { now: () => this.world.schedule.now });
    const key = `drains/${name}`;
    void store.change(key, 0, '{}');
    this.later(fault, () => {
      const drain = this.world.registry.entries.get(key);
      if (drain !== undefined) void store.change(key, drain.revision, null);
    });
  }

  /** Whole machines stand still; each goes on in its own moment, with its timers first. */
  private stall(fault: Fault, nodes: readonly SimNode[]): void {
    nodes.forEach((node, index) => {
      node.pause(true);
      const lagMs = (fault.choice * (index + 1)) % 37;
      this.later({ ...fault, forMs: fault.forMs + lagMs }, () => node.wake(true));
    });
  }

  /**
   * What this host was given before may be a copy that nobody can load: until that is looked at, the loss of its
   * primary is a second fault.
   */
  private failLoads(fault: Fault, node: SimNode): void {
    this.world.strike(node);
    node.loadsFailSince = this.world.schedule.now;
    this.later(fault, () => {
      node.loadsFailSince = undefined;
    });
  }

  /** QEMU alone stands still: its node lives, and is not answered. */
  private hang(fault: Fault, node: SimNode): void {
    const { vm } = node;
    if (vm === undefined) return;
    this.world.strike(node);
    vm.parts.qemu.pause();
    this.later(fault, () => vm.parts.qemu.wake());
  }

  /** No copy is struck: who has the only one keeps it, and a secondary keeps its own until its primary has gone on. */
  private signal(node: SimNode): void {
    node.signal();
  }

  /** What has not ended by then ends with its host. */
  private cutPower(fault: Fault, node: SimNode): void {
    const { incarnation } = node;
    this.world.schedule.after(fault.forMs, () => {
      if (node.incarnation !== incarnation || !node.isUp) return;
      this.world.aboutToStrike(node, fault.kind);
      this.world.strike(node);
      node.kill('host');
    });
  }

  private keepAgain(fault: Fault, vm: SimVm): void {
    this.later(fault, () => {
      vm.faults.failKeep = false;
    });
  }

  private failover(node: SimNode): void {
    node.node?.failover().catch((error: unknown) => {
      node.say(`failover refused: ${error instanceof Error ? error.message : String(error)}`);
    });
  }
}
