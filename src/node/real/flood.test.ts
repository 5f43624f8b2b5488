// Strangers that knock at the port of the links as fast as they can do not hold up the event loop that carries the
// beats for as long as a lease lasts. Counted is the processor's time of this thread between two turns of the loop, not
// time: a machine that is busy with other work makes no difference.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemClock } from '../../base/clock.ts';
import { readIdentity } from '../../base/identity.ts';
import { connect, type Hello } from '../../channel/link.ts';
import { LinkServer } from '../../channel/link-server.ts';
import { beatPeriodMs, leaseMs } from '../../heartbeat/limits.ts';
import { beatTypes, encodeBeat } from '../../heartbeat/message.ts';
import { createAuthority, issueCertificate } from '../../host/certificates.ts';

/** Knocks from many addresses, with the certificate of nobody, until it is ended. */
const strangers = `
  import { readFileSync } from 'node:fs';
  import { connect } from 'node:tls';
  const [port, caFile] = process.argv.slice(1);
  const ca = readFileSync(caFile);
  let knocks = 0;
  const knock = (index) => {
    const from = { host: '127.0.0.1', localAddress: '127.0.' + (2 + (index % 50)) + '.' + (1 + (index % 250)) };
    const socket = connect({ ...from, port: Number(port), ca, checkServerIdentity: () => undefined });
    socket.on('error', () => undefined);
    socket.resume();
    socket.once('close', () => {
      knocks += 1;
      if (knocks % 500 === 0) process.stdout.write(knocks + '\\n');
      knock(index + 1000);
    });
  };
  for (let index = 0; index < 1000; index += 1) knock(index);`;

const hello: Hello = { vm: 'guest', node: 'left', kind: 'beat', term: 1, session: 'one' };

test('strangers that knock without end hold up no beat for as long as a lease', {
  timeout: 120_000,
}, async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'colo-flood-'));
  context.after(() => rmSync(folder, { recursive: true }));
  await createAuthority(join(folder, 'own'), 'own');
  const [left, right] = await Promise.all(
    ['left', 'right'].map(async (node) =>
      readIdentity(await issueCertificate(join(folder, 'own'), { node, addresses: [] })),
    ),
  );
  assert.ok(left !== undefined && right !== undefined);
  const server = await LinkServer.listen(
    { host: '127.0.0.1', port: 0 },
    {
      identity: right,
      accept: () => undefined,
      handshakeTimeoutMs: 60_000,
      local: (peer) => ({ ...peer, node: 'right' }),
      link: (link) => link.start({ message: (type, payload) => link.send(type, payload), closed: () => undefined }),
    },
  );
  context.after(() => server.close());
  const link = await connect(server.address, hello, { timeoutMs: 60_000, identity: left, peerNode: 'right' });
  context.after(() => link.destroy());
  let echoes = 0;
  let hasEnded = false;
  link.start({ message: () => void (echoes += 1), closed: () => void (hasEnded = true) });

  const caFile = join(folder, 'ca.pem');
  writeFileSync(caFile, left.ca);
  const { port } = server.address as { port: number };
  const child = spawn(process.execPath, ['--input-type=module', '-e', strangers, String(port), caFile]);
  context.after(() => child.kill('SIGKILL'));
  const knocked = Promise.withResolvers<void>();
  child.stdout.on('data', (bytes: Buffer) => Number(bytes.toString().split('\n')[0]) >= 3000 && knocked.resolve());
  void once(child, 'close').then(() => knocked.reject(new Error('the strangers have gone')));

  let beats = 0;
  let longestMs = 0;
  let last = process.threadCpuUsage();
  const stop = systemClock.every(beatPeriodMs / 5, () => {
    const { user, system } = process.threadCpuUsage(last);
    last = process.threadCpuUsage();
    longestMs = Math.max(longestMs, (user + system) / 1000);
    beats += 1;
    link.send(beatTypes.beat, encodeBeat({ sequence: beats, term: 1, sentAt: systemClock.now() }));
  });
  await knocked.promise;
  const atEnd = beats;
  while (echoes < atEnd && !hasEnded) await new Promise(setImmediate);
  stop();
  assert.ok(!hasEnded, 'the link of the pair has ended');
  assert.ok(longestMs < leaseMs / 2, `one turn of the loop took ${longestMs.toFixed(0)} ms of the processor`);
  const { refused, rate, busy } = server.counters;
  assert.ok(
    (refused.identity ?? 0) > 0 && rate + busy > 0,
    'some of them were let as far as a handshake, and some not',
  );
});
