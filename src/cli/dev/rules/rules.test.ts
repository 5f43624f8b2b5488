// Each rule finds what breaks it, and nothing else.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { circlesIn, circleText } from './circles.ts';
import { layerFaults } from './layers.ts';
import { type AllowedFaults, faultsOf } from './rules.ts';
import { importsOf, type Source } from './sources.ts';

const nothing: AllowedFaults = { circles: {}, wide: {}, long: {}, full: {}, words: {} };

function source(path: string, imports: string[] = [], text = ''): Source {
  return { path, text, imports };
}

test('an import is seen in every form, types included, and one in a comment is none', () => {
  const text = `// See import { a } from './no.ts'.
import type { A } from './a.ts';
import {
  b,
} from '../b.ts';
import './c.ts';
export * from './d.ts';
type E = import('./e.ts').E;
const f = async () => await (await import('./f.ts')).f();
import { join } from 'node:path';
`;
  assert.deepEqual(importsOf('x/y/z.ts', text), ['x/y/a.ts', 'x/b.ts', 'x/y/c.ts', 'x/y/d.ts', 'x/y/e.ts', 'x/y/f.ts']);
});

test('files that import in a circle are found, the shortest way round is told, and files above or below are not', () => {
  const files = [
    source('top', ['a']),
    source('a', ['b', 'low']),
    source('b', ['c', 'low']),
    source('c', ['d']),
    source('d', ['a', 'b']),
    source('low'),
    source('self', ['self', 'elsewhere']),
  ];
  assert.deepEqual(circlesIn(files).map(circleText), ['b -> c -> d -> b', 'self -> self']);
});

test('an import that goes up or sideways, and a folder without a layer, are faults; one that goes down is none', () => {
  const exceptions = [source('src/qemu/a.ts', ['native/b.ts']), source('bench/a.ts', ['test/functional/b.ts'])];
  const faults = layerFaults([
    ...exceptions,
    source('src/base/a.ts', ['src/packet/b.ts']),
    source('src/disk/a.ts', ['src/proxy/b.ts', 'src/base/c.ts', 'src/disk/d.ts']),
    source('src/disk/a.test.ts', ['src/cli/main.ts']),
    source('src/fresh/a.ts'),
  ]);
  assert.deepEqual(
    faults.map((fault) => fault.split(/[,;:]/)[0]),
    ['src/base/a.ts imports src/packet/b.ts', 'src/disk/a.ts imports src/proxy/b.ts', 'src/fresh/a.ts'],
  );
  assert.match(layerFaults(exceptions.slice(1)).join(), /^no file of src\/qemu\/ imports native\/ any more/);
});

test('what is allowed is no fault, and an allowance that nothing needs is one', () => {
  const layered = [source('src/qemu/a.ts', ['native/b.ts']), source('bench/a.ts', ['test/functional/b.ts'])];
  const circle = [source('sim/a.ts', ['sim/b.ts']), source('sim/b.ts', ['sim/a.ts'])];
  assert.deepEqual(faultsOf([...layered, ...circle], nothing), [
    'these import in a circle: sim/a.ts -> sim/b.ts -> sim/a.ts',
  ]);
  const allowances = { ...nothing, circles: { 'sim/a.ts': 'until tomorrow' } };
  assert.deepEqual(faultsOf([...layered, ...circle], allowances), []);
  assert.match(faultsOf(layered, allowances).join(), /^sim\/a\.ts needs no allowance any more/);
});

test('a line, a file and a folder that are too large are told by name, and those at the bound are not', () => {
  const layered = [source('src/qemu/a.ts', ['native/b.ts']), source('bench/a.ts', ['test/functional/b.ts'])];
  const name = `test('${'x'.repeat(140)}', () => {`;
  const wide = [source('sim/wide.ts', [], `ok\n${'x'.repeat(121)}\n${name}`), source('sim/as.ts', [], 'x'.repeat(120))];
  assert.deepEqual(faultsOf([...layered, ...wide], nothing), [
    'sim/wide.ts:2: 121 columns are more than 120; break the line',
  ]);
  const lines = (count: number) => 'x\n'.repeat(count);
  const long = [401, 400].map((count) => source(`sim/${count}.ts`, [], lines(count)));
  const test = source('sim/long.test.ts', [], lines(900));
  assert.deepEqual(faultsOf([...layered, ...long, test], nothing), [
    'sim/401.ts has 401 lines, more than 400; split it by what it is about',
  ]);
  const full = Array.from({ length: 13 }, (_, index) => source(`sim/full/${index}.ts`));
  const tests = Array.from({ length: 12 }, (_, index) => source(`sim/full/${index}.test.ts`));
  assert.deepEqual(faultsOf([...layered, ...full, ...tests], nothing), [
    'sim/full: 13 files of one kind are more than 12; make sub-folders that say which',
  ]);
});

test('a comment with a sentence that begins with "Of" is told, and one that goes on with it is not', () => {
  const layered = [source('src/qemu/a.ts', ['native/b.ts']), source('bench/a.ts', ['test/functional/b.ts'])];
  const lines = [
    '// The end.',
    '// Of two one is taken.',
    '/** Of two. */',
    ' * It is the one. Of two it is.',
    '// It is one',
    '// of two.',
    "const text = 'It ends. Of two';",
  ];
  const text = lines.join('\n');
  assert.deepEqual(
    faultsOf([...layered, source('sim/a.ts', [], text)], nothing).map((fault) => fault.split(':')[1]),
    ['2', '3', '4'],
  );
});
