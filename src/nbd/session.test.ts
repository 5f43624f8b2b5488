// The NBD session is fed by a QEMU, so by whatever a guest made of that QEMU. Invariants, whatever the bytes:
//   - it never throws
//   - every request that is handed out lies inside its export, and is not larger than the limits
//   - at most limits.requestsInFlightMax requests are out at once
//   - how the bytes are cut into chunks changes nothing

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { requestBytesMax, requestsInFlightMax } from './limits.ts';
import * as nbd from './protocol.ts';
import { type NbdExport, type NbdRequest, NbdSession } from './session.ts';

const sizeBytes = 1024 * 1024;
const disk: NbdExport = { name: 'disk0', sizeBytes, readOnly: false, flush: true };

function open(exports: NbdExport[] = [disk]) {
  const sent: Buffer[] = [];
  const requests: NbdRequest[] = [];
  const ends: (string | undefined)[] = [];
  const session = new NbdSession(exports, {
    send: (...parts) => void sent.push(Buffer.concat(parts)),
    request: (request) => void requests.push(request),
    ended: (why) => void ends.push(why),
  });
  sent.length = 0;
  return { session, sent, requests, ends };
}

function option(number: number, data: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(16);
  head.writeBigUInt64BE(nbd.magics.option, 0);
  head.writeUInt32BE(number, 8);
  head.writeUInt32BE(data.length, 12);
  return Buffer.concat([head, data]);
}

function go(name: string): Buffer {
  const data = Buffer.alloc(6 + name.length);
  data.writeUInt32BE(name.length, 0);
  data.write(name, 4);
  return option(nbd.options.go, data);
}

function request(
  command: number,
  at: { offset?: number; length?: number; flags?: number; data?: Buffer; cookie?: number },
) {
  const head = Buffer.alloc(28);
  head.writeUInt32BE(nbd.magics.request, 0);
  head.writeUInt16BE(at.flags ?? 0, 4);
  head.writeUInt16BE(command, 6);
  head.writeBigUInt64BE(BigInt(at.cookie ?? 7), 8);
  head.writeBigUInt64BE(BigInt(at.offset ?? 0), 16);
  head.writeUInt32BE(at.length ?? at.data?.length ?? 0, 24);
  return Buffer.concat([head, at.data ?? Buffer.alloc(0)]);
}

const clientFlags = Buffer.from([0, 0, 0, 3]);
const handshake = Buffer.concat([clientFlags, go('disk0')]);

function errorOf(reply: Buffer | undefined): number {
  assert.equal(reply?.readUInt32BE(0), nbd.magics.simpleReply);
  return reply?.readUInt32BE(4) ?? -1;
}

test('requests outside the export are refused with the error that NBD has for it, and the stream goes on', () => {
  const { session, sent, requests } = open();
  session.push(handshake);
  sent.length = 0;
  session.push(request(nbd.commands.write, { offset: sizeBytes - 4, data: Buffer.alloc(8) }));
  session.push(request(nbd.commands.writeZeroes, { offset: 0, length: sizeBytes + 1 }));
  session.push(request(nbd.commands.read, { offset: Number.MAX_SAFE_INTEGER, length: 1 }));
  session.push(request(nbd.commands.trim, { offset: sizeBytes, length: 1 }));
  session.push(request(nbd.commands.read, { offset: 0, length: requestBytesMax + 1 }));
  session.push(request(nbd.commands.read, { offset: 0, length: 0 }));
  session.push(request(nbd.commands.read, { flags: 0x80, length: 1 }));
  session.push(request(99, { length: 1 }));
  const { noSpace, invalid } = nbd.nbdErrors;
  assert.deepEqual(sent.map(errorOf), [noSpace, noSpace, ...Array.from({ length: 6 }, () => invalid)]);
  assert.equal(requests.length, 0);
  session.push(request(nbd.commands.write, { offset: sizeBytes - 8, data: Buffer.alloc(8, 1) }));
  assert.equal(requests[0]?.kind, 'write');
});

test('a read-only export refuses to be written, trimmed and zeroed', () => {
  const { session, sent, requests } = open([{ ...disk, readOnly: true }]);
  session.push(handshake);
  sent.length = 0;
  session.push(request(nbd.commands.write, { data: Buffer.alloc(8) }));
  session.push(request(nbd.commands.trim, { length: 8 }));
  session.push(request(nbd.commands.writeZeroes, { length: 8 }));
  assert.deepEqual(
    sent.map(errorOf),
    Array.from({ length: 3 }, () => nbd.nbdErrors.permission),
  );
  assert.equal(requests.length, 0);
});

