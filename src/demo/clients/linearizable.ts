// Whether a history of one register (reads and writes by several clients at once) could have happened in one place, one
// operation after the other, each at some instant between its call and its return. Lost writes, stale reads after a
// takeover and answers from two copies all show as histories that could not.
//
// How (just-in-time linearization, after Wing & Gong and Lowe): walk through calls and returns in their order and keep
// every state that is possible so far: the register's value, and which of the open operations have taken effect. When
// an operation returns, every possible state must be one in which it has taken effect; none left: the history is
// impossible.
//
// The work grows with 2^(operations open at once), not with the length. Pure.

export type Operation = { client: number } & (
  | { kind: 'write'; value: string }
  | { kind: 'read'; value: string | null }
);

/** `call` and `return` are places in one order; an operation without a return may have taken effect or not. */
export interface Call {
  operation: Operation;
  called: number;
  returned: number | undefined;
}

/** Open at once; more would take too long to judge. */
export const openMax = 12;

interface State {
  value: string | null;
  /** Indices of open operations that have taken effect, ascending. */
  done: readonly number[];
}

/** Undefined when the history is linearizable, else which operation could not have returned what it did. */
export function judge(history: readonly Call[], initial: string | null = null): string | undefined {
  const events = history
    .flatMap(({ called, returned }, index) => [
      { at: called, index, isCall: true },
      ...(returned === undefined ? [] : [{ at: returned, index, isCall: false }]),
    ])
    .sort((left, right) => left.at - right.at);
  const open = new Set<number>();
  let states: State[] = [{ value: initial, done: [] }];
  for (const { index, isCall } of events) {
    if (isCall) {
      open.add(index);
      if (open.size > openMax) throw new Error(`more than ${openMax} operations are open at once`);
      continue;
    }
    const possible = reach(states, open, history).filter(({ done }) => done.includes(index));
    if (possible.length === 0) return describe(history[index], states);
    open.delete(index);
    states = distinct(possible.map(({ value, done }) => ({ value, done: done.filter((one) => one !== index) })));
  }
  return undefined;
}

/** Every state that can be reached by letting open operations take effect. */
function reach(from: readonly State[], open: ReadonlySet<number>, history: readonly Call[]): State[] {
  const found = new Map(from.map((state) => [keyOf(state), state]));
  const waiting = [...found.values()];
  for (let state = waiting.pop(); state !== undefined; state = waiting.pop()) {
    for (const index of open) {
      const operation = history[index]?.operation;
      if (operation === undefined || state.done.includes(index)) continue;
      if (operation.kind === 'read' && operation.value !== state.value) continue;
      const done = [...state.done, index].sort((left, right) => left - right);
      const next: State = { value: operation.value, done };
      if (found.has(keyOf(next))) continue;
      found.set(keyOf(next), next);
      waiting.push(next);
    }
  }
  return [...found.values()];
}

function distinct(states: readonly State[]): State[] {
  return [...new Map(states.map((state) => [keyOf(state), state])).values()];
}

function keyOf({ value, done }: State): string {
  return `${value ?? ''} ${done.join(',')}`;
}

function describe(call: Call | undefined, states: readonly State[]): string {
  if (call === undefined) return 'nothing';
  const { operation } = call;
  const could = [...new Set(states.map(({ value }) => value ?? 'nothing'))].slice(0, 4).join(' or ');
  const what = operation.kind === 'read' ? `read ${operation.value ?? 'nothing'}` : `wrote ${operation.value}`;
  return `client ${operation.client} ${what} at ${call.called}, when the register held ${could}`;
}
