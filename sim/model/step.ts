// What may happen in a state, and the state that follows. One step is one thing that a process does without being
// interrupted, one thing that the network or the arbiter does, or one fault.
//
// The decisions are the product's: PrimaryPair, SecondaryPair and Role are asked here with the state that they are in,
// and what they answer is carried out on the abstract world. So a change of theirs is a change of the model.
//
// What stands for the clock: a lease that is over stays over unless the secondary lends again, and the secondary's
// grant is over only after the lease is (src/heartbeat/lease.test.ts holds that of the real ones). When either happens
// is open.

import { type PrimaryAction, type PrimaryEvent, PrimaryPair } from '../../src/controller/primary-pair.ts';
import { Role, type RoleAction, type RoleEvent } from '../../src/controller/role.ts';
import { type SecondaryAction, type SecondaryEvent, SecondaryPair } from '../../src/controller/secondary-pair.ts';
import type { Mistake } from './mistakes.ts';
import {
  type Budget,
  copyOf,
  type Message,
  type ModelNode,
  type Name,
  newNode,
  other,
  type State,
  type Task,
} from './state.ts';

export interface Step {
  name: string;
  /** Carries it out on a state that is the caller's own. */
  run: (state: State) => void;
  /** A fault or an operator's wish: nobody may rely on its happening. */
  isOptional?: boolean;
  /** The death of a copy: the only step that may take the last one. */
  takesCopy?: boolean;
}

const names: readonly Name[] = ['a', 'b'];

/** Everything that may happen next. */
export function steps(state: State, mistake?: Mistake): Step[] {
  const found: Step[] = [];
  for (const name of names) {
    const node = state.nodes[name];
    if (node.isAlive) {
      found.push(...tasksOf(state, name, mistake), ...speech(state, name), ...timers(state, name, mistake));
      if (state.toward[name].length > 0 && !state.isCut)
        found.push({
          name: `${name} gets ${state.toward[name][0]?.kind}`,
          run: (next) => receive(next, name, mistake),
        });
    }
    found.push(...faultsOf(state, name, mistake));
  }
  if (canPair(state)) found.push({ name: 'the nodes pair', run: pair });
  if (state.budget.partitions > 0 && !state.isCut)
    found.push({
      name: 'nothing passes between the nodes any more',
      isOptional: true,
      run: (next) => {
        next.budget.partitions -= 1;
        next.isCut = true;
      },
    });
  return found;
}

// ---- pairing ----

function canPair({ nodes, budget, isCut }: State): boolean {
  if (budget.pairings === 0 || isCut) return false;
  return names.some((name) => isFree(nodes[other(name)]) && isLookingFor(nodes[name]));
}

const isLookingFor = (node: ModelNode) => node.isAlive && node.primary?.kind === 'alone' && !node.hasLinks;

/** It accepts links: it holds no copy, and nothing of one. */
function isFree(node: ModelNode): boolean {
  return node.isAlive && node.secondary?.kind === 'idle' && !node.hasLinks && node.role.kind === 'secondary';
}

function pair(state: State): void {
  state.budget.pairings -= 1;
  for (const name of names) {
    const node = state.nodes[name];
    state.toward[name] = [];
    node.hasLinks = true;
    node.tasks = node.tasks.filter((task) => task.kind !== 'lostLater');
    if (node.primary !== null) continue;
    node.hasLent = false;
    node.isWithheld = false;
    toSecondary(state, name, { kind: 'session' });
    send(state, name, { kind: 'ready' });
  }
}

function send(state: State, from: Name, message: Message): void {
  if (state.nodes[from].hasLinks) state.toward[other(from)].push(message);
}

/** This node's end of the links is closed; the peer reads what was sent before, and then that. */
function closeLinks(state: State, name: Name): void {
  const node = state.nodes[name];
  if (!node.hasLinks) return;
  send(state, name, { kind: 'fin' });
  state.toward[name] = [];
  noLinks(node);
}

/** What was begun for that secondary fails, and its failure is nobody's (`PrimaryNode.background`). */
function noLinks(node: ModelNode): void {
  node.hasLinks = false;
  node.tasks = node.tasks.filter(({ kind }) => kind !== 'round' && kind !== 'capture');
}

// ---- the network ----

