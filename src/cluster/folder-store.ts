// A store in a folder, for a cluster whose nodes are on one machine (or a single node): one file per entry, replaced
// whole. Changes are made under a file lock; times are this machine's, so a folder of several machines is refused by
// nothing but common sense: several hosts use etcd.
//
//   FOLDER/KIND~NAME.json    {"value":"...","revision":7,"until":null}
//   FOLDER/revision          the last revision used
//   FOLDER/lock

import { readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { ColoError, errorCodes, errorText } from '../base/errors.ts';
import { parseJson } from '../base/json.ts';
import { makeFolder } from '../base/make-folder.ts';
import { withFileLock } from '../host/file-lock.ts';
import { folderEntriesMax } from './limits.ts';
import { checkEntry, type Entry, type Store } from './store.ts';

const fileSchema = z.object({
  value: z.string(),
  revision: z.number().int().positive(),
  /** Wall-clock milliseconds at which it vanishes. */
  until: z.number().nullable(),
});
type File = z.output<typeof fileSchema>;

export class FolderStore implements Store {
  private readonly folder: string;
  private readonly wallNow: () => number;

  /** The folder is made if it is not there; `wallNow`: milliseconds since 1970. */
  constructor(folder: string, wallNow: () => number) {
    this.folder = folder;
    this.wallNow = wallNow;
    makeFolder(folder, 0o700);
  }

  async list(): Promise<Entry[]> {
    const now = this.wallNow();
    const names = readdirSync(this.folder).filter((name) => name.endsWith('.json'));
    if (names.length > folderEntriesMax) throw this.broken(`it has more than ${folderEntriesMax} entries`);
    const entries: Entry[] = [];
    for (const name of names) {
      const key = name.slice(0, -'.json'.length).replace('~', '/');
      const file = this.read(key);
      if (file === 'damaged') entries.push({ key, value: '', revision: 0 });
      if (file === undefined || file === 'damaged' || (file.until !== null && file.until <= now)) continue;
      entries.push({ key, value: file.value, revision: file.revision });
    }
    return entries;
  }

  async change(key: string, revision: number, value: string | null): Promise<boolean> {
    checkEntry(key, value);
    return await this.locked(() => {
      const file = this.read(key);
      if (file === 'damaged') throw this.broken(`${this.path(key)} is damaged; remove it when nobody needs it`);
      if ((file?.revision ?? 0) !== revision) return false;
      if (value === null) rmSync(this.path(key), { force: true });
      else this.write(key, { value, until: null });
      return true;
    });
  }

  async announce(key: string, value: string, ttlMs: number): Promise<void> {
    checkEntry(key, value);
    await this.locked(() => this.write(key, { value, until: this.wallNow() + ttlMs }));
  }

  async withdraw(key: string): Promise<void> {
    checkEntry(key, null);
    await this.locked(() => rmSync(this.path(key), { force: true }));
  }

  async close(): Promise<void> {}

  private path(key: string): string {
    return join(this.folder, `${key.replace('/', '~')}.json`);
  }

  private read(key: string): File | 'damaged' | undefined {
    let text: string;
    try {
      text = readFileSync(this.path(key), 'utf8');
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
      throw this.broken(errorText(error));
    }
    const file = fileSchema.safeParse(parseJson(text));
    return file.success ? file.data : 'damaged';
  }

  private write(key: string, file: Omit<File, 'revision'>): void {
    const revisionPath = join(this.folder, 'revision');
    const last = Number.parseInt(readText(revisionPath) ?? '0', 10);
    const revision = (Number.isSafeInteger(last) ? last : 0) + 1;
    this.replace(revisionPath, String(revision));
    this.replace(this.path(key), JSON.stringify({ ...file, revision }));
  }

  private replace(path: string, text: string): void {
    writeFileSync(`${path}.new`, text, { mode: 0o600, flush: true });
    renameSync(`${path}.new`, path);
  }

  private async locked<T>(work: () => T): Promise<T> {
    try {
      return await withFileLock(join(this.folder, 'lock'), async () => work());
    } catch (error) {
      throw error instanceof ColoError ? error : this.broken(errorText(error));
    }
  }

  private broken(why: string): ColoError {
    return new ColoError(errorCodes.arbiter, `the registry in ${this.folder} cannot be used: ${why}`);
  }
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
