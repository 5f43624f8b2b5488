// What a registry stands on: a small key-value store that every node of the cluster sees.
//
//   change(key, revision, value)   compare-and-swap: revision 0 means "there is none yet"; value null removes the entry
//   announce(key, value, ttl)      an entry that vanishes by itself unless it is announced again in time
//   list()                         everything, as one moment saw it
//
// Promises of every implementation (store.conformance.ts):
//  - of several changes from one revision exactly one is made, and a change that was made is in every later listing;
//  - a revision is never used twice for a key, also when it was removed in between;
//  - an announced entry is there until its time is over, and gone soon after; `withdraw` removes it at once;
//  - an error (ColoError, code arbiter) leaves the outcome unknown: list again before acting on it.
//
// Nothing in here decides who may run a VM: that is the arbiter's alone (failover/arbiter). A registry that is old or
// wrong costs availability, never a second voice.

import { ColoError, errorCodes } from '../base/errors.ts';
import { valueBytesMax } from './limits.ts';

export interface Entry {
  key: string;
  /** '' of an entry that is damaged: it is there, and cannot be read. */
  value: string;
  /**
   * The number of this entry's last change; greater than 0, greater than any earlier one of this key. 0 for a damaged
   * one.
   */
  revision: number;
}

export interface Store {
  list(): Promise<Entry[]>;
  /** Returns whether it was made: false when the entry is at another revision by now. */
  change(key: string, revision: number, value: string | null): Promise<boolean>;
  announce(key: string, value: string, ttlMs: number): Promise<void>;
  withdraw(key: string): Promise<void>;
  close(): Promise<void>;
}

const keyPattern = /^[a-z]{1,16}\/[a-zA-Z0-9][a-zA-Z0-9_-]{0,62}$/;

/** Keys are KIND/NAME, and become file names and parts of etcd's keys. */
export function checkEntry(key: string, value: string | null): void {
  if (!keyPattern.test(key))
    throw new ColoError(errorCodes.input, `${JSON.stringify(key)} is no key of the registry`, {
      hint: 'Names have up to 63 letters, digits, dashes and underscores, beginning with a letter or a digit.',
    });
  if (value !== null && Buffer.byteLength(value) > valueBytesMax)
    throw new ColoError(errorCodes.input, `the entry ${key} would have more than ${valueBytesMax} bytes`, {
      hint: 'A spec has to fit; leave out what has a default.',
    });
}
