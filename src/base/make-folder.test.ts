// A folder is made with its parents or refused, and nothing makes one in the way that may never end.

import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { type TestContext, test } from 'node:test';
import { makeFolder } from './make-folder.ts';

function newFolder(context: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'colo-folder-'));
  context.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

test('a folder is made with those above it, and one that is there stays', (context) => {
  const root = newFolder(context);
  const path = join(root, 'a/b/c');
  makeFolder(path, 0o700);
  makeFolder(path, 0o755);
  assert.deepEqual(
    [join(root, 'a'), path].map((one) => statSync(one).mode & 0o777),
    [0o700, 0o700],
  );
});

test('where no folder can be made it is refused at once: below /proc, a file, or a link to nothing', (context) => {
  const root = newFolder(context);
  writeFileSync(join(root, 'file'), '');
  symlinkSync(join(root, 'nothing/at/all'), join(root, 'link'));
  for (const path of ['/proc/x', '/proc/x/y', join(root, 'file/x'), join(root, 'link/x')])
    assert.throws(() => makeFolder(path), { code: /ENOENT|ENOTDIR/ }, path);
});

test('no code of ours makes folders by the recursion that does not end below /proc', () => {
  const src = resolve(import.meta.dirname, '..');
  const wrong = readdirSync(src, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts') && !file.endsWith('.test.ts'))
    .filter((file) => /mkdir(Sync)?\([^;]*recursive: true/.test(readFileSync(join(src, file), 'utf8')));
  assert.deepEqual(wrong, []);
});
