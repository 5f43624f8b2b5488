// `colo status`, `colo checkpoint` and `colo failover`: talk to the nodes of VMs that run on this machine.

import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { callNode, nodeStatus } from '../api/node-client.ts';
import type { NodeStatus } from '../api/node-status.ts';
import { delay } from '../base/clock.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import { runDirectory, runningVms } from '../local/directories.ts';
import { interruptSignal } from './interrupt.ts';
import { checkpointLine, describe, LiveBlock, newestCheckpoint, statusBlock, statusLine } from './view.ts';

interface Found {
  status: NodeStatus;
  socketPath: string;
}

export async function status(vm: string | undefined, options: { json: boolean; watch: boolean }): Promise<number> {
  const vms = vm === undefined ? runningVms() : [vm];
  if (vms.length === 0) {
    process.stdout.write(options.json ? '[]\n' : 'no VM runs on this machine; start one with `colo run SPEC`\n');
    return 0;
  }
  if (options.watch) return watch(vms, options.json);
  const found = (await Promise.all(vms.map(nodesOf))).flat().map((one) => one.status);
  if (vm !== undefined && found.length === 0) throw notRunning(vm);
  process.stdout.write(options.json ? `${JSON.stringify(found, null, 2)}\n` : `${describe(found).join('\n')}\n`);
  return 0;
}

async function watch(vms: string[], json: boolean): Promise<number> {
  const interrupt = interruptSignal();
  const live = new LiveBlock(() => performance.now());
  while (!interrupt.aborted) {
    const statuses = (await Promise.all(vms.map(nodesOf))).flat().map((one) => one.status);
    if (json) process.stdout.write(`${JSON.stringify(statuses)}\n`);
    else live.show(statusBlock(statuses, live.rates), statusLine(statuses));
    await delay(json ? 1000 : 250);
  }
  return 0;
}

export async function checkpoint(vm: string | undefined, options: { json: boolean }): Promise<number> {
  const primary = await primaryOf(vm);
  const answer = (await callNode({
    socketPath: primary.socketPath,
    method: 'POST',
    path: '/checkpoint',
    timeoutMs: 30_000,
  })) as NodeStatus;
  const text = options.json ? JSON.stringify(newestCheckpoint(answer) ?? null) : checkpointLine(answer);
  process.stdout.write(`${text}\n`);
  return 0;
}

export async function failover(vm: string | undefined, options: { json: boolean }): Promise<number> {
  const primary = await primaryOf(vm);
  await callNode({ socketPath: primary.socketPath, method: 'POST', path: '/failover', timeoutMs: 30_000 });
  for (let tries = 0; tries < 200; tries += 1) {
    const nodes = await nodesOf(primary.status.vm);
    const next = nodes.find((one) => one.status.role === 'primary' && one.status.node !== primary.status.node);
    if (next !== undefined) {
      if (options.json) process.stdout.write(`${JSON.stringify(next.status)}\n`);
      else process.stdout.write(`node ${next.status.node} runs ${next.status.vm} now, term ${next.status.term}\n`);
      return 0;
    }
    await delay(50);
  }
  throw new ColoError(errorCodes.timeout, 'no node has taken over within 10 s', { hint: 'see `colo status`' });
}

async function primaryOf(vm: string | undefined): Promise<Found> {
  const vms = runningVms();
  const name = vm ?? (vms.length === 1 ? vms[0] : undefined);
  if (name === undefined)
    throw new ColoError(
      errorCodes.input,
      vms.length === 0 ? 'no VM runs on this machine' : `which VM? ${vms.join(', ')}`,
      {
        hint: 'name the VM, as `colo status` shows it',
      },
    );
  const nodes = await nodesOf(name);
  if (nodes.length === 0) throw notRunning(name);
  const primary = nodes.find((one) => one.status.role === 'primary');
  if (primary !== undefined) return primary;
  throw new ColoError(errorCodes.host, `no node of ${name} says that it is the primary`, { hint: 'see `colo status`' });
}

async function nodesOf(vm: string): Promise<Found[]> {
  const paths = nodeFolders(vm)
    .map((node) => join(runDirectory(vm), node, 'api.sock'))
    .filter((path) => existsSync(path));
  const answers = await Promise.allSettled(
    paths.map(async (socketPath) => ({ socketPath, status: await nodeStatus(socketPath) })),
  );
  return answers.flatMap((answer) => (answer.status === 'fulfilled' ? [answer.value] : []));
}

/** Every node of the VM has a folder, whatever the nodes are called. */
function nodeFolders(vm: string): string[] {
  return existsSync(runDirectory(vm)) ? readdirSync(runDirectory(vm)) : [];
}

function notRunning(vm: string): ColoError {
  const running = runningVms();
  return new ColoError(errorCodes.input, `no VM named ${vm} runs on this machine`, {
    hint: running.length === 0 ? 'start one with `colo run SPEC`' : `these run: ${running.join(', ')}`,
  });
}
