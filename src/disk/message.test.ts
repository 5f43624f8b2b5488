// The disk messages: what is encoded comes back, and no bytes of a peer make a parser throw.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ColoError } from '../base/errors.ts';
import * as message from './message.ts';
import { encodeSegmentRecord, segmentRecordAt } from './segment.ts';

const sizes = [4096, 2 ** 40];

test('a record comes back as it was, from the link and from the journal', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 64 }), fc.nat(2 ** 30), fc.boolean(), (data, offset, zero) => {
      const record = {
        ...{ disk: 1, offset, length: data.length, position: 7 },
        kind: zero ? message.recordKinds.zeroes : message.recordKinds.data,
        data: zero ? Buffer.alloc(0) : Buffer.from(data),
      };
      const payload = Buffer.concat([message.encodeRecordHead(record), record.data]);
      assert.deepEqual(message.parseRecord(payload, sizes), record);
      const inFile = Buffer.concat(encodeSegmentRecord(record));
      assert.deepEqual(segmentRecordAt(inFile, 0, sizes), { record, next: inFile.length });
      for (let cut = 0; cut < inFile.length; cut += 1)
        assert.equal(segmentRecordAt(inFile.subarray(0, cut), 0, sizes), undefined);
      const damaged = Buffer.from(inFile);
      damaged[offset % inFile.length] = (damaged[offset % inFile.length] ?? 0) ^ 1;
      assert.equal(segmentRecordAt(damaged, 0, sizes), undefined);
    }),
  );
});

test('fuzz: no bytes of a peer make a parser throw, and no record outside its disk is accepted', () => {
  const parsers = [message.parseSession, message.parseMark, message.parseAbort, message.parseHash];
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => {
      for (const parse of parsers) parse(bytes);
      const record = message.parseRecord(bytes, sizes);
      if (record instanceof ColoError) return;
      assert.ok(record.offset + record.length <= (sizes[record.disk] ?? 0) && record.length > 0);
    }),
  );
  const outside = message.encodeRecordHead({ disk: 0, kind: 2, offset: 4095, length: 2, position: 1 });
  assert.ok(message.parseRecord(outside, sizes) instanceof ColoError);
});

test('session, mark, abort and hash come back as they were', () => {
  const session = { sizes: [512, 2 ** 40], durable: true };
  assert.deepEqual(message.parseSession(message.encodeSession(session)), session);
  assert.deepEqual(message.parseMark(message.encodeMark({ epoch: 9, position: 2 ** 40 })), {
    epoch: 9,
    position: 2 ** 40,
  });
  assert.equal(message.parseAbort(message.encodeAbort(5)), 5);
  // Epochs count for ever.
  const epoch = 2 ** 32 + 9;
  assert.deepEqual(message.parseMark(message.encodeMark({ epoch, position: 3 })), { epoch, position: 3 });
  assert.equal(message.parseAbort(message.encodeAbort(epoch)), epoch);
  const late = { epoch, disk: 2, hash: 'abc' };
  assert.deepEqual(message.parseHash(message.encodeHash(late)), late);
  for (const parse of [message.parseMark, message.parseAbort, message.parseHash])
    assert.ok(parse(new Uint8Array(parse === message.parseMark ? 16 : 8 + 2).fill(255)) instanceof Error);
  const hash = { epoch: 3, disk: 1, hash: 'sha1:00' };
  assert.deepEqual(message.parseHash(message.encodeHash(hash)), hash);
});

test('a session comes back as it was, and none offers a replica of its own future', () => {
  const lineage = '0123456789abcdef0123456789abcdef';
  for (const since of [undefined, 0, 7]) {
    const session = { sizes, durable: true, lineage, from: 7, ...(since === undefined ? {} : { since }) };
    assert.deepEqual(message.parseSession(message.encodeSession(session)), session);
  }
  const future = message.encodeSession({ sizes, durable: true, lineage, from: 7, since: 8 });
  assert.ok(message.parseSession(future) instanceof ColoError);
});
