// Starting a program in a network namespace of this machine, or in ours, so that it ends with us.

import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { tiedToUs } from '../base/processes.ts';

/** The file by which `ip netns` names a namespace. */
export function namespacePath(name: string): string {
  return `/run/netns/${name}`;
}

/** Starts a program whose process is killed when this process dies; with `namespace`, in that network namespace. */
export function spawnChild(
  command: string,
  args: readonly string[],
  options: SpawnOptions & { namespace?: string | undefined },
): ChildProcess {
  const { namespace, ...rest } = options;
  const [tied, tiedArgs] = tiedToUs(command, args);
  if (namespace === undefined) return spawn(tied, tiedArgs, rest);
  // It too replaces itself by what it starts: the process id is the program's.
  return spawn('nsenter', [`--net=${namespacePath(namespace)}`, '--', tied, ...tiedArgs], rest);
}

/** Ends a child and waits until it is gone. */
export async function endChild(child: ChildProcess, signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise<void>((resolve) => void child.once('exit', () => resolve()));
  child.kill(signal);
  await gone;
}
