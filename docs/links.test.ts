// The documents speak of files and tests that exist. What they say of them is for a reader to judge.

import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';

const byName = (left: string | undefined = '', right: string | undefined = '') => left.localeCompare(right);
const builtIn = new Set(['Date', 'Math']);
const home = join(import.meta.dirname, '..');

function documents(): { path: string; text: string }[] {
  const below = readdirSync(join(home, 'docs'), { recursive: true, encoding: 'utf8' }).map((name) =>
    join('docs', name),
  );
  const paths = [...readdirSync(home), ...below].filter((path) => path.endsWith('.md'));
  return paths.map((path) => ({ path, text: readFileSync(join(home, path), 'utf8') }));
}

test('every link of a document leads to a file', () => {
  const broken: string[] = [];
  for (const { path, text } of documents())
    for (const [, target = ''] of text.matchAll(/\]\(([^)#\s]+)[^)]*\)/g)) {
      if (/^https?:/.test(target) || existsSync(join(home, dirname(path), target))) continue;
      broken.push(`${path}: ${target}`);
    }
  assert.deepEqual(broken, []);
});

test('every source file that a document names exists', () => {
  const missing: string[] = [];
  for (const { path, text } of documents())
    for (const [named] of text.matchAll(
      /\b(?:src|guest|native|bench|test|docs|examples)\/[\w./-]+\.(?:ts|c|md|yaml)\b/g,
    ))
      if (!existsSync(join(home, named))) missing.push(`${path}: ${named}`);
  assert.deepEqual(missing, []);
});

test('every folder of the source stands in the table of layers', () => {
  const architecture = readFileSync(join(home, 'docs', 'ARCHITECTURE.md'), 'utf8');
  const rows = architecture.split('\n').filter((line) => /^\| (\d|top) \|/.test(line));
  const named = rows.flatMap((row) => [...(row.split('|')[2] ?? '').matchAll(/`(\w+)`/g)].map(([, name]) => name));
  assert.deepEqual(named.toSorted(byName), readdirSync(join(home, 'src')).toSorted(byName));
});

test('every Class.member that a document names exists', () => {
  const source = readdirSync(join(home, 'src'), { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.ts'))
    .map((path) => readFileSync(join(home, 'src', path), 'utf8'));
  const hasMember = (type: string, member: string) =>
    source.some(
      (text) => new RegExp(`(class|interface) ${type}\\b`).test(text) && new RegExp(`\\b${member}\\b`).test(text),
    );
  const unknown: string[] = [];
  for (const { path, text } of documents())
    for (const [, type = '', member = ''] of text.matchAll(/`([A-Z]\w+)\.([a-z]\w+)(?:\(\))?`/g))
      if (!builtIn.has(type) && !hasMember(type, member)) unknown.push(`${path}: ${type}.${member}`);
  assert.deepEqual(unknown, []);
});

test('every test that the specification quotes exists in the file it names', () => {
  const specification = readFileSync(join(home, 'docs', 'SPECIFICATION.md'), 'utf8');
  const unknown: string[] = [];
  let quoted = 0;
  for (const [, file = '', titles = ''] of specification.matchAll(/`([\w./-]+\.ts)` ("[^"]+"(?:; "[^"]+")*)/g)) {
    const code = readFileSync(join(home, file), 'utf8');
    for (const [, title = ''] of titles.matchAll(/"([^"]+)"/g)) {
      quoted += 1;
      if (!code.includes(title)) unknown.push(`${file}: ${title}`);
    }
  }
  assert.ok(quoted > 20, `${quoted} tests are quoted`);
  assert.deepEqual(unknown, []);
});
