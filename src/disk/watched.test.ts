// A disk that takes long for much is not taken for one that hangs.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { DiskActivity } from '../base/disk-activity.ts';
import { rangePieceBytesMax } from './limits.ts';
import { Folder, type OpenHow, type StoredFile } from './storage.ts';
import { WatchedStorage } from './watched.ts';

test('a range that is zeroed slowly, or whose room is taken slowly, is asked for in pieces, each with its answer', async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'colo-watched-'));
  context.after(() => rmSync(folder, { recursive: true }));
  const activity = new DiskActivity();
  const asked: number[][] = [];
  /** Takes two looks for each piece. */
  const slowly = async (offset: number, length: number) => {
    asked.push([offset, length]);
    for (let look = 0; look < 2; look += 1) assert.equal(activity.look(4), undefined);
  };
  class Slow extends Folder {
    override async open(name: string, how: OpenHow): Promise<StoredFile> {
      return Object.assign(await super.open(name, how), { zero: slowly, reserve: slowly });
    }
  }
  const file = await new WatchedStorage(new Slow(folder), activity).open('disk', 'new');
  const length = 4 * rangePieceBytesMax + 512;
  for (const what of ['zero', 'reserve'] as const) {
    asked.length = 0;
    await file[what](4096, length);
    assert.equal(asked.length, 5);
    assert.deepEqual(asked.at(-1), [4096 + 4 * rangePieceBytesMax, 512]);
  }
  await file.close();
});
