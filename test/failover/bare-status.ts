// What the bare guest says of itself, through the gateway: it checks its own pages and sectors, and counts what is
// wrong.

import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { parseFields } from '../../guest/bare/guest.ts';
import { delay, systemClock } from '../../src/base/clock.ts';
import type { Stage } from './stage.ts';

const answerTimeoutMs = 180_000;
const askAgainMs = 500;

/** What the guest answers to a command; asked again until it answers. */
export async function command({ ports }: Stage, words: string): Promise<Map<string, bigint>> {
  const socket = createSocket('udp4');
  let answer: string | undefined;
  socket.on('message', (bytes) => {
    answer ??= bytes.toString();
  });
  try {
    for (const deadline = systemClock.now() + answerTimeoutMs; answer === undefined; await delay(askAgainMs)) {
      assert.ok(systemClock.now() < deadline, 'the guest does not say how it is');
      socket.send(words, ports.commands ?? 0, '127.0.0.1');
    }
    return parseFields(answer);
  } finally {
    socket.close();
  }
}

/** It found nothing wrong with its pages, its chains and its disk; `withDisk`: and it has been round its disk twice. */
export async function expectSoundGuest(stage: Stage, withDisk = false): Promise<void> {
  let status = await command(stage, 'status');
  // Twice round its sectors: then it has read back what it wrote.
  for (const deadline = systemClock.now() + answerTimeoutMs; withDisk && count(status, 'disk_writes') < 256; ) {
    assert.ok(systemClock.now() < deadline, `only ${count(status, 'disk_writes')} sectors were written`);
    await delay(askAgainMs);
    status = await command(stage, 'status');
  }
  for (const name of ['page_errors', 'chain_errors', 'disk_errors', 'tcp_given_up'])
    assert.equal(status.get(name), 0n, name);
  assert.ok(count(status, 'writes') > 0);
}

function count(status: Map<string, bigint>, name: string): number {
  return Number(status.get(name) ?? 0n);
}
