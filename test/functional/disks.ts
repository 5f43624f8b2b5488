// What tests of disks on a real QEMU share: a machine that no guest runs in, whose monitor writes as a guest's device
// would, and a secondary's replica that is fed as over the bulk link.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { diskMessages, parseMark } from '../../src/disk/message.ts';
import type { Replica } from '../../src/disk/replica.ts';
import type { MachineSpec } from '../../src/qemu/machine.ts';
import type { Vm } from '../../src/qemu/vm.ts';

export const mebibyte = 1024 * 1024;

/**
 * Where a test file keeps its disks and runs its QEMUs. What is put into `ends` is done after its tests, newest first.
 */
export function workplace(name: string) {
  const folder = mkdtempSync(join(tmpdir(), `colo-${name}-`));
  const runFolder = mkdtempSync(`/dev/shm/colo-${name}-`);
  const ends: (() => Promise<unknown>)[] = [];
  after(async () => {
    for (const end of ends.reverse()) await end();
    rmSync(folder, { recursive: true });
    rmSync(runFolder, { recursive: true });
  });
  const spec: MachineSpec = {
    ...{ machine: 'q35', accel: 'tcg', cpu: undefined, vcpus: 1, ramBytes: 64 * mebibyte },
    ...{ kernel: undefined, initrd: undefined, cmdline: '', nics: [], extraArgs: [] },
    serialLog: join(folder, 'serial.log'),
  };
  return { folder, runFolder, ends, spec };
}

/** What a guest's device would do; throws when QEMU says that it failed. */
export async function io(vm: Vm, command: string): Promise<void> {
  const said = await vm.qmp.human(`qemu-io -d /machine/peripheral/disk0/virtio-backend "${command}"`);
  assert.doesNotMatch(said, /fail|error|invalid/i, said);
}

/** The link of a DiskSink whose other end is `replica`; what that refuses goes to `failures`. */
export function linkTo(replica: Replica, failures: string[]) {
  const link = {
    sentBytes: 0,
    send(type: number, ...parts: Uint8Array[]): void {
      const payload = Buffer.concat(parts);
      link.sentBytes += payload.length;
      const mark = type === diskMessages.mark ? parseMark(payload) : undefined;
      const wrong = mark === undefined ? replica.receive(payload) : 'epoch' in mark ? replica.mark(mark) : mark;
      if (wrong !== undefined) failures.push(wrong.message);
    },
    drain: () => Promise.resolve(),
  };
  return link;
}
