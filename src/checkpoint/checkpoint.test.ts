// Encode, stage and apply together: whatever was dirty on either side, and whatever went wrong on the way, RAM and
// shadow of the secondary are byte for byte the primary's at the capture of the last complete checkpoint.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { ColoError } from '../base/errors.ts';
import { PageRuns, pageSize } from '../base/page-runs.ts';
import { seededRandom } from '../base/random.ts';
import { SecondaryRam } from './apply.ts';
import { openCompressor } from './compress.ts';
import type { DeltaBase } from './delta.ts';
import { batches, CheckpointEncoder, encodeTemplate, type OutgoingMessage } from './encode.ts';
import { batchRawBytes, batchRunsMax } from './limits.ts';
import { type CaptureState, checkpointTypes, encodePagesHead, parsePages, parseTemplate } from './message.ts';
import { type Spill, SpillFile } from './spill.ts';
import { Staging } from './stage.ts';
import type { StageResult } from './staged.ts';

const compressor = openCompressor();
const noState: CaptureState = {
  deviceState: Buffer.from('devices'),
  table: Buffer.from('table'),
  held: Buffer.alloc(0),
  standsMs: 0,
  ramHash: '',
};

type Wire = { type: number; payload: Buffer };

async function collect(messages: AsyncGenerator<OutgoingMessage>): Promise<Wire[]> {
  const wire: Wire[] = [];
  for await (const { type, parts } of messages) wire.push({ type, payload: Buffer.concat(parts) });
  return wire;
}

/** The pages of `runs`, one behind the other. */
function gather(ram: Buffer, runs: PageRuns): Buffer {
  const parts: Buffer[] = [];
  runs.forEach((start, end) => void parts.push(ram.subarray(start, end)));
  return Buffer.concat(parts);
}

function checkpoint(
  ram: Buffer,
  runs: PageRuns,
  ids: { epoch: number; base: number },
  known?: DeltaBase,
): Promise<Wire[]> {
  const encoder = new CheckpointEncoder({ ...ids, kind: 'checkpoint', sequence: 0, compressor });
  const state = { ...noState, ramHash: hash(ram) };
  return collect(encoder.checkpoint({ runs, contents: gather(ram, runs), state }, known));
}

function hash(bytes: Buffer): string {
  return createHash('sha1').update(bytes).digest('hex');
}

function receiveAll(staging: Staging, wire: readonly Wire[]): StageResult[] {
  return wire.map(({ type, payload }) => staging.receive(type, payload));
}

/** Dirties random pages: some random, some constant, some zero; returns which, as a tracker would. */
function dirty(ram: Buffer, random: () => number, share: number): PageRuns {
  const runs = new PageRuns();
  for (let start = 0; start < ram.length; start += pageSize) {
    if (random() >= share) continue;
    const kind = random();
    if (kind < 0.4) for (let at = start; at < start + pageSize; at += 4) ram.writeUInt32LE(random() * 2 ** 32, at);
    else ram.fill(kind < 0.7 ? Math.floor(random() * 256) : 0, start, start + pageSize);
    runs.add(start, start + pageSize);
  }
  return runs;
}

/** Some of the pages, as a checkpoint before may have had them. */
function someOf(runs: PageRuns, random: () => number): PageRuns {
  const some = new PageRuns();
  const share = random();
  runs.forEach((start, end) => {
    for (let page = start; page < end; page += pageSize) if (random() < share) some.add(page, page + pageSize);
  });
  return some;
}

/** One of the ways in which a transmission goes wrong. Never returns one that is whole. */
function spoil(wire: readonly Wire[], random: () => number): Wire[] {
  const at = Math.floor(random() * wire.length);
  const spoiled = wire.map(({ type, payload }) => ({ type, payload: Buffer.from(payload) }));
  const victim = spoiled[at] ?? { type: 0, payload: Buffer.alloc(1) };
  switch (Math.floor(random() * 6)) {
    case 0:
      return spoiled.slice(0, at);
    case 1:
      victim.payload = victim.payload.subarray(0, Math.floor(random() * victim.payload.length));
      return spoiled;
    case 2: {
      const byte = Math.floor(random() * victim.payload.length);
      victim.payload[byte] = (victim.payload[byte] ?? 0) ^ (1 << Math.floor(random() * 8));
      return spoiled;
    }
    case 3:
      spoiled.splice(at, 1);
      return spoiled;
    case 4:
      // Not begin, whose repetition is a lawful restart, and not end, before whose repetition all was there.
      spoiled.splice(Math.max(1, at - 1), 0, spoiled[Math.max(1, at - 1)] ?? victim);
      return spoiled;
    default: {
      const other = Math.max(1, (at + 1) % wire.length);
      const first = Math.max(1, at === other ? at - 1 : at);
      if (first === other) return spoiled.slice(0, -1);
      [spoiled[first], spoiled[other]] = [spoiled[other] ?? victim, spoiled[first] ?? victim];
      return spoiled;
    }
  }
}

