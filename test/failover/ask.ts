// One question to the guest's redis over a connection of its own, for tests whose guest may be away.

import assert from 'node:assert/strict';
import { createConnection } from 'node:net';
import { delay } from '../../src/base/clock.ts';

/** The answer; '' when there is none. */
export async function ask(port: number, request: string): Promise<string> {
  const socket = createConnection({ port, host: '127.0.0.1' });
  const { promise, resolve } = Promise.withResolvers<string>();
  socket.on('error', () => resolve(''));
  socket.on('close', () => resolve(''));
  socket.on('data', (chunk: Buffer) => resolve(chunk.toString('latin1')));
  socket.setTimeout(2000, () => resolve(''));
  socket.write(request);
  const answer = await promise;
  socket.destroy();
  return answer;
}

/** Waits until the guest's redis answers, whatever it is asked. */
export async function untilAnswered(port: number): Promise<void> {
  for (let tries = 0; tries < 600; tries += 1) {
    if ((await ask(port, '*1\r\n$4\r\nPING\r\n')) === '+PONG\r\n') return;
    await delay(100);
  }
  assert.fail('the guest does not answer');
}
