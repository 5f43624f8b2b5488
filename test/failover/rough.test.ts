// Rough weather on real QEMU: the wire between the nodes stalls, is cut, damages bytes; the secondary is ten times slower;
// the copies disagree all the time; the guest reboots, panics and switches itself off; a node stands still in the middle
// of its takeover while the old primary wakes up. Clients see exact replies throughout, and a register whose whole
// history could have happened in one place.

import assert from 'node:assert/strict';
import { createConnection, type Socket } from 'node:net';
import { test } from 'node:test';
import type { NodeStatus } from '../../src/api/status.ts';
import { delay } from '../../src/base/clock.ts';
import { inject } from '../../src/demo/faults.ts';
import { ask } from './ask.ts';
import { heldTakeover } from './held.ts';
import { slowDown } from './slow.ts';
import { protect, type Stage, served, setStage, survives, voices } from './stage.ts';
import { Wires } from './wire.ts';

async function expectClients(stage: Stage): Promise<void> {
  for (const report of await stage.finish()) assert.equal(report.ok, true, `${report.name}: ${report.detail}`);
}

const isProtected = (all: NodeStatus[]) => all.some((one) => one.role === 'primary' && one.protected);

async function protectedAgain(stage: Stage): Promise<'a' | 'b'> {
  const all = await stage.pair.until('protected again', 120_000, isProtected);
  return all.find((one) => one.role === 'primary')?.node === 'b' ? 'b' : 'a';
}

async function connectTo(port: number): Promise<Socket> {
  const socket = createConnection({ port, host: '127.0.0.1', noDelay: true });
  socket.on('error', () => undefined);
  await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject));
  return socket;
}

test('the wire between the nodes stalls, is cut, and damages bytes: one node goes on each time, and is protected again', async () => {
  const wires = new Wires();
  const stage = await setStage({ vm: 'wire', protect: { mode: 'colo' }, reachAt: wires.reachAt });
  const turns: ('a' | 'b')[] = ['a'];
  const noteTurn = async () => {
    const primary = await protectedAgain(stage);
    if (primary !== turns.at(-1)) turns.push(primary);
    await served(stage, 20);
  };
  try {
    await protect(stage);
    await served(stage, 20);
    wires.stall();
    await stage.pair.until('one node alone', 60_000, (all) => !isProtected(all));
    wires.flow();
    await noteTurn();
    for (const fromBytes of [1, 2000]) {
      // A small message (a beat, a packet) and a large one (pages of a checkpoint).
      const damagedBefore = wires.damaged;
      wires.damage(fromBytes);
      stage.checkpointAt(turns.at(-1) ?? 'a').catch(() => undefined);
      await stage.pair.until('a byte was damaged', 60_000, () => wires.damaged > damagedBefore);
      await stage.pair.until('the damage was seen', 60_000, (all) => !isProtected(all));
      wires.damage(0);
      await noteTurn();
    }
    wires.cut();
    await stage.pair.until('the cut was seen', 60_000, (all) => !isProtected(all));
    await noteTurn();
    await expectClients(stage);
    assert.equal(voices(stage).length, turns.length, 'one turn of speaking for each change of the primary');
  } finally {
    await stage.close();
    wires.close();
  }
});

test('a storm of divergence with a secondary that is ten times slower: the output rule costs time, never a reply', async () => {
  const stage = await setStage({ vm: 'storm', protect: { mode: 'colo' } });
  let storm: NodeJS.Timeout | undefined;
  try {
    await protect(stage);
    const socket = await connectTo(stage.ports.redis);
    // TIME tells microseconds: the copies never agree.
    storm = setInterval(() => socket.write('*1\r\n$4\r\nTIME\r\n'), 15);
    socket.resume();
    await served(stage, 20);
    const disagreements = (all: NodeStatus[]) =>
      all.find((one) => one.role === 'primary')?.checkpoints?.reasons['payload'] ?? 0;
    await stage.pair.until('the copies disagree', 60_000, (all) => disagreements(all) > 5);
    const fast = slowDown((await stage.pair.b?.findQemu()) ?? 0, { runMs: 2, stopMs: 18 });
    try {
      await delay(3000);
      await served(stage, 20);
    } finally {
      fast();
    }
    await protectedAgain(stage);
    clearInterval(storm);
    socket.destroy();
    await inject('primary-kill', stage.pair, () => 0);
    await survives(stage, 'b');
    await expectClients(stage);
    assert.equal(voices(stage).length, 2);
  } finally {
    clearInterval(storm);
    await stage.close();
  }
});

test('a guest that reboots or panics while protected boots again and stays protected; one that switches off ends on both nodes', async () => {
  const stage = await setStage({ vm: 'guest-end', protect: { mode: 'colo' } });
  try {
    await protect(stage);
    for (const client of stage.clients) client.abort();
    for (const how of ['reboot', 'panic'] as const) {
      assert.equal(await ask(stage.ports.redis, '*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$1\r\n1\r\n'), '+OK\r\n');
      const guest = await connectTo(stage.ports.dirty);
      guest.write(`end ${how}\n`);
      // The new guest knows nothing of what the old one was told.
      await untilRedisForgot(stage);
      await protectedAgain(stage);
      guest.destroy();
    }
    await inject('primary-kill', stage.pair, () => 0);
    await survives(stage, 'b');
    await stage.pair.restart('a');
    assert.equal(await protectedAgain(stage), 'b');
    const guest = await connectTo(stage.ports.dirty);
    guest.write('end poweroff\n');
    await stage.pair.until(
      'the end of the VM',
      60_000,
      (all) => all.some((one) => one.role === 'stopped') && all.every((one) => one.role !== 'primary'),
    );
    guest.destroy();
  } finally {
    await stage.close();
  }
});

async function untilRedisForgot(stage: Stage): Promise<void> {
  for (let tries = 0; tries < 600; tries += 1) {
    const answer = await ask(stage.ports.redis, '*2\r\n$3\r\nGET\r\n$1\r\nx\r\n');
    if (answer === '$-1\r\n') return;
    await delay(100);
  }
  assert.fail('the guest did not come back');
}

test('the survivor stands still at takeover.claimed while the old primary wakes up: the old one is silent', () =>
  heldTakeover('takeover.claimed'));
