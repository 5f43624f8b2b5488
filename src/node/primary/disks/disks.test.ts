// The disks of a primary over several secondaries: which copy is whole, which is only of what changed; and a full disk.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Clock, systemClock } from '../../../base/clock.ts';
import { ColoError, errorCodes } from '../../../base/errors.ts';
import { silentLog } from '../../../base/log.ts';
import { notedBytesMax } from '../../../disk/limits.ts';
import { diskMessages, parseSession, type Session } from '../../../disk/message.ts';
import type { Progress } from '../../../qemu/mirror.ts';
import type { NodeContext } from '../../context.ts';
import type { DiskMirrors, DiskSource, MirrorHandlers, PeerLink } from '../../platform.ts';
import type { DiskMirror } from './disk-mirror.ts';
import { PrimaryDisks } from './disks.ts';

const sizeBytes = 2 ** 30;
const changedBytes = 2 ** 20;

/** Disks of which only the notes matter, and a link that keeps what the sessions say. */
function open(clock: Clock = systemClock) {
  const notes = new Set<string>();
  const mirrored: string[] = [];
  const sessions: Session[] = [];
  const troubles: ((trouble: { why: string; waits: boolean }) => void)[] = [];
  const state: {
    handlers?: MirrorHandlers;
    fails?: boolean;
    waits: boolean;
    resumed: number;
    /** What the end of a mirror waits for. */
    cancelled?: Promise<void>;
    /** The copy, and the answer to how far it is, where they take their time. */
    copied?: Promise<void>;
    progress?: Promise<Progress>;
  } = {
    waits: false,
    resumed: 0,
  };
  const mirrors = (what: string, handlers: MirrorHandlers): Promise<DiskMirrors> => {
    mirrored.push(what);
    state.handlers = handlers;
    const copied =
      state.fails === true
        ? Promise.reject(new ColoError(errorCodes.qemu, 'no such bitmap'))
        : (state.copied ?? Promise.resolve());
    copied.catch(() => undefined);
    const progress = { doneBytes: changedBytes, totalBytes: changedBytes };
    const cancel = () => state.cancelled ?? Promise.resolve();
    return Promise.resolve({ copied, cancel, progress: () => state.progress ?? Promise.resolve(progress) });
  };
  const source: DiskSource = {
    mirror: (handlers) => mirrors('all', handlers),
    sizes: () => Promise.resolve([sizeBytes]),
    fold: () => Promise.resolve(),
    flush: () => Promise.resolve(),
    hashes: () => Promise.resolve(['']),
    watch: (trouble) => void troubles.push(trouble),
    waits: (resume) => {
      if (resume) state.resumed += 1;
      return Promise.resolve(state.waits);
    },
    notes: {
      renewBytes: notedBytesMax,
      lineage: '0123456789abcdef0123456789abcdef',
      begin: (name) => Promise.resolve(void notes.add(name)),
      forget: (name) => Promise.resolve(void notes.delete(name)),
      mirrorChanged: (name, handlers) => mirrors(notes.has(name) ? 'changed' : 'of a note that is gone', handlers),
    },
  };
  const link = {
    send: (type: number, payload: Uint8Array) => {
      const session = type === diskMessages.session ? parseSession(payload) : undefined;
      if (session !== undefined && !(session instanceof ColoError)) sessions.push(session);
    },
    drain: () => Promise.resolve(),
  } as PeerLink;
  const config = { disks: [{ path: '/image', format: 'raw', flush: 'local' }] };
  const context = { config, clock, log: silentLog } as unknown as NodeContext;
  const disks = new PrimaryDisks(context, source, () => undefined);
  const write = (length: number) =>
    state.handlers?.request(
      0,
      { kind: 'writeZeroes', cookie: 0n, exportName: '', offset: 0, length, mayUnmap: true, fua: false },
      () => undefined,
    );
  const writeData = (length: number) =>
    state.handlers?.request(
      0,
      { kind: 'write', cookie: 0n, exportName: '', offset: 0, length, data: Buffer.alloc(length), fua: false },
      () => undefined,
    );
  const turn = () => new Promise((resolve) => void setImmediate(resolve));
  const pair = async () => {
    const mirror: DiskMirror = disks.mirrorTo(link);
    await mirror.announce();
    const session = sessions.at(-1);
    assert.ok(session !== undefined);
    return { session, mirror, protect: () => mirror.protect() };
  };
  return { disks, pair, write, writeData, turn, notes, mirrored, state, troubles };
}

