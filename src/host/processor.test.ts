// The rate of the time stamp counter, from what Linux says of processors whose clock is fixed, scaled, or not constant.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tscKhz } from './processor.ts';

test("the time stamp counter's rate is the processor's, and unknown where the counter is not constant", () => {
  const fixed = { isScaled: false, baseKhz: '' };
  const constant = 'cpu MHz\t\t: 2596.144\nflags\t\t: fpu tsc constant_tsc\n';
  assert.equal(tscKhz({ ...fixed, cpuinfo: constant }), 2596144);
  assert.equal(tscKhz({ ...fixed, cpuinfo: 'cpu MHz\t\t: 2596.144\nflags\t\t: fpu tsc\n' }), undefined);
  assert.equal(tscKhz({ ...fixed, cpuinfo: 'flags\t\t: fpu constant_tsc\n' }), undefined);
});

test('where the clock changes with the load, only its nominal rate says something of the counter', () => {
  const cpuinfo = 'cpu MHz\t\t: 800.021\nflags\t\t: fpu tsc constant_tsc\n';
  assert.equal(tscKhz({ cpuinfo, isScaled: true, baseKhz: '2600000' }), 2600000);
  assert.equal(tscKhz({ cpuinfo, isScaled: true, baseKhz: '' }), undefined);
});
