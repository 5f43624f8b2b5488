// Who a process is. Process ids are used again, so an id alone does not tell whether the process is still the same one.

import { readFileSync } from 'node:fs';

/** "pid startTime" of a living process; undefined for one that is gone or only waits to be reaped. */
export function processIdentity(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The command's name may hold anything; fields are counted from the parenthesis that ends it. Field 22: start time.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' ? undefined : `${pid} ${fields[19]}`;
  } catch {
    return undefined;
  }
}
