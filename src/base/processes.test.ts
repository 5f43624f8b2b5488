// A process that is tied to us runs as ours, and does not run for whoever is not its parent any more.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { isMarkOfDead, ownMark, processIdentity, tiedToUs } from './processes.ts';

const words = ["it's", '', '$HOME', 'two words'];

test('a tied command gets its arguments as they are', () => {
  const [command, args] = tiedToUs('printf', ['%s|', ...words]);
  assert.equal(execFileSync(command, args, { encoding: 'utf8' }), words.map((word) => `${word}|`).join(''));
});

test('a tied command whose parent is not the one that asked for it is not run: nobody would end it', () => {
  // A parent that died is another process from then on; the shell between us and the command is another one at once.
  const [command, args] = tiedToUs('echo', ['it ran']);
  const said = execFileSync('sh', ['-c', '"$0" "$@"; echo "ended with $?"', command, ...args], { encoding: 'utf8' });
  assert.equal(said, 'ended with 1\n');
});

test('a living process has an identity, and one that never was has none', () => {
  assert.match(processIdentity(process.pid) ?? '', new RegExp(`^${process.pid} \\d+$`));
  assert.equal(processIdentity(2 ** 30), undefined);
});

test('a mark tells whether its process is gone, also when its id is used again; what is no mark tells nothing', () => {
  assert.equal(isMarkOfDead(ownMark()), false);
  for (const dead of [`${2 ** 30}.1`, `${process.pid}.1`]) assert.equal(isMarkOfDead(dead), true);
  for (const none of ['', 'x', `${process.pid}`, `${ownMark()}.1`]) assert.equal(isMarkOfDead(none), false);
});
