// One state of the model: two nodes of one VM, the wire between them, the arbiter's record, and what the network has
// heard.
//
// A copy of the guest is the history of what it has said: a string of answers, each '0' or '1'. Two copies agree as far
// as their histories are equal. So the output rule is one sentence: what the network has heard is the beginning of the
// history of whoever goes on.
//
// The roles are those of the product: `pair` is the state of its PrimaryPair or SecondaryPair, `role` that of its Role,
// and step.ts hands events to these very classes. Everything around them (the wire, the arbiter, leases, timers) is
// abstract.

import type { PrimaryState } from '../../src/controller/primary-pair.ts';
import type { RoleState } from '../../src/controller/role.ts';
import type { SecondaryState } from '../../src/controller/secondary-pair.ts';

export type Name = 'a' | 'b';

/** The answers of a guest, in order. */
export type History = string;

export type Message =
  | { kind: 'ready' }
  | { kind: 'checkpoint'; epoch: number; history: History }
  | { kind: 'committed'; epoch: number }
  | { kind: 'applied'; epoch: number }
  /** The secondary's guest said this, in the epoch that began with checkpoint `epoch`. */
  | { kind: 'egress'; epoch: number; answer: string }
  | { kind: 'handover' }
  | { kind: 'end' }
  /** The sender's end of the link is closed: by itself, or because its process is gone. */
  | { kind: 'fin' };

/** What a node has begun and not finished: each ends in a step of its own, at any later moment. */
export type Task =
  | { kind: 'round' }
  | { kind: 'capture' }
  | { kind: 'apply'; epoch: number }
  | { kind: 'takeOver' }
  | { kind: 'leave' }
  | { kind: 'look' }
  | { kind: 'askPeer' }
  | { kind: 'lookLater' }
  /** `outcome`: the arbiter has done it, and the answer is on its way. */
  | { kind: 'claim'; what: 'pair' | 'alone' | 'first'; outcome?: 'won' | 'lost' | 'error' }
  /** A link that this side gave up: the pair hears of it when what it lent has run out. */
  | { kind: 'lostLater' };

export interface ModelNode {
  isAlive: boolean;
  role: RoleState;
  primary: PrimaryState | null;
  secondary: SecondaryState | null;
  /** The history of its copy; null when it has none that runs. */
  guest: History | null;
  tasks: Task[];
  hasLinks: boolean;

  // As the primary.
  isGateOpen: boolean;
  /** What the secondary lent is not over yet. */
  hasLease: boolean;
  /** As far as its guest's answers may leave, by what the pair has agreed on. */
  allowed: History;
  /** What was captured last, and under which epoch. */
  captured: { epoch: number; history: History } | null;
  /** The secondary's history as the primary has heard it, while the two are compared. */
  heard: History | null;

  // As the secondary.
  /** The checkpoint that it has whole and has not applied yet. */
  staged: History | null;
  /** The newest checkpoint that it has said it holds. */
  epoch: number;
  /** It has lent its primary the right to speak, and that may last. */
  hasLent: boolean;
  isWithheld: boolean;
}

/** What may still happen of each kind: without bounds nothing could be searched completely. */
export interface Budget {
  answers: number;
  checkpoints: number;
  pairings: number;
  deaths: number;
  /** QEMUs that end while their node lives. */
  qemuDeaths: number;
  /** Primaries whose QEMU does not answer for a while, as where the whole host stands still. */
  hangs: number;
  /** Links that one side gives up while both live. */
  cuts: number;
  /** Times at which nothing passes between the nodes any more. */
  partitions: number;
  arbiterErrors: number;
  failedApplies: number;
  handovers: number;
  restarts: number;
}

export interface State {
  arbiter: { term: number; owner: Name; peer: Name | null };
  nodes: Record<Name, ModelNode>;
  /** What is on its way to a node, in order. */
  toward: Record<Name, Message[]>;
  isCut: boolean;
  /** What the network has heard. */
  said: History;
  budget: Budget;
  /** A node booted the guest anew while the other one held a copy of it. */
  isBootedOverCopy: boolean;
}

export const other = (name: Name): Name => (name === 'a' ? 'b' : 'a');

export function newNode(): ModelNode {
  return {
    isAlive: true,
    role: { kind: 'secondary' },
    primary: null,
    secondary: { kind: 'idle', why: '' },
    guest: null,
    tasks: [],
    hasLinks: false,
    isGateOpen: false,
    hasLease: false,
    allowed: '',
    captured: null,
    heard: null,
    staged: null,
    epoch: 0,
    hasLent: false,
    isWithheld: false,
  };
}

/** Node a runs the guest alone, and b is free. */
export function initial(budget: Budget): State {
  const a: ModelNode = {
    ...newNode(),
    role: { kind: 'primary' },
    primary: { kind: 'alone' },
    secondary: null,
    guest: '',
    isGateOpen: true,
  };
  return {
    arbiter: { term: 1, owner: 'a', peer: null },
    nodes: { a, b: newNode() },
    toward: { a: [], b: [] },
    isCut: false,
    said: '',
    budget,
    isBootedOverCopy: false,
  };
}

/** A state of the caller's own. What the product's cores return is never changed, so it need not be copied. */
export function copyState(state: State): State {
  const copyNode = (node: ModelNode): ModelNode => ({ ...node, tasks: node.tasks.map((task) => ({ ...task })) });
  return {
    ...state,
    nodes: { a: copyNode(state.nodes.a), b: copyNode(state.nodes.b) },
    toward: { a: [...state.toward.a], b: [...state.toward.b] },
    budget: { ...state.budget },
  };
}

/** Whether the node may say something to the network in this state. */
export function maySpeak(node: ModelNode): boolean {
  if (!node.isAlive || node.primary === null || node.guest === null || !node.isGateOpen) return false;
  return node.primary.kind === 'protected' ? node.hasLease : true;
}

/**
 * The history from which the node would go on; undefined when it holds no copy that it may run. Whom the arbiter's
 * record does not name may not: another node has said, or may have said, what this copy has never seen.
 */
export function copyOf({ arbiter, nodes }: State, name: Name): History | undefined {
  const node = nodes[name];
  if (!node.isAlive || (arbiter.owner !== name && arbiter.peer !== name)) return undefined;
  if (node.primary !== null) return node.guest ?? undefined;
  const kind = node.secondary?.kind;
  if (kind !== 'protected' && kind !== 'suspecting' && kind !== 'taking-over') return undefined;
  return node.staged ?? node.guest ?? undefined;
}
