import assert from 'node:assert/strict';
import { test } from 'node:test';
import { circlesIn, circleText } from './circles.ts';
import { layerFaults } from './layers.ts';
import { type AllowedFaults, faultsOf } from './rules.ts';
import { importsOf, type Source } from './sources.ts';

const nothing: AllowedFaults = { circles: {}, wide: {}, long: {}, full: {} };

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
