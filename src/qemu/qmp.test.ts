// Against a scripted server on a Unix socket: QEMU's wire format, including what a healthy QEMU never sends.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { systemClock } from '../base/clock.ts';
import { jobFailure, runJob } from './job.ts';
import { Qmp } from './qmp.ts';
import { checkVersion } from './start.ts';

interface Command {
  execute: string;
  id: number;
}

type Script = (command: Command, send: (message: unknown) => void, socket: Socket) => void;

const greeting = { QMP: { version: { qemu: { major: 7, minor: 2, micro: 22 } }, capabilities: [] } };

/** A client connected to a server that greets, accepts the negotiation, and then does what `script` says. */
async function open(context: TestContext, script: Script, options: { greet?: unknown; timeoutMs?: number } = {}) {
  const dir = mkdtempSync(join(tmpdir(), 'colo-qmp-'));
  const path = join(dir, 'qmp.sock');
  const server = createServer((socket) => serve(socket, script, options.greet ?? greeting));
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const socket = connect(path);
  context.after(async () => {
    socket.destroy();
    await new Promise((resolve) => server.close(resolve));
    rmSync(dir, { recursive: true });
  });
  return Qmp.open(socket, { clock: systemClock, timeoutMs: options.timeoutMs ?? 60_000 });
}

function serve(socket: Socket, script: Script, greet: unknown): void {
  const send = (message: unknown) => void socket.write(`${JSON.stringify(message)}\r\n`);
  send(greet);
  let text = '';
  socket.on('error', () => undefined);
  socket.on('data', (bytes) => {
    text += bytes.toString();
    for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
      const command = JSON.parse(text.slice(0, end)) as Command;
      text = text.slice(end + 1);
      if (command.execute === 'qmp_capabilities') send({ return: {}, id: command.id });
      else script(command, send, socket);
    }
  });
}

test('replies reach their commands by id, also out of order and in pieces', async (context) => {
  const waiting: number[] = [];
  const qmp = await open(context, ({ id }, _send, socket) => {
    waiting.push(id);
    if (waiting.length < 2) return;
    const [first, second] = waiting;
    socket.write(`{"return": "b", "id": ${second}}\n{"return": "a", "i`);
    socket.write(`d": ${first}}\n`);
  });
  assert.deepEqual(await Promise.all(qmp.executeTogether([{ execute: 'x' }, { execute: 'y' }])), ['a', 'b']);
});

test("an error of QEMU becomes one typed error with QEMU's text", async (context) => {
  const qmp = await open(context, ({ id }, send) =>
    send({ error: { class: 'GenericError', desc: 'No such job' }, id }),
  );
  await assert.rejects(qmp.execute('job-dismiss'), { code: 'COLO_E_QEMU', message: /"job-dismiss": No such job/ });
});

test('a command that is not answered fails alone, and its late reply disturbs nobody', async (context) => {
  let late: number | undefined;
  const qmp = await open(context, ({ execute, id }, send) => {
    if (execute === 'hang') late = id;
    else {
      send({ return: 'late', id: late });
      send({ return: 'in time', id });
    }
  });
  await assert.rejects(qmp.execute('hang', undefined, 20), { code: 'COLO_E_QEMU_TIMEOUT' });
  assert.equal(await qmp.execute('next'), 'in time');
});

test('events reach the listeners of their name until they leave', async (context) => {
  const qmp = await open(context, ({ id }, send) => {
    send({ event: 'STOP', data: { by: id }, timestamp: {} });
    send({ event: 'RESUME', timestamp: {} });
    send({ return: {}, id });
  });
  const seen: unknown[] = [];
  const off = qmp.on('STOP', (event) => seen.push(event.name));
  await qmp.execute('stop');
  off();
  await qmp.execute('stop');
  assert.deepEqual(seen, ['STOP']);
});

test('a lost connection fails every pending command, and later ones at once', async (context) => {
  const qmp = await open(context, ({ execute }, _send, socket) => {
    if (execute === 'second') socket.destroy();
  });
  const replies = qmp.executeTogether([{ execute: 'first' }, { execute: 'second' }]);
  for (const reply of replies) await assert.rejects(reply, { code: 'COLO_E_QEMU' });
  await assert.rejects(qmp.execute('third'), { code: 'COLO_E_QEMU', message: /not sent/ });
  assert.equal((await qmp.closed).code, 'COLO_E_QEMU');
});

