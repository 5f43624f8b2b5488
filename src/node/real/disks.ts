// The disks of a VM that runs on this node: their mirrors over an NBD socket of ours, the notes of what changes, and
// the fold after a takeover. Owns the socket and the jobs; decides nothing.

import { randomUUID } from 'node:crypto';
import { open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ColoError, errorCodes } from '../../base/errors.ts';
import { ChangedCopy } from '../../disk/changed-copy.ts';
import { changedBlockBytes, notedBytesMax } from '../../disk/limits.ts';
import { NbdClient, type Range } from '../../nbd/client.ts';
import { nbdErrors } from '../../nbd/protocol.ts';
import { NbdServer } from '../../nbd/server.ts';
import { addBitmaps, openLook, removeBitmaps } from '../../qemu/changes.ts';
import { type DiskFiles, diskNode, replicaNode } from '../../qemu/machine.ts';
import { diskSizes, foldOverlay, Mirror, type Progress } from '../../qemu/mirror.ts';
import { textIn } from '../../qemu/reply.ts';
import type { Vm } from '../../qemu/vm.ts';
import type { ChangeNotes, DiskMirrors, DiskSource, MirrorHandlers } from '../platform.ts';
import { hashFile } from './hash-file.ts';

export class QemuDisks implements DiskSource {
  private readonly vm: Vm;
  private readonly runDir: string;
  private readonly socketPath: string;
  private readonly disks: DiskFiles[];
  /** Disks whose device stands on the replica's node, since their overlay is gone. */
  private readonly folded = new Set<number>();
  readonly notes: ChangeNotes;

  constructor(vm: Vm, options: { runDir: string; disks: readonly DiskFiles[] }) {
    this.vm = vm;
    this.runDir = options.runDir;
    this.socketPath = join(options.runDir, 'disks.sock');
    this.disks = [...options.disks];
    this.notes = {
      lineage: randomUUID().replaceAll('-', ''),
      renewBytes: notedBytesMax,
      begin: (name) => addBitmaps(vm.qmp, { nodes: this.roots, name, blockBytes: changedBlockBytes }),
      forget: (name) => removeBitmaps(vm.qmp, { nodes: this.roots, name }),
      mirrorChanged: (name, handlers) => this.mirrorChanged(name, handlers),
    };
  }

  sizes(): Promise<number[]> {
    return diskSizes(this.vm.qmp, this.roots);
  }

  watch(trouble: (trouble: { why: string; waits: boolean }) => void): void {
    this.vm.qmp.on('BLOCK_IO_ERROR', ({ data }) => {
      // While it is mirrored the event names the mirror's node.
      const disk = this.disks.length === 1 ? this.disks[0] : this.disks[this.roots.indexOf(textIn(data['node-name']))];
      const path = disk === undefined ? 'a disk' : disk.kind === 'image' ? disk.path : disk.overlayPath;
      const waits = data.action === 'stop';
      const full = data.nospace === true;
      const what = full ? `no room for ${path}` : `${path} cannot be ${data.operation === 'read' ? 'read' : 'written'}`;
      const why = full ? '' : ` (${textIn(data.reason)})`;
      trouble({ why: `${what}${why}${waits ? ': the guest waits until there is' : ''}`, waits });
    });
  }

  async waits(resume: boolean): Promise<boolean> {
    const found = await this.vm.qmp.execute('query-status');
    if (typeof found !== 'object' || found === null || !('status' in found) || found.status !== 'io-error')
      return false;
    if (resume) await this.vm.qmp.execute('cont');
    return true;
  }

  mirror(handlers: MirrorHandlers): Promise<DiskMirrors> {
    return this.startMirrors(handlers, false);
  }