test('after any number of epochs, with any faults in between, RAM, shadow and the primary are equal', async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer(), async (seed) => {
      const random = seededRandom(seed);
      const ramBytes = pageSize * (1 + Math.floor(random() * 600));
      const primary = Buffer.alloc(ramBytes);
      const secondaryRam = new SecondaryRam(Buffer.alloc(ramBytes), Buffer.alloc(ramBytes));
      const stagedBytesMax = random() < 0.3 ? 64 * pageSize : undefined;
      const folder = tmpdir();
      const staging = new Staging({
        ramBytes,
        shadow: secondaryRam.shadow,
        compressor,
        openSpill: () => SpillFile.open(folder),
        ...(stagedBytesMax === undefined ? {} : { stagedBytesMax }),
      });
      const pending = new PageRuns();
      let known: DeltaBase | undefined;
      for (let epoch = 1; epoch <= 6; epoch += 1) {
        dirty(primary, random, random());
        // Every page is sent when an epoch before was lost: its dirty pages are owed.
        pending.clear();
        pending.add(0, ramBytes);
        const image = Buffer.from(primary);
        const own = dirty(secondaryRam.ram, random, random() * 0.5);
        const ids = { epoch, base: staging.committedEpoch };
        const wire = await checkpoint(primary, pending, ids, known);
        const before = { ram: Buffer.from(secondaryRam.ram), shadow: Buffer.from(secondaryRam.shadow) };
        for (let attempt = 0; attempt < 3; attempt += 1) {
          const results = receiveAll(staging, spoil(wire, random));
          assert.ok(results.every((result) => result.kind === 'more' || result.kind === 'refused'));
          assert.equal(staging.complete(), undefined);
          // Else a cut attempt and one that lacks just what arrived before would be a whole one together.
          staging.abandon();
        }
        assert.ok(before.ram.equals(secondaryRam.ram) && before.shadow.equals(secondaryRam.shadow));
        assert.equal(receiveAll(staging, wire).at(-1)?.kind, 'complete');
        dirty(primary, random, 0.1);
        const staged = staging.complete();
        assert.ok(staged !== undefined);
        assert.equal(secondaryRam.rollback(own), own.pages);
        assert.ok(secondaryRam.ram.equals(secondaryRam.shadow));
        await secondaryRam.write(staged, async () => undefined);
        const touched = dirty(secondaryRam.ram, random, 0.02);
        secondaryRam.restoreAfterLoad(touched);
        assert.deepEqual(await secondaryRam.verify(staged.state.ramHash, hash, async () => undefined), {
          equalToShadow: true,
          equalToPrimary: true,
        });
        assert.ok(secondaryRam.ram.equals(image));
        staging.release(epoch);
        assert.equal(staging.heldBytes, 0);
        known = random() < 0.3 ? undefined : { runs: someOf(pending, random), contents: Buffer.alloc(0) };
        if (known !== undefined) known.contents = gather(image, known.runs);
      }
    }),
    { numRuns: 25 },
  );
});

