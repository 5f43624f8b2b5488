// Moving the clock in a saved device state, made here as QEMU makes it: its numbers change and nothing else does.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { alignClock, guestTime, isDeviceState, tscTicksPerMs } from './device-state.ts';

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function section(id: number, name: string, version: number, content: Buffer): Buffer {
  const header = [Buffer.from([4]), u32(id), Buffer.from([name.length]), Buffer.from(name), u32(0), u32(version)];
  return Buffer.concat([...header, content, Buffer.from([0x7e]), u32(id)]);
}

function timer(ticks: bigint, clockNs: bigint): Buffer {
  const content = Buffer.alloc(24);
  content.writeBigInt64BE(ticks, 0);
  content.writeBigInt64BE(clockNs, 16);
  return content;
}

function state(...sections: Buffer[]): Buffer {
  return Buffer.concat([Buffer.from('QEVM'), u32(3), ...sections, Buffer.from([0])]);
}

const oneSecond = timer(2_600_000_000n, 1_000_000_000n);

test('the clock moves forward by the lag, in ticks and in nanoseconds, and nothing else changes', () => {
  const before = state(section(1, 'slirp', 4, Buffer.from('abc')), section(2, 'timer', 2, oneSecond));
  const after = Buffer.from(before);
  assert.equal(alignClock(after, 20.5, 2_600_000), true);
  assert.deepEqual(guestTime(after), { ticks: 2_653_300_000n, clockNs: 1_020_500_000n });
  assert.equal(alignClock(after, -20.5, 2_600_000), true);
  assert.deepEqual(after, before);
});

test("the TSC's rate is in every saved state", () => {
  assert.equal(tscTicksPerMs(state(section(1, 'timer', 2, oneSecond))), 2_600_000);
  assert.equal(tscTicksPerMs(state(section(1, 'timer', 2, timer(0n, 0n)))), undefined);
});

test('content that looks like a timer section, or like a footer, is not taken for one', () => {
  const fake = section(9, 'timer', 2, timer(1n, 1n));
  const footer = Buffer.from([0x7e, 0, 0, 0, 1, 0x55]);
  const real = state(
    section(1, 'cpu', 12, Buffer.concat([footer, Buffer.from([5])])),
    section(2, 'timer', 2, oneSecond),
  );
  assert.equal(guestTime(real)?.ticks, 2_600_000_000n);
  // Inside the content of a section whose own footer comes later.
  const hidden = state(section(3, 'ram', 4, Buffer.concat([Buffer.from('x'), fake])));
  assert.equal(guestTime(hidden), undefined);
});

test('an unknown version, instruction counting or a missing section leave the state as it is', () => {
  const counting = Buffer.concat([oneSecond, Buffer.from([5, 12]), Buffer.from('timer/icount')]);
  const unknown = [
    state(section(1, 'timer', 3, oneSecond)),
    state(section(1, 'timer', 2, counting)),
    state(section(1, 'timer', 2, oneSecond.subarray(0, 20))),
    state(section(1, 'cpu', 2, oneSecond)),
  ];
  for (const each of unknown) {
    const copy = Buffer.from(each);
    assert.equal(alignClock(copy, 10, 2_600_000), false);
    assert.deepEqual(copy, each);
  }
});

test('bytes that are no device state are refused without an exception', () => {
  assert.equal(isDeviceState(Buffer.from('QEVM')), false);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), fc.nat(200), fc.nat(255), (noise, at, value) => {
      alignClock(noise, 10, 2_600_000);
      const damaged = state(section(1, 'cpu', 1, Buffer.alloc(60)), section(2, 'timer', 2, oneSecond));
      damaged[at % damaged.length] = value;
      alignClock(damaged.subarray(0, damaged.length - (value % 3)), 10, 2_600_000);
    }),
  );
});
