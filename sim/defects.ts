// Deliberate defects, to show that the checkers bite. Each replaces a method of the product for as long as a test runs,
// from outside: nothing of this is in the product. Every one is a mistake that somebody could have made.

import { Replica } from '../src/checkpoint/apply.ts';
import { checkpointTypes } from '../src/checkpoint/message.ts';
import { Staging } from '../src/checkpoint/stage.ts';
import { PrimaryPair } from '../src/controller/primary-pair.ts';
import { SecondaryPair } from '../src/controller/secondary-pair.ts';
import { JournalIndex } from '../src/disk/journal.ts';
import { Replica as DiskReplica } from '../src/disk/replica.ts';
import { DiskSink } from '../src/disk/sink.ts';
import { Lease } from '../src/heartbeat/lease.ts';
import { encodeNumber, messages } from '../src/node/message.ts';
import { ColoNode } from '../src/node/node.ts';
import type { PeerLink } from '../src/node/platform.ts';
import { PrimaryGate } from '../src/node/primary-gate.ts';
import { SecondaryBulk } from '../src/node/secondary-bulk.ts';
import { Terms } from '../src/node/terms.ts';
import { DatagramComparer } from '../src/proxy/compare/datagram.ts';
import { TcpComparer } from '../src/proxy/compare/tcp.ts';
import { TcpClamp } from '../src/proxy/compare/tcp-clamp.ts';
import { ConnectionTable } from '../src/proxy/connection.ts';
import { PrimaryProxy } from '../src/proxy/primary.ts';
import { SecondaryProxy } from '../src/proxy/secondary.ts';
import { RunTracker } from '../src/qemu/dirty/tracker.ts';

/** What a replaced method is called with, and the one that it replaces. */
// biome-ignore lint: a defect reaches into what is private, so it knows no types.
type Self = Record<string, never> & { [name: string]: unknown };
type Method = (this: Self, ...args: unknown[]) => unknown;
type Replace = (before: Method) => Method;

export interface Defect {
  name: string;
  /** What a developer would have done wrong. */
  mistake: string;
  /** Within this many seeds it is found. */
  seeds: number;
  /** Where the test begins to look, for a defect that needs many seeds: it shall not take minutes. */
  from?: number;
  changes: readonly { owner: { prototype: object }; method: string; replace: Replace }[];
}

const call = (self: Self, method: string, ...args: unknown[]): unknown => {
  const value: unknown = self[method];
  if (typeof value !== 'function') throw new Error(`the product has no method ${method} any more`);
  return Reflect.apply(value, self, args);
};

const nothing: Replace = () => () => undefined;
const always =
  (value: unknown): Replace =>
  () =>
  () =>
    value;

/** All records that are here belong to whatever checkpoint is asked for. */
const coverAll: Replace = () =>
  function () {
    const segments = [...(this['segments'] as unknown as { serial: number }[])];
    (this['segments'] as unknown as unknown[]).push(call(this, 'newSegment'));
    return { position: this['position'], segments };
  };

