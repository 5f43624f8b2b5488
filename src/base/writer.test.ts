// Files that cost the event loop nothing: bounded in size, and a disk that is full, gone or hangs costs lines alone.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { delay } from './clock.ts';
import { flushWriters, lossesOfAll, Writer } from './writer.ts';
import { pieceCostBytes } from './writer-message.ts';

const withinMs = 30_000;

function folderOf(context: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'colo-writer-'));
  context.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

function writer(context: TestContext, options: ConstructorParameters<typeof Writer>[0]): Writer {
  const made = new Writer(options);
  context.after(() => made.close());
  return made;
}

/** The problem is told by the thread, a turn of the loop later. */
async function until(holds: () => boolean): Promise<void> {
  for (let tries = 0; !holds(); tries += 1) {
    assert.ok(tries < withinMs / 5);
    await delay(5);
  }
}

test('everything is kept in order, behind what an earlier process has written', (context) => {
  const path = join(folderOf(context), 'made', 'on', 'the', 'way');
  const first = writer(context, { path, bytesMax: 1000 });
  first.write('one ');
  first.write(Buffer.from('two '));
  first.close();
  writer(context, { path, bytesMax: 1000 }).write('three');
  assert.ok(flushWriters(withinMs));
  assert.equal(readFileSync(path, 'utf8'), 'one two three');
});

test('a file is put aside when it is full: the newest is kept, and never more than twice the bound', (context) => {
  const folder = folderOf(context);
  const path = join(folder, 'log');
  const file = writer(context, { path, bytesMax: 110 });
  for (let line = 0; line < 1000; line += 1) file.write(`line ${line}\n`);
  assert.ok(flushWriters(withinMs));
  const [old, now] = [readFileSync(`${path}.old`, 'utf8'), readFileSync(path, 'utf8')];
  assert.deepEqual(readdirSync(folder).sort(), ['log', 'log.old']);
  assert.ok(old.length <= 110 && now.length <= 110, `${old.length} and ${now.length} bytes`);
  assert.ok(old.startsWith('line ') && now.startsWith('line '));
  assert.match(old + now, /line 998\nline 999\n$/);
  assert.deepEqual(file.losses, { path, pieces: 0, bytes: 0, problem: '' });
});

test('a full disk costs lines, which are counted and told, and nothing else', async (context) => {
  const file = writer(context, { path: '/dev/full', bytesMax: 1000 });
  for (let line = 0; line < 3; line += 1) file.write('a line\n');
  assert.ok(flushWriters(withinMs));
  await until(() => file.losses.problem !== '');
  const { problem, ...counted } = file.losses;
  assert.deepEqual(counted, { path: '/dev/full', pieces: 3, bytes: 21 });
  assert.match(problem, /ENOSPC/);
  assert.deepEqual(lossesOfAll(), [file.losses]);
});

test('a folder that cannot be made costs lines; when it can, the file says how many are missing', async (context) => {
  const folder = folderOf(context);
  const path = join(folder, 'in-the-way', 'log');
  writeFileSync(join(folder, 'in-the-way'), '');
  const file = writer(context, { path, bytesMax: 1000, gap: 'json' });
  file.write('{"msg":"one"}\n');
  file.write('{"msg":"two"}\n');
  assert.ok(flushWriters(withinMs));
  await until(() => file.losses.problem !== '');
  rmSync(join(folder, 'in-the-way'));
  file.write('{"msg":"three"}\n');
  assert.ok(flushWriters(withinMs));
  const lines = readFileSync(path, 'utf8').trimEnd().split('\n');
  const [gap, last] = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  assert.equal(lines.length, 2);
  assert.equal(gap?.['msg'], 'lines are lost');
  assert.equal(gap?.['lost'], 2);
  assert.match(String(gap?.['why']), /EEXIST|ENOTDIR/);
  assert.equal(last?.['msg'], 'three');
  await until(() => file.losses.problem === '');
});

test('a file that was moved away or removed is made anew', (context) => {
  const folder = folderOf(context);
  const path = join(folder, 'log');
  const file = writer(context, { path, bytesMax: 1000 });
  file.write('before');
  assert.ok(flushWriters(withinMs));
  rmSync(path);
  file.write('after');
  assert.ok(flushWriters(withinMs));
  assert.equal(readFileSync(path, 'utf8'), 'after');
});

