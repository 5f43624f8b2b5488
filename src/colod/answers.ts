// What the service answers about the cluster: lines made from what the registry says, pure.

import { isIPv4 } from 'node:net';
import type { Cluster, NodeLine, VmLine } from '../api/cluster.ts';
import type { ClusterView, Hosted, NodeInfo, Placement, VmRecord } from '../cluster/registry.ts';

export function clusterAnswer(
  view: ClusterView,
  { answeredBy, registryProblem }: { answeredBy: string; registryProblem: string },
): Cluster {
  const problems = [...(registryProblem === '' ? [] : [registryProblem]), ...view.problems, ...unknown(view)];
  return {
    answeredBy,
    registry: { reached: registryProblem === '', problems },
    nodes: view.nodes.map((node) => nodeLine(view, node)),
    vms: [...view.vms.map((vm) => vmLine(view, vm)), ...leavings(view)],
  };
}

function nodeLine({ drains }: ClusterView, info: NodeInfo): NodeLine {
  const { hosted, apiPort: _, ...rest } = info;
  const living = hosted.filter((one) => one.role !== 'dead');
  const drained = living.length === 0 ? 'drained' : 'draining';
  return {
    ...rest,
    state: drains.has(info.node) ? drained : 'ready',
    vms: living.length,
    primaries: living.filter((one) => one.role === 'primary').length,
  };
}

/** The node that runs it, as far as the nodes say. */
export function primaryOf(view: ClusterView, vm: Pick<VmRecord, 'vm' | 'life'>): NodeInfo | undefined {
  const found = copies(view, vm).filter(({ hosted }) => hosted.role === 'primary');
  found.sort((one, other) => other.hosted.term - one.hosted.term);
  return found[0]?.info;
}

/** The nodes that have a child of it. */
export function copies(
  { nodes }: ClusterView,
  { vm, life }: Pick<VmRecord, 'vm' | 'life'>,
): { info: NodeInfo; hosted: Hosted }[] {
  return nodes.flatMap((info) =>
    info.hosted.filter((one) => one.vm === vm && one.life === life).map((hosted) => ({ info, hosted })),
  );
}

export function vmLine(view: ClusterView, vm: VmRecord): VmLine {
  const all = copies(view, vm);
  const primary = primaryOf(view, vm)?.node ?? null;
  const hostedPrimary = all.find(({ info }) => info.node === primary)?.hosted;
  const secondary = all.find(({ hosted }) => hosted.role === 'secondary' && hosted.protected)?.info.node ?? null;
  const found = view.placements.get(vm.vm);
  const placement = found?.life === vm.life ? found : undefined;
  return {
    vm: vm.vm,
    ...(isComing(view, all.length, placement) ? { state: 'starting' as const, why: '' } : stateOf(all, hostedPrimary)),
    primary,
    secondary,
    nodes: [...(placement?.nodes ?? [])],
    term: hostedPrimary?.term ?? 0,
    address: addressOf(vm),
  };
}

/** Nobody has a child of it yet, and somebody will. */
function isComing({ nodes }: ClusterView, copiesCount: number, placement: Placement | undefined): boolean {
  return copiesCount === 0 && (placement === undefined || nodes.some((one) => placement.nodes.includes(one.node)));
}

function stateOf(
  all: { info: NodeInfo; hosted: Hosted }[],
  hostedPrimary: Hosted | undefined,
): { state: VmLine['state']; why: string } {
  if (hostedPrimary !== undefined)
    return {
      state: hostedPrimary.protected ? 'protected' : 'unprotected',
      why: hostedPrimary.protected ? '' : plight(hostedPrimary),
    };
  const ended = all.find(({ hosted }) => hosted.role === 'stopped');
  if (ended !== undefined) return { state: 'ended', why: ended.hosted.why };
  const failed = all.find(({ hosted }) => hosted.failures > 0);
  if (failed !== undefined)
    return { state: 'down', why: `${failed.info.node}: ${failed.hosted.why || 'it is being started again'}` };
  const waits = all.find(({ hosted }) => hosted.role === 'secondary');
  if (waits !== undefined) return { state: 'down', why: 'no node says that it runs it' };
  return all.length === 0
    ? { state: 'down', why: 'no node of it is there' }
    : { state: 'starting', why: all[0]?.hosted.why ?? '' };
}

function plight({ state, why }: Hosted): string {
  return why === '' ? state : `${state}: ${why}`;
}

/** VMs that were removed and that a node runs, or may run. */
function leavings({ nodes, removed }: ClusterView): VmLine[] {
  const rest = { state: 'removing' as const, primary: null, secondary: null, term: 0 };
  return [...removed.values()].flatMap(({ vm, nodes: left, addresses }) => {
    const hosts = nodes.filter(({ hosted }) => hosted.some((one) => one.vm === vm)).map(({ node }) => node);
    const all = [...new Set([...left, ...hosts])];
    const missing = left.filter((name) => !nodes.some(({ node }) => node === name));
    const why = missing.length === 0 ? 'it was removed' : `it was removed; ${missing.join(' and ')} may still run it`;
    return all.length === 0
      ? []
      : [{ vm, nodes: all, why, address: addresses.find((one) => isIPv4(one)) ?? '', ...rest }];
  });
}

/** Children of which the registry says nothing: it lost something, and they are left alone. */
function unknown({ nodes, vms, removed }: ClusterView): string[] {
  const known = new Set([...vms.map((one) => one.vm), ...removed.keys()]);
  return nodes.flatMap(({ node, hosted }) =>
    hosted
      .filter((one) => !known.has(one.vm))
      .map((one) => `${node} runs ${one.vm} (life ${one.life}), of which the registry says nothing: it is left alone`),
  );
}

function addressOf({ spec }: VmRecord): string {
  const network = spec['network'];
  const address = typeof network === 'object' && network !== null ? Reflect.get(network, 'address') : undefined;
  return typeof address === 'string' ? address : '10.0.2.15';
}
