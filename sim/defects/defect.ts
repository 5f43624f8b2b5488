// Deliberate defects, to show that the checkers bite. Each replaces a method of the product for as long as a test runs,
// from outside: nothing of this is in the product. Every one is a mistake that somebody could have made.

import type { FaultKind } from '../world/plan.ts';

/**
 * What a replaced method is called with, and the one that it replaces: it reaches into what is private, so it knows no
 * types.
 */
export type Self = Record<string, never> & { [name: string]: unknown };
type Method = (this: Self, ...args: unknown[]) => unknown;
export type Replace = (before: Method) => Method;

export interface Defect {
  name: string;
  /** What a developer would have done wrong. */
  mistake: string;
  /** Within this many seeds it is found. */
  seeds: number;
  /** Where the test begins to look, for a defect that needs many seeds: it shall not take minutes. */
  from?: number;
  /** The checker that finds it there, and whether no other one does in that seed. */
  finds: string;
  alone?: true;
  /** The fault without which that seed does not show it. */
  needs?: FaultKind;
  changes: readonly { owner: { prototype: object }; method: string; replace: Replace }[];
}

export const call = (self: Self, method: string, ...args: unknown[]): unknown => {
  const value: unknown = self[method];
  if (typeof value !== 'function') throw new Error(`the product has no method ${method} any more`);
  return Reflect.apply(value, self, args);
};

export const nothing: Replace = () => () => undefined;
export const always =
  (value: unknown): Replace =>
  () =>
  () =>
    value;

/** Switches a defect on; returns what switches it off again. */
export function switchOn(defect: Defect): () => void {
  const undo = defect.changes.map(({ owner, method, replace }) => {
    const before: unknown = Reflect.get(owner.prototype, method);
    if (typeof before !== 'function') throw new Error(`${defect.name}: the product has no method ${method} any more`);
    Reflect.set(owner.prototype, method, replace(before as Method));
    return () => void Reflect.set(owner.prototype, method, before);
  });
  return () => {
    for (const one of undo) one();
  };
}
