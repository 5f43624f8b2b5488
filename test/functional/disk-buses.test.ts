// Disks at every controller that a spec can name: a guest of one sector boots from it, counts in its next sector, is
// captured in the middle of that, and goes on in a second QEMU over a copy. It is 16-bit code that uses the machine's
// BIOS alone, so every controller is driven without a driver of ours.
//
//    start: dl = the drive; print the letter at 508
//    again: read sector 2 ─► add 1 to its first word ─► write it ─► print 'a' to 'p' for the count,
//           '!' for an error ─► two timer ticks

import assert from 'node:assert/strict';
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, type TestContext, test } from 'node:test';
import { delay, systemClock } from '../../src/base/clock.ts';
import { silentLog } from '../../src/base/log.ts';
import { type DiskFiles, type DiskPlace, type MachineSpec, type Medium, vmFiles } from '../../src/qemu/machine.ts';
import type { VmOptions } from '../../src/qemu/start.ts';
import { Vm } from '../../src/qemu/vm.ts';

const ramBytes = 32 * 2 ** 20;
const root = mkdtempSync('/dev/shm/colo-bus-test-');
after(() => rmSync(root, { recursive: true, force: true }));

const newDir = () => mkdtempSync(join(root, 'vm-'));

const code = Buffer.from(
  [
    // xor ax,ax; ds = es = ss = ax; sp = 7000h; ch = dl; out the letter at 7DFCh to COM1; [7C50h] = ch
    '31c08ed88ec08ed0bc007088d5baf803a0fc7dee882e507c',
    // again: bx = 7E00h; read; inc dword [7E00h]; write
    'bb007eb80102e81b0066ff06007eb80103e81000',
    // out 'a' + (count & 15); sti; hlt; hlt; jmp again
    'baf803a0007e240f0461eefbf4f4ebdc',
    // disk: cx = 2; dl = [7C50h]; dh = 0; int 13h; jnc ok; out '!'; ok: ret
    'b902008a16507cb600cd137306baf803b021eec3',
  ].join(''),
  'hex',
);

/** An image that boots and calls itself by `letter`. */
function image(letter: string): string {
  const bytes = Buffer.alloc(2 ** 20);
  code.copy(bytes);
  bytes.write(letter, 508);
  bytes.writeUInt16LE(0xaa55, 510);
  const path = join(newDir(), 'image');
  writeFileSync(path, bytes);
  return path;
}

const countOn = (path: string) => readFileSync(path).readUInt32LE(512);

function spec(machine: MachineSpec['machine'], disks: DiskPlace[], media: Medium[] = []): MachineSpec {
  return {
    ...{ machine, accel: 'tcg', cpu: undefined, vcpus: 1, ramBytes, kernel: undefined, initrd: undefined },
    ...{ cmdline: '', nics: [], extraArgs: [], disks, media },
    serialLog: join(newDir(), 'serial.log'),
  };
}

async function startVm(
  context: TestContext,
  machine: MachineSpec,
  disks: DiskFiles[],
  options: Partial<VmOptions> = {},
) {
  const files = { ...vmFiles(join(newDir(), 'run'), 0), disks };
  const vm = await Vm.start({ spec: machine, files, paused: false, log: silentLog, clock: systemClock, ...options });
  context.after(() => vm.kill());
  return vm;
}

/** Waits until the guest has said more than `count` characters; returns all of them. */
async function saysMore({ serialLog }: MachineSpec, count: number): Promise<string> {
  const deadlineMs = systemClock.now() + 120_000;
  for (;;) {
    const text = existsSync(serialLog) ? readFileSync(serialLog, 'latin1') : '';
    if (text.length > count) return text;
    if (systemClock.now() > deadlineMs) throw new Error(`the guest says "${text}"`);
    await delay(20);
  }
}

const cases: [MachineSpec['machine'], DiskPlace['bus']][] = [
  ['pc', 'sata'],
  ['q35', 'sata'],
  ['q35', 'scsi'],
  ['q35', 'virtio'],
];
for (const [machine, bus] of cases)
  test(`${machine}, ${bus}: a guest boots from it, counts on it, and counts on in a second QEMU`, async (context) => {
    const path = image('A');
    const medium: Medium = { path: image('M'), format: 'raw', bus: 'sata', cdrom: true, hash: '' };
    const first = spec(machine, [{ bus, bootIndex: 0 }], [medium]);
    const primary = await startVm(context, first, [{ kind: 'image', path, format: 'raw' }]);
    assert.match(await saysMore(first, 8), /^A[a-p]+$/);
    const vmstateTemplate = await primary.makeTemplate();
    const replicaPath = join(newDir(), 'replica');
    copyFileSync(path, replicaPath);
    const second = { ...first, serialLog: join(newDir(), 'serial.log') };
    const overlay: DiskFiles = { kind: 'overlay', overlayPath: `${replicaPath}.overlay`, replicaPath };
    const secondary = await startVm(context, second, [overlay], { paused: true, vmstateTemplate });
    const shadow = Buffer.alloc(ramBytes);
    for (let round = 0; round < 4; round++) {
      await saysMore(first, (await saysMore(first, 0)).length + round);
      const capture = await primary.capture({
        onStopped: () => undefined,
        // The replica is the disk as it was then; the guest stands still, and nothing is on its way to it.
        beforeResume: () => copyFileSync(path, replicaPath),
      });
      if (round > 0) await secondary.stop();
      secondary.tracker.collect().forEach((start, end) => void shadow.copy(secondary.ram, start, start, end));
      let at = 0;
      capture.runs.forEach((start, end) => {
        at += capture.pages.copy(shadow, start, at, at + end - start);
      });
      shadow.copy(secondary.ram);
      await secondary.load(capture.deviceState);
      secondary.tracker.collect().forEach((start, end) => void shadow.copy(secondary.ram, start, start, end));
      capture.release();
      const said = existsSync(second.serialLog) ? readFileSync(second.serialLog).length : 0;
      await secondary.resume();
      // It reads and writes on, and neither fails.
      assert.match(await saysMore(second, said + 3), /^[a-p]+$/);
      assert.deepEqual(await secondary.condition(), { runState: 'running', faults: [] });
    }
    assert.ok(countOn(path) > countOn(replicaPath), 'the primary counts on its own disk');
    assert.equal(countOn(medium.path), 0, 'nobody writes to the CD');
  });

test('a machine boots from the disk whose turn is first, whatever its place and its controller', async (context) => {
  const [a, b, c] = [image('A'), image('B'), image('C')];
  const disks = (...turns: number[]): DiskPlace[] => [
    { bus: 'virtio', bootIndex: turns[0] ?? 0 },
    { bus: 'sata', bootIndex: turns[1] ?? 1 },
  ];
  const files: DiskFiles[] = [a, b].map((path) => ({ kind: 'image', path, format: 'raw' }));
  for (const [letter, machine] of [
    ['A', spec('q35', disks(0, 1))],
    ['B', spec('q35', disks(1, 0))],
    // A disk that is only read boots as well.
    ['C', spec('q35', disks(1, 2), [{ path: c, format: 'raw', bus: 'scsi', cdrom: false, hash: '', bootIndex: 0 }])],
  ] as const) {
    const vm = await startVm(context, machine, files);
    assert.equal((await saysMore(machine, 0))[0], letter);
    await vm.kill();
  }
});
