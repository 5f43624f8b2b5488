// Budgets of the model's searches: what each looks at, small enough to be searched completely. Several small ones find
// what one large one would, in a fraction of the states: what they leave out of each other is orders of three faults
// and more.

import type { Budget } from './state.ts';

const calm: Budget = {
  answers: 2,
  checkpoints: 1,
  pairings: 1,
  deaths: 0,
  qemuDeaths: 0,
  hangs: 0,
  cuts: 0,
  partitions: 0,
  arbiterErrors: 0,
  failedApplies: 0,
  handovers: 0,
  restarts: 0,
};

/** By name; each is searched by the test, with the number of states in docs/PROTOCOL.md. */
export const budgets = {
  'one death': { ...calm, deaths: 1 },
  'a link is given up': { ...calm, cuts: 1, arbiterErrors: 1 },
  'a partition': { ...calm, partitions: 1 },
  'a QEMU dies': { ...calm, qemuDeaths: 1, arbiterErrors: 1 },
  'a QEMU hangs': { ...calm, hangs: 1 },
  'a handover': { ...calm, handovers: 1, deaths: 1 },
  'an apply fails': { ...calm, failedApplies: 1, cuts: 1 },
  'a node comes back': { ...calm, deaths: 1, restarts: 1, pairings: 2, checkpoints: 0 },
  'both come back': { ...calm, deaths: 2, restarts: 2, answers: 1, checkpoints: 0 },
} as const satisfies Record<string, Budget>;

export type BudgetName = keyof typeof budgets;
