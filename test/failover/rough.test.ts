// Rough weather on real QEMU: the wire between the nodes stalls, is cut, damages bytes; the secondary is ten times
// slower; the copies disagree all the time; the guest reboots, panics and switches itself off; a node stands still in
// the middle of its takeover while the old primary wakes up. Clients see exact replies throughout, and a register whose
// whole history could have happened in one place.

import assert from 'node:assert/strict';
import { createConnection, type Socket } from 'node:net';
import { test } from 'node:test';
import type { NodeStatus } from '../../src/api/node-status.ts';
import { delay } from '../../src/base/clock.ts';
import { untilSays } from './ask.ts';
import { heldTakeover } from './held.ts';
import { slowDown } from './slow.ts';
import {
  expectClients,
  expectOneVoice,
  hold,
  over,
  protect,
  type Roles,
  roles,
  type Stage,
  served,
  setStage,
  strike,
  survives,
} from './stage.ts';
import { Wires } from './wire.ts';

async function connectTo(port: number): Promise<Socket> {
  const socket = createConnection({ port, host: '127.0.0.1', noDelay: true });
  socket.on('error', () => undefined);
  await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject));
  return socket;
}

test('the wire between the nodes stalls, is cut, and damages bytes: one node goes on each time, and is protected again', async () => {
  const wires = new Wires();
  const stage = await setStage({ vm: 'wire', protect: { mode: 'colo' }, reachAt: wires.reachAt });
  try {
    await protect(stage);
    await served(stage, 20);
    const strikeWire = async (act: (now: Roles) => Promise<void> | void) => {
      const now = await roles(stage);
      await act(now);
      await over(stage, now.term);
      wires.damage(0);
      wires.flow();
      await roles(stage);
      await served(stage, 20);
    };
    await strikeWire(() => wires.stall());
    // A small message (a beat, a packet) and a large one (pages of a checkpoint).
    for (const fromBytes of [1, 2000])
      await strikeWire(async ({ primary }) => {
        const damagedBefore = wires.damaged;
        wires.damage(fromBytes);
        stage.checkpointAt(primary).catch(() => undefined);
        await stage.pair.until('a byte was damaged', 120_000, () => wires.damaged > damagedBefore);
      });
    await strikeWire(() => wires.cut());
    await expectClients(stage);
    expectOneVoice(stage);
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
    // On a starved host the secondary is mostly too late to disagree: then it is its silence that asks for a
    // checkpoint.
    const reasons = (all: NodeStatus[]) => all.find((one) => one.role === 'primary')?.checkpoints?.reasons ?? {};
    await stage.pair.until('the copies disagree', 180_000, (all) => {
      const { payload = 0, timeout = 0 } = reasons(all);
      return payload > 0 && payload + timeout > 5;
    });
    const { node, qemuPid } = await hold(stage, 'secondary');
    node.signal('SIGCONT');
    const fast = slowDown(qemuPid, { runMs: 2, stopMs: 18 });
    try {
      await served(stage, 40);
    } finally {
      fast();
    }
    await roles(stage);
    clearInterval(storm);
    socket.destroy();
    const { survivor } = await strike(stage, 'primary-kill');
    await survives(stage, survivor);
    await expectClients(stage);
    expectOneVoice(stage);
  } finally {
    clearInterval(storm);
    await stage.close();
  }
});

/**
 * Tells the guest to end in this way; it hears that only when its service listens, which is not the first one to do so.
 */
async function tellEnd(stage: Stage, how: string): Promise<Socket> {
  let heard = '';
  for (let tries = 0; tries < 60; tries += 1) {
    const guest = await connectTo(stage.ports.dirty);
    const answer = new Promise<string>((resolve) => {
      guest.on('data', (chunk: Buffer) => resolve(String(chunk)));
      guest.on('close', () => resolve(''));
      guest.setTimeout(3000, () => resolve(''));
    });
    guest.write('are you there?\n');
    heard = await answer;
    if (heard !== '') {
      guest.setTimeout(0);
      guest.write(`end ${how}\n`);
      return guest;
    }
    guest.destroy();
    await delay(100);
  }
  return assert.fail('the guest does not take its end');
}

test('a guest that reboots or panics while protected boots again and stays protected; one that switches off ends on both nodes', async () => {
  const stage = await setStage({ vm: 'guest-end', protect: { mode: 'colo' } });
  try {
    await protect(stage);
    for (const client of stage.clients) client.abort();
    for (const how of ['reboot', 'panic'] as const) {
      await untilSays(stage.ports.redis, '*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$1\r\n1\r\n', '+OK\r\n');
      const guest = await tellEnd(stage, how);
      // The new guest knows nothing of what the old one was told.
      await untilSays(stage.ports.redis, '*2\r\n$3\r\nGET\r\n$1\r\nx\r\n', '$-1\r\n');
      await roles(stage);
      guest.destroy();
    }
    const { survivor, struck } = await strike(stage, 'primary-kill');
    await survives(stage, survivor);
    await stage.pair.restart(struck);
    await roles(stage);
    const guest = await tellEnd(stage, 'poweroff');
    await stage.pair.until(
      'the end of the VM',
      120_000,
      (all) => all.some((one) => one.role === 'stopped') && all.every((one) => one.role !== 'primary'),
    );
    guest.destroy();
  } finally {
    await stage.close();
  }
});

test('the survivor stands still at takeover.claimed while the old primary wakes up: the old one is silent', () =>
  heldTakeover('takeover.claimed'));
