// The folder of a replica on one host, with the promises of src/disk/storage.ts and no more: what was written is in the
// host's cache until it is flushed. The end of a process tears the write that was under way; the end of a host loses,
// of all that was not flushed, whatever chance has it: sectors of files, new names, removals.
//
//    write ─► (time) ─► cache ──flush──► disk          a name: new ──flush of a text──► disk
//
// A folder outlives processes and boots of its host. Who recovers it after the fact (checker/disk-epoch.ts) works on a
// copy that knows no time and no faults.

import { ColoError, errorCodes } from '../../src/base/errors.ts';
import type { OpenHow, Storage, StoredFile } from '../../src/disk/storage.ts';
import type { Random } from '../world/random.ts';
import type { SimProcess } from './process.ts';

export const sectorBytes = 512;

/** One file, whatever its name. */
interface Inode {
  cache: Buffer;
  disk: Buffer;
  /** Sectors of the cache that the disk does not have. */
  dirty: Set<number>;
  /** Sectors that have their place on the disk: the others are holes. */
  placed: Set<number>;
}

const newInode = (): Inode => ({ cache: Buffer.alloc(0), disk: Buffer.alloc(0), dirty: new Set(), placed: new Set() });

export class SimFolder {
  readonly path: string;
  /** The boot of the host: another one after its end. */
  boot = 1;
  /** Faults. */
  slowMs = 0;
  failing = false;
  full = false;
  /** What waits for a disk that hangs; undefined: it answers. */
  private waiting: (() => void)[] | undefined;
  /** A write of a replica, or of what it is said to be, has failed. */
  onRefused: () => void = () => undefined;
  /** Anything in it has failed: its node may give it up. */
  onTrouble: () => void = () => undefined;
  readonly names = new Map<string, Inode>();
  private durable = new Map<string, Inode>();
  /** Writes under way: a crash lets a part of each happen. */
  readonly underWay = new Set<(bytes: number) => void>();
  private readonly random: Random;

  constructor(path: string, random: Random) {
    this.path = path;
    this.random = random;
  }

  hang(): void {
    this.waiting ??= [];
  }

  answer(): void {
    for (const action of this.waiting?.splice(0) ?? []) action();
    this.waiting = undefined;
  }

  /** Does it now, or when the disk answers again. */
  whenAnswering(action: () => void): void {
    if (this.waiting === undefined) action();
    else this.waiting.push(action);
  }

  /** The process that used it is gone: of what it was writing some part has happened. */
  processEnded(): void {
    for (const tear of this.underWay) tear(Math.floor(this.random.next() * 1.3 * 4 * sectorBytes));
    this.underWay.clear();
  }

  /** The host is gone: what was not flushed is there or not. */
  hostEnded(): void {
    this.processEnded();
    this.boot += 1;
    for (const inode of new Set([...this.names.values(), ...this.durable.values()])) {
      const kept = growTo(inode.disk, this.random.chance(0.5) ? inode.cache.length : inode.disk.length);
      for (const sector of inode.dirty)
        if (this.random.chance(0.5)) inode.cache.copy(kept, sector * sectorBytes, sector * sectorBytes, end(sector));
      inode.cache = Buffer.from(kept);
      inode.disk = kept;
      inode.dirty.clear();
    }
    for (const name of new Set([...this.names.keys(), ...this.durable.keys()])) {
      const inode = (this.random.chance(0.5) ? this.names : this.durable).get(name);
      if (inode === undefined) this.names.delete(name);
      else this.names.set(name, inode);
    }
    this.durable = new Map(this.names);
  }

  /** As it is now, for somebody who looks at it later. */
  copy(): SimFolder {
    const copy = new SimFolder(this.path, this.random.fork('copy'));
    copy.boot = this.boot;
    for (const [name, { cache }] of this.names) copy.names.set(name, { ...newInode(), cache: Buffer.from(cache) });
    return copy;
  }

  bytes(name: string): Buffer | undefined {
    return this.names.get(name)?.cache;
  }

  /** Everything is gone: the operator has brought the disks elsewhere. */
  clear(): void {
    this.names.clear();
    this.durable.clear();
  }

  /** All names are on the disk as they are. */
  flushNames(): void {
    this.durable = new Map(this.names);
  }
}

/** A folder as one process sees it; without a process nothing takes time and nothing fails. */
export class SimStorage implements Storage {
  readonly root: SimFolder;
  private readonly process: SimProcess | undefined;
  private readonly delayMs: () => number;

  constructor(root: SimFolder, process?: SimProcess, delayMs: () => number = () => 0) {
    this.root = root;
    this.process = process;
    this.delayMs = delayMs;
  }

  get folder(): string {
    return this.root.path;
  }

  get boot(): string {
    return String(this.root.boot);
  }

  get reaches(): boolean {
    return this.process?.alive !== false;
  }

  make(): void {}

  list(): string[] {
    return [...this.root.names.keys()];
  }

  has(name: string): boolean {
    return this.root.names.has(name);
  }

  async remove(name: string): Promise<void> {
    if (this.reaches) this.root.names.delete(name);
  }

  async open(name: string, how: OpenHow): Promise<StoredFile> {
    await this.work(0, () => undefined);
    const known = this.root.names.get(name);
    if (how === 'old' && known === undefined) throw systemError('ENOENT');
    if (how === 'once' && known !== undefined) throw systemError('EEXIST');
    if (known !== undefined && how === 'old') return new SimFile(this, known);
    const inode = known ?? newInode();
    resize(inode, 0);
    if (this.reaches) this.root.names.set(name, inode);
    return new SimFile(this, inode);
  }

