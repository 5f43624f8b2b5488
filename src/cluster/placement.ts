// What one node of a cluster has to do, from what it knows of all of them, as a pure core: (view, now) -> actions.
//
//   registry (nodes, drains, VMs, placements) ─┐
//   own children, with what they say           ├──► Reconciler.plan ──► start, stop, place, setPeers, failover,
//   arbiter's records of VMs that nobody runs ─┘                        bootAnew
//
// Who places a VM: the node that runs it as its primary (with the highest term, if several say so); at first the node
// that boots it. Everybody else follows: a node that is placed runs a child, one that is not placed any more stops it
// if the child agrees, which alone knows whether it is about to be the primary.
//
// Nothing here can make two primaries. A child becomes one only by a claim at the arbiter: the first start, a start
// after its end, and booting anew are all the compare-and-swap of failover/arbiter, whatever the registry says. What is
// decided here from an old view costs a start in vain, or protection for a while.
//
// Drain: a node that is to be empty is no good for a secondary; its secondaries are placed elsewhere, and its primaries
// are handed over (planned failover) as soon as their secondary is on a node that stays. The new primary then finds a
// secondary elsewhere. While there is no other node, nothing moves.
//
// Both nodes lost: the record names a pair, and both come back with empty hands. The owner boots the VM anew when the
// peer is there and says that it holds nothing. What the registry says of the peer may be old, so its word is only a
// reason to start the owner's child again: that child asks the peer itself (role.ts), and boots nothing before it has
// an answer. A peer that is not there may hold everything: then a person decides.
//
// The only copy is lost because its QEMU died: its child is started again, and the record says that it boots the VM
// anew. One whose guest has switched itself off stays as it is.
//
// An arbiter that has lost its records, or was restored from an old copy, says as little. So a node boots the VM by the
// lack of a record only while the registry says at that time that no other node has it, and never while one says that
// it runs it.

import type { TermRecord } from '../arbiter/arbiter.ts';
import {
  aloneMs,
  failoverEveryMs,
  failuresMax,
  idleMs,
  restartMs,
  restartMsMax,
  secondaryRamFactor,
  spareBytes,
} from '../controller/limits.ts';
import type { ClusterView, Hosted, NodeInfo, Placement, Removed, VmRecord } from './registry.ts';

/** A child of this node, with what it said last. */
export interface Child extends Hosted {
  /** Since when its state is what it is. */
  stateSince: number;
}

export interface View {
  cluster: ClusterView;
  /** False: the registry did not answer, `cluster` is what it said last. Then nothing is stopped and nothing placed. */
  fresh: boolean;
  children: ReadonlyMap<string, Child>;
  /** Of VMs that no node says to be the primary of. */
  records: ReadonlyMap<string, TermRecord>;
}

export type PlacementAction =
  /**
   * first: this node may boot it when the arbiter has no record of it. known: it does what the record says. secondary:
   * another node says that it runs it.
   */
  | { kind: 'start'; vm: string; as: 'first' | 'known' | 'secondary' }
  /** Whatever its role is: the VM is over. */
  | { kind: 'stop'; vm: string; why: string }
  /** This node has nothing of a removed VM, and is struck off the list of those that may have. */
  | { kind: 'strike'; vm: string }
  /** Stops a child that is placed no more, unless it says that it has the VM or is about to take over. */
  | { kind: 'leave'; vm: string; why: string }
  /** Stops a child that has no role any more; it is dead then, and started again after the pause of one that died. */
  | { kind: 'restart'; vm: string; why: string }
  /**
   * Starts the child again, which boots the VM by a claim at the arbiter once its peer has said that it holds nothing.
   */
  | { kind: 'bootAnew'; vm: string; why: string }
  | { kind: 'place'; vm: string; placement: Placement; why: string }
  | { kind: 'setPeers'; vm: string; peers: { node: string; host: string; port: number }[] }
  | { kind: 'failover'; vm: string; why: string };

export class Reconciler {
  private readonly self: string;
  private readonly startableAt = new Map<string, number>();
  private readonly askedFailoverAt = new Map<string, number>();

  constructor(self: string) {
    this.self = self;
  }

  plan(view: View, now: number): PlacementAction[] {
    const actions = view.cluster.vms.flatMap((vm) => this.planVm(view, vm, now));
    return view.fresh ? [...this.strays(view), ...this.struck(view), ...actions] : actions;
  }

  /**
   * Children of VMs that were removed, or of an older life of their VM. One of which nothing is known is left alone.
   */
  private strays({ cluster, children }: View): PlacementAction[] {
    const lives = new Map(cluster.vms.map((vm) => [vm.vm, vm.life]));
    const isOver = ({ vm, life }: Child) =>
      lives.has(vm) ? lives.get(vm) !== life : cluster.removed.get(vm)?.life === life;
    return [...children.values()]
      .filter(isOver)
      .map((child) => ({ kind: 'stop', vm: child.vm, why: 'the VM was removed' }));
  }

