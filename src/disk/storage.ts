// What the replica stands on: one folder with files. The real one is below; the simulation (sim/host/storage.ts) gives
// the same replica another one, whose writes are slow, fail, are torn by a crash, or are lost with the host's page
// cache.
//
// Names are those of files within the folder. Everything that changes a file is asynchronous, since a disk may hang.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { type FileHandle, open, readFile, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ColoError, errorCodes } from '../base/errors.ts';
import { makeFolder } from '../base/make-folder.ts';
import { punch, reserve } from './space.ts';

/** An open file. */
export interface StoredFile {
  /** Writes all of `parts`, or throws; without `position` at the end of what this opening wrote before. */
  write(parts: readonly Uint8Array[], position?: number): Promise<void>;
  /** Makes a range read as zeroes. */
  zero(offset: number, length: number): Promise<void>;
  /** Reads at `offset` until `into` is full or the file ends; returns how much. */
  read(into: Uint8Array, offset: number): Promise<number>;
  /** Makes sure that writing there will not fail for want of space; rejects with a ColoError when it would. */
  reserve(offset: number, length: number): Promise<void>;
  truncate(bytes: number): Promise<void>;
  /** Resolves when the contents survive the end of the host. */
  flush(): Promise<void>;
  close(): Promise<void>;
}

/** `new`: made or emptied. `once`: made, and an error when it is there. `old`: must be there. */
export type OpenHow = 'new' | 'once' | 'old';

export interface Storage {
  /** Where it is, for people. */
  readonly folder: string;
  /** The name of this boot of the host; '' where the system does not say. */
  readonly boot: string;
  /** Makes the folder when it is not there. */
  make(): void;
  list(): string[];
  has(name: string): boolean;
  /** Removes it, if it is there. */
  remove(name: string): Promise<void>;
  open(name: string, how: OpenHow): Promise<StoredFile>;
  read(name: string): Promise<Buffer>;
  /** A small text; undefined when there is none, an error when it is there and cannot be read. */
  readText(name: string): string | undefined;
  /**
   * Puts `text` in the place of the file, whole or not at all, and behind those of before; `flush`: it survives the end
   * of the host.
   */
  replaceText(name: string, text: string, flush: boolean): Promise<void>;
  /** Brings a text that was put there without flushing to the disk. */
  flushText(name: string): Promise<void>;
}

/** The id of this boot of the host; '' where the system has none. */
export function bootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  } catch {
    return '';
  }
}

const flags = { new: 'w+', once: 'wx+', old: 'r+' } as const satisfies Record<OpenHow, string>;

/** A folder of this host. */
export class Folder implements Storage {
  readonly folder: string;

  constructor(folder: string) {
    this.folder = folder;
  }

  get boot(): string {
    return bootId();
  }

  make(): void {
    makeFolder(this.folder, 0o700);
  }

  list(): string[] {
    return readdirSync(this.folder);
  }

  has(name: string): boolean {
    return existsSync(this.path(name));
  }

  remove(name: string): Promise<void> {
    return rm(this.path(name), { force: true });
  }

  async open(name: string, how: OpenHow): Promise<StoredFile> {
    return new OpenFile(await open(this.path(name), flags[how], 0o600));
  }

  read(name: string): Promise<Buffer> {
    return readFile(this.path(name));
  }

  readText(name: string): string | undefined {
    try {
      return readFileSync(this.path(name), 'utf8');
    } catch (cause) {
      if (cause instanceof Error && 'code' in cause && cause.code === 'ENOENT') return undefined;
      throw new ColoError(errorCodes.host, `${this.path(name)} cannot be read`, { cause });
    }
  }

  replaceText(name: string, text: string, flush: boolean): Promise<void> {
    const path = this.path(name);
    const before = replacing.get(path) ?? Promise.resolve();
    const mine = before.catch(() => undefined).then(() => replace(path, text, flush));
    replacing.set(path, mine);
    return mine.finally(() => {
      if (replacing.get(path) === mine) replacing.delete(path);
    });
  }

  async flushText(name: string): Promise<void> {
    for (const path of [this.path(name), this.folder]) await flushed(path);
  }

  private path(name: string): string {
    return join(this.folder, name);
  }
}

/** Texts that are being put in their place: on a disk that hangs, one may outlast the session that it is of. */
const replacing = new Map<string, Promise<void>>();

async function replace(path: string, text: string, flush: boolean): Promise<void> {
  const file = await open(`${path}.new`, 'w', 0o600);
  try {
    await file.writeFile(text);
    if (flush) await file.sync();
  } finally {
    await file.close();
  }
  await rename(`${path}.new`, path);
  if (flush) await flushed(dirname(path));
}

async function flushed(path: string): Promise<void> {
  const file = await open(path, 'r');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

const zeroBlock = Buffer.alloc(1024 * 1024);

class OpenFile implements StoredFile {
  private readonly handle: FileHandle;
  private busy: Promise<unknown> = Promise.resolve();

  constructor(handle: FileHandle) {
    this.handle = handle;
  }

  async write(parts: readonly Uint8Array[], position?: number): Promise<void> {
    const bytes = parts.reduce((sum, part) => sum + part.length, 0);
    const { bytesWritten } = await this.handle.writev([...parts], position);
    if (bytesWritten === bytes) return;
    // A short write: the second try gives the error, which is nearly always "no space left".
    const rest = Buffer.concat(parts).subarray(bytesWritten);
    for (let at = 0; at < rest.length; ) {
      const from = position === undefined ? null : position + bytesWritten + at;
      at += (await this.handle.write(rest, at, rest.length - at, from)).bytesWritten;
    }
  }

  async zero(offset: number, length: number): Promise<void> {
    if (await this.busyWith(punch(this.handle.fd, offset, length))) return;
    for (let at = 0; at < length; at += zeroBlock.length)
      await this.write([zeroBlock.subarray(0, Math.min(zeroBlock.length, length - at))], offset + at);
  }

  async read(into: Uint8Array, offset: number): Promise<number> {
    let at = 0;
    while (at < into.length) {
      const { bytesRead } = await this.handle.read(into, at, into.length - at, offset + at);
      if (bytesRead === 0) break;
      at += bytesRead;
    }
    return at;
  }

  reserve(offset: number, length: number): Promise<void> {
    return this.busyWith(reserve(this.handle.fd, offset, length));
  }

  async truncate(bytes: number): Promise<void> {
    await this.handle.truncate(bytes);
  }

  async flush(): Promise<void> {
    await this.handle.datasync();
  }

  async close(): Promise<void> {
    await this.busy;
    await this.handle.close();
  }

  /** What another thread does with the number of this file is done before that number is another file's. */
  private busyWith<T>(operation: Promise<T>): Promise<T> {
    const done = operation.then(
      () => undefined,
      () => undefined,
    );
    this.busy = Promise.all([this.busy, done]);
    return operation;
  }
}

export function storageOf(folder: string | Storage): Storage {
  return typeof folder === 'string' ? new Folder(folder) : folder;
}

/** One after the other, whatever becomes of the one before: a disk that hangs takes one thread of the process. */
export async function flushAndClose(disks: readonly StoredFile[]): Promise<void> {
  for (const disk of disks) {
    await disk.flush().catch(() => undefined);
    await disk.close().catch(() => undefined);
  }
}