function speech({ nodes, said, budget }: State, name: Name): Step[] {
  const node = nodes[name];
  const found: Step[] = [];
  if (node.primary !== null && node.guest !== null) {
    const { kind } = node.primary;
    // The primary's answer may be called 0 whatever it is: only whether the copy's is another one matters.
    if (budget.answers > 0 && kind !== 'fenced' && kind !== 'ended')
      found.push({ name: `${name}'s guest says 0`, run: (next) => guestSays(next, name, '0') });
    if (mayLeave(node).length > said.length && opens(node))
      found.push({ name: `${name} lets it leave`, run: (next) => letLeave(next, name) });
  }
  if (node.secondary?.kind === 'protected' && node.guest !== null && node.staged === null && budget.answers > 0)
    for (const answer of ['0', '1'])
      found.push({ name: `${name}'s copy says ${answer}`, run: (next) => copySays(next, name, answer) });
  return found;
}

function opens(node: ModelNode): boolean {
  return node.isGateOpen && (node.primary?.kind !== 'protected' || node.hasLease);
}

/** As far as its output may leave: all of it alone; else what was committed, and what both have given. */
function mayLeave(node: ModelNode): string {
  const guest = node.guest ?? '';
  if (node.primary?.kind !== 'protected' && node.primary?.kind !== 'suspecting' && node.primary?.kind !== 'pairing')
    return node.primary?.kind === 'fenced' || node.primary?.kind === 'ended' ? '' : guest;
  if (node.primary.kind === 'pairing') return guest;
  const { heard, allowed } = node;
  if (heard === null) return allowed;
  let common = 0;
  while (common < heard.length && common < guest.length && heard[common] === guest[common]) common += 1;
  return common > allowed.length ? guest.slice(0, common) : allowed;
}

function guestSays(state: State, name: Name, answer: string): void {
  state.budget.answers -= 1;
  const node = state.nodes[name];
  node.guest += answer;
}

function copySays(state: State, name: Name, answer: string): void {
  state.budget.answers -= 1;
  const node = state.nodes[name];
  node.guest += answer;
  send(state, name, { kind: 'egress', epoch: node.epoch, answer });
}

function letLeave(state: State, name: Name): void {
  state.said = mayLeave(state.nodes[name]);
}

// ---- time ----

function timers(state: State, name: Name, mistake?: Mistake): Step[] {
  const node = state.nodes[name];
  const peer = state.nodes[other(name)];
  const found: Step[] = [];
  const { primary, secondary } = node;
  const isPaired = node.hasLinks && peer.hasLinks && peer.isAlive && !state.isCut;
  if (primary?.kind === 'protected') {
    if (node.hasLease)
      found.push({ name: `${name}'s lease ends`, isOptional: isPaired, run: (next) => endLease(next, name) });
    else if (peer.hasLent && node.hasLinks && !state.isCut)
      found.push({ name: `${name} is lent the right to speak`, run: (next) => extendLease(next, name) });
    if (!node.hasLease && node.hasLinks)
      found.push({
        name: `${name} hears nothing of its secondary`,
        isOptional: isPaired,
        run: (next) => toPrimary(next, name, { kind: 'silence' }),
      });
    if (primary.phase === 'running' && state.budget.checkpoints > 0)
      found.push({
        name: `${name} wants a checkpoint`,
        run: (next) => {
          next.budget.checkpoints -= 1;
          toPrimary(next, name, { kind: 'want', reason: { kind: 'timeout' } });
        },
      });
  }
  // A lease is over for good when nothing is lent any more and it has run out.
  const isLeaseOver = mistake === 'lease-outlives-the-grant' || !(peer.isAlive && peer.hasLease);
  if (node.hasLent && isLeaseOver && (node.isWithheld || !isPaired))
    found.push({ name: `what ${name} lent has run out`, run: (next) => void (next.nodes[name].hasLent = false) });
  const lends = secondary?.kind === 'protected' && node.hasLinks && !node.isWithheld;
  if (lends && !node.hasLent && isPaired)
    found.push({ name: `${name} lends the right to speak`, run: (next) => void (next.nodes[name].hasLent = true) });
  if (secondary?.kind === 'protected' && node.hasLinks && (!node.hasLent || mistake === 'lease-outlives-the-grant'))
    found.push({
      name: `${name} hears nothing of its primary`,
      isOptional: isPaired,
      run: (next) => toSecondary(next, name, { kind: 'silence' }),
    });
  if (secondary?.kind === 'joining' && !isPaired && node.hasLinks)
    found.push({ name: `${name} gives its silent primary up`, run: (next) => giveUp(next, name) });
  if (
    (primary?.kind === 'alone' || primary?.kind === 'syncing' || primary?.kind === 'pairing') &&
    node.hasLinks &&
    !isPaired
  )
    found.push({ name: `${name} gives its silent peer up`, run: (next) => giveUp(next, name) });
  return found;
}