  /**
   * Strikes itself off removed VMs: when this node has no child of one, and the others see that. Nothing starts one
   * from then on.
   */
  private struck({ cluster, children }: View): PlacementAction[] {
    const said = cluster.nodes.find(({ node }) => node === this.self);
    if (said === undefined) return [];
    const isGone = ({ vm, life }: Removed) =>
      ![...said.hosted, ...children.values()].some((one) => one.vm === vm && one.life === life);
    return [...cluster.removed.values()]
      .filter((one) => (one.nodes.includes(this.self) || one.nodes.length === 0) && isGone(one))
      .map(({ vm }) => ({ kind: 'strike', vm }));
  }

  private planVm(view: View, vm: VmRecord, now: number): PlacementAction[] {
    const found = view.cluster.placements.get(vm.vm);
    const placement = found?.life === vm.life ? found : undefined;
    const held = view.children.get(vm.vm);
    // One of an older life has to go first (strays).
    if (held !== undefined && held.life !== vm.life) return [];
    const child = held;
    if (placement === undefined) {
      if (!view.fresh || vm.home !== this.self) return [];
      const revision = found?.revision ?? 0;
      return [this.place(vm, { life: vm.life, nodes: [this.self], revision }, 'first placement')];
    }
    const leads = this.leads(view, child);
    if (!placement.nodes.includes(this.self) && !leads) return this.leave(view, child);
    if (child === undefined || child.role === 'dead') return this.start(view, vm, { placement, child, now });
    this.startableAt.delete(vm.vm);
    const peers = this.peers(view, vm, placement);
    const led = leads && view.fresh ? this.lead(view, { vm, placement, child, now }) : [];
    return [peers, ...led, ...this.revive(view, { vm, child, now })];
  }

  /** Whether this node is the one that places the VM. */
  private leads({ cluster }: View, child: Child | undefined): boolean {
    if (child?.role !== 'primary') return false;
    return !hostedBy(cluster.nodes, child).some(
      ({ node, hosted }) => node.node !== this.self && hosted.role === 'primary' && hosted.term > child.term,
    );
  }

  /**
   * A primary is never stopped for a placement: if another has the term, it finds out by itself. Nor is one that is
   * about to be the primary. What the child said may be old by now, so the child itself has the last word.
   */
  private leave({ fresh }: View, child: Child | undefined): PlacementAction[] {
    if (!fresh || child === undefined || child.role === 'primary' || takesOver(child)) return [];
    return [{ kind: 'leave', vm: child.vm, why: 'it is placed on other nodes' }];
  }

  private start(
    view: View,
    vm: VmRecord,
    { placement, child, now }: { placement: Placement; child: Child | undefined; now: number },
  ): PlacementAction[] {
    const failures = child?.failures ?? 0;
    const wait = failures === 0 ? 0 : Math.min(restartMsMax, restartMs * 2 ** (failures - 1));
    const at = this.startableAt.get(vm.vm) ?? now + wait;
    this.startableAt.set(vm.vm, at);
    if (now < at) return [];
    this.startableAt.delete(vm.vm);
    return [{ kind: 'start', vm: vm.vm, as: this.startsAs(view, vm, placement) }];
  }

  private startsAs({ cluster, fresh }: View, vm: VmRecord, placement: Placement): 'first' | 'known' | 'secondary' {
    const others = hostedBy(cluster.nodes, vm).filter(({ node }) => node.node !== this.self);
    if (others.some(({ hosted }) => hosted.role === 'primary')) return 'secondary';
    return fresh && others.length === 0 && placement.nodes[0] === this.self ? 'first' : 'known';
  }

  private peers({ cluster }: View, vm: VmRecord, placement: Placement): PlacementAction {
    const peers = hostedBy(cluster.nodes, vm)
      .filter(({ node, hosted }) => node.node !== this.self && placement.nodes.includes(node.node) && hosted.port > 0)
      .map(({ node, hosted }) => ({ node: node.node, host: node.address, port: hosted.port }));
    return { kind: 'setPeers', vm: vm.vm, peers };
  }

