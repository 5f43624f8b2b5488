// Who a process is, and processes that end with us. Process ids are used again, so an id alone does not tell whether
// the process is still the same one.

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

/** "pid.startTime" of this process, for the names of what it makes: who finds it later knows whose it is, or was. */
export function ownMark(): string {
  return (processIdentity(process.pid) ?? '').replace(' ', '.');
}

/** Whether the process with this mark is gone. What is no mark belongs to nobody that could be gone. */
export function isMarkOfDead(mark: string): boolean {
  const match = /^(\d+)\.(\d+)$/.exec(mark);
  return match !== null && processIdentity(Number(match[1])) !== `${match[1]} ${match[2]}`;
}

/**
 * The command line that runs `command` so that the kernel kills it when this process dies; util-linux's setpriv asks
 * for that. Who dies before setpriv has asked sends no signal, so the shell then looks whether we are still the parent,
 * and runs nothing if not. Each of them replaces itself by the next: the process id is the command's. The signal
 * follows the thread that starts it, so start it from the main thread.
 */
export function tiedToUs(command: string, args: readonly string[]): [command: string, args: string[]] {
  const ifStillOurs = '[ "$PPID" = "$0" ] && exec "$@"';
  return ['setpriv', ['--pdeathsig', 'KILL', '--', 'sh', '-c', ifStillOurs, String(process.pid), command, ...args]];
}