function endLease(state: State, name: Name): void {
  state.nodes[name].hasLease = false;
}

function extendLease(state: State, name: Name): void {
  state.nodes[name].hasLease = true;
}

// ---- faults ----

function faultsOf(state: State, name: Name, mistake?: Mistake): Step[] {
  const { budget, nodes } = state;
  const node = nodes[name];
  const found: Step[] = [];
  const add = (what: keyof Budget, text: string, run: (next: State) => void) => {
    if (budget[what] > 0)
      found.push({
        name: `${name}${text}`,
        isOptional: true,
        takesCopy: what === 'deaths' || what === 'qemuDeaths',
        run: (next) => {
          next.budget[what] -= 1;
          run(next);
        },
      });
  };
  if (!node.isAlive) {
    add('restarts', ' comes back', (next) => restart(next, name));
    return found;
  }
  add('deaths', ' dies', (next) => die(next, name, true));
  add('deaths', "'s host dies without a word", (next) => die(next, name, false));
  if (node.guest !== null) add('qemuDeaths', "'s QEMU dies", (next) => qemuDies(next, name));
  // Only a QEMU that is protected is asked; its answer may be missed when it is not any more (src/node/vm-watch.ts).
  if (node.guest !== null && (node.primary?.kind === 'protected' || node.primary?.kind === 'suspecting'))
    add('hangs', "'s QEMU does not answer for a while", (next) => hang(next, name, mistake));
  if (node.hasLinks) add('cuts', ' gives its links up', (next) => giveUp(next, name, mistake));
  if (node.primary?.kind === 'protected' && node.primary.complete)
    add('handovers', ' is asked to hand over', (next) => toPrimary(next, name, { kind: 'handover', why: '' }, mistake));
  return found;
}

function die(state: State, name: Name, isHeard: boolean): void {
  if (isHeard) closeLinks(state, name);
  state.nodes[name] = { ...newNode(), isAlive: false, secondary: null, role: { kind: 'ended', why: '' } };
  state.toward[name] = [];
}

function qemuDies(state: State, name: Name): void {
  const node = state.nodes[name];
  if (node.primary !== null) {
    node.guest = null;
    toPrimary(state, name, { kind: 'vmEnded', why: '', byGuest: false });
  } else {
    node.guest = null;
    node.staged = null;
    toSecondary(state, name, { kind: 'vmEnded', why: '' });
  }
}

/** QEMU goes on in the end: it is the whole host that stood still. */
function hang(state: State, name: Name, mistake?: Mistake): void {
  if (mistake !== 'a-hang-is-an-end') return toPrimary(state, name, { kind: 'vmHangs', why: '' }, mistake);
  toPrimary(state, name, { kind: 'vmEnded', why: '', byGuest: false });
}

/** A damaged message, a reset of the network: this side closes the links while its peer lives. */
function giveUp(state: State, name: Name, mistake?: Mistake): void {
  const node = state.nodes[name];
  if (node.primary !== null) {
    if (mistake !== 'fin-before-lease') loseLease(node);
    closeLinks(state, name);
    toPrimary(state, name, { kind: 'linkLost', why: '' }, mistake);
    if (mistake === 'fin-before-lease' && node.primary.kind === 'suspecting') node.isGateOpen = true;
    return;
  }
  closeLinks(state, name);
  node.isWithheld = true;
  if (mistake === 'any-loss-is-the-peers') node.hasLent = false;
  node.tasks.push({ kind: 'lostLater' });
}

function loseLease(node: ModelNode): void {
  node.hasLease = false;
  if (node.primary?.kind === 'protected') node.isGateOpen = false;
}

function restart(state: State, name: Name): void {
  const node = newNode();
  node.secondary = null;
  node.role = { kind: 'deciding' };
  state.nodes[name] = node;
  toRole(state, name, { kind: 'start' });
}

// ---- what a node has begun ----

