// Every file of ours begins with words: what it is, and why this way (CONTRIBUTING.md). That they are true is for a
// reader to judge.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

const home = join(import.meta.dirname, '..');
const folders = ['bench', 'docs', 'guest', 'native', 'sim', 'src', 'test'];

test('every file begins with a comment', () => {
  const silent = folders
    .flatMap((folder) =>
      readdirSync(join(home, folder), { recursive: true, encoding: 'utf8' }).map((name) => join(folder, name)),
    )
    .filter((path) => path.endsWith('.ts') && !readFileSync(join(home, path), 'utf8').startsWith('// '));
  assert.deepEqual(silent, []);
});
