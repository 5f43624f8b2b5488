// The serial console: kept in order, added to, bounded, and never in the way of who writes it.

import assert from 'node:assert/strict';
import {
  closeSync,
  constants,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { delay } from '../base/clock.ts';
import { flushWriters } from '../base/writer.ts';
import { consolePipes, SerialConsole } from './console.ts';

const withinMs = 30_000;

function placesOf(context: TestContext): { path: string; log: string } {
  const folder = mkdtempSync(join(tmpdir(), 'colo-console-'));
  context.after(() => rmSync(folder, { recursive: true }));
  return { path: join(folder, 'console'), log: join(folder, 'serial') };
}

/** As QEMU does: the pipe is open for both, and a full one is tried again. */
function guest(path: string): { says: (text: string) => Promise<void>; ends: () => void } {
  const fd = openSync(consolePipes(path).output, constants.O_RDWR | constants.O_NONBLOCK);
  const says = async (text: string) => {
    const bytes = Buffer.from(text);
    for (let at = 0; at < bytes.length; )
      try {
        at += writeSync(fd, bytes, at, bytes.length - at);
      } catch (error) {
        assert.equal((error as NodeJS.ErrnoException).code, 'EAGAIN');
        await delay(1);
      }
  };
  return { says, ends: () => closeSync(fd) };
}

test('what a guest says is kept behind what it said before, to its last byte, and is heard by who listens', async (context) => {
  const { path, log } = placesOf(context);
  writeFileSync(log, 'before\n');
  const console = SerialConsole.open(path, log);
  let heard = '';
  console.listeners.add((bytes) => {
    heard += Buffer.from(bytes).toString();
  });
  const { says, ends } = guest(path);
  for (let line = 0; line < 1000; line += 1) await says(`line ${line}\n`);
  ends();
  // QEMU is gone, and what it wrote last has not been read yet.
  console.close();
  assert.ok(flushWriters(withinMs));
  assert.equal(readFileSync(log, 'utf8'), `before\n${heard}`);
  assert.match(heard, /^line 0\n[^]*\nline 999\n$/);
  assert.ok(!Object.values(consolePipes(path)).some((one) => existsSync(one)));
});

test('a guest that floods its console fills twice the bound and no more, and what it says last is there', async (context) => {
  const { path, log } = placesOf(context);
  const console = SerialConsole.open(path, log, 100_000);
  const { says, ends } = guest(path);
  for (let count = 0; count < 100; count += 1) await says('x'.repeat(65_536));
  assert.ok(flushWriters(withinMs));
  await says('the end');
  ends();
  console.close();
  assert.ok(flushWriters(withinMs));
  const [now, old] = [readFileSync(log, 'utf8'), readFileSync(`${log}.old`, 'utf8')];
  assert.ok(now.length <= 100_000 && old.length <= 100_000, `${now.length} and ${old.length} bytes`);
  assert.ok(now.endsWith('the end'));
});

test('a console whose file cannot be written is read on: the guest waits for no disk', async (context) => {
  const { path } = placesOf(context);
  const console = SerialConsole.open(path, '/dev/full');
  const { says, ends } = guest(path);
  for (let count = 0; count < 100; count += 1) await says('x'.repeat(65_536));
  ends();
  console.close();
});