test('bytes that are not QMP, and a line without end, end the connection with a typed error', async (context) => {
  const garbage = await open(context, (_command, _send, socket) => void socket.write('\x00\xffnonsense\n'));
  await assert.rejects(garbage.execute('x'), { code: 'COLO_E_QEMU' });
  assert.match((await garbage.closed).message, /not QMP/);
  const endless = await open(context, (_command, _send, socket) => void socket.write(Buffer.alloc(5 * 2 ** 20, 0x20)));
  await assert.rejects(endless.execute('x'), { code: 'COLO_E_QEMU' });
  assert.match((await endless.closed).message, /longer than/);
});

test('a server that does not greet is a timeout', async (context) => {
  await assert.rejects(
    open(context, () => undefined, { greet: { event: 'HELLO' }, timeoutMs: 20 }),
    { code: 'COLO_E_QEMU_TIMEOUT' },
  );
});

function jobServer(error: string | undefined): Script {
  return ({ execute, id }, send) => {
    if (execute === 'query-jobs') {
      const failure = error === undefined ? {} : { error };
      send({
        return: [
          { id: 'other', status: 'running' },
          { id: 'job', status: 'concluded', ...failure },
        ],
        id,
      });
      return;
    }
    // The job may conclude before the command that starts it is answered.
    if (execute === 'snapshot-load') {
      for (const status of ['created', 'running', 'concluded']) {
        send({ event: 'JOB_STATUS_CHANGE', data: { id: 'job', status } });
      }
    }
    send({ return: {}, id });
  };
}

const job = { clock: systemClock, timeoutMs: 60_000, id: 'job', command: 'snapshot-load', arguments: {} };

test("a job's error is reported, and its success is not missed", async (context) => {
  await runJob({ ...job, qmp: await open(context, jobServer(undefined)) });
  const failing = await open(context, jobServer('Snapshot is damaged'));
  await assert.rejects(runJob({ ...job, qmp: failing }), { code: 'COLO_E_CHECKPOINT', message: /Snapshot is damaged/ });
});

test('a QEMU that dies before the job is dismissed fails the job, and nothing that nobody waits for', async (context) => {
  const unheard: unknown[] = [];
  const hear = (error: unknown) => void unheard.push(error);
  process.on('unhandledRejection', hear);
  context.after(() => process.off('unhandledRejection', hear));
  const serve = jobServer(undefined);
  const dying = await open(context, (command, send, socket) => {
    if (command.execute === 'query-jobs') socket.destroy();
    else serve(command, send, socket);
  });
  await assert.rejects(runJob({ ...job, qmp: dying }), { code: 'COLO_E_QEMU' });
  await new Promise(setImmediate);
  assert.deepEqual(unheard, []);
});

test('a job that never concludes, or whose QEMU dies, does not wait for ever', async (context) => {
  const silent = await open(context, ({ id }, send) => send({ return: {}, id }));
  await assert.rejects(runJob({ ...job, qmp: silent, timeoutMs: 20 }), { code: 'COLO_E_QEMU_TIMEOUT' });
  const dying = await open(context, ({ id }, send, socket) => {
    send({ return: {}, id });
    socket.end();
  });
  await assert.rejects(runJob({ ...job, qmp: dying }), { code: 'COLO_E_QEMU' });
});

test('what QEMU says in place of a text or a number is shown, or counts as none, and never throws', async (context) => {
  const odd = { toString: 1, valueOf: 1 };
  const qmp = await open(context, ({ id, execute }, send) => {
    if (execute === 'query-version') send({ return: { qemu: { major: odd } }, id });
    else send({ error: { desc: odd }, id });
  });
  await assert.rejects(qmp.execute('stop'), { code: 'COLO_E_QEMU', message: /toString/ });
  await assert.rejects(checkVersion(qmp), { code: 'COLO_E_HOST', message: /QEMU 0\.0\.0 is too old/ });
  assert.match(jobFailure([{ id: 'job', error: odd }], 'job') ?? '', /toString/);
});
