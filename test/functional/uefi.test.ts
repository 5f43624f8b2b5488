// A machine with UEFI: its variables are flash, part of every checkpoint and written through to a file. With the
// installed QEMU and Debian's OVMF.

import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, type TestContext, test } from 'node:test';
import { delay, systemClock } from '../../src/base/clock.ts';
import { silentLog } from '../../src/base/log.ts';
import { ensureFirmware, firmwareOf } from '../../src/local/firmware.ts';
import { ramHash } from '../../src/qemu/hash.ts';
import { type MachineSpec, vmFiles } from '../../src/qemu/machine.ts';
import type { VmOptions } from '../../src/qemu/start.ts';
import { Vm } from '../../src/qemu/vm.ts';
import { apply } from './apply-capture.ts';
import { lastBeat, variablesGuest } from './qemu-guest.ts';

const ramBytes = 256 * 2 ** 20;
const root = mkdtempSync('/dev/shm/colo-uefi-test-');
after(() => rmSync(root, { recursive: true, force: true }));
before(() => ensureFirmware({ firmware: 'uefi' }));

function newDir(): string {
  return mkdtempSync(join(root, 'vm-'));
}

function firmware() {
  const found = firmwareOf({ firmware: 'uefi' });
  assert.ok(found !== undefined);
  return found;
}

async function startVm(
  context: TestContext,
  options: { spec: MachineSpec; variablesPath: string } & Partial<VmOptions>,
): Promise<Vm> {
  const { spec, variablesPath, ...rest } = options;
  const files = { ...vmFiles(join(newDir(), 'run'), 0), variablesPath };
  const vm = await Vm.start({ spec, files, paused: false, log: silentLog, clock: systemClock, ...rest });
  context.after(() => vm.kill());
  return vm;
}

/** Waits until the console holds for the condition. */
async function says<T>(serialLog: string, holds: (text: string) => T | undefined): Promise<T> {
  const deadlineMs = systemClock.now() + 240_000;
  for (;;) {
    const text = existsSync(serialLog) ? readFileSync(serialLog, 'latin1') : '';
    const found = holds(text);
    if (found !== undefined) return found;
    if (systemClock.now() > deadlineMs) throw new Error(`the guest does not say it: ${text.slice(-400)}`);
    await delay(20);
  }
}

const beatsPast = (serialLog: string, count: number) =>
  says(serialLog, () => (existsSync(serialLog) && lastBeat(serialLog) > count ? lastBeat(serialLog) : undefined));

/** What the guest found in its variable each time that it booted. */
const foundIn = (text: string) => [...text.matchAll(/found (\d+)\s/g)].map((match) => Number(match[1]));

/** What is on the machine's screen, as a picture. */
async function picture(vm: Vm): Promise<Buffer> {
  const filename = join(newDir(), 'screen.ppm');
  await vm.qmp.execute('screendump', { filename });
  return readFileSync(filename);
}

const isDark = (ppm: Buffer) => ppm.subarray(32).every((byte) => byte === 0);

test('the copy of a machine with UEFI and a VGA card shows the same picture', async (context) => {
  const dir = newDir();
  // Without a kernel the firmware's own screen stands.
  const { kernel: _, initrd: __, ...rest } = await variablesGuest({ ramBytes, dir, firmware: firmware() });
  const spec: MachineSpec = { ...rest, kernel: undefined, initrd: undefined, display: 'vga' };
  const primary = await startVm(context, { spec, variablesPath: join(newDir(), 'variables.fd'), paused: true });
  // QEMU shows words of its own, or nothing, until the firmware draws.
  const before = await picture(primary);
  await primary.resume();
  let shown = before;
  for (
    const deadline = systemClock.now() + 120_000;
    isDark(shown) || shown.equals(before);
    shown = await picture(primary)
  ) {
    if (systemClock.now() > deadline) throw new Error('nothing is shown');
    await delay(200);
  }
  const vmstateTemplate = await primary.makeTemplate();
  const secondSpec = { ...spec, serialLog: join(newDir(), 'serial.log') };
  const variablesPath = join(newDir(), 'variables.fd');
  const secondary = await startVm(context, { spec: secondSpec, variablesPath, paused: true, vmstateTemplate });
  const shadow = Buffer.alloc(primary.ram.length);
  const seen: { picture?: Buffer } = {};
  const capture = await primary.capture({
    onStopped: () => undefined,
    beforeResume: async () => {
      seen.picture = await picture(primary);
    },
  });
  await apply(secondary, shadow, capture);
  capture.release();
  assert.ok(seen.picture !== undefined && !seen.picture.equals(before));
  assert.ok((await picture(secondary)).equals(seen.picture), 'the pictures are equal');
});

test('variables of UEFI travel, and are there after a failover, a reboot and a power-off', async (context) => {
  const dir = newDir();
  const spec = await variablesGuest({ ramBytes, dir, firmware: firmware() });
  const primaryVariables = join(newDir(), 'variables.fd');
  const primary = await startVm(context, { spec, variablesPath: primaryVariables });
  await beatsPast(spec.serialLog, 2);
  assert.deepEqual(foundIn(readFileSync(spec.serialLog, 'latin1')), [0]);
  const vmstateTemplate = await primary.makeTemplate();

  const secondSpec = { ...spec, serialLog: join(newDir(), 'serial.log') };
  const variablesPath = join(newDir(), 'variables.fd');
  const secondary = await startVm(context, { spec: secondSpec, variablesPath, paused: true, vmstateTemplate });
  const shadow = Buffer.alloc(primary.ram.length);
  for (let round = 0; round < 3; round++) {
    const before = await beatsPast(spec.serialLog, lastBeat(spec.serialLog) + 1);
    let hash = '';
    const capture = await primary.capture({
      onStopped: () => undefined,
      beforeResume: () => {
        hash = ramHash(primary.ram);
      },
    });
    if (round > 0) {
      assert.ok(capture.runs.end > ramBytes, 'the variable that was written is among the pages');
      await secondary.stop();
    }
    await apply(secondary, shadow, capture);
    capture.release();
    assert.equal(ramHash(secondary.ram), hash);
    await secondary.resume();
    // It writes its variable on, from where the primary was.
    await beatsPast(secondSpec.serialLog, before);
  }
  await primary.kill();

  // A reboot on the survivor: its own firmware finds what the guest wrote on either.
  const atReset = lastBeat(secondSpec.serialLog);
  await secondary.qmp.execute('system_reset');
  const [found = 0] = await says(secondSpec.serialLog, (text) =>
    foundIn(text).length > 0 ? foundIn(text) : undefined,
  );
  assert.ok(found >= atReset, `${found} after ${atReset}`);
  const atEnd = await beatsPast(secondSpec.serialLog, found + 1);
  await secondary.kill();

  // Switched off and on, with the survivor's file.
  assert.equal(statSync(variablesPath).size, firmware().variablesBytes);
  const thirdSpec = { ...spec, serialLog: join(newDir(), 'serial.log') };
  await startVm(context, { spec: thirdSpec, variablesPath });
  const [again = 0] = await says(thirdSpec.serialLog, (text) => (foundIn(text).length > 0 ? foundIn(text) : undefined));
  assert.ok(again >= atEnd, `${again} after ${atEnd}`);
});
