// When a guest's write is answered, what a mark covers, and that a lost secondary leaves no write waiting.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nbdErrors } from '../nbd/protocol.ts';
import type { NbdRequest } from '../nbd/session.ts';
import { diskMessages, parseMark, parseRecord } from './message.ts';
import { DiskSink } from './sink.ts';

const megabyte = 1024 * 1024;

function write(length: number): NbdRequest {
  const data = Buffer.alloc(length, 1);
  return { kind: 'write', cookie: 1n, exportName: 'disk0', offset: 0, length, data, fua: false };
}

function open(options: { replicated: boolean; windowBytes?: number }) {
  const sent: { type: number; payload: Buffer }[] = [];
  const drains: (() => void)[] = [];
  const sink = new DiskSink(
    {
      send: (type, ...parts) => void sent.push({ type, payload: Buffer.concat(parts) }),
      drain: () => new Promise((resolve) => void drains.push(resolve)),
    },
    { ...options, replicated: [options.replicated] },
  );
  const answers: number[] = [];
  const ask = (request: NbdRequest) => sink.request(0, request, (error) => void answers.push(error));
  const settle = async () => {
    for (const drain of drains.splice(0)) drain();
    await new Promise((resolve) => void setImmediate(resolve));
  };
  return { sink, sent, answers, ask, settle };
}

test('a local write is answered when the link has it; beyond the window it waits for the secondary', async () => {
  const { sink, answers, ask, settle } = open({ replicated: false, windowBytes: 3 * megabyte });
  ask(write(2 * megabyte));
  assert.equal(answers.length, 0);
  await settle();
  assert.deepEqual(answers, [nbdErrors.none]);
  ask(write(2 * megabyte));
  await settle();
  assert.equal(answers.length, 1);
  assert.equal(sink.backlogBytes, 4 * megabyte);
  sink.held(1);
  assert.equal(answers.length, 2);
});

test('a replicated write is answered when the secondary holds it, and not before', async () => {
  const { sink, answers, ask, settle } = open({ replicated: true });
  ask(write(512));
  await settle();
  assert.equal(answers.length, 0);
  sink.held(1);
  assert.deepEqual(answers, [nbdErrors.none]);
});

test('a mark names every record before it; a large write is several records', async () => {
  const { sink, sent, ask } = open({ replicated: false });
  ask(write(9 * megabyte));
  ask({ kind: 'trim', cookie: 2n, exportName: 'disk0', offset: 0, length: 4096 });
  assert.equal(sink.mark(5), 4);
  const records = sent.filter(({ type }) => type === diskMessages.record);
  assert.deepEqual(
    records.map(({ payload }) => Object(parseRecord(payload, [16 * megabyte])).position),
    [1, 2, 3, 4],
  );
  assert.deepEqual(parseMark(sent.at(-1)?.payload ?? Buffer.alloc(0)), { epoch: 5, position: 4 });
});

test('when the secondary is lost, what waits is answered at once, without an error, and no capture can be marked', async () => {
  const { sink, answers, ask, settle } = open({ replicated: true });
  ask(write(512));
  sink.fail('the link is gone');
  assert.deepEqual(answers, [nbdErrors.none]);
  ask(write(512));
  assert.deepEqual(answers, [nbdErrors.none, nbdErrors.none]);
  assert.throws(() => sink.mark(1), /the link is gone/);
  await settle();
  assert.equal(answers.length, 2);
});