test('a file that cannot be put aside grows no further', (context) => {
  const folder = folderOf(context);
  const path = join(folder, 'log');
  mkdirSync(join(folder, 'aside', 'not empty'), { recursive: true });
  const file = writer(context, { path, old: join(folder, 'aside'), bytesMax: 10 });
  for (let count = 0; count < 5; count += 1) file.write('8 bytes.');
  assert.ok(flushWriters(withinMs));
  assert.equal(readFileSync(path, 'utf8'), '8 bytes.');
  assert.equal(file.losses.pieces, 4);
  renameSync(join(folder, 'aside'), join(folder, 'elsewhere'));
  file.write('8 bytes!');
  assert.ok(flushWriters(withinMs));
  assert.equal(readFileSync(path, 'utf8'), '8 bytes!');
});

// Nobody reads the pipe, so that opening it hangs, as a disk does that is gone.
const hanging = (folder: string, then: string) => `
  import { openLog, endOnBug } from '${import.meta.resolve('./log.ts')}';
  import { Writer } from '${import.meta.resolve('./writer.ts')}';
  const log = openLog({ level: 'info', file: '${folder}/pipe' });
  endOnBug(log, 'this process ends');
  for (let count = 0; count < 3; count += 1) log.info({ count }, 'a line');
  let turns = 0;
  const timer = setInterval(() => {
    turns += 1;
    if (turns < 3) return;
    clearInterval(timer);
    process.stdout.write('lives\\n');
    ${then}
  }, 1);`;

async function run(program: string): Promise<{ said: string; code: number | null; signal: string | null }> {
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  let said = '';
  child.stdout.on('data', (bytes: Buffer) => {
    said += bytes.toString();
  });
  return new Promise((resolve) => child.once('close', (code, signal) => resolve({ said, code, signal })));
}

test('a disk that hangs holds up neither the loop nor the end of the process', { timeout: 60_000 }, async (context) => {
  const folder = folderOf(context);
  execFileSync('mkfifo', [join(folder, 'pipe')]);
  assert.deepEqual(await run(hanging(folder, 'process.exit(0);')), { said: 'lives\n', code: null, signal: 'SIGKILL' });
  const bug = await run(hanging(folder, "throw new Error('a bug');"));
  assert.deepEqual(bug, { said: 'lives\n', code: null, signal: 'SIGKILL' });
});

test('what waits for a disk that hangs is bounded, and what comes then is counted', {
  timeout: 60_000,
}, async (context) => {
  const folder = folderOf(context);
  execFileSync('mkfifo', [join(folder, 'pipe')]);
  const program = `
    import { Writer } from '${import.meta.resolve('./writer.ts')}';
    const file = new Writer({ path: '${folder}/pipe', bytesMax: 1e9, waitingBytesMax: ${10 * (100 + pieceCostBytes)} });
    for (let count = 0; count < 100; count += 1) file.write(new Uint8Array(100));
    process.stdout.write(JSON.stringify([file.waitingBytes, file.losses.pieces, file.losses.bytes]));
    process.exit(0);`;
  assert.equal((await run(program)).said, `[${10 * (100 + pieceCostBytes)},90,9000]`);
});

test('a bug is logged once, also when the disk of the log is full, and ends the process', {
  timeout: 60_000,
}, async (context) => {
  const folder = folderOf(context);
  const path = join(folder, 'log');
  const program = (file: string) => `
    import { openLog, endOnBug } from '${import.meta.resolve('./log.ts')}';
    import { flushWriters } from '${import.meta.resolve('./writer.ts')}';
    endOnBug(openLog({ level: 'info', file: '${file}' }), 'this process ends');
    flushWriters(30_000);
    setTimeout(() => { throw new Error('the bug'); }, 1);`;
  assert.equal((await run(program(path))).code, 70);
  const lines = readFileSync(path, 'utf8').trimEnd().split('\n');
  assert.equal(lines.length, 1);
  assert.match(lines[0] ?? '', /"error":"the bug".*"msg":"bug: this process ends"/);
  assert.equal((await run(program('/dev/full'))).code, 70);
  assert.ok(!existsSync(`${path}.old`));
});
