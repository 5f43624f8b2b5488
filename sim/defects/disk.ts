// Deliberate defects of disks: journal, marks, replica, copy. What they are: defect.ts.

import { ChangedCopy } from '../../src/disk/changed-copy.ts';
import { JournalIndex } from '../../src/disk/journal.ts';
import { Notes } from '../../src/disk/notes.ts';
import { Replica as DiskReplica } from '../../src/disk/replica.ts';
import { DiskSink } from '../../src/disk/sink.ts';
import { always, call, type Defect, nothing, type Replace } from './defect.ts';

/** All records that are here belong to whatever checkpoint is asked for. */
const coverAll: Replace = () =>
  function () {
    const segments = [...(this['segments'] as unknown as { serial: number }[])];
    (this['segments'] as unknown as unknown[]).push(call(this, 'newSegment'));
    return { position: this['position'], segments };
  };

export const diskDefects: readonly Defect[] = [
  {
    name: 'journal-one-epoch-too-far',
    mistake: 'Applying a checkpoint writes the records behind its mark as well.',
    seeds: 20,
    finds: 'disk-epoch',
    alone: true,
    changes: [{ owner: JournalIndex, method: 'covered', replace: coverAll }],
  },
  {
    name: 'no-mark',
    mistake: 'The mark is skipped: a checkpoint covers whatever records have arrived when it is applied.',
    seeds: 20,
    finds: 'disk-epoch',
    alone: true,
    changes: [
      { owner: DiskSink, method: 'mark', replace: always(0) },
      { owner: JournalIndex, method: 'covered', replace: coverAll },
    ],
  },
  {
    name: 'commit-before-the-journal',
    mistake: 'A checkpoint is committed before the journal has all of its records, and room for them.',
    seeds: 30,
    finds: 'disk-epoch',
    alone: true,
    changes: [{ owner: DiskReplica, method: 'complete', replace: () => () => Promise.resolve() }],
  },
  {
    name: 'unfinished-epoch-applied',
    mistake: 'At a takeover what no checkpoint covers is written to the replica instead of thrown away.',
    seeds: 60,
    finds: 'disk-epoch',
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
    seeds: 270,
    from: 241,
    finds: 'disk-epoch',
    alone: true,
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
    finds: 'disk-epoch',
    alone: true,
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
    seeds: 110,
    from: 81,
    finds: 'disk-epoch',
    alone: true,
    changes: [{ owner: DiskReplica, method: 'flushCopy', replace: () => () => Promise.resolve() }],
  },
  {
    name: 'zeroes-forgotten',
    mistake: 'Zeroes that the guest writes are not replicated.',
    seeds: 20,
    finds: 'disk-epoch',
    alone: true,
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
  {
    name: 'passing-writes-forgotten',
    mistake: 'What the guest writes while a changed block is read is sent, and then the block as it was read.',
    seeds: 80,
    from: 61,
    finds: 'disk-epoch',
    alone: true,
    changes: [{ owner: ChangedCopy, method: 'wrote', replace: nothing }],
  },
  {
    name: 'note-replaced-too-early',
    mistake: 'A new note of changed blocks takes the place of the old one at once, for replicas of before as well.',
    seeds: 295,
    from: 285,
    finds: 'disk-epoch',
    alone: true,
    changes: [
      {
        owner: Notes,
        method: 'begun',
        replace: (before) =>
          function (name, writtenBytes) {
            const { current } = this as unknown as { current: { since: number | undefined } | undefined };
            if (current === undefined) return before.call(this, name, writtenBytes);
            return void Object.assign(this, { current: { name, since: current.since, writtenBytes } });
          },
      },
    ],
  },
];
