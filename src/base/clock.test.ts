// Time in which a process stood still is nobody's silence.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { afterAwake, systemClock } from './clock.ts';
import { handClock } from './hand-clock.ts';

test('who runs all the time is called when the time is over, and not before', () => {
  const clock = handClock();
  let called = 0;
  afterAwake(clock, 1000, () => (called += 1));
  for (let ms = 0; ms < 990; ms += 10) clock.move(10);
  assert.equal(called, 0);
  for (let ms = 0; ms < 100; ms += 10) clock.move(10);
  assert.equal(called, 1);
  assert.equal(clock.waiting, 0);
});

test('time in which the process stood still does not count, also when the wait was nearly over', () => {
  for (const beforeMs of [0, 500, 990]) {
    const clock = handClock();
    let called = 0;
    const cancel = afterAwake(clock, 1000, () => (called += 1));
    for (let ms = 0; ms < beforeMs; ms += 10) clock.move(10);
    clock.move(4000);
    assert.equal(called, 0, 'the answer may wait in a socket that nobody has read yet');
    clock.move(1);
    assert.equal(called, 0);
    cancel();
    assert.equal(clock.waiting, 0);
  }
});

test('one that is starved all the time judges in the end', () => {
  const clock = handClock();
  let called = 0;
  afterAwake(clock, 1000, () => (called += 1));
  for (let ms = 0; ms <= 12_000; ms += 600) clock.move(600);
  assert.equal(called, 1);
});

test('an answer that came while this process stood still is read before it counts as missing', async (context) => {
  const server = createServer().listen(0, '127.0.0.1');
  context.after(() => server.close());
  await once(server, 'listening');
  const address = server.address();
  assert.ok(address !== null && typeof address === 'object');
  // Answers while this process is blocked.
  const script = `require('net').connect(${address.port}, '127.0.0.1').on('data', function () { this.end('here') })`;
  const child = spawn(process.execPath, ['-e', script]);
  context.after(() => child.kill('SIGKILL'));
  const [socket] = await once(server, 'connection');
  const { promise, resolve } = Promise.withResolvers<string>();
  socket.once('data', (bytes: Buffer) => resolve(bytes.toString()));
  socket.write('are you there?');
  afterAwake(systemClock, 300, () => resolve('silence'));
  await new Promise(setImmediate);
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1500);
  assert.equal(await promise, 'here');
});
