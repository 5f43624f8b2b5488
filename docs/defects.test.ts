// The tables of checkers and of deliberate defects in docs/simulation.md are those of sim/.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { simulationDocument, withTables } from './defects.ts';

test('docs/simulation.md lists checkers and defects as they are (else: node docs/defects.ts)', () => {
  const text = readFileSync(simulationDocument, 'utf8');
  assert.equal(text, withTables(text));
});
