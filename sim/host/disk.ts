// The disk of a simulated machine, as QEMU has it: an image, or an overlay over a replica, and a mirror job in
// write-blocking mode whose target is the product's sink (src/disk/sink.ts).
//
//    guest's write ─► image or overlay (time) ─► mirror: request ─► answer ─► done, also while the machine stands
//                           │                                                 still (a stop drains)
//                           └─► notes: the dirty bitmaps that there are
//
// The copy of a mirror reads a sector and writes it to the target; a guest's write to the same sector waits for it, and
// it for the guest's, as in QEMU. What the sink answers with an error ends the mirror, never the guest's write. The
// copy of a note's blocks is the product's ChangedCopy, which claims nothing: it reads, sector by sector, while the
// guest writes.

import { ColoError, errorCodes } from '../../src/base/errors.ts';
import { ChangedCopy } from '../../src/disk/changed-copy.ts';
import type { NbdRequest } from '../../src/nbd/session.ts';
import type { ChangeNotes, DiskMirrors, DiskSource } from '../../src/node/platform.ts';
import type { Random } from '../world/random.ts';
import type { SimProcess } from './process.ts';
import { sectorBytes } from './storage.ts';

type Handlers = Parameters<DiskSource['mirror']>[0];

/** What a disk does to its machine. */
export interface Machine {
  /** A write found no room. */
  starved(): void;
  waits(resume: boolean): Promise<boolean>;
}

export interface DiskParts {
  qemu: SimProcess;
  random: Random;
  /** A write to the image. */
  writeMs: number;
  base: Buffer;
  /** The machine writes beside the base. */
  overlay: boolean;
  /** There is no room for what the guest writes. */
  full: () => boolean;
  /** Written bytes after which a new note is begun: far fewer than on a real disk. */
  renewBytes: number;
}

/** Sectors of one block of a note: more is copied again than was written. */
const blockSectors = 2;

export class SimDisk implements DiskSource {
  private readonly parts: DiskParts;
  private readonly base: Buffer;
  private overlay: Map<number, Buffer> | undefined;
  private mirrored: SimMirror | undefined;
  private busy = new Set<number>();
  private readonly waiting: (() => void)[] = [];
  private operations = 0;
  /** The machine is being stopped: no copy begins. */
  private quiet = false;
  /** Blocks written since each note began. */
  private readonly noted = new Map<string, Set<number>>();
  readonly notes: ChangeNotes;
  private machine: Machine | undefined;
  private trouble: ((trouble: { why: string; waits: boolean }) => void) | undefined;
  /** Writes that found no room: they are tried again when the machine goes on. */
  private readonly starved: (() => void)[] = [];

  constructor(parts: DiskParts) {
    this.parts = parts;
    this.base = parts.base;
    this.overlay = parts.overlay ? new Map() : undefined;
    this.notes = {
      lineage: this.newLineage(),
      renewBytes: parts.renewBytes,
      begin: async (name) => {
        await this.spend(0.1);
        this.noted.set(name, new Set());
        await this.spend(0.1);
      },
      forget: async (name) => {
        await this.spend(0.1);
        this.noted.delete(name);
      },
      mirrorChanged: (name, handlers) => this.mirrorChanged(name, handlers),
    };
  }

  newLineage(): string {
    return Array.from({ length: 4 }, () => this.parts.random.u32().toString(16).padStart(8, '0')).join('');
  }

  get sectors(): number {
    return this.base.length / sectorBytes;
  }

  /** Sectors that the machine has written beside the replica. */
  get overlaid(): number {
    return this.overlay?.size ?? 0;
  }

  sector(index: number): Buffer {
    return this.overlay?.get(index) ?? this.base.subarray(index * sectorBytes, (index + 1) * sectorBytes);
  }

  /** All of it, as the guest reads it. */
  contents(): Buffer {
    return Buffer.concat(Array.from({ length: this.sectors }, (_, index) => this.sector(index)));
  }

  /** A load throws away what the machine wrote itself. */
  dropOverlay(): void {
    this.overlay?.clear();
    this.starved.length = 0;
  }

  attach(machine: Machine): void {
    this.machine = machine;
  }

  watch(trouble: (trouble: { why: string; waits: boolean }) => void): void {
    this.trouble = trouble;
  }

  async waits(resume: boolean): Promise<boolean> {
    return (await this.machine?.waits(resume)) === true;
  }