export const defects: readonly Defect[] = [
  {
    name: 'release-on-capture',
    mistake: 'Held frames leave when the checkpoint is captured, not when it is committed.',
    seeds: 40,
    changes: [
      {
        owner: PrimaryProxy,
        method: 'capture',
        replace: (before) =>
          function (...args) {
            const result = before.apply(this, args);
            for (const one of call(this, 'inOrder') as { leave(): void }[]) one.leave();
            return result;
          },
      },
    ],
  },
  {
    name: 'no-ack-clamp',
    mistake: "The primary's acknowledgements and windows leave as they are.",
    seeds: 40,
    changes: [
      {
        owner: TcpClamp,
        method: 'clamp',
        replace: () =>
          function (_stream, parts) {
            const { ack, window, timestamp } = parts as { ack: number; window: number; timestamp: number };
            Object.assign(this['out'] as unknown as object, {
              ack,
              window,
              timestamp,
              edge: (ack + (window << 2)) >>> 0,
            });
          },
      },
    ],
  },
  {
    name: 'commit-before-complete',
    mistake: 'The secondary acknowledges a checkpoint when it begins to arrive.',
    seeds: 20,
    changes: [
      {
        owner: SecondaryBulk,
        method: 'receive',
        replace: (before) =>
          function (type, payload) {
            const bytes = Buffer.from(payload as Uint8Array);
            if (type === checkpointTypes.begin && bytes[20] === 2) {
              const { links } = this['node'] as unknown as { links: { packet: PeerLink } };
              links.packet.send(messages.committed, encodeNumber(bytes.readUInt32BE(4)));
            }
            return before.call(this, type, payload);
          },
      },
    ],
  },
  {
    name: 'partial-checkpoint',
    mistake: 'Staging takes a checkpoint for complete although the last batch of pages is missing.',
    seeds: 20,
    changes: [
      {
        owner: Staging,
        method: 'onEnd',
        replace: (before) =>
          function (receiving, payload) {
            const { stored, begin } = receiving as { stored: unknown[]; begin: { kind: string } };
            if (begin.kind === 'checkpoint') stored.pop();
            return before.call(this, receiving, payload);
          },
      },
    ],
  },
  {
    name: 'no-rollback',
    mistake: 'What the SVM wrote itself stays in its RAM when a checkpoint is applied.',
    seeds: 10,
    changes: [{ owner: Replica, method: 'rollback', replace: always(0) }],
  },
  {
    name: 'no-restore-after-load',
    mistake: 'What loading the devices wrote to RAM stays there.',
    seeds: 10,
    changes: [{ owner: Replica, method: 'restoreAfterLoad', replace: always(0) }],
  },
  {
    name: 'no-put-back',
    mistake: 'Pages of a checkpoint that failed are not sent with the next one.',
    seeds: 60,
    changes: [{ owner: RunTracker, method: 'putBack', replace: nothing }],
  },
  {
    name: 'ignore-term',
    mistake: 'A node goes on alone whatever the arbiter says.',
    seeds: 30,
    changes: [
      {
        owner: Terms,
        method: 'claimAlone',
        replace: (before) =>
          async function (...args) {
            await before.apply(this, args);
            return 'won';
          },
      },
    ],
  },
  {
    name: 'error-is-won',
    mistake: 'A claim that the arbiter did not answer counts as won.',
    seeds: 170,
    from: 151,
    changes: [
      {
        owner: SecondaryPair,
        method: 'onAloneClaimed',
        replace: (before) =>
          function (outcome) {
            return before.call(this, outcome === 'error' ? 'won' : outcome);
          },
      },
      {
        owner: PrimaryPair,
        method: 'onAloneClaimed',
        replace: (before) =>
          function (outcome) {
            return before.call(this, outcome === 'error' ? 'won' : outcome);
          },
      },
    ],
  },
  {
    name: 'no-lease',
    mistake: 'The primary does not ask whether it may still speak.',
    seeds: 275,
    from: 261,
    changes: [{ owner: Lease, method: 'valid', replace: always(true) }],
  },
  {
    name: 'lease-not-asked-for-guest-frames',
    mistake: 'The lease is looked at by the clock alone (a defect that the simulation found in the product).',
    seeds: 275,
    from: 261,
    changes: [{ owner: PrimaryGate, method: 'checkLease', replace: nothing }],
  },
  {
    name: 'no-resend',
    mistake: 'What the SVM has said and the primary has not released is not said at a takeover.',
    seeds: 40,
    changes: [
      {
        owner: SecondaryProxy,
        method: 'takeover',
        replace: (before) =>
          function (...args) {
            return { ...(before.apply(this, args) as object), resend: [] };
          },
      },
    ],
  },
  {
    name: 'table-does-not-travel',
    mistake: 'The connection table is not adopted with a checkpoint.',
    seeds: 20,
    changes: [{ owner: ConnectionTable, method: 'adopt', replace: always(true) }],
  },
  {
    name: 'stale-answers-compared',
    mistake: 'Answers of the SVM from before a checkpoint are compared as if they were of the new epoch.',
    seeds: 30,
    changes: [
      {
        owner: PrimaryProxy,
        method: 'fromSecondary',
        replace: (before) =>
          function (_epoch, ...rest) {
            return before.call(this, this['epoch'], ...rest);
          },
      },
    ],
  },
  {
    name: 'no-line-at-capture',
    mistake: 'What the PVM says after a capture is compared with the SVM of the old epoch.',
    seeds: 60,
    changes: [
      {
        owner: PrimaryProxy,
        method: 'wait',
        replace: (before) =>
          function (queue, view, now, order) {
            const options = this['options'] as unknown as { mode: string };
            if (options.mode === 'remus' || queue !== this['next']) return before.call(this, queue, view, now, order);
            return call(this, 'take', view, now, order);
          },
      },
    ],
  },
  {
    name: 'refusal-taken-for-commit',
    mistake: 'A refused checkpoint counts as committed.',
    seeds: 80,
    changes: [
      {
        owner: PrimaryPair,
        method: 'onCheckpoint',
        replace: (before) =>
          function (event) {
            const { kind, epoch } = event as { kind: string; epoch: number };
            return before.call(this, kind === 'refused' ? { kind: 'committed', epoch } : event);
          },
      },
    ],
  },
  {
    name: 'refused-round-ignored',
    mistake:
      'A refused round of the initial copy is only reported (a defect that the simulation found in the product).',
    seeds: 80,
    changes: [
      {
        owner: SecondaryBulk,
        method: 'receive',
        replace: (before) =>
          function (...args) {
            try {
              return before.apply(this, args);
            } catch {
              return undefined;
            }
          },
      },
    ],
  },
  {
    name: 'payload-not-compared',
    mistake: 'Bytes count as equal when there are as many of them.',
    seeds: 20,
    changes: [
      {
        owner: TcpComparer,
        method: 'divergePayload',
        replace: () =>
          function (stream, head) {
            return call(this, 'finishHead', stream, head);
          },
      },
    ],
  },
  {
    name: 'datagrams-not-compared',
    mistake: 'Datagrams leave at once.',
    seeds: 40,
    changes: [
      {
        owner: DatagramComparer,
        method: 'matchAhead',
        replace: () => (_flow, held) => void Object.assign(held as object, { isMatched: true }),
      },
    ],
  },
  {
    name: 'fin-not-compared',
    mistake: 'The end of a stream leaves although the SVM has not ended it.',
    seeds: 40,
    changes: [{ owner: TcpComparer, method: 'finAgrees', replace: always(true) }],
  },
  {
    name: 'held-frames-stay-behind',
    mistake: 'Frames that wait for a commit do not travel with their checkpoint.',
    seeds: 110,
    from: 91,
    changes: [{ owner: PrimaryProxy, method: 'encodeHeld', replace: always(new Uint8Array(0)) }],
  },
  {
    name: 'no-announcement',
    mistake: "The guest's address is not announced after a takeover.",
    seeds: 110,
    from: 91,
    changes: [{ owner: ColoNode, method: 'announce', replace: nothing }],
  },
  {
    name: 'stop-without-the-term',
    mistake: "An operator's stop only tells the secondary, which may not hear it (a defect of the product, once).",
    seeds: 60,
    changes: [
      {
        owner: ColoNode,
        method: 'endTerm',
        replace: () =>
          async function (primary) {
            (primary as { sayEnd(): void }).sayEnd();
            call(this, 'post', { kind: 'stop', why: 'stopped by the operator' });
          },
      },
    ],
  },
  {
    name: 'old-offset-kept',
    mistake: 'A new connection on an old 5-tuple keeps the offset of the old one.',
    seeds: 60,
    changes: [
      {
        owner: SecondaryProxy,
        method: 'pair',
        replace: (before) =>
          function (connection) {
            const known = connection as { delta: number };
            const { delta } = known;
            before.call(this, connection);
            if (delta === 0 || known.delta === delta) return;
            known.delta = delta;
            call(this['table'] as unknown as Self, 'store', connection);
          },
      },
      {
        owner: ConnectionTable,
        method: 'restart',
        replace: (before) =>
          function (connection) {
            const { delta } = connection as { delta: number };
            before.call(this, connection);
            Object.assign(connection as object, { delta });
          },
      },
    ],
  },
  {
    name: 'journal-one-epoch-too-far',
    mistake: 'Applying a checkpoint writes the records behind its mark as well.',
    seeds: 20,
    changes: [{ owner: JournalIndex, method: 'covered', replace: coverAll }],
  },
  {
    name: 'no-mark',
    mistake: 'The mark is skipped: a checkpoint covers whatever records have arrived when it is applied.',
    seeds: 20,
    changes: [
      { owner: DiskSink, method: 'mark', replace: always(0) },
      { owner: JournalIndex, method: 'covered', replace: coverAll },
    ],
  },
  {
    name: 'commit-before-the-journal',
    mistake: 'A checkpoint is committed before the journal has all of its records, and room for them.',
    seeds: 30,
    changes: [{ owner: DiskReplica, method: 'complete', replace: () => () => Promise.resolve() }],
  },
  {
    name: 'unfinished-epoch-applied',
    mistake: 'At a takeover what no checkpoint covers is written to the replica instead of thrown away.',
    seeds: 60,
    changes: [
      {
        owner: DiskReplica,
        method: 'takeOver',
        replace: (before) =>
          async function (term) {
            const { position } = this['journal'] as unknown as { position: number };
            const epoch = (this['epoch'] as unknown as number) + 1;
            call(this, 'mark', { epoch, position });
            await call(this, 'apply', epoch);
            return before.call(this, term);
          },
      },
    ],
  },
  {
    name: 'aborted-records-lost',
    mistake: 'Records that were written before a capture failed are thrown away with it.',
    seeds: 40,
    changes: [
      {
        owner: JournalIndex,
        method: 'abort',
        replace: (before) =>
          function (epoch) {
            call(this, 'applied', epoch);
            return before.call(this, epoch);
          },
      },
    ],
  },
  {
    name: 'apply-not-announced',
    mistake: 'The replica is written without its header saying so before.',
    seeds: 80,
    changes: [
      {
        owner: DiskReplica,
        method: 'writeHeader',
        replace: (before) =>
          function (state, ...rest) {
            return state === 'applying' ? undefined : before.call(this, state, ...rest);
          },
      },
    ],
  },
  {
    name: 'copy-not-flushed',
    mistake:
      'The initial copy of a durable replica is not flushed (a defect that the simulation found in the product).',
    seeds: 250,
    from: 221,
    changes: [{ owner: DiskReplica, method: 'flushCopy', replace: () => () => Promise.resolve() }],
  },
  {
    name: 'zeroes-forgotten',
    mistake: 'Zeroes that the guest writes are not replicated.',
    seeds: 20,
    changes: [
      {
        owner: DiskSink,
        method: 'request',
        replace: (before) =>
          function (disk, request, answer) {
            if ((request as { kind: string }).kind !== 'writeZeroes') return before.call(this, disk, request, answer);
            return (answer as (error: number) => void)(0);
          },
      },
    ],
  },
];

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