test('only the dirty pages travel, epoch after epoch, and the whole RAM stays equal', async () => {
  const random = seededRandom(3);
  const ramBytes = 700 * pageSize;
  const primary = Buffer.alloc(ramBytes);
  const secondaryRam = new SecondaryRam(Buffer.alloc(ramBytes), Buffer.alloc(ramBytes));
  const staging = new Staging({ ramBytes, shadow: secondaryRam.shadow, compressor });
  const everything = new PageRuns();
  everything.add(0, ramBytes);
  dirty(primary, random, 1);
  for (const sequence of [1, 2]) {
    const encoder = new CheckpointEncoder({ epoch: 1, base: 0, kind: 'round', sequence, compressor });
    const runs = sequence === 1 ? everything : dirty(primary, random, 0.2);
    for (const { type, payload } of await collect(encoder.round(runs, primary))) {
      const result = staging.receive(type, payload);
      if (result.kind === 'batch') secondaryRam.writeBatch(result.runs, result.contents);
      if (type === checkpointTypes.end) assert.deepEqual(result, { kind: 'round', sequence, pages: runs.pages });
    }
    assert.ok(secondaryRam.ram.equals(primary) && secondaryRam.shadow.equals(primary));
  }
  let known: DeltaBase | undefined;
  for (let epoch = 1; epoch <= 20; epoch += 1) {
    const runs = dirty(primary, random, 0.1);
    const wire = await checkpoint(primary, runs, { epoch, base: epoch - 1 }, known);
    known = { runs, contents: gather(primary, runs) };
    secondaryRam.rollback(dirty(secondaryRam.ram, random, 0.1));
    receiveAll(staging, wire);
    const staged = staging.complete();
    assert.ok(staged !== undefined);
    await secondaryRam.write(staged, async () => undefined);
    staging.release(epoch);
    assert.ok(secondaryRam.ram.equals(primary) && secondaryRam.shadow.equals(primary));
  }
});

test('a checkpoint without pages is complete too, and its state arrives', async () => {
  const staging = new Staging({ ramBytes: pageSize, compressor });
  const state = { ...noState, standsMs: 12.5, held: Buffer.from('held') };
  const encoder = new CheckpointEncoder({ epoch: 1, base: 0, kind: 'checkpoint', sequence: 0, compressor });
  const wire = await collect(encoder.checkpoint({ runs: new PageRuns(), contents: Buffer.alloc(0), state }));
  const results = wire.map(({ type, payload }) => {
    const result = staging.receive(type, payload);
    // The link reuses its buffer: nothing that is kept may lie in it.
    payload.fill(0xee);
    return result;
  });
  assert.equal(results.at(-1)?.kind, 'complete');
  const received = staging.complete()?.state;
  assert.deepEqual({ ...received, held: String(received?.held) }, { ...state, held: 'held', ...bytesOf(received) });
  assert.equal(String(received?.deviceState), 'devices');
});

test('a checkpoint with a state that its owner could not go on from is refused, and the next one is not', async () => {
  const wrongWith = ({ held }: CaptureState) => (String(held) === 'good' ? undefined : 'what it held is no frames');
  const staging = new Staging({ ramBytes: pageSize, compressor, wrongWith });
  const last = async (held: string) => {
    const state = { ...noState, held: Buffer.from(held) };
    const encoder = new CheckpointEncoder({ epoch: 1, base: 0, kind: 'checkpoint', sequence: 0, compressor });
    const capture = { runs: new PageRuns(), contents: Buffer.alloc(0), state };
    return receiveAll(staging, await collect(encoder.checkpoint(capture))).find(({ kind }) => kind !== 'more');
  };
  const refused = await last('bad');
  assert.match(refused?.kind === 'refused' ? refused.error.message : '', /what it held is no frames/);
  assert.equal(staging.complete(), undefined);
  assert.equal((await last('good'))?.kind, 'complete');
});

function bytesOf(state: CaptureState | undefined): { deviceState: unknown; table: unknown } {
  return { deviceState: state?.deviceState, table: state?.table };
}

test('a checkpoint that builds on another one than the newest complete is refused, a repeated one too', async () => {
  const ram = Buffer.alloc(4 * pageSize);
  const runs = dirty(ram, seededRandom(1), 1);
  const staging = new Staging({ ramBytes: ram.length, compressor });
  receiveAll(staging, await checkpoint(ram, runs, { epoch: 3, base: 0 }));
  staging.release(3);
  const refusedBegins = [
    { epoch: 3, base: 0 },
    { epoch: 2, base: 3 },
    { epoch: 5, base: 4 },
    { epoch: 4, base: 0 },
  ];
  for (const ids of refusedBegins) {
    const results = receiveAll(staging, await checkpoint(ram, runs, ids));
    assert.equal(results[0]?.kind, 'refused');
    assert.ok(results.slice(1).every((result) => result.kind === 'more'));
    assert.equal(staging.complete(), undefined);
  }
  const round = new CheckpointEncoder({ epoch: 4, base: 3, kind: 'round', sequence: 9, compressor });
  assert.equal(receiveAll(staging, await collect(round.round(runs, ram)))[0]?.kind, 'refused');
  assert.equal(receiveAll(staging, await checkpoint(ram, runs, { epoch: 5, base: 3 })).at(-1)?.kind, 'complete');
});

