// A disk that hangs takes threads of a node's process, and leaves some for the files of everybody else.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { makePipe } from './descriptors.ts';
import { nodeEnvironment } from './environment.ts';

/** Opens each file that it is told of, which nobody writes to, and then reads one that answers. */
const program = `
  import { open, readFile } from 'node:fs/promises';
  for (const path of process.argv.slice(1)) open(path).catch(() => undefined);
  const text = await readFile('/proc/self/comm', 'utf8');
  process.stdout.write('it is read: ' + text);`;

test('the process of a node reads other files while every disk of its VM hangs', {
  timeout: 60_000,
}, async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'colo-threads-'));
  // A VM has 8 disks at most (disk/limits.ts), written one after the other; beside them there are labels and spilled
  // pages.
  const hanging = Array.from({ length: 10 }, (_, index) => join(folder, `hangs${index}`));
  for (const path of hanging) makePipe(path);
  const child = spawn(process.execPath, ['--input-type=module', '-e', program, ...hanging], { env: nodeEnvironment() });
  context.after(() => {
    child.kill('SIGKILL');
    rmSync(folder, { recursive: true });
  });
  const [said] = (await once(child.stdout, 'data')) as [Buffer];
  assert.match(said.toString(), /^it is read/);
});
