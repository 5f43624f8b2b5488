// What the demo does to a pair, and what must then be seen.

import type { NodeProcess } from '../local/node-process.ts';

export const faultKinds = ['primary-kill', 'primary-stop', 'primary-qemu-kill', 'secondary-kill', 'none'] as const;
export type FaultKind = (typeof faultKinds)[number];

export const faultTexts: Record<FaultKind, string> = {
  'primary-kill': 'the whole primary node is killed (SIGKILL to its colod and its QEMU)',
  'primary-stop': 'the whole primary node is stopped without a word (SIGSTOP), and wakes up after the takeover',
  'primary-qemu-kill': "the primary's QEMU is killed, its colod lives",
  'secondary-kill': 'the whole secondary node is killed',
  none: 'nothing is done to the pair',
};

/** What a fault is done to, and who must be the primary afterwards. */
export interface Parts {
  victim: 'a' | 'b';
  survivor: 'a' | 'b';
}

/** By the roles of now: a starved host may have turned the pair round. */
export function partsOf(kind: FaultKind, primary: string | undefined): Parts {
  const [first, other] = primary === 'b' ? (['b', 'a'] as const) : (['a', 'b'] as const);
  const isOther = kind === 'secondary-kill' || kind === 'none';
  return isOther ? { victim: other, survivor: first } : { victim: first, survivor: other };
}

export interface Injected {
  /** When it was done, milliseconds since 1970. */
  at: number;
  /** Undoes a stop, so that the sleeper wakes up and finds that its term is over. */
  wake(): void;
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