  /** The guest writes `data` from a sector on; `done` when it is done. */
  write(first: number, data: Buffer, done: () => void): void {
    const count = data.length / sectorBytes;
    this.claim(first, count, () => {
      const end = () => {
        this.release(first, count);
        done();
      };
      const write = () => {
        if (this.parts.full()) return this.starve(first, data, done);
        for (let index = 0; index < count; index += 1)
          this.put(first + index, data.subarray(index * sectorBytes, (index + 1) * sectorBytes));
        if (this.mirrored === undefined) end();
        else this.mirrored.forward(first, data, end);
      };
      this.later(this.parts.writeMs, write);
    });
  }

  /** What found no room is under way no more: the machine stops, and tries it again when it goes on. */
  private starve(first: number, data: Buffer, done: () => void): void {
    this.starved.push(() => this.write(first, data, done));
    this.release(first, data.length / sectorBytes);
    this.machine?.starved();
    this.trouble?.({ why: "no room for the guest's own disk (simulated)", waits: true });
  }

  /** The machine is being stopped: nothing of a mirror's copy begins until `resume`. Whether nothing is under way. */
  drained(): boolean {
    this.quiet = true;
    return this.operations === 0;
  }

  resume(): void {
    this.quiet = false;
    for (const again of this.starved.splice(0)) again();
    this.turn();
  }

  // ---- as the node sees it: src/node/real/disks.ts ----

  async mirror(handlers: Handlers): Promise<DiskMirrors> {
    if (this.mirrored !== undefined) throw new Error('bug: a second mirror of one disk');
    const mirrored = new SimMirror(this, handlers, () => {
      if (this.mirrored === mirrored) this.mirrored = undefined;
    });
    this.mirrored = mirrored;
    mirrored.copy();
    return {
      copied: mirrored.copied.promise,
      progress: async () => ({ doneBytes: 0, totalBytes: this.base.length }),
      cancel: () => mirrored.cancel(),
    };
  }

  private async mirrorChanged(name: string, handlers: Handlers): Promise<DiskMirrors> {
    const note = this.noted.get(name);
    if (note === undefined) throw new ColoError(errorCodes.qemu, `there is no bitmap ${name} (simulated)`);
    const copy = new ChangedCopy({
      read: (start, length) => this.readWhileWritten(start, length),
      send: (offset, length, data) => this.sendChanged(handlers, { offset, length, data }),
    });
    const passing: Handlers = {
      ...handlers,
      request: (disk, request, answer) => {
        if ('offset' in request) copy.wrote(request.offset, request.length);
        handlers.request(disk, request, answer);
      },
    };
    const mirrored = await this.startMirror(passing);
    const progress = { doneBytes: 0, totalBytes: 0 };
    const copyAll = async () => {
      await this.spend(0.3);
      const blocks = [...note].sort((left, right) => left - right);
      progress.totalBytes = blocks.length * blockSectors * sectorBytes;
      for (const block of blocks) {
        mirrored.mustGoOn();
        const start = block * blockSectors * sectorBytes;
        await copy.copy({ start, end: Math.min(start + blockSectors * sectorBytes, this.base.length) });
        progress.doneBytes += blockSectors * sectorBytes;
      }
    };
    copyAll().then(mirrored.copied.resolve, mirrored.copied.reject);
    return {
      copied: mirrored.copied.promise,
      progress: async () => ({ ...progress }),
      cancel: () => mirrored.cancel(),
    };
  }

  /** A mirror begins when no write is under way, as QEMU drains its node then. */
  private startMirror(handlers: Handlers): Promise<SimMirror> {
    if (this.mirrored !== undefined) throw new Error('bug: a second mirror of one disk');
    const mirrored: SimMirror = new SimMirror(this, handlers, () => {
      if (this.mirrored === mirrored) this.mirrored = undefined;
    });
    return new Promise((resolve) => {
      this.claim(0, this.sectors, () => {
        this.mirrored = mirrored;
        this.release(0, this.sectors);
        resolve(mirrored);
      });
    });
  }

  /** Each sector as it is at some instant of the read. */
  private async readWhileWritten(start: number, length: number): Promise<Buffer | undefined> {
    const bytes = Buffer.alloc(length);
    const first = start / sectorBytes;
    await Promise.all(
      Array.from({ length: length / sectorBytes }, async (_, index) => {
        await this.spend(4 * this.parts.writeMs);
        this.sector(first + index).copy(bytes, index * sectorBytes);
      }),
    );
    return bytes.every((byte) => byte === 0) ? undefined : bytes;
  }

