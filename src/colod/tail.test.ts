// The end of a log is found across the place where it was cut.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { tail, tailOfBoth } from './tail.ts';

test('the end of a log is what was written last, also when it was just cut, within the bound, and nothing when there is none', () => {
  const folder = mkdtempSync(join(tmpdir(), 'colo-tail-'));
  const path = join(folder, 'node.log');
  try {
    assert.equal(tailOfBoth(path, 10), '');
    writeFileSync(path, 'new\n');
    assert.equal(tailOfBoth(path, 10), 'new\n');
    writeFileSync(`${path}.old`, 'older\nold\n');
    assert.equal(tailOfBoth(path, 8), 'old\nnew\n');
    assert.equal(tailOfBoth(path, 2), 'w\n');
    assert.equal(tailOfBoth(path, 100), 'older\nold\nnew\n');
    assert.equal(tail(path, 100), 'new\n');
  } finally {
    rmSync(folder, { recursive: true });
  }
});