function tasksOf({ nodes, budget }: State, name: Name, mistake?: Mistake): Step[] {
  const node = nodes[name];
  const found: Step[] = [];
  for (const [at, task] of node.tasks.entries()) {
    if (task.kind === 'lostLater' && node.hasLent) continue;
    // A node asks the arbiter one question at a time (Terms.queue).
    if (task.kind === 'claim' && node.tasks.findIndex(({ kind }) => kind === 'claim') < at) continue;
    found.push({ name: `${name}: ${taskText(task)}`, run: (next) => perform(next, name, { at, mistake }) });
    if (task.kind === 'claim' && task.outcome === undefined && budget.arbiterErrors > 0)
      for (const isDone of [true, false])
        found.push({
          name: `${name} hears no answer to its claim, which is ${isDone ? '' : 'not '}done`,
          isOptional: true,
          run: (next) => loseAnswer(next, name, { at, isDone }),
        });
    if (task.kind === 'apply' && budget.failedApplies > 0)
      found.push({ name: `${name} cannot apply it`, isOptional: true, run: (next) => failApply(next, name, at) });
  }
  return found;
}

function taskText(task: Task): string {
  if (task.kind === 'claim') return task.outcome === undefined ? `claims (${task.what})` : `hears ${task.outcome}`;
  return task.kind;
}

function take(node: ModelNode, at: number): Task | undefined {
  return node.tasks.splice(at, 1)[0];
}

function loseAnswer(state: State, name: Name, { at, isDone }: { at: number; isDone: boolean }): void {
  const task = state.nodes[name].tasks[at];
  state.budget.arbiterErrors -= 1;
  if (task?.kind !== 'claim') return;
  if (isDone) decide(state, name, task.what);
  task.outcome = 'error';
}

function failApply(state: State, name: Name, at: number): void {
  const task = take(state.nodes[name], at);
  if (task?.kind !== 'apply') return;
  state.budget.failedApplies -= 1;
  toSecondary(state, name, { kind: 'applyFailed', epoch: task.epoch, why: '' });
}

function perform(state: State, name: Name, { at, mistake }: { at: number; mistake: Mistake | undefined }): void {
  const node = state.nodes[name];
  const pending = node.tasks[at];
  if (pending?.kind === 'claim' && pending.outcome === undefined) {
    pending.outcome = decide(state, name, pending.what);
    return;
  }
  const task = take(node, at);
  switch (task?.kind) {
    case undefined:
      return;
    case 'round':
      return toPrimary(state, name, { kind: 'roundSent', dirtyPages: 0 });
    case 'capture':
      return capture(state, name, mistake);
    case 'claim':
      return answer(state, name, task, mistake);
    case 'apply':
      node.guest = node.staged;
      node.staged = null;
      send(state, name, { kind: 'applied', epoch: task.epoch });
      return toSecondary(state, name, { kind: 'applied', epoch: task.epoch });
    case 'takeOver':
      return takeOver(state, name);
    case 'leave':
      toSecondary(state, name, { kind: 'left' });
      if (standing(state, name) === 'mine') toRole(state, name, { kind: 'orphaned', why: '' });
      return;
    case 'lostLater':
      return toSecondary(state, name, { kind: 'linkLost', why: '' });
    case 'look':
      return toRole(state, name, { kind: 'seen', standing: standing(state, name) }, mistake);
    case 'askPeer':
      return toRole(state, name, { kind: 'peerAsked', free: !state.isCut && isFree(state.nodes[other(name)]) });
    case 'lookLater':
      return toRole(state, name, { kind: 'start' }, mistake);
  }
}

function standing({ arbiter }: State, name: Name): 'mine' | 'pair' | 'other' {
  if (arbiter.owner !== name) return 'other';
  return arbiter.peer === null ? 'mine' : 'pair';
}

/** One compare-and-swap, as src/node/terms.ts asks for it. */
function decide(state: State, name: Name, what: 'pair' | 'alone' | 'first'): 'won' | 'lost' {
  const { arbiter } = state;
  if (what === 'pair') {
    if (arbiter.owner !== name) return 'lost';
    state.arbiter = { term: arbiter.term + 1, owner: name, peer: other(name) };
    return 'won';
  }
  if (what === 'first') {
    if (arbiter.owner !== name) return 'lost';
    state.arbiter = { term: arbiter.term + 1, owner: name, peer: null };
    return 'won';
  }
  if (arbiter.owner === name && arbiter.peer === null) return 'won';
  if (arbiter.owner !== name && arbiter.peer !== name) return 'lost';
  state.arbiter = { term: arbiter.term + 1, owner: name, peer: null };
  return 'won';
}

function answer(state: State, name: Name, task: Extract<Task, { kind: 'claim' }>, mistake?: Mistake): void {
  const outcome = task.outcome ?? 'error';
  if (task.what === 'first') return toRole(state, name, { kind: 'claimed', outcome }, mistake);
  if (state.nodes[name].primary === null) return toSecondary(state, name, { kind: 'aloneClaimed', outcome });
  toPrimary(state, name, { kind: task.what === 'pair' ? 'pairClaimed' : 'aloneClaimed', outcome }, mistake);
}

