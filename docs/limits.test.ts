// docs/LIMITS.md says what the code does.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { limitsDocument, readLimits, renderLimits } from './limits.ts';

test('docs/LIMITS.md is what the limits.ts files say today', async () => {
  // Not assert.equal: it would print both documents.
  assert.ok(readFileSync(limitsDocument, 'utf8') === (await renderLimits()), 'run: node docs/limits.ts');
});

test('constants under one comment share it, a blank line ends it, and units come from names', () => {
  const text = [
    '/** Kept. Beyond: dropped. */',
    'export const keptBytesMax = 3 * 512;',
    'export const keptMax = 4_000;',
    '',
    'export const lonelyMs = 1500;',
    'export const inner = {',
    '  /** Two',
    '   *  lines. */',
    '  framesMax: 7,',
    '};',
  ].join('\n');
  const values = new Map([
    ['keptBytesMax', 1536],
    ['keptMax', 4000],
    ['lonelyMs', 1500],
    ['framesMax', 7],
  ]);
  assert.deepEqual(readLimits(text, values), [
    { name: 'keptBytesMax', value: '1.5 KiB', words: 'Kept. Beyond: dropped.' },
    { name: 'keptMax', value: '4,000', words: 'Kept. Beyond: dropped.' },
    { name: 'lonelyMs', value: '1.5 s', words: '' },
    { name: 'framesMax', value: '7', words: 'Two lines.' },
  ]);
});

test('every limit says what happens at it', async () => {
  const silent = (await renderLimits()).split('\n').filter((line) => /^\| `\w+` \| [^|]+ \|\s*\|$/.test(line));
  assert.deepEqual(silent, []);
});