  private async startMirrors(handlers: MirrorHandlers, onlyNew: boolean): Promise<DiskMirrors> {
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
      for (const mirror of mirrors) await mirror.cancel();
      await server.close();
    };
    try {
      for (const [index, name] of names.entries())
        mirrors.push(await this.startMirror({ index, name, handlers, onlyNew }));
    } catch (error) {
      await cancel();
      throw error;
    }
    const copied = Promise.all(mirrors.map((mirror) => mirror.copied)).then(() => undefined);
    copied.catch(() => undefined);
    return { copied, cancel, progress: () => sumOf(mirrors) };
  }

  /** Mirrors what is written from now on, then copies the note's blocks beside it (disk/changed-copy.ts). */
  private async mirrorChanged(note: string, handlers: MirrorHandlers): Promise<DiskMirrors> {
    const copies: ChangedCopy[] = [];
    const progress = { doneBytes: 0, totalBytes: 0 };
    const stopped = new AbortController();
    const mirrors = await this.startMirrors(
      {
        ...handlers,
        request: (disk, request, answer) => {
          if ('offset' in request) copies[disk]?.wrote(request.offset, request.length);
          handlers.request(disk, request, answer);
        },
      },
      true,
    );
    const copied = mirrors.copied.then(() =>
      this.copyNote({ note, handlers, copies, progress, signal: stopped.signal }),
    );
    copied.catch(() => undefined);
    return {
      copied,
      progress: () => Promise.resolve({ ...progress }),
      cancel: async () => {
        stopped.abort();
        await mirrors.cancel();
        await copied.catch(() => undefined);
      },
    };
  }

  private async copyNote(parts: {
    note: string;
    handlers: MirrorHandlers;
    copies: ChangedCopy[];
    progress: Progress;
    signal: AbortSignal;
  }): Promise<void> {
    const { note, handlers, copies, progress, signal } = parts;
    const socketPath = join(this.runDir, 'look.sock');
    const looking = { nodes: this.roots, name: note, blockBytes: changedBlockBytes, socketPath };
    const look = await openLook(this.vm.qmp, looking);
    try {
      for (const [index, exportName] of this.roots.entries()) {
        const client = await NbdClient.connect(socketPath, { exportName, bitmap: look.bitmap });
        try {
          copies[index] = changedCopyOf(index, client, handlers);
          const ranges: Range[] = [];
          for await (const range of client.changed()) ranges.push(range);
          progress.totalBytes += ranges.reduce((sum, { start, end }) => sum + end - start, 0);
          for (const range of ranges) {
            if (signal.aborted) throw new ColoError(errorCodes.channel, 'the secondary was lost during the copy');
            await copies[index]?.copy(range);
            progress.doneBytes += range.end - range.start;
          }
        } finally {
          client.close();
        }
      }
    } finally {
      await look.close();
    }
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
      // From here on it would be an old state of the disk. Beside the way of the beats: it may be large, or its disk
      // hang.
      await rm(disk.overlayPath, { force: true });
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

  async hashes(): Promise<string[]> {
    const sizes = await this.sizes();
    const hashOf = async (disk: DiskFiles, index: number) =>
      disk.kind === 'image' && disk.format === 'raw' ? await hashFile(disk.path, sizes[index] ?? 0) : '';
    return Promise.all(this.disks.map(hashOf));
  }

  private rootOf(index: number): string {
    return this.folded.has(index) ? replicaNode(index) : diskNode(index);
  }

  private get roots(): string[] {
    return this.disks.map((_, index) => this.rootOf(index));
  }

  private startMirror(parts: {
    index: number;
    name: string;
    handlers: MirrorHandlers;
    onlyNew: boolean;
  }): Promise<Mirror> {
    const { index, name, handlers, onlyNew } = parts;
    return Mirror.start({
      vm: this.vm,
      node: this.rootOf(index),
      name,
      socketPath: this.socketPath,
      exportName: name,
      onlyNew,
      failed: (why, cancelled) => handlers.failed(why, cancelled),
    });
  }
}

/** Reads from QEMU, and sends as QEMU's mirror would. */
function changedCopyOf(disk: number, client: NbdClient, handlers: MirrorHandlers): ChangedCopy {
  return new ChangedCopy({
    read: (start, length) => client.read(start, length),
    send: (offset, length, data) =>
      new Promise((resolve, reject) => {
        const place = { cookie: 0n, exportName: '', offset, length, fua: false };
        const request =
          data === undefined
            ? { ...place, kind: 'writeZeroes' as const, mayUnmap: true }
            : { ...place, kind: 'write' as const, data };
        handlers.request(disk, request, (error) => {
          if (error === nbdErrors.none) resolve();
          else reject(new ColoError(errorCodes.channel, 'the secondary was lost during the copy'));
        });
      }),
  });
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
