// An arbiter in a folder that both nodes see: a directory of this machine, or of shared storage (NFS, a cluster file
// system) that has link(2). One file per term, and the file system lets exactly one be made:
//
//    write .claim-<random> whole ─► fsync ─► link to <vm>.term-<n> ─► fsync of the folder ─► read the newest
//                                             EEXIST: someone else made this term
//
// A record appears under its name whole or not at all, so a reader never sees half of one; one that cannot be read
// means damaged storage and is an error that a person must resolve, never guessed over.
//
// Why the newest is read after every link: a claimer that slept for many terms could make a term whose file was pruned
// long ago. It then sees a newer term and has lost. The last termsKept files stay, so that a listing that runs beside
// other claims always shows one. On network storage a listing may be old, so a read goes on from it by opening the next
// terms by name. Whatever error follows the link is resolved by reading too: the file is there and ours, or it is not.
//
// A claimer that dies in between leaves its .claim file, a few bytes that nobody reads; it may be removed at any time.
// So may what a probe leaves: it makes a file and links it like a claim, under a name that is no term.
//
// The folder is never created here: an unmounted share would become two private folders, and both nodes would win.

import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, link, open, readdir, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { type Clock, systemClock } from '../base/clock.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import { parseJson } from '../base/json.ts';
import { type Arbiter, type ClaimResult, type Roles, resolveClaim, type TermRecord, UnknownTerm } from './arbiter.ts';
import { folderEntriesMax, operationTimeoutMs, readAttempts, recordBytesMax, termsKept } from './limits.ts';
import { checkNames, isName } from './names.ts';

const name = z.string().refine(isName, 'is no name');

const recordSchema = z.object({
  vm: name,
  term: z.int().min(1),
  owner: name,
  peer: name.nullable(),
});

export class FolderArbiter implements Arbiter {
  private readonly folder: string;
  private readonly clock: Clock;

  private constructor(folder: string, clock: Clock) {
    this.folder = folder;
    this.clock = clock;
  }

  /** Opens the folder; it must exist. */
  static async open(folder: string, clock: Clock = systemClock): Promise<FolderArbiter> {
    const arbiter = new FolderArbiter(folder, clock);
    await arbiter.bounded('open', async () => {
      const found = await stat(folder);
      if (!found.isDirectory()) throw new Error('it is not a folder');
    });
    return arbiter;
  }

  async read(vm: string): Promise<TermRecord | undefined> {
    checkNames(vm);
    return await this.bounded('read', () => this.readNewest(vm));
  }

  async claim(vm: string, expectedTerm: number, next: Roles): Promise<ClaimResult> {
    checkNames(vm, next);
    return await this.bounded('claim', async () => {
      const newest = await this.readNewest(vm);
      if (newest === undefined && expectedTerm > 0) throw new UnknownTerm(vm, expectedTerm);
      if (newest !== undefined && newest.term !== expectedTerm) return resolveClaim(newest, expectedTerm, next);
      return await this.make(vm, { term: expectedTerm + 1, ...next });
    });
  }

  async probe(vm: string): Promise<void> {
    checkNames(vm);
    await this.bounded('write', async () => {
      await this.readNewest(vm);
      const probe = join(this.folder, `.probe-${randomBytes(8).toString('hex')}`);
      try {
        await this.writeAndLink(`${JSON.stringify({ vm })}\n`, probe);
      } finally {
        await unlink(probe).catch(() => undefined);
      }
    });
  }

  async close(): Promise<void> {}

  /** Makes the file of a term, and finds out by reading whether that succeeded. */
  private async make(vm: string, record: TermRecord): Promise<ClaimResult> {
    let cause: unknown;
    try {
      await this.writeAndLink(`${JSON.stringify({ vm, ...record })}\n`, this.path(vm, record.term));
    } catch (error) {
      cause = error;
    }
    const newest = await this.readNewest(vm);
    if (newest === undefined || newest.term < record.term) throw cause ?? new Error('the record is not there');
    const result = resolveClaim(newest, record.term - 1, record);
    if (result.won) await this.prune(vm, record.term).catch(() => undefined);
    return result;
  }