test('an unknown export is refused and another may be asked for; options that we do not speak are declined', () => {
  const { session, sent } = open();
  session.push(Buffer.concat([clientFlags, option(8), go('other'), go('disk0')]));
  const replies = sent.map((each) => each.readUInt32BE(12));
  const { unsupported, unknown, info, ack } = nbd.optionReplies;
  assert.deepEqual(replies, [unsupported, unknown, info, ack]);
});

test('what cannot be followed ends the connection: wrong magics, endless options, an unknown export by the old option', () => {
  for (const bytes of [
    Buffer.from([0, 0, 1, 0]),
    Buffer.concat([clientFlags, Buffer.alloc(16)]),
    Buffer.concat([clientFlags, ...Array.from({ length: 70 }, () => option(8))]),
    Buffer.concat([clientFlags, option(nbd.options.exportName, Buffer.from('nobody'))]),
    Buffer.concat([handshake, Buffer.alloc(28)]),
    Buffer.concat([handshake, request(nbd.commands.write, { length: requestBytesMax + 1 })]),
  ]) {
    const { session, ends } = open();
    session.push(bytes);
    assert.equal(ends.length, 1);
    assert.notEqual(ends[0], undefined);
    session.push(handshake);
    assert.equal(ends.length, 1);
  }
});

test('at the limit of requests in flight nothing more is read, and an answer lets it go on', () => {
  const { session, requests } = open();
  session.push(handshake);
  const many = Array.from({ length: requestsInFlightMax + 10 }, () => request(nbd.commands.read, { length: 512 }));
  session.push(Buffer.concat(many));
  assert.equal(requests.length, requestsInFlightMax);
  assert.ok(session.full);
  for (const one of requests.slice(0, 10)) session.reply(one, 0, Buffer.alloc(512));
  assert.equal(requests.length, requestsInFlightMax + 10);
});

const plausible = fc.oneof(
  fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes)),
  fc.constantFrom(clientFlags, handshake, go('disk0'), go('x'), option(3), option(2), option(77, Buffer.alloc(9))),
  fc
    .record({
      command: fc.integer({ min: 0, max: 9 }),
      offset: fc.oneof(fc.integer({ min: 0, max: sizeBytes }), fc.maxSafeNat()),
      length: fc.oneof(fc.integer({ min: 0, max: 5000 }), fc.integer({ min: 0, max: 2 ** 32 - 1 })),
      flags: fc.integer({ min: 0, max: 7 }),
      data: fc.uint8Array({ maxLength: 64 }),
    })
    .map(({ command, data, ...at }) =>
      command === nbd.commands.write
        ? request(command, { offset: at.offset, flags: at.flags, data: Buffer.from(data) })
        : request(command, at),
    ),
);

test('fuzz: whatever the bytes, only requests inside the export come out, and cutting changes nothing', () => {
  fc.assert(
    fc.property(
      fc.boolean(),
      fc.array(plausible, { maxLength: 12 }),
      fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 10 }),
      (begun, parts, cuts) => {
        const bytes = Buffer.concat([...(begun ? [handshake] : []), ...parts]);
        const whole = open();
        whole.session.push(Buffer.from(bytes));
        const cut = open();
        for (let at = 0, index = 0; at < bytes.length; index += 1) {
          const size = cuts[index % cuts.length] ?? 1;
          cut.session.push(Buffer.from(bytes.subarray(at, at + size)));
          at += size;
        }
        assert.deepEqual(cut.requests, whole.requests);
        assert.deepEqual(Buffer.concat(cut.sent), Buffer.concat(whole.sent));
        assert.deepEqual(cut.ends, whole.ends);
        assert.ok(whole.session.inFlight <= requestsInFlightMax);
        for (const one of whole.requests) {
          if (one.kind === 'flush') continue;
          assert.ok(one.length > 0 && one.offset >= 0 && one.offset + one.length <= sizeBytes);
          if (one.kind === 'write') assert.equal(one.data.length, one.length);
        }
      },
    ),
    { numRuns: 2000 },
  );
});
