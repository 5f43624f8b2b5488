// Deliberate mistakes of the protocol: each must be found by the search, or the model proves nothing.

import type { BudgetName } from './budgets.ts';

export const mistakes = {
  'fin-before-lease': 'a primary that gives a link up closes it first, and gives up its lease a moment later',
  'release-before-commit': 'output leaves when the checkpoint is captured, not when the secondary holds it',
  'run-the-older-state': 'a secondary takes over with what it ran, although it has committed a newer checkpoint',
  'any-loss-is-the-peers':
    'a link that the secondary gave up counts as ended by its primary: it does not wait for the lease',
  'alone-without-term': 'a primary in doubt goes on alone without asking the arbiter',
  'commit-before-whole': 'a secondary says that it holds a checkpoint which it has not',
  'handover-with-open-gate': 'a primary that hands over goes on speaking until the secondary has the term',
  'boot-asks-nobody':
    'a node that comes back and finds itself the owner of a pair boots the VM without asking its peer',
  'match-across-epochs': 'answers of the secondary count in whatever epoch they were given',
  'a-hang-is-an-end': 'a primary whose QEMU does not answer for a while gives it up, as one that is gone',
  'lease-outlives-the-grant': 'a secondary takes over on silence before what it lent has run out',
} as const;

export type Mistake = keyof typeof mistakes;

/** The budget whose search finds it, and the word with which the sentence begins that is violated. */
export const foundBy: Record<Mistake, { budget: BudgetName; sentence: string }> = {
  'fin-before-lease': { budget: 'a link is given up', sentence: 'one voice' },
  'release-before-commit': { budget: 'one death', sentence: 'output rule' },
  'run-the-older-state': { budget: 'one death', sentence: 'output rule' },
  'any-loss-is-the-peers': { budget: 'a link is given up', sentence: 'one voice' },
  'alone-without-term': { budget: 'one death', sentence: 'one voice' },
  'commit-before-whole': { budget: 'one death', sentence: 'a copy survives' },
  'handover-with-open-gate': { budget: 'a handover', sentence: 'one voice' },
  'boot-asks-nobody': { budget: 'a node comes back', sentence: 'a copy survives' },
  'match-across-epochs': { budget: 'one death', sentence: 'output rule' },
  'a-hang-is-an-end': { budget: 'a QEMU hangs', sentence: 'a copy survives' },
  'lease-outlives-the-grant': { budget: 'one death', sentence: 'one voice' },
};
