// A process that runs only a part of the time: SIGSTOP and SIGCONT in turn, as on a host that is overcommitted.

import { processIdentity } from '../../src/base/processes.ts';

/** Slows process `pid` down until the returned function is called; it runs on then, if it still lives. */
export function slowDown(pid: number, duty: { runMs: number; stopMs: number }): () => void {
  const identity = processIdentity(pid);
  let timer: NodeJS.Timeout | undefined;
  const signal = (name: NodeJS.Signals) => {
    if (identity !== undefined && processIdentity(pid) === identity) process.kill(pid, name);
  };
  const stop = () => {
    signal('SIGSTOP');
    timer = setTimeout(run, duty.stopMs);
  };
  const run = () => {
    signal('SIGCONT');
    timer = setTimeout(stop, duty.runMs);
  };
  stop();
  return () => {
    clearTimeout(timer);
    signal('SIGCONT');
  };
}