test('a secondary is offered to keep a replica of a mark behind the note, and gets only what changed', async () => {
  const { disks, pair, write, notes, mirrored } = open();
  const first = await pair();
  assert.equal(first.session.since, undefined);
  await first.protect();
  assert.deepEqual([...mirrored, notes.size], ['all', 1]);
  write(4096);
  first.mirror.mark(1);
  first.mirror.end('the secondary is gone');

  const second = await pair();
  const { since = -1, from = 0 } = second.session;
  assert.ok(since > (first.session.from ?? 0) && since < from);
  assert.throws(() => second.mirror.kept(since - 1), /not offered/);
  assert.throws(() => second.mirror.kept(from), /not offered/);
  second.mirror.kept(since);
  await second.protect();
  assert.equal(mirrored.at(-1), 'changed');
  assert.equal(disks.status.skippedBytes, sizeBytes - changedBytes);

  // Another secondary has nothing.
  second.mirror.end('gone again');
  const third = await pair();
  await third.protect();
  assert.equal(mirrored.at(-1), 'all');
  assert.equal(disks.status.skippedBytes, 0);
});

test('a newer note takes over when the secondary has applied behind its beginning', async () => {
  const { pair, writeData, turn, notes } = open();
  const { mirror, protect } = await pair();
  await protect();
  mirror.mark(1);
  mirror.applied(1);
  await turn();
  assert.equal(notes.size, 1, 'nothing was written');
  for (let written = 0; written < notedBytesMax; written += 1024 * 1024) writeData(1024 * 1024);
  mirror.mark(2);
  mirror.applied(2);
  await turn();
  assert.equal(notes.size, 2);
  mirror.mark(3);
  mirror.applied(2);
  assert.equal(notes.size, 2, 'of another epoch');
  mirror.applied(3);
  await turn();
  assert.equal(notes.size, 1);
  mirror.end('gone');
  const { session } = await pair();
  assert.equal(session.since, notedBytesMax / (1024 * 1024) + 1);
});

test('when a copy of what changed fails, the next is of everything', async () => {
  const { pair, mirrored, notes, state, turn } = open();
  const first = await pair();
  await first.protect();
  first.mirror.mark(1);
  first.mirror.end('gone');
  const { session, mirror, protect } = await pair();
  mirror.kept(session.since ?? -1);
  state.fails = true;
  await assert.rejects(protect(), /no such bitmap/);
  mirror.end('the copy failed');
  state.fails = false;
  await turn();
  assert.equal(notes.size, 0);
  const next = await pair();
  assert.equal(next.session.since, undefined);
  await next.protect();
  assert.equal(mirrored.at(-1), 'all');
});

test('a secondary that is lost while the mirrors of the one before it end is not mirrored to', async () => {
  const { pair, mirrored, state } = open();
  const first = await pair();
  await first.protect();
  const { promise, resolve } = Promise.withResolvers<void>();
  // A QEMU that hangs.
  state.cancelled = promise;
  first.mirror.end('gone');
  const second = await pair();
  const protecting = second.protect();
  second.mirror.end('gone as well');
  resolve();
  await assert.rejects(protecting, /lost before its disks were mirrored/);
  assert.deepEqual(mirrored, ['all']);
  await (await pair()).protect();
  assert.deepEqual(mirrored, ['all', 'all']);
});

test("a full disk of the guest's own host is in the status until the guest goes on", async () => {
  const { disks, state, troubles } = open();
  state.waits = true;
  troubles[0]?.({ why: 'no room for /image: the guest waits until there is', waits: true });
  assert.match(disks.status.problem, /no room for \/image/);
  while (state.resumed === 0) await new Promise((resolve) => void setImmediate(resolve));
  assert.notEqual(disks.status.problem, '');
  state.waits = false;
  while (disks.status.problem !== '') await new Promise((resolve) => void setImmediate(resolve));
  disks.close();
});

test('a copy that is done is not shown as one under way, however late its last figure comes', async () => {
  const asked: (() => void)[] = [];
  const { disks, pair, turn, state } = open({
    ...systemClock,
    every: (_, action) => {
      asked.push(action);
      return () => undefined;
    },
  });
  const copied = Promise.withResolvers<void>();
  const figure = Promise.withResolvers<Progress>();
  state.copied = copied.promise;
  state.progress = figure.promise;
  const { protect } = await pair();
  const done = protect();
  await turn();
  for (const ask of asked) ask();
  copied.resolve();
  await done;
  figure.resolve({ doneBytes: sizeBytes, totalBytes: sizeBytes });
  await turn();
  assert.ok(asked.length > 0);
  assert.equal(disks.status.copying, null);
});
