// The engine under KVM: no page that changes is missed, and a captured guest goes on exactly in another QEMU. What
// these tests do is what `colo doctor --prove` does on a user's host (src/demo/prove), on every machine type and with
// more vCPUs.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, type TestContext, test } from 'node:test';
import { ColoError, errorCodes } from '../../src/base/errors.ts';
import { BareVm, type BareVmOptions } from '../../src/demo/bare-vm.ts';
import { checkCaptures } from '../../src/demo/prove/captures.ts';
import { checkLoads, startTwins } from '../../src/demo/prove/loads.ts';
import { kvmRefusal } from './kvm.ts';

const root = mkdtempSync('/dev/shm/colo-kvm-test-');
after(() => rmSync(root, { recursive: true, force: true }));
const newDir = () => mkdtempSync(join(root, 'vm-'));

const skip = await kvmRefusal();
const work = { accel: 'kvm', pages: 200, periodMs: 1 } as const;

async function twins(context: TestContext, options: Omit<BareVmOptions, 'dir'>) {
  const both = await startTwins(options, newDir);
  context.after(async () => {
    await both.primary.close();
    await both.secondary.close();
  });
  return both;
}

// Four vCPUs that never rest are more than a small host has cores: each round takes longer.
for (const machine of ['pc', 'q35', 'microvm'] as const)
  for (const [vcpus, rounds] of [
    [1, 50],
    [4, 20],
  ] as const)
    test(`${machine} under KVM, ${vcpus} vCPUs: no changed page is missed, and ${rounds} loads are exact`, {
      skip,
    }, async (context) => {
      const { primary, secondary } = await twins(context, { ...work, machine, vcpus });
      assert.equal(primary.control.number('vcpus'), vcpus);
      const captures = await checkCaptures(primary, rounds);
      assert.deepEqual(captures.problems, []);
      assert.ok(captures.changedPages >= rounds * work.pages, `${captures.changedPages} pages changed`);
      const { problems, exact } = await checkLoads(primary, secondary, rounds, { clocks: false });
      assert.deepEqual(problems, []);
      assert.equal(exact, rounds);
    });

test('a page that changes behind the back of write tracking is found by the comparison: the proof can fail', {
  skip,
}, async (context) => {
  const guest = await BareVm.start({ ...work, machine: 'microvm', dir: newDir() });
  context.after(() => guest.close());
  await guest.ready();
  const { ram } = guest.vm;
  // Not the guest writes, but this process, in a page that the guest does not use.
  const timer = setInterval(() => ram.writeUInt32LE(ram.readUInt32LE(0x7f00000) + 1, 0x7f00000), 1);
  context.after(() => clearInterval(timer));
  const report = await checkCaptures(guest, 5);
  assert.ok(report.missedPages > 0);
  assert.match(report.problems[0] ?? '', /0x7f00000 changed and were not listed/);
});

test('a secondary whose RAM is not that of the primary after a load is found: the proof can fail', {
  skip,
}, async (context) => {
  const { primary, secondary } = await twins(context, { ...work, machine: 'microvm' });
  const load = secondary.vm.load.bind(secondary.vm);
  secondary.vm.load = async (state) => {
    const result = await load(state);
    secondary.vm.ram.writeUInt32LE(1, 0x7f00000);
    return result;
  };
  const { problems, exact } = await checkLoads(primary, secondary, 1, { clocks: false });
  assert.equal(exact, 0);
  assert.match(problems[0] ?? '', /RAM of both/);
});

test('a QEMU that has not our library in it is refused under KVM, and says what to do', { skip }, async () => {
  const dir = newDir();
  const qemuPath = join(dir, 'qemu');
  writeFileSync(qemuPath, '#!/bin/sh\nunset LD_PRELOAD\nexec qemu-system-x86_64 "$@"\n', { mode: 0o755 });
  const started = BareVm.start({ ...work, machine: 'microvm', dir: newDir(), start: { qemuPath } });
  await assert.rejects(started, (error: unknown) => {
    assert.ok(error instanceof ColoError && error.code === errorCodes.host);
    assert.match(error.message, /needs COLO's library, for the guest's clocks/);
    assert.match(error.hint ?? '', /gcc/);
    return true;
  });
});
