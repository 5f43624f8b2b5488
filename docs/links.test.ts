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
      /\b(?:src|guest|native|bench|test|docs|examples|sim|deploy)\/[\w./-]+\.(?:ts|c|md|yaml|service)\b/g,
    ))
      if (!existsSync(join(home, named))) missing.push(`${path}: ${named}`);
  assert.deepEqual(missing, []);
});

test('every folder of the source stands in the table of layers', () => {
  const architecture = readFileSync(join(home, 'docs', 'ARCHITECTURE.md'), 'utf8');
  const rows = architecture.split('\n').filter((line) => /^\| (\d+) \|/.test(line));
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

/** The files and titles of tests that a text quotes: `path/to.test.ts` "one title"; "another". */
function quotedTests(text: string): { file: string; title: string }[] {
  return [...text.matchAll(/`([\w./-]+\.ts)` ("[^"]+"(?:; "[^"]+")*)/g)].flatMap(([, file = '', titles = '']) =>
    [...titles.matchAll(/"([^"]+)"/g)].map(([, title = '']) => ({ file, title })),
  );
}

/**
 * The titles that a file gives its tests: what stands behind `test(`, or `within(` in a conformance suite. Where a
 * title is put together from a table (`${promise}`), every text of the file that is not in a comment.
 */
function titlesIn(file: string): string[] {
  const code = readFileSync(join(home, file), 'utf8').replaceAll(/^\s*(?:\/\/|\*|\/\*\*).*$/gm, '');
  const texts = (before: string) => [...code.matchAll(new RegExp(`${before}(['"\`])((?:\\\\.|(?!\\1).)*)\\1`, 'g'))];
  const titles = texts('\\b(?:test|within)\\(\\s*').map(([, , title = '']) => title);
  const isMade = titles.some((title) => /\$\{(?:promise|what)\}/.test(title));
  return isMade ? [...titles, ...texts('').map(([, , text = '']) => text)] : titles;
}

test('every test that the specification quotes exists in the file it names', () => {
  const quoted = quotedTests(readFileSync(join(home, 'docs', 'SPECIFICATION.md'), 'utf8'));
  assert.ok(quoted.length > 100, `${quoted.length} tests are quoted`);
  const unknown = quoted.filter(
    ({ file, title }) => !existsSync(join(home, file)) || !titlesIn(file).some((known) => known.includes(title)),
  );
  assert.deepEqual(unknown, []);
});

test('every promise quotes a test that holds it, or says that its test is pending', () => {
  const specification = readFileSync(join(home, 'docs', 'SPECIFICATION.md'), 'utf8');
  const [promises = ''] = specification.split('\n## Numbers');
  const rows = promises.split('\n').filter((line) => line.startsWith('| ') && line !== '| promise | held by |');
  assert.ok(rows.length > 100, `${rows.length} promises`);
  const bare = rows.filter((row) => quotedTests(row).length === 0 && !row.includes('**test pending**'));
  assert.deepEqual(bare, []);
});
