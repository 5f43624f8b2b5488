import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tscKhz } from './processor.ts';

test("the time stamp counter's rate is the processor's, and unknown where the counter is not constant", () => {
  assert.equal(tscKhz('cpu MHz\t\t: 2596.144\nflags\t\t: fpu tsc constant_tsc\n'), 2596144);
  assert.equal(tscKhz('cpu MHz\t\t: 2596.144\nflags\t\t: fpu tsc\n'), undefined);
  assert.equal(tscKhz('flags\t\t: fpu constant_tsc\n'), undefined);
});