  /** The primary's duties: a good secondary for its VM, and to go when its node is to be empty. */
  private lead(
    view: View,
    { vm, placement, child, now }: { vm: VmRecord; placement: Placement; child: Child; now: number },
  ): PlacementAction[] {
    const { cluster } = view;
    const held = placement.nodes.find((node) => node !== this.self);
    const next = vm.protect ? this.secondary(view, { vm, child, held, now }) : undefined;
    const nodes = next === undefined ? [this.self] : [this.self, next];
    const actions: PlacementAction[] = [];
    if (nodes.join() !== placement.nodes.join())
      actions.push(this.place(vm, { ...placement, nodes }, reasonOf(cluster, held, next)));
    const goes = cluster.drains.has(this.self) && child.protected && next !== undefined && next === held;
    if (!goes || cluster.drains.has(next)) return actions;
    if (now - (this.askedFailoverAt.get(vm.vm) ?? Number.NEGATIVE_INFINITY) < failoverEveryMs) return actions;
    this.askedFailoverAt.set(vm.vm, now);
    return [...actions, { kind: 'failover', vm: vm.vm, why: `${this.self} is being drained` }];
  }

  /** The node that is to be the secondary; undefined when there is none. */
  private secondary(
    { cluster }: View,
    { vm, child, held, now }: { vm: VmRecord; child: Child; held: string | undefined; now: number },
  ): string | undefined {
    const needed = vm.memoryBytes * secondaryRamFactor + spareBytes;
    const other = choose(cluster, { memoryBytes: needed, exclude: [this.self, ...(held === undefined ? [] : [held])] });
    if (held === undefined) return other;
    const info = cluster.nodes.find((node) => node.node === held);
    // Its colod may be down while the child goes on: what protects the VM is not given up for that.
    if (info === undefined) return child.protected ? held : (other ?? held);
    const failures = info.hosted.find((one) => one.vm === vm.vm && one.life === vm.life)?.failures ?? 0;
    const isUnreached = child.state === 'alone' && now - child.stateSince >= aloneMs;
    const isNoGood = isUnreached || (failures >= failuresMax && !child.protected);
    if (cluster.drains.has(held) || isNoGood) return other ?? held;
    return held;
  }

  /** A VM that was to run here and runs nowhere; a child of this node that ended its part while the VM goes on. */
  private revive(
    { cluster, records, fresh }: View,
    { vm, child, now }: { vm: VmRecord; child: Child; now: number },
  ): PlacementAction[] {
    if (!fresh || child.role === 'primary') return [];
    const others = hostedBy(cluster.nodes, vm).filter(({ node }) => node.node !== this.self);
    const runsElsewhere = others.some(({ hosted }) => hosted.role === 'primary');
    if (child.role === 'stopped' && (runsElsewhere || child.lost === true))
      return [{ kind: 'restart', vm: vm.vm, why: child.why }];
    const record = records.get(vm.vm);
    if (runsElsewhere || record?.owner !== this.self || !isIdle(child) || now - child.stateSince < idleMs) return [];
    const peer = others.find(({ node }) => node.node === record.peer)?.hosted;
    if (record.peer !== null && (peer === undefined || !isIdle(peer))) return [];
    return [{ kind: 'bootAnew', vm: vm.vm, why: 'both nodes came back with nothing of it' }];
  }

  private place(vm: VmRecord, placement: Placement, why: string): PlacementAction {
    return { kind: 'place', vm: vm.vm, placement, why };
  }
}

/** The best node for another VM: not to be drained, with room, with the fewest VMs, then with the most memory free. */
export function choose(
  cluster: ClusterView,
  { memoryBytes, exclude = [] }: { memoryBytes: number; exclude?: readonly string[] },
): string | undefined {
  const load = (node: string) =>
    cluster.vms.filter((vm) => cluster.placements.get(vm.vm)?.nodes.includes(node) === true).length;
  const order = cluster.nodes
    .filter((one) => !exclude.includes(one.node) && !cluster.drains.has(one.node) && one.memoryFreeBytes >= memoryBytes)
    .map((one) => ({ node: one.node, load: load(one.node), free: one.memoryFreeBytes }));
  order.sort((a, b) => a.load - b.load || b.free - a.free || (a.node < b.node ? -1 : 1));
  return order[0]?.node;
}

/** The nodes that run this life of this VM, as they say. */
function hostedBy(nodes: NodeInfo[], { vm, life }: { vm: string; life: string }): { node: NodeInfo; hosted: Hosted }[] {
  return nodes.flatMap((node) =>
    node.hosted.filter((one) => one.vm === vm && one.life === life).map((hosted) => ({ node, hosted })),
  );
}

function takesOver(one: Hosted): boolean {
  return one.role === 'secondary' && (one.state === 'suspecting' || one.state === 'taking-over');
}

function isIdle(one: Hosted): boolean {
  return one.role === 'secondary' && one.state === 'idle';
}

function reasonOf(cluster: ClusterView, held: string | undefined, next: string | undefined): string {
  if (held === undefined) return `${next} is free for the secondary`;
  if (next === undefined) return 'it is not to be protected';
  if (cluster.drains.has(held)) return `${held} is being drained`;
  return cluster.nodes.some((node) => node.node === held) ? `${held} cannot run it` : `${held} is gone`;
}
