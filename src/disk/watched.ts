// A replica's storage whose questions to the disk are counted while they have no answer (base/disk-activity.ts), so
// that a disk that hangs is noticed by whoever has promised something that waits for it.

import type { DiskActivity } from '../base/disk-activity.ts';
import { rangePieceBytesMax } from './limits.ts';
import type { OpenHow, Storage, StoredFile } from './storage.ts';

export class WatchedStorage implements Storage {
  private readonly inner: Storage;
  private readonly activity: DiskActivity;

  constructor(inner: Storage, activity: DiskActivity) {
    this.inner = inner;
    this.activity = activity;
  }

  get folder(): string {
    return this.inner.folder;
  }

  get boot(): string {
    return this.inner.boot;
  }

  make(): void {
    this.inner.make();
  }

  list(): string[] {
    return this.inner.list();
  }

  has(name: string): boolean {
    return this.inner.has(name);
  }

  readText(name: string): string | undefined {
    return this.inner.readText(name);
  }

  remove(name: string): Promise<void> {
    return this.watch(this.inner.remove(name));
  }

  async open(name: string, how: OpenHow): Promise<StoredFile> {
    const file = await this.watch(this.inner.open(name, how));
    return watchedFile(file, (operation) => this.watch(operation));
  }

  read(name: string): Promise<Buffer> {
    return this.watch(this.inner.read(name));
  }

  replaceText(name: string, text: string, flush: boolean): Promise<void> {
    return this.watch(this.inner.replaceText(name, text, flush));
  }

  flushText(name: string): Promise<void> {
    return this.watch(this.inner.flushText(name));
  }

  private watch<T>(operation: Promise<T>): Promise<T> {
    return this.activity.track(this.folder, operation);
  }
}

/** Unchanged where nobody wants to hear of it. */
export function watched(storage: Storage, activity: DiskActivity | undefined): Storage {
  return activity === undefined ? storage : new WatchedStorage(storage, activity);
}

function watchedFile(file: StoredFile, watch: <T>(operation: Promise<T>) => Promise<T>): StoredFile {
  return {
    write: (parts, position) => watch(file.write(parts, position)),
    zero: (offset, length) => inPieces(offset, length, (at, bytes) => watch(file.zero(at, bytes))),
    read: (into, offset) => watch(file.read(into, offset)),
    reserve: (offset, length) => inPieces(offset, length, (at, bytes) => watch(file.reserve(at, bytes))),
    truncate: (bytes) => watch(file.truncate(bytes)),
    flush: () => watch(file.flush()),
    close: () => watch(file.close()),
  };
}

/** What takes long by its length alone, on a file system that has no holes, is no disk that hangs. */
async function inPieces(
  offset: number,
  length: number,
  work: (offset: number, length: number) => Promise<void>,
): Promise<void> {
  for (let at = 0; at < length; at += rangePieceBytesMax)
    await work(offset + at, Math.min(rangePieceBytesMax, length - at));
}