  async read(name: string): Promise<Buffer> {
    await this.work(0, () => undefined);
    const inode = this.root.names.get(name);
    if (inode === undefined) throw systemError('ENOENT');
    return Buffer.from(inode.cache);
  }

  readText(name: string): string | undefined {
    return this.root.names.get(name)?.cache.toString('utf8');
  }

  async replaceText(name: string, text: string, flush: boolean): Promise<void> {
    await this.answered();
    if (!this.reaches) return;
    if (this.root.failing) {
      this.root.onTrouble();
      if (!text.includes('"owner"')) this.root.onRefused();
      throw systemError('EIO');
    }
    const inode = newInode();
    put(inode, Buffer.from(text), 0);
    if (flush) sync(inode);
    this.root.names.set(name, inode);
    if (flush) this.root.flushNames();
  }

  async flushText(name: string): Promise<void> {
    await this.work(0, () => {
      const inode = this.root.names.get(name);
      if (inode !== undefined) sync(inode);
      this.root.flushNames();
    });
  }

  /** At once, unless the disk hangs. */
  answered(): Promise<void> {
    return new Promise((resolve) => {
      this.root.whenAnswering(() => (this.process === undefined ? resolve() : this.process.run(() => resolve())));
    });
  }

  /** Does it after a while: whole, or as far as `tear` lets it when the process ends before. */
  work(bytes: number, act: (bytes: number) => void, refused: () => void = () => undefined): Promise<void> {
    const { process, root } = this;
    if (process === undefined) {
      act(bytes);
      return Promise.resolve();
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    if (!process.alive) return promise;
    const tear = (torn: number) => act(Math.min(torn, bytes));
    if (bytes > 0) root.underWay.add(tear);
    const done = () => {
      root.underWay.delete(tear);
      if (root.failing) {
        root.onTrouble();
        refused();
        return reject(systemError('EIO'));
      }
      act(bytes);
      resolve();
    };
    const answer = () => process.run(done);
    process.clock.after(this.delayMs() + root.slowMs, () => root.whenAnswering(answer));
    return promise;
  }
}

class SimFile implements StoredFile {
  private readonly storage: SimStorage;
  private readonly inode: Inode;
  private at = 0;
  private open = true;

  constructor(storage: SimStorage, inode: Inode) {
    this.storage = storage;
    this.inode = inode;
  }

  async write(parts: readonly Uint8Array[], position?: number): Promise<void> {
    this.mustBeOpen();
    const bytes = Buffer.concat(parts);
    const start = position ?? this.at;
    this.place(start, bytes.length, () => {
      if (position !== undefined) this.storage.root.onRefused();
      return systemError('ENOSPC');
    });
    if (position === undefined) this.at += bytes.length;
    const refused = () => position !== undefined && this.storage.root.onRefused();
    await this.storage.work(bytes.length, (done) => put(this.inode, bytes.subarray(0, done), start), refused);
  }

  async zero(offset: number, length: number): Promise<void> {
    this.mustBeOpen();
    const refused = () => this.storage.root.onRefused();
    await this.storage.work(length, (done) => put(this.inode, Buffer.alloc(done), offset), refused);
    for (const sector of sectorsOf(offset, length)) this.inode.placed.delete(sector);
  }

  async read(into: Uint8Array, offset: number): Promise<number> {
    this.mustBeOpen();
    await this.storage.work(0, () => undefined);
    return this.inode.cache.copy(into, 0, offset, offset + into.length);
  }

  async reserve(offset: number, length: number): Promise<void> {
    this.mustBeOpen();
    await this.storage.answered();
    this.place(offset, length, () => new ColoError(errorCodes.host, 'the disk of the replica is full (simulated)'));
  }

  private place(offset: number, length: number, error: () => Error): void {
    for (const sector of sectorsOf(offset, length)) {
      if (this.storage.root.full && !this.inode.placed.has(sector)) {
        this.storage.root.onTrouble();
        throw error();
      }
      this.inode.placed.add(sector);
    }
  }

  async truncate(bytes: number): Promise<void> {
    this.mustBeOpen();
    if (this.storage.reaches) resize(this.inode, bytes);
  }

  async flush(): Promise<void> {
    this.mustBeOpen();
    await this.storage.work(0, () => sync(this.inode));
  }

  async close(): Promise<void> {
    this.mustBeOpen();
    this.open = false;
  }

  private mustBeOpen(): void {
    if (!this.open) throw systemError('EBADF');
  }
}

const end = (sector: number) => (sector + 1) * sectorBytes;

function growTo(bytes: Buffer, length: number): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(Math.max(0, length - bytes.length))], length);
}

function put(inode: Inode, bytes: Uint8Array, at: number): void {
  if (bytes.length === 0) return;
  if (at + bytes.length > inode.cache.length) inode.cache = growTo(inode.cache, at + bytes.length);
  inode.cache.set(bytes, at);
  for (const sector of sectorsOf(at, bytes.length)) inode.dirty.add(sector);
}

function sectorsOf(at: number, length: number): number[] {
  const first = Math.floor(at / sectorBytes);
  const count = length === 0 ? 0 : Math.floor((at + length - 1) / sectorBytes) - first + 1;
  return Array.from({ length: count }, (_, index) => first + index);
}

function resize(inode: Inode, bytes: number): void {
  inode.cache = growTo(inode.cache.subarray(0, bytes), bytes);
  for (const sector of sectorsOf(0, bytes)) inode.dirty.add(sector);
}

function sync(inode: Inode): void {
  inode.disk = Buffer.from(inode.cache);
  inode.dirty.clear();
}

function systemError(code: string): Error {
  return Object.assign(new Error(`${code} (simulated)`), { code });
}
