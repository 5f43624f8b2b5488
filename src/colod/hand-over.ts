// What a host does before it is shut down, while its network is still up: every VM of this node is handed over. colod
// may be gone by then, its children are not: each is sent the signal that it would get later all the same, and is
// waited for.
//
//   colo-handover.service, ExecStop ─► SIGTERM to each child ─► it hands over (node/retirement.ts) and ends

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { type Clock, delay } from '../base/clock.ts';
import { livingOwner } from '../base/owner-file.ts';
import { childPaths } from './child-config.ts';
import type { ServiceConfig } from './config.ts';
import { handOverPollMs } from './limits.ts';

/** Resolves with the VMs that are still here after `waitMs`: this node has the only copy of them. */
export async function handOverAll(config: ServiceConfig, options: { waitMs: number; clock: Clock }): Promise<string[]> {
  const { clock, waitMs } = options;
  const children = new Map(hostedVms(config).flatMap((vm) => childOf(config, vm)));
  for (const pid of children.values()) process.kill(pid, 'SIGTERM');
  const here = () => [...children].filter(([vm, pid]) => livingOwner(childPaths(config, vm).identity) === pid);
  for (const end = clock.now() + waitMs; here().length > 0 && clock.now() < end; ) await delay(handOverPollMs, clock);
  return here().map(([vm]) => vm);
}

function childOf(config: ServiceConfig, vm: string): [vm: string, pid: number][] {
  const pid = livingOwner(childPaths(config, vm).identity);
  return pid === undefined ? [] : [[vm, pid]];
}

function hostedVms({ runFolder }: ServiceConfig): string[] {
  try {
    return readdirSync(join(runFolder, 'vms'));
  } catch {
    return [];
  }
}
