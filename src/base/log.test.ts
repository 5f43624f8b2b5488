// A log line says where its process stood when it was written.

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { openLog } from './log.ts';
import { flushWriters } from './writer.ts';

test('every line carries the moment in which it was written, and what a line says itself wins', () => {
  const folder = mkdtempSync(join(tmpdir(), 'colo-log-'));
  try {
    const file = join(folder, 'node.log');
    let term = 1;
    const log = openLog({ level: 'info', file, bindings: { node: 'a' }, moment: () => ({ term, epoch: 7 }) });
    log.info('one');
    term = 2;
    log.info({ epoch: 8 }, 'two');
    log.debug('not written');
    assert.ok(flushWriters(30_000));
    const lines = readFileSync(file, 'utf8')
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>)
      .map(({ node, term: seen, epoch, msg }) => ({ node, term: seen, epoch, msg }));
    assert.deepEqual(lines, [
      { node: 'a', term: 1, epoch: 7, msg: 'one' },
      { node: 'a', term: 2, epoch: 8, msg: 'two' },
    ]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
