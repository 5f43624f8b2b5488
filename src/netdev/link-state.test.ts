// Whether a guest's TAP leads anywhere, as the kernel's answers say.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import fc from 'fast-check';
import { type LinkState, readLinks, takeLinks, uplinkProblem } from './link-state.ts';

const tap: LinkState = { name: 'colo0', index: 7, isUp: true, hasLink: true, master: 3, kind: 'tun' };
const bridge: LinkState = { name: 'br0', index: 3, isUp: true, hasLink: true, master: 0, kind: 'bridge' };
const card: LinkState = { name: 'eth0', index: 2, isUp: true, hasLink: true, master: 3, kind: '' };
const other: LinkState = { ...tap, name: 'colo1', index: 8 };

test('a TAP leads outside while its bridge has a port with a link that is no TAP, or only TAPs', () => {
  const problem = (...links: LinkState[]) => uplinkProblem(links, 'colo0', 'br0');
  assert.equal(problem(tap, bridge, card), '');
  assert.equal(problem(tap, bridge, other), '', 'a network within its host');
  assert.equal(problem(tap, bridge, { ...card, hasLink: false }, { ...card, name: 'eth1', index: 9 }), '');
  assert.match(
    problem(tap, bridge, { ...card, hasLink: false }, other),
    /no port of the bridge br0 has a link \(eth0\)/,
  );
  assert.match(problem(tap, bridge, { ...card, isUp: false }), /has a link/);
  assert.match(problem(bridge, card), /colo0 is gone/);
  assert.match(problem(tap, card), /br0 is gone/);
  assert.match(problem(tap, { ...bridge, isUp: false }, card), /br0 is down/);
  assert.match(problem({ ...tap, isUp: false }, bridge, card), /colo0 is down/);
  assert.match(problem({ ...tap, master: 0 }, bridge, card), /no port of the bridge/);
});

test('the kernel names every device of this host, with what it is', () => {
  const links = readLinks();
  assert.deepEqual(links.find(({ name }) => name === 'lo')?.isUp, true);
  const shown = spawnSync('ip', ['-o', 'link'], { encoding: 'utf8' }).stdout.trim().split('\n');
  if (shown[0] === '') return;
  const names = shown.map((line) => line.split(': ')[1]?.split('@')[0] ?? '');
  assert.ok(names.every((name) => links.some((link) => link.name === name)) || readLinks().length !== links.length);
});

test('whatever bytes the answer has, nothing throws', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      const links: LinkState[] = [];
      takeLinks(Buffer.from(bytes), links);
      assert.ok(links.length <= bytes.length);
    }),
  );
});
