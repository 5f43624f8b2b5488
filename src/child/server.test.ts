// The API of a node's process answers with a status that says whose fault it is: the caller's, something outside, or
// ours.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { nodeBodyBytesMax } from '../api/limits.ts';
import type { ProcessStatus } from '../api/node-status.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import type { ColoNode } from '../node/node.ts';
import { ApiServer } from './server.ts';

async function listen(context: TestContext, error: { now: Error }): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'colo-child-'));
  const fail = () => {
    throw error.now;
  };
  const node = { checkpoint: async () => fail(), failover: fail, leave: fail, status: () => ({}), setPeers: fail };
  const path = join(folder, 'api.sock');
  const server = await ApiServer.listen(path, {
    node: node as unknown as ColoNode,
    stop: () => assert.fail('nobody told it to stop'),
    process: () => ({}) as ProcessStatus,
  });
  context.after(async () => {
    await server.close();
    rmSync(folder, { recursive: true });
  });
  return path;
}

/** Status and error of a request. */
function ask(socketPath: string, method: string, path: string, body = ''): Promise<[number, string]> {
  return new Promise((resolve, reject) => {
    const call = request({ socketPath, method, path }, async (answer) => {
      let text = '';
      for await (const chunk of answer) text += String(chunk);
      const { error } = JSON.parse(text) as { error?: { message: string } };
      resolve([answer.statusCode ?? 0, error?.message ?? '']);
    });
    call.once('error', reject);
    call.end(body);
  });
}

test('what fails outside is 503, what a caller did wrong 4xx, and only a bug of ours 500', async (context) => {
  const error: { now: Error } = { now: new Error('unset') };
  const path = await listen(context, error);
  const statuses: Record<keyof typeof errorCodes, number> = {
    ...{ input: 400, needed: 409 },
    ...{ host: 503, qemu: 503, qemuTimeout: 503, machine: 503, channel: 503, checkpoint: 503 },
    ...{ arbiter: 503, termLost: 503, timeout: 503 },
  };
  for (const [name, status] of Object.entries(statuses)) {
    error.now = new ColoError(errorCodes[name as keyof typeof errorCodes], `it is ${name}`);
    assert.deepEqual(await ask(path, 'POST', '/checkpoint'), [status, `it is ${name}`]);
  }
  error.now = new TypeError('a bug');
  assert.deepEqual(await ask(path, 'POST', '/failover'), [500, 'a bug']);
  assert.deepEqual(await ask(path, 'GET', '/status'), [200, '']);
  assert.deepEqual(await ask(path, 'GET', '/nothing'), [404, 'there is no GET /nothing']);
  assert.equal((await ask(path, 'PUT', '/peers', '{}'))[0], 400);
  assert.equal((await ask(path, 'PUT', '/peers', 'x'.repeat(nodeBodyBytesMax + 1)))[0], 400);
});
