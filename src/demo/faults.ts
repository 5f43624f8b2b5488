// What the demo does to a pair, and what must then be seen.

import type { NodeProcess } from '../local/node-process.ts';
import type { LocalPair } from '../local/pair.ts';

export const faultKinds = ['primary-kill', 'primary-stop', 'primary-qemu-kill', 'secondary-kill', 'none'] as const;
export type FaultKind = (typeof faultKinds)[number];

export const faultTexts: Record<FaultKind, string> = {
  'primary-kill': 'the whole primary node is killed (SIGKILL to its colod and its QEMU)',
  'primary-stop': 'the whole primary node is stopped without a word (SIGSTOP), and wakes up after the takeover',
  'primary-qemu-kill': "the primary's QEMU is killed, its colod lives",
  'secondary-kill': 'the whole secondary node is killed',
  none: 'nothing is done to the pair',
};

/** Who must be the primary afterwards. */
export function survivorOf(kind: FaultKind): 'a' | 'b' {
  return kind === 'secondary-kill' || kind === 'none' ? 'a' : 'b';
}

export interface Injected {
  /** When it was done, milliseconds since 1970. */
  at: number;
  /** Undoes a stop, so that the sleeper wakes up and finds that its term is over. */
  wake(): void;
}

export async function inject(kind: FaultKind, pair: LocalPair, wallNow: () => number): Promise<Injected> {
  return injectInto(kind === 'secondary-kill' ? pair.b : pair.a, kind, wallNow);
}

/** Does it to this node. */
export async function injectInto(
  node: NodeProcess | undefined,
  kind: FaultKind,
  wallNow: () => number,
): Promise<Injected> {
  if (kind === 'none' || node === undefined) return { at: wallNow(), wake: () => undefined };
  const signalQemu = await node.holdQemu();
  const at = wallNow();
  if (kind === 'primary-qemu-kill') signalQemu('SIGKILL');
  else if (kind === 'primary-stop') {
    node.signal('SIGSTOP');
    signalQemu('SIGSTOP');
  } else {
    node.signal('SIGKILL');
    signalQemu('SIGKILL');
  }
  const wake = () => {
    if (kind !== 'primary-stop') return;
    signalQemu('SIGCONT');
    node.signal('SIGCONT');
  };
  return { at, wake };
}
