// Why a VM is not protected now, as one of few words: for metrics, alerts and scripts. The words beside it (`why`) are
// for people.

export const reasonCodes = {
  '': 'The VM is protected, or this node is not its primary.',
  disabled: 'The spec says so: protect.mode is none.',
  'arbiter-unreachable': 'The arbiter does not answer or takes no writes: nobody could take over.',
  'disk-problem': 'Something of the disks has failed: the mirror, the replica, or the guest waits for its own disk.',
  copying: 'A secondary is there, and gets the memory and disks for the first time.',
  deciding: 'The primary doubts its secondary; the arbiter is asked who goes on.',
  'no-secondary': 'No other node is the secondary: none is there, or each refuses.',
  ended: 'This node no longer runs the VM.',
} as const;
export type ReasonCode = keyof typeof reasonCodes;

const copying = new Set(['syncing', 'pairing', 'first checkpoint']);

/** What of a node's status (node-status.ts) decides. */
interface Facts {
  role: string;
  state: string;
  mode: string;
  protected: boolean;
  arbiter?: object | null | undefined;
  disks?: { problem: string } | null | undefined;
}

/** Pure; what is nearest to the cause comes first. */
export function reasonOf(status: Facts): ReasonCode {
  const { role, state, mode, arbiter, disks } = status;
  if (role === 'fenced' || role === 'stopped') return 'ended';
  if (role !== 'primary') return '';
  if (mode === 'none') return 'disabled';
  if (arbiter !== undefined && arbiter !== null) return 'arbiter-unreachable';
  if (status.protected) return '';
  if (state === 'suspecting') return 'deciding';
  if (copying.has(state)) return 'copying';
  return (disks?.problem ?? '') === '' ? 'no-secondary' : 'disk-problem';
}
