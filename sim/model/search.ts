// Searches the model completely: every order of events that a budget allows, breadth first, so that the first path to a
// wrong state is a shortest one. States are told apart by a hash of 53 bits; of a million states two collide with a
// chance of 1 in 10,000.
//
// Four sentences are asked of every state:
//
//   one voice         at most one node may speak
//   output rule       what the network has heard is the beginning of the history of whoever may speak
//   a copy survives   no step but a death takes the last copy; and nobody boots the guest while a copy of it is left
//   nobody is mute    where a copy is left, somebody may speak again without any further fault
//
// The last one is about paths: it is asked when all states are known.

import type { Mistake } from './mistakes.ts';
import { type Budget, copyOf, copyState, initial, maySpeak, type State } from './state.ts';
import { type Step, steps } from './step.ts';

export interface Outcome {
  states: number;
  transitions: number;
  /** The length of the longest path. */
  depth: number;
  violation: { sentence: string; path: string[] } | undefined;
}

export interface SearchOptions {
  mistake?: Mistake;
  /** A search that would take more is given up with an error: it proves nothing. */
  statesMax: number;
  onProgress?: (states: number, depth: number) => void;
}

const sentences = {
  voice: 'one voice: both nodes may speak',
  output: 'output rule: the network has heard what this node never said',
  copy: 'a copy survives: the last one was given up',
  boot: 'a copy survives: the guest was booted anew while the other node held a copy',
  mute: 'nobody is mute: a copy is left, and nobody will ever speak',
} as const;

/** What of a run is kept of each state: where it comes from, and by which of the steps. */
class Graph {
  readonly parents: number[] = [-1];
  readonly by: number[] = [0];
  readonly depths: number[] = [0];
  /** Somebody may speak, or there is nothing left to speak. */
  readonly isGood: boolean[] = [];
  /** Successors without a fault: from, to. */
  readonly from: number[] = [];
  readonly to: number[] = [];
  private readonly ids = new Map<number, number>();

  find(key: number): number | undefined {
    return this.ids.get(key);
  }

  add(key: number, parent: number, by: number): number {
    const id = this.ids.size;
    this.ids.set(key, id);
    if (id > 0) {
      this.parents[id] = parent;
      this.by[id] = by;
      this.depths[id] = (this.depths[parent] ?? 0) + 1;
    }
    return id;
  }

  get size(): number {
    return this.ids.size;
  }
}

export function search(budget: Budget, options: SearchOptions): Outcome {
  const { mistake, statesMax, onProgress } = options;
  const graph = new Graph();
  const first = initial(budget);
  let frontier = [{ id: graph.add(hashOf(first), -1, 0), state: first }];
  graph.isGood[0] = isGood(first);
  const outcome = { states: 0, transitions: 0, depth: 0 };
  const fail = (sentence: string, id: number, step?: number): Outcome => ({
    ...outcome,
    states: graph.size,
    violation: { sentence, path: pathTo({ graph, budget, mistake }, id, step) },
  });
  while (frontier.length > 0) {
    const next: typeof frontier = [];
    for (const { id, state: before } of frontier) {
      for (const [at, step] of steps(before, mistake).entries()) {
        outcome.transitions += 1;
        const after = copyState(before);
        step.run(after);
        const wrong = wrongWith(before, after, step);
        if (wrong !== undefined) return fail(wrong, id, at);
        const key = hashOf(after);
        let reached = graph.find(key);
        if (reached === undefined) {
          reached = graph.add(key, id, at);
          graph.isGood[reached] = isGood(after);
          next.push({ id: reached, state: after });
        }
        if (step.isOptional !== true) {
          graph.from.push(id);
          graph.to.push(reached);
        }
      }
      if (graph.size > statesMax) throw new Error(`more than ${statesMax} states: lower the budget`);
    }
    frontier = next;
    if (next.length > 0) outcome.depth += 1;
    onProgress?.(graph.size, outcome.depth);
  }
  const mute = firstMute(graph);
  if (mute !== undefined) return fail(sentences.mute, mute);
  return { ...outcome, states: graph.size, violation: undefined };
}

function wrongWith(before: State, after: State, step: Step): string | undefined {
  const { a, b } = after.nodes;
  if (maySpeak(a) && maySpeak(b)) return sentences.voice;
  for (const node of [a, b]) if (maySpeak(node) && node.guest?.startsWith(after.said) !== true) return sentences.output;
  if (after.isBootedOverCopy) return sentences.boot;
  if (step.takesCopy !== true && copies(before) > 0 && copies(after) === 0) return sentences.copy;
  return undefined;
}

const copies = (state: State) => (['a', 'b'] as const).filter((name) => copyOf(state, name) !== undefined).length;

function isGood(state: State): boolean {
  return maySpeak(state.nodes.a) || maySpeak(state.nodes.b) || copies(state) === 0;
}

/** The first state from which no path without a further fault leads to a good one. */
function firstMute(graph: Graph): number | undefined {
  const reaches = graph.isGood.map(Number);
  const into: number[][] = graph.isGood.map(() => []);
  for (const [at, to] of graph.to.entries()) into[to]?.push(graph.from[at] ?? 0);
  const open = [...reaches.keys()].filter((id) => reaches[id] === 1);
  for (let id = open.pop(); id !== undefined; id = open.pop())
    for (const from of into[id] ?? []) {
      if (reaches[from] === 1) continue;
      reaches[from] = 1;
      open.push(from);
    }
  const found = reaches.indexOf(0);
  return found === -1 ? undefined : found;
}

function pathTo(
  { graph, budget, mistake }: { graph: Graph; budget: Budget; mistake: Mistake | undefined },
  id: number,
  last?: number,
): string[] {
  const way: number[] = last === undefined ? [] : [last];
  for (let at = id; at > 0; at = graph.parents[at] ?? 0) way.unshift(graph.by[at] ?? 0);
  const state = initial(structuredClone(budget));
  return way.map((at) => {
    const step = steps(state, mistake)[at];
    step?.run(state);
    return step?.name ?? '';
  });
}

/** 53 bits of the state's text (cyrb53's mixing, in the public domain). */
function hashOf(state: State): number {
  const text = JSON.stringify(state);
  let high = 0xdeadbeef;
  let low = 0x41c6ce57;
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    high = Math.imul(high ^ code, 2_654_435_761);
    low = Math.imul(low ^ code, 1_597_334_677);
  }
  high = Math.imul(high ^ (high >>> 16), 2_246_822_507) ^ Math.imul(low ^ (low >>> 13), 3_266_489_909);
  low = Math.imul(low ^ (low >>> 16), 2_246_822_507) ^ Math.imul(high ^ (high >>> 13), 3_266_489_909);
  return 4_294_967_296 * (2_097_151 & low) + (high >>> 0);
}