test('one more may be received while one waits, but not completed', async () => {
  const ram = Buffer.alloc(4 * pageSize);
  const runs = dirty(ram, seededRandom(1), 1);
  const staging = new Staging({ ramBytes: ram.length, compressor });
  receiveAll(staging, await checkpoint(ram, runs, { epoch: 1, base: 0 }));
  const second = await checkpoint(ram, runs, { epoch: 2, base: 1 });
  receiveAll(staging, second.slice(0, -1));
  assert.equal(staging.complete()?.epoch, 1);
  assert.equal(receiveAll(staging, second.slice(-1))[0]?.kind, 'refused');
  assert.equal(staging.complete()?.epoch, 1);
  staging.release(1);
  assert.equal(receiveAll(staging, second).at(-1)?.kind, 'complete');
});

test('a transmission cut at any message leaves nothing, and what waited before stays', async () => {
  const ram = Buffer.alloc(600 * pageSize);
  const staging = new Staging({ ramBytes: ram.length, compressor });
  const random = seededRandom(5);
  receiveAll(staging, await checkpoint(ram, dirty(ram, random, 0.1), { epoch: 1, base: 0 }));
  const second = await checkpoint(ram, dirty(ram, random, 1), { epoch: 2, base: 1 });
  for (let length = 0; length < second.length; length += 1) {
    receiveAll(staging, second.slice(0, length));
    staging.abandon();
    assert.equal(staging.complete()?.epoch, 1);
  }
});

test('pages beyond RAM, pages named twice and batches that cannot be decoded are refused', async () => {
  const ram = Buffer.alloc(8 * pageSize);
  const runs = dirty(ram, seededRandom(1), 1);
  const wire = await checkpoint(ram, runs, { epoch: 1, base: 0 });
  const [begin, pages] = wire;
  assert.ok(begin !== undefined && pages !== undefined);
  const small = new Staging({ ramBytes: 7 * pageSize, compressor });
  assert.equal(receiveAll(small, [begin, pages]).at(-1)?.kind, 'refused');
  const single = new PageRuns();
  single.add(0, pageSize);
  const head = { epoch: 1, rawBytes: pageSize, runs: single, deltas: new PageRuns() };
  const raw = (index: number): Wire => ({
    type: checkpointTypes.pages,
    payload: Buffer.concat([encodePagesHead({ ...head, index, encoding: 0 }), Buffer.alloc(pageSize)]),
  });
  const twice = new Staging({ ramBytes: ram.length, compressor });
  assert.deepEqual(
    receiveAll(twice, [begin, raw(0), raw(1)]).map((result) => result.kind),
    ['more', 'more', 'refused'],
  );
  for (const encoding of [0, 1, 2] as const) {
    const payload = Buffer.concat([encodePagesHead({ ...head, index: 0, encoding }), Buffer.alloc(100, 0xab)]);
    const staging = new Staging({ ramBytes: ram.length, compressor });
    const result = receiveAll(staging, [begin, { type: checkpointTypes.pages, payload }]).at(-1);
    assert.ok(result?.kind === 'refused' && result.error instanceof ColoError);
  }
});

test('differences to nothing are refused: in a round, in a first checkpoint, and where there is no shadow', async () => {
  const ram = Buffer.alloc(4 * pageSize);
  const runs = new PageRuns();
  runs.add(0, pageSize);
  const head = { index: 0, rawBytes: pageSize, runs, deltas: runs, encoding: 0 } as const;
  const refused = (staging: Staging, begin: Wire, epoch: number): void => {
    const payload = Buffer.concat([encodePagesHead({ ...head, epoch }), Buffer.alloc(pageSize)]);
    const last = receiveAll(staging, [begin, { type: checkpointTypes.pages, payload }]).at(-1);
    assert.ok(last?.kind === 'refused' && /differences to nothing/.test(last.error.message));
  };
  const [first] = await checkpoint(ram, runs, { epoch: 1, base: 0 });
  const round = new CheckpointEncoder({ epoch: 1, base: 0, kind: 'round', sequence: 0, compressor });
  const [begun] = await collect(round.round(runs, ram));
  assert.ok(first !== undefined && begun !== undefined);
  const options = { ramBytes: ram.length, compressor };
  refused(new Staging({ ...options, shadow: Buffer.alloc(ram.length) }), begun, 1);
  refused(new Staging({ ...options, shadow: Buffer.alloc(ram.length) }), first, 1);
  const blind = new Staging(options);
  receiveAll(blind, await checkpoint(ram, runs, { epoch: 1, base: 0 }));
  blind.release(1);
  const [second] = await checkpoint(ram, runs, { epoch: 2, base: 1 });
  assert.ok(second !== undefined);
  refused(blind, second, 2);
});

