// pcap files of the legs: readable, one per leg, and bounded.

import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { pcapHeader } from '../../packet/pcap.ts';
import { PcapLegs } from './pcap-legs.ts';

async function inFolder(work: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'colo-pcap-'));
  await work(folder).finally(() => rmSync(folder, { recursive: true }));
}

test('each leg has a file of its own with every frame of it', async () => {
  await inFolder(async (folder) => {
    const legs = new PcapLegs(folder, 'vm-a', (why) => assert.fail(why));
    legs.write('primary', new Uint8Array(60).fill(1), 5);
    legs.write('primary', new Uint8Array(70).fill(2), 6);
    legs.write('released', new Uint8Array(60).fill(1), 7);
    await legs.close();
    assert.deepEqual(readdirSync(folder).sort(), ['vm-a-primary.pcap', 'vm-a-released.pcap']);
    const bytes = readFileSync(join(folder, 'vm-a-primary.pcap'));
    assert.deepEqual(bytes.subarray(0, pcapHeader.length), Buffer.from(pcapHeader));
    assert.equal(bytes.length, pcapHeader.length + 16 + 60 + 16 + 70);
    assert.equal(bytes.readUInt32LE(pcapHeader.length + 8), 60);
  });
});

test('a folder for pcap files is made in one that is there; without one nothing is recorded, and it is said once', async () => {
  await inFolder(async (folder) => {
    const said: string[] = [];
    const inNew = () => new PcapLegs(join(folder, 'new'), 'vm-a', (why) => void said.push(why));
    for (const legs of [inNew(), inNew()]) {
      legs.write('primary', new Uint8Array(60), 5);
      await legs.close();
    }
    assert.deepEqual(readdirSync(join(folder, 'new')), ['vm-a-primary.pcap']);
    assert.deepEqual(said, []);
    for (const wrong of [join(folder, 'gone', 'new'), '/proc/none']) {
      const told = Promise.withResolvers<string>();
      let times = 0;
      const legs = new PcapLegs(wrong, 'vm-a', (why) => {
        times += 1;
        told.resolve(why);
      });
      legs.write('primary', new Uint8Array(60), 5);
      legs.write('released', new Uint8Array(60), 5);
      assert.match(await told.promise, /not written any more: .*network\.pcap/);
      legs.write('primary', new Uint8Array(60), 6);
      await legs.close();
      assert.equal(times, 1);
    }
  });
});

test('a full file makes room for the next, and the one before it goes', async () => {
  await inFolder(async (folder) => {
    const legs = new PcapLegs(folder, 'vm-a', (why) => assert.fail(why), 1000);
    for (let at = 0; at < 100; at += 1) legs.write('primary', new Uint8Array(84), at);
    await legs.close();
    assert.deepEqual(readdirSync(folder).sort(), ['vm-a-primary.old.pcap', 'vm-a-primary.pcap']);
    assert.equal(readFileSync(join(folder, 'vm-a-primary.old.pcap')).length, pcapHeader.length + 10 * 100);
  });
});
