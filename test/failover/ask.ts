// One question to the guest's redis over a connection of its own, for tests whose guest may be away.

import assert from 'node:assert/strict';
import { createConnection } from 'node:net';
import { delay, systemClock } from '../../src/base/clock.ts';

const answerTimeoutMs = 180_000;

/** The answer; '' when there is none in time. */
export async function ask(port: number, request: string, timeoutMs = 2000): Promise<string> {
  const socket = createConnection({ port, host: '127.0.0.1' });
  const { promise, resolve } = Promise.withResolvers<string>();
  socket.on('error', () => resolve(''));
  socket.on('close', () => resolve(''));
  socket.on('data', (chunk: Buffer) => resolve(chunk.toString('latin1')));
  socket.setTimeout(timeoutMs, () => resolve(''));
  socket.write(request);
  const answer = await promise;
  socket.destroy();
  return answer;
}

/** Waits until the guest's redis answers, whatever it is asked. */
export async function untilAnswered(port: number): Promise<void> {
  await untilSays(port, '*1\r\n$4\r\nPING\r\n', '+PONG\r\n');
}

/** Asks until that is the answer. */
export async function untilSays(port: number, request: string, answer: string): Promise<void> {
  let said = '';
  for (const deadline = systemClock.now() + answerTimeoutMs; systemClock.now() < deadline; await delay(100)) {
    said = await ask(port, request);
    if (said === answer) return;
  }
  assert.fail(`the guest says ${JSON.stringify(said)}, and not ${JSON.stringify(answer)}`);
}