test("pages that travel as differences to those of the checkpoint before are the primary's when they are applied", async () => {
  const random = seededRandom(12);
  const primary = Buffer.alloc(600 * pageSize);
  const secondaryRam = new SecondaryRam(Buffer.alloc(primary.length), Buffer.alloc(primary.length));
  const staging = new Staging({ ramBytes: primary.length, shadow: secondaryRam.shadow, compressor });
  const everything = new PageRuns();
  everything.add(0, primary.length);
  dirty(primary, random, 1);
  let known: DeltaBase | undefined;
  for (const epoch of [1, 2, 3]) {
    const wire = await checkpoint(primary, everything, { epoch, base: epoch - 1 }, known);
    const travelled = wire
      .filter(({ type }) => type === checkpointTypes.pages)
      .map(({ payload }) => parsePages(payload));
    const hasDifferences = travelled.some((pages) => !(pages instanceof ColoError) && pages.deltas.runs > 0);
    assert.equal(hasDifferences, epoch > 1);
    receiveAll(staging, wire);
    const staged = staging.complete();
    assert.ok(staged !== undefined);
    await secondaryRam.write(staged, async () => undefined);
    staging.release(epoch);
    assert.ok(secondaryRam.ram.equals(primary) && secondaryRam.shadow.equals(primary), `epoch ${epoch}`);
    known = { runs: everything, contents: Buffer.from(primary) };
    for (let at = 8; at < primary.length; at += 2 * pageSize) primary.writeUInt32LE(random() * 2 ** 32, at);
  }
});

test('differences that arrive before their base is applied become its pages all the same', async () => {
  const random = seededRandom(11);
  const primary = Buffer.alloc(600 * pageSize);
  const secondaryRam = new SecondaryRam(Buffer.alloc(primary.length), Buffer.alloc(primary.length));
  const staging = new Staging({ ramBytes: primary.length, shadow: secondaryRam.shadow, compressor });
  const everything = new PageRuns();
  everything.add(0, primary.length);
  dirty(primary, random, 1);
  receiveAll(staging, await checkpoint(primary, everything, { epoch: 1, base: 0 }));
  const known = { runs: everything, contents: Buffer.from(primary) };
  for (let page = 0; page < primary.length; page += 2 * pageSize) primary.writeUInt32LE(random() * 2 ** 32, page + 8);
  const second = await checkpoint(primary, everything, { epoch: 2, base: 1 }, known);
  receiveAll(staging, second.slice(0, -1));
  for (const epoch of [1, 2]) {
    const staged = staging.complete();
    assert.ok(staged?.epoch === epoch);
    await secondaryRam.write(staged, async () => undefined);
    staging.release(epoch);
    if (epoch === 1) receiveAll(staging, second.slice(-1));
  }
  assert.ok(secondaryRam.ram.equals(primary) && secondaryRam.shadow.equals(primary));
});

