// The list of mutants is of the code of today: what each changes stands exactly once in its file, and is changed by it.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { mutants } from './mutants.ts';

const home = join(import.meta.dirname, '../..');

test('every mutant changes one place of the code, and has a name of its own', () => {
  const wrong: string[] = [];
  for (const { name, file, find, replace } of mutants) {
    const places = readFileSync(join(home, file), 'utf8').split(find).length - 1;
    if (places !== 1 || find === replace) wrong.push(`${file}: ${name}: ${places} places`);
  }
  assert.deepEqual(wrong, []);
  assert.equal(new Set(mutants.map(({ name }) => name)).size, mutants.length);
});
