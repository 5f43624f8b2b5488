// pcap files of the legs: readable, one per leg, and bounded.

import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { flushWriters, lossesOfAll } from '../../base/writer.ts';
import { pcapHeader } from '../../packet/pcap.ts';
import { PcapLegs } from './pcap-legs.ts';

const withinMs = 30_000;

async function inFolder(work: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'colo-pcap-'));
  await work(folder).finally(() => rmSync(folder, { recursive: true }));
}

test('each leg has a file of its own with every frame of it', async () => {
  await inFolder(async (folder) => {
    const legs = new PcapLegs(folder, 'vm-a');
    legs.write('primary', new Uint8Array(60).fill(1), 5);
    legs.write('primary', new Uint8Array(70).fill(2), 6);
    legs.write('released', new Uint8Array(60).fill(1), 7);
    legs.close();
    assert.ok(flushWriters(withinMs));
    assert.deepEqual(readdirSync(folder).sort(), ['vm-a-primary.pcap', 'vm-a-released.pcap']);
    const bytes = readFileSync(join(folder, 'vm-a-primary.pcap'));
    assert.deepEqual(bytes.subarray(0, pcapHeader.length), Buffer.from(pcapHeader));
    assert.equal(bytes.length, pcapHeader.length + 16 + 60 + 16 + 70);
    assert.equal(bytes.readUInt32LE(pcapHeader.length + 8), 60);
  });
});

test('a folder that cannot be made costs the recording alone, which is told', async () => {
  await inFolder(async (folder) => {
    writeFileSync(join(folder, 'in-the-way'), '');
    const legs = new PcapLegs(join(folder, 'in-the-way', 'new'), 'vm-a');
    legs.write('primary', new Uint8Array(60), 5);
    assert.ok(flushWriters(withinMs));
    assert.deepEqual(
      lossesOfAll().map(({ path, pieces }) => ({ path, pieces })),
      [{ path: join(folder, 'in-the-way', 'new', 'vm-a-primary.pcap'), pieces: 1 }],
    );
    legs.close();
  });
});

test('a node that starts again adds to what it has recorded before', async () => {
  await inFolder(async (folder) => {
    for (let starts = 0; starts < 2; starts += 1) {
      const legs = new PcapLegs(folder, 'vm-a');
      legs.write('primary', new Uint8Array(60), 5);
      legs.close();
    }
    assert.ok(flushWriters(withinMs));
    assert.equal(readFileSync(join(folder, 'vm-a-primary.pcap')).length, pcapHeader.length + 2 * (16 + 60));
  });
});

test('a full file makes room for the next, and the one before it goes', async () => {
  await inFolder(async (folder) => {
    const legs = new PcapLegs(folder, 'vm-a', 1000);
    for (let at = 0; at < 100; at += 1) legs.write('primary', new Uint8Array(84), at);
    legs.close();
    assert.ok(flushWriters(withinMs));
    assert.deepEqual(readdirSync(folder).sort(), ['vm-a-primary.old.pcap', 'vm-a-primary.pcap']);
    assert.equal(readFileSync(join(folder, 'vm-a-primary.old.pcap')).length, pcapHeader.length + 9 * 100);
  });
});