function capture(state: State, name: Name, mistake?: Mistake): void {
  const node = state.nodes[name];
  if (node.primary?.kind !== 'protected' || node.guest === null) return;
  if (!node.hasLinks) return toPrimary(state, name, { kind: 'captureFailed', why: '' });
  const epoch = node.primary.epoch + 1;
  node.captured = { epoch, history: node.guest };
  node.heard = null;
  if (mistake === 'release-before-commit') node.allowed = node.guest;
  toPrimary(state, name, { kind: 'captured', epoch });
  send(state, name, { kind: 'checkpoint', epoch, history: node.guest });
}

/** The secondary is the primary from here on: its proxy's output is what it has said and what it says. */
function takeOver(state: State, name: Name): void {
  const node = state.nodes[name];
  if (node.secondary?.kind !== 'taking-over' || node.guest === null) return;
  closeLinks(state, name);
  toSecondary(state, name, { kind: 'tookOver' });
  toRole(state, name, { kind: 'tookOver' });
}

function becomePrimary(node: ModelNode): void {
  Object.assign(node, { ...newNode(), role: node.role, guest: node.guest, isGateOpen: true });
  node.secondary = null;
  node.primary = { kind: 'alone' };
}

// ---- messages ----

function receive(state: State, name: Name, mistake?: Mistake): void {
  const node = state.nodes[name];
  const message = state.toward[name].shift();
  if (message === undefined || !node.hasLinks) return;
  if (message.kind === 'fin') return lost(state, name, mistake);
  if (node.primary !== null) return primaryGets(state, name, message, mistake);
  secondaryGets(state, name, message, mistake);
}

/** The peer ended the links: it has given up its lease, or is gone. */
function lost(state: State, name: Name, mistake?: Mistake): void {
  const node = state.nodes[name];
  noLinks(node);
  if (node.primary !== null) {
    loseLease(node);
    return toPrimary(state, name, { kind: 'linkLost', why: '' }, mistake);
  }
  node.isWithheld = true;
  node.hasLent = false;
  toSecondary(state, name, { kind: 'linkLost', why: '' });
}

function primaryGets(state: State, name: Name, message: Message, mistake?: Mistake): void {
  const node = state.nodes[name];
  switch (message.kind) {
    case 'ready':
      return toPrimary(state, name, { kind: 'peerReady' });
    case 'committed':
      return toPrimary(state, name, { kind: 'committed', epoch: message.epoch }, mistake);
    case 'applied':
      return toPrimary(state, name, { kind: 'applied', epoch: message.epoch }, mistake);
    case 'egress':
      if (node.heard !== null && (message.epoch === node.captured?.epoch || mistake === 'match-across-epochs'))
        node.heard += message.answer;
      else if (mistake === 'match-across-epochs') node.heard = node.allowed + message.answer;
      return;
    default:
      return;
  }
}

function secondaryGets(state: State, name: Name, message: Message, mistake?: Mistake): void {
  const node = state.nodes[name];
  switch (message.kind) {
    case 'checkpoint':
      if (mistake !== 'commit-before-whole') node.staged = message.history;
      return toSecondary(state, name, { kind: 'staged', epoch: message.epoch }, mistake);
    case 'handover':
      return toSecondary(state, name, { kind: 'handover', why: '' });
    case 'end':
      return toSecondary(state, name, { kind: 'guestEnded', why: '' });
    default:
      return;
  }
}

// ---- the product's decisions, carried out ----

function toPrimary(state: State, name: Name, event: PrimaryEvent, mistake?: Mistake): void {
  const node = state.nodes[name];
  if (node.primary === null) return;
  const { next, actions } = ask(new PrimaryPair(), node.primary, event);
  node.primary = next;
  for (const action of actions) doPrimary(state, name, action, mistake);
}

/** Hands an event to a core of the product in the state that it is in. */
function ask<S, E, A>(core: { state: S; on(event: E): A[] }, before: S, event: E): { next: S; actions: A[] } {
  core.state = before;
  const actions = core.on(event);
  return { next: core.state, actions };
}

