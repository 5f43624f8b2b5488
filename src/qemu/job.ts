// A background job of QEMU (snapshot-save, snapshot-load), awaited through its events: polling costs a millisecond.
//
//   command -> JOB_STATUS_CHANGE created, running, ... concluded -> query-jobs (its error) -> job-dismiss

import { afterAwake, type Clock } from '../base/clock.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import type { Qmp } from './qmp.ts';
import { textIn } from './reply.ts';

export interface JobOptions {
  qmp: Qmp;
  clock: Clock;
  timeoutMs: number;
  id: string;
  command: string;
  arguments: Record<string, unknown>;
}

/** Returns when the job has concluded without error, and is dismissed. */
export async function runJob({ qmp, clock, timeoutMs, id, command, arguments: given }: JobOptions): Promise<void> {
  const concluded = Promise.withResolvers<void>();
  const off = qmp.on('JOB_STATUS_CHANGE', ({ data }) => {
    if (data.id === id && data.status === 'concluded') concluded.resolve();
  });
  const cancel = afterAwake(clock, timeoutMs, () =>
    concluded.reject(new ColoError(errorCodes.qemuTimeout, `QEMU did not finish "${command}" within ${timeoutMs} ms.`)),
  );
  const offLost = qmp.onLost(concluded.reject);
  // Awaited below; QEMU may be gone before that.
  concluded.promise.catch(() => undefined);
  try {
    await qmp.execute(command, given);
    await concluded.promise;
  } finally {
    off();
    offLost();
    cancel();
  }
  // Both are awaited at once: QEMU may be lost before it answers either, and then both fail.
  const [jobs] = await Promise.all(
    qmp.executeTogether([{ execute: 'query-jobs' }, { execute: 'job-dismiss', arguments: { id } }]),
  );
  const failure = jobFailure(jobs, id);
  if (failure === undefined) return;
  throw new ColoError(errorCodes.checkpoint, `QEMU's "${command}" failed: ${failure}`);
}

/** The error text of job `id` in the reply to query-jobs, undefined when it went well. */
export function jobFailure(reply: unknown, id: string): string | undefined {
  if (!Array.isArray(reply)) return 'its outcome is unknown';
  const job: unknown = reply.find(
    (each: unknown) => typeof each === 'object' && each !== null && 'id' in each && each.id === id,
  );
  if (typeof job !== 'object' || job === null) return 'its outcome is unknown';
  return 'error' in job ? textIn(job.error) : undefined;
}
