// The commands of a cluster. All of them ask a colod over its API, and any node answers for all of them.

import type { Cluster, Logs, VmDetail, VmLine } from '../api/cluster.ts';
import { callService, type ServiceRequest, streamService, type Target } from '../api/cluster-client.ts';
import { doctorSchema } from '../api/doctor.ts';
import type { NodeStatus } from '../api/node-status.ts';
import { delay } from '../base/clock.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import { formatSize } from '../config/size.ts';
import { readSpecForNodes } from '../config/spec.ts';
import { formatDoctor } from './doctor.ts';
import { interruptSignal } from './interrupt.ts';
import { changeTimeoutMs, drainTimeoutMs } from './limits.ts';
import { type TargetOptions, targetOf } from './target.ts';
import { checkpointLine, describe, LiveBlock, newestCheckpoint, table } from './view.ts';

type Options = TargetOptions & { json: boolean };

const pollMs = 250;

export async function nodes(options: Options & { watch: boolean }): Promise<number> {
  return show(options, nodeTable, (answer) => answer.nodes);
}

export async function ps(options: Options & { watch: boolean }): Promise<number> {
  return show(options, vmTable, (answer) => answer.vms);
}

export async function runOnCluster(
  path: string,
  options: Options & { on?: string; wait: boolean; force: boolean },
): Promise<number> {
  const target = targetOf(options);
  const spec = await readSpecForNodes(path);
  const body = { spec, force: options.force, ...(options.on === undefined ? {} : { on: options.on }) };
  let line = (await callService(target, { method: 'POST', path: '/v1/vms', body })) as VmLine;
  if (options.wait) {
    const mode = (spec as { protect?: { mode?: string } }).protect?.mode;
    const good = mode === 'none' ? ['unprotected'] : ['protected'];
    let told = '';
    const answer = await until(target, `${line.vm} runs`, changeTimeoutMs * 3, (all) => {
      const { state, why } = lineOf(all, line.vm);
      const text = `- ${line.vm}: ${state}${why === '' ? '' : `: ${why}`}`;
      if (!options.json && text !== told && !good.includes(state)) process.stdout.write(`${text}\n`);
      told = text;
      return good.includes(state);
    });
    line = answer.vms.find((one) => one.vm === line.vm) ?? line;
  }
  tell(options, line, `${line.vm}: ${line.state}${line.primary === null ? '' : ` on ${line.nodes.join(' and ')}`}`);
  return 0;
}

export async function vmStatus(vm: string, options: Options): Promise<number> {
  const detail = (await callService(targetOf(options), { method: 'GET', path: vmPath(vm) })) as VmDetail;
  const lines = () => [
    ...vmTable({ vms: [detail.vm] }),
    '',
    ...describe(detail.nodes),
    ...detail.silent.map((node) => `node ${node} does not answer`),
  ];
  tell(options, detail, lines);
  return 0;
}

export async function failoverVm(vm: string, options: Options): Promise<number> {
  const target = targetOf(options);
  const before = lineOf(await cluster(target), vm).primary;
  await callService(target, { method: 'POST', path: `${vmPath(vm)}/failover` });
  const moved = (all: Cluster) => ![null, before].includes(lineOf(all, vm).primary);
  const line = lineOf(await until(target, `${vm} runs on another node`, changeTimeoutMs, moved), vm);
  tell(options, line, `node ${line.primary} runs ${vm} now, term ${line.term}`);
  return 0;
}

export async function checkpointVm(vm: string, options: Options): Promise<number> {
  const request: ServiceRequest = { method: 'POST', path: `${vmPath(vm)}/checkpoint`, timeoutMs: 40_000 };
  const answer = (await callService(targetOf(options), request)) as NodeStatus;
  tell(options, newestCheckpoint(answer) ?? null, checkpointLine(answer));
  return 0;
}

export async function drain(node: string, options: Options & { wait: boolean }): Promise<number> {
  const target = targetOf(options);
  await callService(target, { method: 'POST', path: nodePath(node) });
  const isEmpty = (all: Cluster) => all.nodes.some((one) => one.node === node && one.state === 'drained');
  const what = `${node} is empty (VMs stay while no other node has room for them; see \`colo ps\`)`;
  const answer = options.wait ? await until(target, what, drainTimeoutMs, isEmpty) : await cluster(target);
  const line = answer.nodes.find((one) => one.node === node) ?? null;
  tell(options, line, options.wait ? `${node} is empty` : `${node} is being drained`);
  return 0;
}

export async function undrain(node: string, options: Options): Promise<number> {
  const target = targetOf(options);
  await callService(target, { method: 'DELETE', path: nodePath(node) });
  const line = (await cluster(target)).nodes.find((one) => one.node === node) ?? null;
  tell(options, line, `${node} may be used again`);
  return 0;
}

export async function logs(vm: string, options: Options & { lines: number; console: boolean }): Promise<number> {
  const query = `lines=${options.lines}&what=${options.console ? 'console' : 'log'}`;
  const answer = (await callService(targetOf(options), { method: 'GET', path: `${vmPath(vm)}/logs?${query}` })) as Logs;
  const lines = () => [
    ...answer.nodes.flatMap(({ node, lines: said }) => said.map((line) => `${node}: ${line}`)),
    ...answer.silent.map((node) => `node ${node} does not answer`),
  ];
  tell(options, answer, lines);
  return 0;
}