  private sendChanged(
    handlers: Handlers,
    { offset, length, data }: { offset: number; length: number; data: Buffer | undefined },
  ): Promise<void> {
    const place = { cookie: 0n, exportName: '', offset, length, fua: false };
    const request: NbdRequest =
      data === undefined ? { ...place, kind: 'writeZeroes', mayUnmap: true } : { ...place, kind: 'write', data };
    return new Promise((resolve, reject) => {
      handlers.request(0, request, (error) => {
        if (error === 0) resolve();
        else reject(new ColoError(errorCodes.channel, 'the secondary was lost during the copy'));
      });
    });
  }

  async sizes(): Promise<number[]> {
    return [this.base.length];
  }

  async fold(): Promise<void> {
    await new Promise<void>((resolve) => this.later(20 * this.parts.writeMs, resolve));
    for (const [index, data] of this.overlay ?? []) data.copy(this.base, index * sectorBytes);
    this.overlay = undefined;
  }

  async flush(): Promise<void> {}

  async hashes(): Promise<string[]> {
    return this.overlay === undefined ? [hashOf(this.base)] : [''];
  }

  // ---- for the mirror ----

  /** Calls when no other operation is on those sectors: at once, or later. */
  claim(first: number, count: number, act: () => void, isCopy = false): void {
    const sectors = Array.from({ length: count }, (_, index) => first + index);
    if (sectors.some((sector) => this.busy.has(sector)) || (isCopy && this.quiet)) {
      this.waiting.push(() => this.claim(first, count, act, isCopy));
      return;
    }
    this.operations += 1;
    for (const sector of sectors) this.busy.add(sector);
    act();
  }

  release(first: number, count: number): void {
    this.operations -= 1;
    for (let index = 0; index < count; index += 1) this.busy.delete(first + index);
    this.turn();
  }

  later(ms: number, act: () => void): void {
    const { qemu, random } = this.parts;
    qemu.clock.after(ms * (0.5 + random.next()), act);
  }

  private spend(ms: number): Promise<void> {
    return new Promise((resolve) => this.later(ms, resolve));
  }

  private put(index: number, data: Buffer): void {
    for (const note of this.noted.values()) note.add(Math.floor(index / blockSectors));
    if (this.overlay !== undefined) this.overlay.set(index, Buffer.from(data));
    else data.copy(this.base, index * sectorBytes);
  }

  private turn(): void {
    for (const next of this.waiting.splice(0)) next();
  }
}

/** A mirror job: every sector once, and every write of the guest from the beginning on. */
class SimMirror {
  readonly copied = Promise.withResolvers<void>();
  private readonly disk: SimDisk;
  private readonly handlers: Handlers;
  private readonly ended: () => void;
  private over = false;

  constructor(disk: SimDisk, handlers: Handlers, ended: () => void) {
    this.disk = disk;
    this.handlers = handlers;
    this.ended = ended;
    this.copied.promise.catch(() => undefined);
  }

  copy(sector = 0): void {
    if (this.over) return;
    if (sector === this.disk.sectors) {
      this.copied.resolve();
      return;
    }
    this.disk.claim(
      sector,
      1,
      () => {
        this.disk.later(0.1, () => {
          this.forward(sector, Buffer.from(this.disk.sector(sector)), () => {
            this.disk.release(sector, 1);
            this.copy(sector + 1);
          });
        });
      },
      true,
    );
  }

  forward(first: number, data: Buffer, done: () => void): void {
    if (this.over) {
      done();
      return;
    }
    const place = { cookie: 0n, exportName: 'disk0', offset: first * sectorBytes, length: data.length };
    const isZero = data.every((byte) => byte === 0);
    const request: NbdRequest = isZero
      ? { ...place, kind: 'writeZeroes', mayUnmap: true, fua: false }
      : { ...place, kind: 'write', data: Buffer.from(data), fua: false };
    this.handlers.request(0, request, (error) => {
      if (error !== 0 && !this.over) {
        this.end(`error ${error} of the target`);
        this.handlers.failed(`error ${error} of the target`, false);
      }
      done();
    });
  }

  mustGoOn(): void {
    if (this.over) throw new ColoError(errorCodes.channel, 'the secondary was lost during the copy');
  }

  async cancel(): Promise<void> {
    this.end('it was cancelled');
    await new Promise<void>((resolve) => this.disk.later(0.3, resolve));
  }

  private end(why: string): void {
    this.over = true;
    this.copied.reject(new ColoError(errorCodes.qemu, `the mirror ended: ${why}`));
    this.ended();
  }
}

export function hashOf(bytes: Buffer): string {
  let hash = 0x811c9dc5;
  for (let at = 0; at < bytes.length; at += 1) hash = Math.imul(hash ^ (bytes[at] ?? 0), 0x01000193) >>> 0;
  return hash.toString(16);
}
