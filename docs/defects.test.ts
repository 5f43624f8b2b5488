// The table of deliberate defects in docs/simulation.md is that of sim/defects.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { simulationDocument, withTable } from './defects.ts';

test('docs/simulation.md lists the defects as they are (else: node docs/defects.ts)', () => {
  const text = readFileSync(simulationDocument, 'utf8');
  assert.equal(text, withTable(text));
});
