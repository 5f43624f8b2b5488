// The codecs of the bulk link: round trip, and a refusal for everything that is cut, too long or inconsistent.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ColoError, errorCodes } from '../base/errors.ts';
import { PageRuns } from '../base/page-runs.ts';
import {
  type Applied,
  encodeApplied,
  encodeBegin,
  encodeEnd,
  encodePagesHead,
  encodeState,
  encodeTemplateHead,
  parseApplied,
  parseBegin,
  parseEnd,
  parsePages,
  parseState,
  parseTemplate,
} from './message.ts';

const begin = { epoch: 2 ** 40, base: 7, sequence: 3, kind: 'round' } as const;
const end = { epoch: 9, batches: 2, pages: 3, rawBytes: 12288, hash: 0xffffffff };
const state = {
  epoch: 9,
  standsMs: 1.25,
  deviceState: Buffer.from('devices'),
  table: Buffer.from('table'),
  held: Buffer.alloc(0),
  ramHash: 'abc',
};
const applied: Applied = {
  epoch: 9,
  ok: true,
  verified: false,
  ownPages: 12,
  phases: { stopMs: 1, rollbackMs: 2, writeMs: 3, loadMs: 4, fixMs: 5, resumeMs: 6.5 },
};
const runs = new PageRuns();
runs.add(4096, 8192);
runs.add(40960, 49152);
const deltas = new PageRuns();
deltas.add(8192 - 4096, 8192);
deltas.add(45056, 49152);
const pages = {
  epoch: 9,
  index: 1,
  rawBytes: 12288,
  runs,
  deltas,
  encoding: 1,
  data: Buffer.from('compressed'),
} as const;
const template = { rawBytes: 100, encoding: 0, specHash: 'spec', data: Buffer.from('qcow2') } as const;
const pagesBytes = Buffer.concat([encodePagesHead(pages), pages.data]);
const templateBytes = Buffer.concat([encodeTemplateHead(template), template.data]);

test('every message arrives as it was sent', () => {
  assert.deepEqual(parseBegin(encodeBegin(begin)), begin);
  assert.deepEqual(parsePages(pagesBytes), pages);
  assert.deepEqual(parseState(Buffer.from(encodeState(state))), state);
  assert.deepEqual(parseEnd(encodeEnd(end)), end);
  for (const verified of [null, true, false]) {
    assert.deepEqual(parseApplied(encodeApplied({ ...applied, verified })), { ...applied, verified });
  }
  assert.deepEqual(parseTemplate(templateBytes), template);
});

const parsers: [string, (payload: Uint8Array) => unknown, Uint8Array, number][] = [
  ['begin', parseBegin, encodeBegin(begin), 21],
  ['pages', parsePages, pagesBytes, 22 + 16 + 16],
  ['state', parseState, encodeState(state), encodeState(state).length],
  ['end', parseEnd, encodeEnd(end), 28],
  ['applied', parseApplied, encodeApplied(applied), 62],
  ['template', parseTemplate, templateBytes, 12],
];

const isRefusal = (value: unknown): boolean => value instanceof ColoError && value.code === errorCodes.checkpoint;

test('every message is refused when it is cut within its fixed part, at every byte', () => {
  for (const [name, parse, bytes, fixed] of parsers) {
    for (let length = 0; length < fixed; length += 1) {
      assert.ok(isRefusal(parse(bytes.subarray(0, length))), `${name} cut at ${length}`);
    }
  }
});

test('bytes behind a message of fixed size are refused', () => {
  for (const [name, parse, bytes] of parsers) {
    if (['pages', 'template'].includes(name)) continue;
    assert.ok(isRefusal(parse(Buffer.concat([bytes, Buffer.from([0])]))), name);
  }
});

test('pages that do not ascend, are empty, or have another size are refused', () => {
  const field = (at: number, value: number): Buffer => {
    const bytes = Buffer.from(pagesBytes);
    bytes.writeUInt32BE(value, at);
    return bytes;
  };
  for (const bytes of [field(12, 4096), field(12, 0xffffffff), field(26, 0), field(30, 1), field(34, 0xffffffff)]) {
    assert.ok(isRefusal(parsePages(bytes)));
  }
});

test('differences of pages that the batch does not bring are refused', () => {
  const shifted = Buffer.from(pagesBytes);
  for (const page of [0, 2, 9, 12]) {
    shifted.writeUInt32BE(page, 22 + 16 + 8);
    assert.ok(isRefusal(parsePages(shifted)), `page ${page}`);
  }
});

test('random bytes never make a parser throw', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 120 }), (bytes) => {
      for (const [, parse] of parsers) parse(bytes);
    }),
  );
});

test('a state too large to travel is an error before anything is sent', () => {
  const tooLarge = { ...state, held: Buffer.alloc(4 * 1024 * 1024) };
  assert.throws(
    () => encodeState(tooLarge),
    (error) => isRefusal(error) && /held frames/.test(String(error)),
  );
});

test('a number that its field does not hold is never sent', () => {
  assert.throws(() => encodeBegin({ ...begin, epoch: 2 ** 53 }), /is no count/);
  assert.throws(() => encodeBegin({ ...begin, sequence: 2 ** 32 }), /does not fit into 32 bits/);
  assert.throws(() => encodeEnd({ ...end, batches: -1 }), /does not fit into 32 bits/);
});
