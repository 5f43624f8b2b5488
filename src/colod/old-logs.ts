// Logs and consoles of VMs that are no longer on this node: kept for looking at what happened, and not for ever.

import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';

/** Removes the folders of logs that were written longest ago, until `max` are left of VMs that are not `held`. */
export async function removeOldLogs(root: string, held: ReadonlySet<string>, max: number): Promise<string[]> {
  const names = await readdir(root).catch(() => []);
  const left = names.filter((name) => !held.has(name));
  const aged = await Promise.all(left.map(async (name) => ({ name, at: await lastWritten(join(root, name)) })));
  aged.sort((one, other) => other.at - one.at);
  const removed = aged.slice(max).map(({ name }) => name);
  for (const name of removed) await rm(join(root, name), { recursive: true, force: true });
  return removed;
}

async function lastWritten(folder: string): Promise<number> {
  const names = await readdir(folder).catch(() => []);
  const times = await Promise.all(
    names.map((name) =>
      stat(join(folder, name)).then(
        (one) => one.mtimeMs,
        () => 0,
      ),
    ),
  );
  return Math.max(0, ...times);
}