test('what does not fit in memory is spilled and applied whole, or refused when there is nowhere to spill to', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'colo-spill-'));
  try {
    const random = seededRandom(9);
    const ram = Buffer.alloc(1500 * pageSize);
    const wire = await checkpoint(ram, dirty(ram, random, 1), { epoch: 1, base: 0 });
    const bounds = { ramBytes: ram.length, compressor, stagedBytesMax: 2 * batchRawBytes };
    const refusing = new Staging(bounds);
    assert.ok(receiveAll(refusing, wire).some((result) => result.kind === 'refused'));
    assert.equal(refusing.heldBytes, 0);
    const staging = new Staging({ ...bounds, openSpill: () => SpillFile.open(folder) });
    assert.equal(receiveAll(staging, wire).at(-1)?.kind, 'complete');
    assert.ok(staging.counters.spilledBytes > 0);
    assert.ok(staging.heldBytes <= bounds.stagedBytesMax);
    await staging.settled(1);
    assert.deepEqual(readdirSync(folder), []);
    const secondaryRam = new SecondaryRam(Buffer.alloc(ram.length), Buffer.alloc(ram.length));
    const staged = staging.complete();
    assert.ok(staged !== undefined);
    await secondaryRam.write(staged, async () => undefined);
    assert.ok(secondaryRam.ram.equals(ram));
    staging.release(1);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('a spill that fails is told before the commit, and the checkpoint never was: the next one builds on the one before', async () => {
  const random = seededRandom(9);
  const ram = Buffer.alloc(1500 * pageSize);
  const wire = await checkpoint(ram, dirty(ram, random, 1), { epoch: 1, base: 0 });
  const failing: Spill = {
    ...{ write: () => 0, waitingBytes: 0, read: () => Promise.reject(new Error('no')), close: () => undefined },
    settled: () => Promise.reject(new Error('ENOSPC: no space left')),
  };
  let spill = failing;
  const bounds = { ramBytes: ram.length, compressor, stagedBytesMax: 2 * batchRawBytes };
  const staging = new Staging({ ...bounds, openSpill: () => spill });
  assert.equal(receiveAll(staging, wire).at(-1)?.kind, 'complete');
  await assert.rejects(
    staging.settled(1) ?? assert.fail(),
    /checkpoint 1 is refused: it does not fit in memory.*ENOSPC/,
  );
  assert.equal(staging.complete(), undefined);
  assert.equal(staging.committedEpoch, 0);
  assert.equal(staging.heldBytes, 0);
  const folder = mkdtempSync(join(tmpdir(), 'colo-spill-'));
  try {
    spill = SpillFile.open(folder);
    assert.equal(receiveAll(staging, wire).at(-1)?.kind, 'complete');
    await staging.settled(1);
    assert.equal(staging.committedEpoch, 1);
    staging.release(1);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('a folder that is not there costs the checkpoint when it is to be committed', async () => {
  const spill = SpillFile.open('/nowhere/at/all');
  assert.equal(spill.write(Buffer.from('pages')), 0);
  await assert.rejects(spill.settled(), /ENOENT/);
  assert.equal(spill.waitingBytes, 0);
  spill.close();
});

test('batches cover every page once, in order, within the limits', () => {
  const run = fc.record({ gap: fc.integer({ min: 1, max: 3 }), pages: fc.integer({ min: 1, max: 700 }) });
  fc.assert(
    fc.property(fc.array(run, { maxLength: 50 }), (list) => {
      const runs = new PageRuns();
      let at = 0;
      for (const { gap, pages } of list) {
        at += gap * pageSize;
        runs.add(at, at + pages * pageSize);
        at += pages * pageSize;
      }
      const joined = new PageRuns();
      for (const batch of batches(runs)) {
        assert.ok(batch.bytes > 0 && batch.bytes <= batchRawBytes && batch.runs <= batchRunsMax);
        batch.forEach((start, end) => joined.add(start, end));
      }
      assert.deepEqual(joined.bounds, runs.bounds);
    }),
  );
});

test('every compressor gives back what it took, and zeros cost almost nothing', async () => {
  const random = seededRandom(2);
  for (const only of ['lz4', 'deflate', 'none'] as const) {
    const each = openCompressor({ only });
    const mixed = Buffer.alloc(50 * pageSize);
    dirty(mixed, random, 0.7);
    const noise = Buffer.from(Array.from({ length: pageSize }, () => Math.floor(random() * 256)));
    for (const raw of [mixed, noise, Buffer.alloc(batchRawBytes)]) {
      const compressed = await each.compress(raw);
      if (compressed === undefined) continue;
      assert.ok(compressed.length < raw.length);
      const target = Buffer.alloc(raw.length);
      assert.ok(compressor.decode(each.encoding, compressed, target, raw.length));
      assert.ok(target.equals(raw));
      assert.equal(compressor.decode(each.encoding, compressed.subarray(1), target, raw.length), false);
    }
    assert.equal(await each.compress(noise), undefined);
    const zeros = (await each.compress(Buffer.alloc(batchRawBytes)))?.length ?? batchRawBytes;
    assert.ok(only === 'none' || zeros < batchRawBytes / 200, `${only}: ${zeros}`);
  }
});

test('the template arrives as it was sent', async () => {
  const qcow2 = Buffer.alloc(300_000, 'QFI');
  const { type, parts } = await encodeTemplate(qcow2, { specHash: 'abc', compressor });
  assert.equal(type, checkpointTypes.template);
  const template = parseTemplate(Buffer.concat(parts));
  assert.ok(!(template instanceof ColoError));
  assert.equal(template.specHash, 'abc');
  const target = Buffer.alloc(template.rawBytes);
  assert.ok(compressor.decode(template.encoding, template.data, target, template.rawBytes));
  assert.ok(target.equals(qcow2));
});