  /** Makes the file whole or not at all, and for good; fails when there is one of this name. */
  private async writeAndLink(text: string, path: string): Promise<void> {
    const claim = join(this.folder, `.claim-${randomBytes(8).toString('hex')}`);
    try {
      await this.writeWhole(claim, text);
      await link(claim, path);
      await this.syncFolder();
    } finally {
      await unlink(claim).catch(() => undefined);
    }
  }

  private async writeWhole(path: string, text: string): Promise<void> {
    const file = await open(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o644);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
  }

  private async syncFolder(): Promise<void> {
    const folder = await open(this.folder, constants.O_RDONLY);
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  }

  private async readNewest(vm: string): Promise<TermRecord | undefined> {
    for (let attempt = 0; attempt < readAttempts; attempt += 1) {
      const newest = (await this.listTerms(vm)).at(-1);
      const record = await this.readTerm(vm, newest ?? 1);
      if (record !== undefined) return await this.readLater(vm, record);
      if (newest === undefined) return undefined;
    }
    throw new Error(`the records of ${vm} vanish while they are read`);
  }

  /** Goes on to terms that the listing did not show yet. */
  private async readLater(vm: string, from: TermRecord): Promise<TermRecord> {
    let newest = from;
    for (;;) {
      const later = await this.readTerm(vm, newest.term + 1);
      if (later === undefined) return newest;
      newest = later;
    }
  }

  /** Terms of the VM that have a file, ascending. */
  private async listTerms(vm: string): Promise<number[]> {
    const entries = await readdir(this.folder);
    if (entries.length > folderEntriesMax) throw new Error(`it has ${entries.length} entries`);
    const prefix = `${vm}.term-`;
    const terms = entries
      .filter((entry) => entry.startsWith(prefix) && /^[1-9]\d{0,14}$/.test(entry.slice(prefix.length)))
      .map((entry) => Number(entry.slice(prefix.length)));
    return terms.sort((left, right) => left - right);
  }

  /** The record of one term, undefined when there is none; throws when there is one that is not readable. */
  private async readTerm(vm: string, term: number): Promise<TermRecord | undefined> {
    let file: FileHandle;
    try {
      file = await open(this.path(vm, term), constants.O_RDONLY | constants.O_NOFOLLOW);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }
    try {
      const buffer = Buffer.alloc(recordBytesMax + 1);
      const { bytesRead } = await file.read(buffer, 0, buffer.length, 0);
      return this.parse(buffer.toString('utf8', 0, bytesRead), vm, term);
    } finally {
      await file.close();
    }
  }

  private parse(text: string, vm: string, term: number): TermRecord {
    const parsed = text.length > recordBytesMax ? undefined : recordSchema.safeParse(parseJson(text));
    if (parsed?.success && parsed.data.vm === vm && parsed.data.term === term) {
      return { term, owner: parsed.data.owner, peer: parsed.data.peer };
    }
    const path = this.path(vm, term);
    throw new ColoError(errorCodes.arbiter, `the arbiter's record ${path} is damaged`, {
      hint: `Make sure that ${vm} runs on one node at most, then remove this file; the term before it counts again.`,
    });
  }

  private async prune(vm: string, newestTerm: number): Promise<void> {
    const terms = await this.listTerms(vm);
    for (const term of terms.filter((each) => each <= newestTerm - termsKept)) {
      await unlink(this.path(vm, term)).catch(() => undefined);
    }
  }

  private path(vm: string, term: number): string {
    return join(this.folder, `${vm}.term-${term}`);
  }

  /** Runs one operation within its time; whatever goes wrong becomes an error that says what to do. */
  private async bounded<T>(what: string, operation: () => Promise<T>): Promise<T> {
    let cancel = (): void => undefined;
    const timeout = new Promise<never>((_, reject) => {
      cancel = this.clock.after(operationTimeoutMs, () => reject(new Error(`no answer for ${operationTimeoutMs} ms`)));
    });
    try {
      return await Promise.race([operation(), timeout]);
    } catch (cause) {
      if (cause instanceof ColoError) throw cause;
      throw new ColoError(errorCodes.arbiter, `the arbiter's folder ${this.folder} failed to ${what}`, {
        cause,
        hint: 'Check that the folder exists, is the same on both nodes (mounted), is writable, and has free space.',
      });
    } finally {
      cancel();
    }
  }
}
