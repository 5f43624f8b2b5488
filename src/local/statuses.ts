// What the nodes of a VM say of themselves, asked and waited for.

import { nodeStatus } from '../api/node-client.ts';
import type { NodeStatus } from '../api/node-status.ts';
import { type Clock, delay } from '../base/clock.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import type { NodeProcess } from './node-process.ts';

const answerMs = 1000;
const askEveryMs = 50;

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
    if (at.clock.now() > deadline) throw notSeen(what, timeoutMs, seen, at.logDir);
    await delay(askEveryMs, at.clock);
  }
}

function notSeen(what: string, timeoutMs: number, statuses: NodeStatus[], logDir: string): ColoError {
  const lines = statuses.map((status) => `${status.node}: ${status.role} ${status.state} ${status.why}`);
  const seen = lines.length === 0 ? 'no node answers' : lines.join('; ');
  return new ColoError(errorCodes.timeout, `not ${what} within ${timeoutMs / 1000} s (${seen})`, {
    hint: `see the logs in ${logDir}`,
  });
}
