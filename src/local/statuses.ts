// What the nodes of a VM say of themselves, asked and waited for.

import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { nodeStatus } from '../api/node-client.ts';
import type { NodeStatus } from '../api/node-status.ts';
import { type Clock, delay } from '../base/clock.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import type { NodeProcess } from './node-process.ts';

const answerMs = 1000;
const askEveryMs = 50;
/** Lines of each node's log that go with an error: who reads it may not reach the files, as after a run of the CI. */
const lastLines = 15;

/** Statuses of the nodes that answer. */
export async function askNodes(nodes: readonly NodeProcess[]): Promise<NodeStatus[]> {
  const answers = await Promise.allSettled(
    nodes.filter((node) => node.alive).map((node) => nodeStatus(node.apiPath, answerMs)),
  );
  return answers.flatMap((answer) => (answer.status === 'fulfilled' ? [answer.value] : []));
}

export interface Wanted {
  what: string;
  timeoutMs: number;
  holds: (statuses: NodeStatus[]) => boolean;
}

/** Waits until `holds` for the statuses; an error that says what was seen last when it does not in time. */
export async function untilNodes(
  statuses: () => Promise<NodeStatus[]>,
  wanted: Wanted,
  at: { clock: Clock; logDir: string },
): Promise<NodeStatus[]> {
  const { what, timeoutMs, holds } = wanted;
  const deadline = at.clock.now() + timeoutMs;
  for (;;) {
    const seen = await statuses();
    if (holds(seen)) return seen;
    if (at.clock.now() > deadline) throw await notSeen(what, timeoutMs, seen, at.logDir);
    await delay(askEveryMs, at.clock);
  }
}

async function notSeen(what: string, timeoutMs: number, statuses: NodeStatus[], logDir: string): Promise<ColoError> {
  const lines = statuses.map((status) => `${status.node}: ${status.role} ${status.state} ${status.why}`);
  const seen = lines.length === 0 ? 'no node answers' : lines.join('; ');
  const error = new ColoError(errorCodes.timeout, `not ${what} within ${timeoutMs / 1000} s (${seen})`, {
    hint: `see the logs in ${logDir}`,
  });
  return Object.assign(error, { logs: await endsOfLogs(logDir) });
}

async function endsOfLogs(logDir: string): Promise<string[]> {
  const names = (await readdir(logDir).catch(() => [])).filter((name) => name.endsWith('.log')).sort();
  const ends = names.map(async (name) => {
    const text = await readFile(join(logDir, name), 'utf8').catch(() => '');
    return text
      .trimEnd()
      .split('\n')
      .slice(-lastLines)
      .map((line) => `${name} ${line}`);
  });
  return (await Promise.all(ends)).flat();
}
