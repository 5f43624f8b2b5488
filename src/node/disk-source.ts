// The disks of a VM that runs on this node: their mirrors over an NBD socket of ours, and the fold after a takeover.
// Owns the socket and the jobs; decides nothing.

import { rmSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { NbdServer } from '../nbd/server.ts';
import { type DiskFiles, diskNode, replicaNode } from '../qemu/machine.ts';
import { diskSizes, foldOverlay, Mirror, type Progress } from '../qemu/mirror.ts';
import type { Vm } from '../qemu/vm.ts';
import { hashFile } from './hash-file.ts';
import type { DiskMirrors, DiskSource } from './platform.ts';

type Handlers = Parameters<DiskSource['mirror']>[0];

export class QemuDisks implements DiskSource {
  private readonly vm: Vm;
  private readonly socketPath: string;
  private readonly disks: DiskFiles[];
  /** Disks whose device stands on the replica's node, since their overlay is gone. */
  private readonly folded = new Set<number>();

  constructor(vm: Vm, options: { runDir: string; disks: readonly DiskFiles[] }) {
    this.vm = vm;
    this.socketPath = join(options.runDir, 'disks.sock');
    this.disks = [...options.disks];
  }

  sizes(): Promise<number[]> {
    return diskSizes(
      this.vm.qmp,
      this.disks.map((_, index) => this.rootOf(index)),
    );
  }

  async mirror(handlers: Handlers): Promise<DiskMirrors> {
    const sizes = await this.sizes();
    const names = this.disks.map((_, index) => diskNode(index));
    const server = await NbdServer.listen({
      path: this.socketPath,
      // No flush: a guest's flush concerns its own host's disk, and a stop would pay for the round trip.
      exports: names.map((name, index) => ({ name, sizeBytes: sizes[index] ?? 0, readOnly: false, flush: false })),
      handle: (request, answer) => handlers.request(names.indexOf(request.exportName), request, answer),
    });
    const mirrors: Mirror[] = [];
    const cancel = async () => {
      await Promise.all(mirrors.map((mirror) => mirror.cancel()));
      await server.close();
    };
    try {
      for (const [index, name] of names.entries()) mirrors.push(await this.startMirror(index, name, handlers));
    } catch (error) {
      await cancel();
      throw error;
    }
    const copied = Promise.all(mirrors.map((mirror) => mirror.copied)).then(() => undefined);
    copied.catch(() => undefined);
    return { copied, cancel, progress: () => sumOf(mirrors) };
  }

  async fold(progress: (progress: Progress) => void): Promise<void> {
    for (const [index, disk] of this.disks.entries()) {
      if (disk.kind !== 'overlay') continue;
      const { qmp } = this.vm;
      const top = diskNode(index);
      await foldOverlay({ qmp, top, base: replicaNode(index), progress });
      this.disks[index] = { kind: 'image', path: disk.replicaPath, format: 'raw' };
      this.folded.add(index);
      await qmp.execute('blockdev-del', { 'node-name': top });
      await qmp.execute('blockdev-del', { 'node-name': `${top}-file` });
      // From here on it would be an old state of the disk.
      rmSync(disk.overlayPath, { force: true });
    }
  }

  async flush(): Promise<void> {
    for (const disk of this.disks) {
      const file = await open(disk.kind === 'image' ? disk.path : disk.overlayPath, 'r');
      try {
        await file.datasync();
      } finally {
        await file.close();
      }
    }
  }

  hashes(): Promise<string[]> {
    const hashOf = async (disk: DiskFiles) =>
      disk.kind === 'image' && disk.format === 'raw' ? await hashFile(disk.path) : '';
    return Promise.all(this.disks.map(hashOf));
  }

  private rootOf(index: number): string {
    return this.folded.has(index) ? replicaNode(index) : diskNode(index);
  }

  private startMirror(index: number, name: string, handlers: Handlers): Promise<Mirror> {
    return Mirror.start({
      qmp: this.vm.qmp,
      node: this.rootOf(index),
      name,
      socketPath: this.socketPath,
      exportName: name,
      failed: (why, cancelled) => handlers.failed(why, cancelled),
    });
  }
}

async function sumOf(mirrors: readonly Mirror[]): Promise<Progress> {
  const sum = { doneBytes: 0, totalBytes: 0 };
  for (const mirror of mirrors) {
    const progress = await mirror.progress();
    sum.doneBytes += progress?.doneBytes ?? 0;
    sum.totalBytes += progress?.totalBytes ?? 0;
  }
  return sum;
}
