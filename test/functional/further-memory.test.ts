// Memory of a machine's devices that device state leaves out: a VGA card's, and the variables of UEFI. Part of a
// checkpoint like the guest's RAM, against the installed QEMU.

import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, type TestContext, test } from 'node:test';
import { delay, systemClock } from '../../src/base/clock.ts';
import { silentLog } from '../../src/base/log.ts';
import type { TrackerKind } from '../../src/qemu/dirty/tracker.ts';
import { ramHash } from '../../src/qemu/hash.ts';
import { type MachineSpec, vmFiles } from '../../src/qemu/machine.ts';
import type { VmOptions } from '../../src/qemu/start.ts';
import { Vm } from '../../src/qemu/vm.ts';
import { apply } from './apply-capture.ts';
import { lastBeat, memoryGuest } from './qemu-guest.ts';

const ramBytes = 128 * 2 ** 20;
const vgaBytes = 16 * 2 ** 20;
const root = mkdtempSync('/dev/shm/colo-memory-test-');
after(() => rmSync(root, { recursive: true, force: true }));

function newDir(): string {
  return mkdtempSync(join(root, 'vm-'));
}

async function startVm(context: TestContext, spec: MachineSpec, options: Partial<VmOptions> = {}): Promise<Vm> {
  const files = vmFiles(join(newDir(), 'run'), 0);
  const vm = await Vm.start({ spec, files, paused: false, log: silentLog, clock: systemClock, ...options });
  context.after(() => vm.kill());
  return vm;
}

async function counted(spec: MachineSpec): Promise<void> {
  const deadlineMs = systemClock.now() + 240_000;
  while (!existsSync(spec.serialLog) || lastBeat(spec.serialLog) < 2) {
    if (systemClock.now() > deadlineMs)
      throw new Error(`the guest does not count: ${readFileSync(spec.serialLog, 'utf8').slice(-300)}`);
    await delay(20);
  }
}

/** What is on the machine's screen, as a picture. */
async function picture(vm: Vm): Promise<Buffer> {
  const filename = join(newDir(), 'screen.ppm');
  await vm.qmp.execute('screendump', { filename });
  return readFileSync(filename);
}

function isDark(ppm: Buffer): boolean {
  return ppm.subarray(32).every((byte) => byte === 0);
}

const trackers: TrackerKind[] = ['userfaultfd', 'compare'];
for (const tracker of trackers) {
  test(`${tracker}: a VGA card's memory travels, costs nothing unchanged, and the screen of the copy is the same`, async (context) => {
    const guest = await memoryGuest({ machine: 'q35', ramBytes, pages: 20, periodMs: 30, dir: newDir() });
    const spec: MachineSpec = { ...guest, display: 'vga' };
    const primary = await startVm(context, spec, { tracker });
    assert.equal(primary.tracker.kind, tracker);
    assert.equal(primary.ram.length, ramBytes + vgaBytes);
    await counted(spec);
    const vmstateTemplate = await primary.makeTemplate();
    const secondSpec = { ...spec, serialLog: join(newDir(), 'serial.log') };
    const secondary = await startVm(context, secondSpec, { paused: true, vmstateTemplate, tracker });
    const shadow = Buffer.alloc(primary.ram.length);
    const seen: { hash?: string; picture?: Buffer } = {};
    const look = async () => {
      seen.hash = ramHash(primary.ram);
      seen.picture = await picture(primary);
    };
    const first = await primary.capture({ onStopped: () => undefined, beforeResume: look });
    assert.deepEqual(first.runs.bounds, [0, ramBytes + vgaBytes]);
    await apply(secondary, shadow, first);
    first.release();
    assert.equal(ramHash(secondary.ram), seen.hash);
    assert.ok(seen.picture !== undefined && !isDark(seen.picture), 'the BIOS has written something');
    assert.ok((await picture(secondary)).equals(seen.picture), 'the pictures are equal');
    // Nobody writes to the screen: none of its pages is in the next checkpoint.
    const idle = await primary.capture({ onStopped: () => undefined });
    assert.ok((idle.runs.bounds.at(-1) ?? 0) <= ramBytes);
    await apply(secondary, shadow, idle);
    idle.release();
    // What is written there, by the guest or for it, is.
    await primary.qmp.execute('human-monitor-command', { 'command-line': 'system_reset' });
    await delayUntilWritten(primary);
    const changed = await primary.capture({ onStopped: () => undefined, beforeResume: look });
    assert.ok((changed.runs.bounds.at(-1) ?? 0) > ramBytes);
    await apply(secondary, shadow, changed);
    changed.release();
    assert.equal(ramHash(secondary.ram), seen.hash);
    assert.ok((await picture(secondary)).equals(seen.picture));
  });
}

/** Waits until a page behind the guest's RAM was written. */
async function delayUntilWritten(vm: Vm): Promise<void> {
  for (;;) {
    const written = vm.tracker.collect();
    vm.tracker.putBack(written);
    if ((written.bounds.at(-1) ?? 0) > ramBytes) return;
    await delay(20);
  }
}

test('a machine whose further memory cannot be told from other memory is refused', async () => {
  const guest = await memoryGuest({ machine: 'q35', ramBytes, pages: 20, periodMs: 30, dir: newDir() });
  const start = (extraArgs: string[], display: 'vga' | undefined) =>
    Vm.start({
      spec: { ...guest, ...(display === undefined ? {} : { display }), extraArgs },
      ...{ files: vmFiles(join(newDir(), 'run'), 0), paused: true, log: silentLog, clock: systemClock },
    });
  await assert.rejects(start(['-device', 'bochs-display'], undefined), { code: 'COLO_E_MACHINE', message: /bochs/ });
  await assert.rejects(start(['-device', 'bochs-display'], 'vga'), {
    code: 'COLO_E_MACHINE',
    message: /"vga\.vram" of 16777216 bytes cannot be told from others/,
  });
});