/** Exit code 1 when something is missing, as of `colo doctor`. */
export async function clusterDoctor(options: Options): Promise<number> {
  const request: ServiceRequest = { method: 'GET', path: '/v1/doctor', timeoutMs: 20_000 };
  const { findings } = doctorSchema.parse(await callService(targetOf(options), request));
  const lines = findings.map(({ node, ...one }) => ({ ...one, what: node === '' ? one.what : `${node}: ${one.what}` }));
  tell(options, findings, () => formatDoctor(lines).trimEnd().split('\n'));
  return findings.some((one) => one.state === 'missing') ? 1 : 0;
}

export async function rm(vm: string, options: Options): Promise<number> {
  const target = targetOf(options);
  await callService(target, { method: 'DELETE', path: vmPath(vm) });
  const missing = (all: Cluster) => stillOn(all, vm).filter((name) => !all.nodes.some(({ node }) => node === name));
  const isOver = (all: Cluster) => stillOn(all, vm).length === missing(all).length;
  const unsure = missing(await until(target, `${vm} is gone`, changeTimeoutMs, isOver));
  const text =
    `${vm} is removed; ${unsure.join(' and ')} may still run it, and stops it when it is back (see ` +
    'docs/cluster.md)';
  tell(options, { vm, unsure }, unsure.length === 0 ? `${vm} is gone` : text);
  return 0;
}

/** The nodes that may still run a VM. */
function stillOn({ vms }: Cluster, vm: string): string[] {
  return vms.find((one) => one.vm === vm)?.nodes ?? [];
}

async function show(
  options: Options & { watch: boolean },
  draw: (answer: Cluster) => string[],
  pick: (answer: Cluster) => unknown,
): Promise<number> {
  const target = targetOf(options);
  if (!options.watch) {
    const answer = await cluster(target);
    tell(options, pick(answer), () => [...draw(answer), ...problems(answer)]);
    return 0;
  }
  const live = new LiveBlock(() => performance.now());
  const interrupt = interruptSignal();
  try {
    for await (const event of streamService(target, '/v1/events', interrupt)) {
      const answer = event as Cluster;
      const block = [...draw(answer), ...problems(answer)];
      if (options.json) process.stdout.write(`${JSON.stringify(pick(answer))}\n`);
      else if (process.stdout.isTTY) live.show(block, '');
      else process.stdout.write(`${block.join('\n')}\n`);
    }
  } catch (error) {
    if (!interrupt.aborted) throw error;
  }
  return 0;
}

function problems({ registry, answeredBy }: Cluster): string[] {
  const old = registry.reached ? [] : [`${answeredBy} does not reach the registry: this is what it said last`];
  return [...old, ...registry.problems];
}

function nodeTable({ nodes: all }: Pick<Cluster, 'nodes'>): string[] {
  const head = ['node', 'address', 'state', 'VMs', 'primaries', 'cores', 'memory free', 'refused calls'];
  return table(
    head,
    all.map((one) => [
      ...[one.node, one.address, one.state, String(one.vms), String(one.primaries), String(one.cores)],
      ...[`${formatSize(one.memoryFreeBytes)} of ${formatSize(one.memoryBytes)}`, String(one.refused)],
    ]),
  );
}

function vmTable({ vms }: Pick<Cluster, 'vms'>): string[] {
  return table(
    ['VM', 'state', 'primary', 'secondary', 'term', 'address', 'why'],
    vms.map((one) => [
      ...[one.vm, one.state, one.primary ?? '-', one.secondary ?? '-', String(one.term), one.address, one.why],
    ]),
  );
}

async function cluster(target: Target): Promise<Cluster> {
  return (await callService(target, { method: 'GET', path: '/v1/cluster' })) as Cluster;
}

function lineOf(answer: Cluster, vm: string): VmLine {
  const found = answer.vms.find((one) => one.vm === vm);
  if (found !== undefined) return found;
  throw new ColoError(errorCodes.input, `this cluster has no VM named ${vm}`, { hint: 'see `colo ps`' });
}

async function until(target: Target, what: string, timeoutMs: number, holds: (answer: Cluster) => boolean) {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const answer = await cluster(target);
    if (holds(answer)) return answer;
    if (performance.now() > deadline)
      throw new ColoError(errorCodes.timeout, `not within ${timeoutMs / 1000} s: ${what}`, {
        hint: 'it goes on; see `colo ps` and `colo nodes`',
      });
    await delay(pollMs);
  }
}

function tell(options: { json: boolean }, answer: unknown, text: string | (() => string[])): void {
  const lines = typeof text === 'string' ? [text] : text();
  process.stdout.write(options.json ? `${JSON.stringify(answer, null, 2)}\n` : `${lines.join('\n')}\n`);
}

function vmPath(vm: string): string {
  return `/v1/vms/${encodeURIComponent(vm)}`;
}

function nodePath(node: string): string {
  return `/v1/nodes/${encodeURIComponent(node)}/drain`;
}