function doPrimary(state: State, name: Name, action: PrimaryAction, mistake?: Mistake): void {
  const node = state.nodes[name];
  switch (action.kind) {
    case 'startMirroring':
    case 'abortCapture':
      return;
    case 'sendRound':
      node.tasks.push({ kind: 'round' });
      return;
    case 'claimPair':
      node.tasks.push({ kind: 'claim', what: 'pair' });
      return;
    case 'claimAlone':
      if (mistake === 'alone-without-term') toPrimary(state, name, { kind: 'aloneClaimed', outcome: 'won' });
      else node.tasks.push({ kind: 'claim', what: 'alone' });
      return;
    case 'capture':
      if (node.primary?.kind === 'protected' && !node.primary.complete) node.allowed = state.said;
      node.tasks.push({ kind: 'capture' });
      return;
    case 'release':
      node.allowed = node.captured?.history ?? node.allowed;
      return;
    case 'compare':
      node.heard = node.captured?.history ?? null;
      return;
    case 'shutGate':
      if (mistake !== 'handover-with-open-gate') node.isGateOpen = false;
      return;
    case 'goAlone':
      node.isGateOpen = true;
      node.heard = null;
      node.captured = null;
      return;
    case 'dropPeer':
      closeLinks(state, name);
      return;
    case 'tellHandover':
      send(state, name, { kind: 'handover' });
      return;
    case 'tellEnd':
      send(state, name, { kind: 'end' });
      node.guest = null;
      closeLinks(state, name);
      return toRole(state, name, { kind: 'vmOver', why: '' });
    case 'fence':
      closeLinks(state, name);
      node.guest = null;
      return toRole(state, name, { kind: 'fenced', why: '' });
  }
}

function toSecondary(state: State, name: Name, event: SecondaryEvent, mistake?: Mistake): void {
  const node = state.nodes[name];
  if (node.secondary === null) return;
  const { next, actions } = ask(new SecondaryPair(), node.secondary, event);
  node.secondary = next;
  for (const action of actions) doSecondary(state, name, action, mistake);
}

function doSecondary(state: State, name: Name, action: SecondaryAction, mistake?: Mistake): void {
  const node = state.nodes[name];
  switch (action.kind) {
    case 'commit':
      node.epoch = action.epoch;
      send(state, name, { kind: 'committed', epoch: action.epoch });
      return;
    case 'apply':
      if (mistake === 'run-the-older-state' && node.guest !== null) {
        node.staged = null;
        node.secondary = { kind: 'protected', epoch: action.epoch, applying: false, loaded: true };
      } else if (mistake === 'commit-before-whole')
        node.secondary = { kind: 'protected', epoch: action.epoch, applying: false, loaded: true };
      else node.tasks.push({ kind: 'apply', epoch: action.epoch });
      return;
    case 'withhold':
      node.isWithheld = true;
      return;
    case 'claimAlone':
      node.tasks.push({ kind: 'claim', what: 'alone' });
      return;
    case 'takeOver':
      node.tasks.push({ kind: 'takeOver' });
      return;
    case 'leave':
      closeLinks(state, name);
      Object.assign(node, { guest: null, staged: null, hasLent: false, isWithheld: true, tasks: [{ kind: 'leave' }] });
      return;
  }
}

function toRole(state: State, name: Name, event: RoleEvent, mistake?: Mistake): void {
  const node = state.nodes[name];
  const { next, actions } = ask(new Role('auto'), node.role, event);
  node.role = next;
  for (const action of actions) doRole(state, name, action, mistake);
}

function doRole(state: State, name: Name, action: RoleAction, mistake?: Mistake): void {
  const node = state.nodes[name];
  switch (action.kind) {
    case 'look':
      node.tasks.push({ kind: 'look' });
      return;
    case 'askPeer':
      if (mistake === 'boot-asks-nobody') toRole(state, name, { kind: 'peerAsked', free: true });
      else node.tasks.push({ kind: 'askPeer' });
      return;
    case 'lookLater':
      node.tasks.push({ kind: 'lookLater' });
      return;
    case 'claimFirst':
      node.tasks.push({ kind: 'claim', what: 'first' });
      return;
    case 'startPrimary':
      // Another life of the guest: what it said before is nobody's any more.
      if (copyOf(state, other(name)) !== undefined) state.isBootedOverCopy = true;
      node.guest = '';
      state.said = '';
      becomePrimary(node);
      return;
    case 'startSecondary':
      Object.assign(node, { ...newNode(), role: node.role });
      return;
    case 'carryOn':
      becomePrimary(node);
      return;
    case 'clear':
      Object.assign(node, { ...newNode(), secondary: null, role: node.role });
      if (node.role.kind === 'clearing') toRole(state, name, { kind: 'cleared' });
      return;
    case 'refuse':
      return;
  }
}
