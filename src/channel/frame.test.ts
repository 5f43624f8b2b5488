// The framing: what one side lays out the other reads, in whatever pieces it arrives, and damage is always seen.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { seededRandom } from '../base/random.ts';
import { FrameDecoder, headerBytes, type Refusal } from './frame.ts';
import { copiedPartBytesMax } from './limits.ts';
import { Outbox } from './outbox.ts';

interface Message {
  type: number;
  payload: Buffer;
}

function layOut(messages: readonly Message[]): Buffer {
  const outbox = new Outbox();
  for (const { type, payload } of messages) outbox.add(type, [payload.subarray(0, 1), payload.subarray(1)]);
  return Buffer.concat(outbox.take());
}

function decodeAll(
  chunks: readonly Buffer[],
  decoder = new FrameDecoder(),
): { messages: Message[]; refusal?: Refusal } {
  const messages: Message[] = [];
  for (const chunk of chunks) {
    const refusal = decoder.push(chunk, (type, payload) => {
      messages.push({ type, payload: Buffer.from(payload) });
      return true;
    });
    if (refusal !== undefined) return { messages, refusal };
  }
  return { messages };
}

const three: Message[] = [
  { type: 1, payload: Buffer.from('one') },
  { type: 2, payload: Buffer.alloc(0) },
  { type: 255, payload: Buffer.alloc(100, 7) },
];

test('messages arrive as they were sent, wherever the stream is split', () => {
  const stream = layOut(three);
  for (let first = 0; first <= stream.length; first += 1) {
    const second = Math.min(stream.length, first + 17);
    const chunks = [stream.subarray(0, first), stream.subarray(first, second), stream.subarray(second)];
    assert.deepEqual(decodeAll(chunks), { messages: three });
  }
  const bytes = [...stream].map((byte) => Buffer.from([byte]));
  assert.deepEqual(decodeAll(bytes), { messages: three });
});

test('large parts travel beside the slab and arrive in their place', () => {
  const large = Buffer.alloc(copiedPartBytesMax * 3, 5);
  const messages = [three[0], { type: 3, payload: large }, three[2]].filter((each) => each !== undefined);
  const stream = layOut(messages);
  assert.deepEqual(decodeAll([stream.subarray(0, 70_001), stream.subarray(70_001)]), { messages });
});

test('every single damaged byte is detected, and the damaged message is never delivered', () => {
  const stream = layOut(three);
  const firstEnd = headerBytes + 3;
  for (let at = 0; at < stream.length; at += 1) {
    const damaged = Buffer.from(stream);
    damaged[at] = (damaged[at] ?? 0) ^ 0x40;
    const decoder = new FrameDecoder();
    const { messages, refusal } = decodeAll([damaged], decoder);
    // A length that grew is seen at the latest when the stream ends in the middle of a message.
    assert.ok(refusal !== undefined || !decoder.atBoundary, `byte ${at}`);
    assert.deepEqual(messages, three.slice(0, messages.length));
    if (at < firstEnd) assert.equal(messages.length, 0);
  }
});

test('a lost, a repeated and a reordered message are seen', () => {
  const outbox = new Outbox();
  const frames = [1, 2, 3].map((type) => {
    outbox.add(type, []);
    return Buffer.concat(outbox.take());
  });
  for (const order of [[1], [0, 2], [0, 0], [1, 0]]) {
    const { refusal } = decodeAll(order.map((index) => frames[index] ?? Buffer.alloc(0)));
    assert.equal(refusal?.kind, 'sequence');
  }
});

test('a length beyond the limit is refused from the header alone', () => {
  const stream = layOut([{ type: 1, payload: Buffer.alloc(101) }]);
  const { refusal } = decodeAll([stream.subarray(0, headerBytes)], new FrameDecoder(100));
  assert.equal(refusal?.kind, 'length');
});

test('random bytes never throw and never become a message', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 100 }), { maxLength: 5 }), (chunks) => {
      const { messages } = decodeAll(chunks.map((chunk) => Buffer.from(chunk)));
      assert.equal(messages.length, 0);
    }),
  );
});

test('any messages in any pieces round trip', () => {
  const message = fc.record({ type: fc.integer({ min: 1, max: 255 }), payload: fc.uint8Array({ maxLength: 300 }) });
  fc.assert(
    fc.property(fc.array(message, { maxLength: 10 }), fc.integer(), (list, seed) => {
      const messages = list.map(({ type, payload }) => ({ type, payload: Buffer.from(payload) }));
      const stream = layOut(messages);
      const random = seededRandom(seed);
      const chunks: Buffer[] = [];
      for (let at = 0; at < stream.length; ) {
        const length = 1 + Math.floor(random() * 200);
        chunks.push(stream.subarray(at, at + length));
        at += length;
      }
      assert.deepEqual(decodeAll(chunks), { messages });
    }),
  );
});

test('messages go on beyond the wrap of their number', () => {
  const outbox = new Outbox();
  const decoder = new FrameDecoder();
  for (const one of [outbox, decoder]) Reflect.set(one, 'sequence', 0xfffffffe);
  for (const { type, payload } of three) outbox.add(type, [payload]);
  assert.deepEqual(decodeAll([Buffer.concat(outbox.take())], decoder), { messages: three });
  assert.equal(Reflect.get(decoder, 'sequence'), 1);
});
