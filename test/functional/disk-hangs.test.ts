// A disk that hangs under a replica: what changes its files waits, and the event loop does not. In a process of its
// own, since one that called the kernel itself would stand still and could not be killed. Needs root.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { Volume } from '../failover/volume.ts';

const skip = process.getuid?.() === 0 ? {} : { skip: 'needs root' };
/** Beyond it the loop stands still: then the disk answers again, so that the process can end. */
const answerTimeoutMs = 60_000;

/** Says when it has two files, and, once it is told that the disk hangs, that it lives on; ends when all is done. */
const program = (folder: string) => `
  import { Folder } from '${import.meta.resolve('../../src/disk/storage.ts')}';
  const folder = new Folder('${folder}');
  const file = await folder.open('disk0.raw', 'new');
  await file.write([Buffer.alloc(1 << 20, 1)], 0);
  const other = await folder.open('journal.1', 'new');
  console.log('ready');
  process.stdin.once('data', async () => {
    const all = [file.reserve(2 << 20, 4096), file.zero(0, 4096), folder.remove('journal.1'), other.flush()];
    let isDone = false;
    const done = Promise.all(all).then(() => (isDone = true));
    for (let turn = 0; turn < 100; turn += 1) await new Promise((next) => setTimeout(next, 1));
    console.log(isDone ? 'it did not hang' : 'lives');
    await done;
    console.log(String(folder.has('journal.1')));
    process.exit(0);
  });`;

test(
  'a disk that hangs does not hold up the loop: room is taken, holes are made and files removed beside it',
  skip,
  async () => {
    const volume = new Volume(16);
    const child = spawn(process.execPath, ['--input-type=module', '-e', program(volume.folder)], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const says = async (expected: string) => {
      const late = setTimeout(() => child.kill('SIGKILL'), answerTimeoutMs);
      assert.equal((await lines.next()).value, expected);
      clearTimeout(late);
    };
    try {
      await says('ready');
      await volume.freeze();
      child.stdin.write('frozen\n');
      const stuck = setTimeout(() => void volume.thaw(), answerTimeoutMs);
      await says('lives');
      clearTimeout(stuck);
      await volume.thaw();
      await says('false');
    } finally {
      child.kill('SIGKILL');
      await volume.close();
    }
  },
);
