// docs/guests.md has the devices that the spec has.

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { devices } from '../src/config/devices.ts';
import { guestsDocument, renderGuests } from './guests.ts';

test('docs/guests.md is what the table of devices says today', () => {
  const text = readFileSync(guestsDocument, 'utf8');
  assert.ok(renderGuests(text) === text, 'run: node docs/guests.ts');
});

test('every device says what it needs or what to take instead, and what is tested names its test', () => {
  for (const { name, support } of devices) {
    if (support.how === 'refused') assert.ok(support.why.length > 10 && support.instead.length > 2, name);
    else if (support.tested !== 'no') assert.ok(existsSync(join(import.meta.dirname, '..', support.tested)), name);
  }
});
