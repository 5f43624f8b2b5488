// Who owned the VM of a pair on this machine, term after term, as the arbiter's folder said it: what a listener on the
// network heard is held against this. A starved host may suspect its peer wrongly and take over; then it may speak, and
// whoever counts the turns of speaking has to know. The folder keeps the last terms only (termsKept), so it is watched.

import { type FSWatcher, readdirSync, readFileSync, watch } from 'node:fs';
import { join } from 'node:path';

export class Owners {
  private readonly folder: string;
  private readonly byTerm = new Map<number, string>();
  private readonly watcher: FSWatcher;
  private isClosed = false;

  constructor(folder: string) {
    this.folder = folder;
    this.watcher = watch(folder, { persistent: false }, () => this.look());
    // Its folder was taken away: what was seen is kept.
    this.watcher.on('error', () => undefined);
  }

  /** The owners in the order of their terms; one who owned several terms in a row is named once. */
  get turns(): string[] {
    if (!this.isClosed) this.look();
    const owners = [...this.byTerm].toSorted(([left], [right]) => left - right).map(([, owner]) => owner);
    return owners.filter((owner, index) => owner !== owners[index - 1]);
  }

  /** The folder goes; what was seen is kept. */
  close(): void {
    if (!this.isClosed) this.look();
    this.isClosed = true;
    this.watcher.close();
  }

  private look(): void {
    for (const name of namesIn(this.folder)) {
      const term = Number(/\.term-(\d+)$/.exec(name)?.[1] ?? 0);
      if (term === 0 || this.byTerm.has(term)) continue;
      try {
        // A record appears under its name whole (arbiter/folder.ts).
        const { owner } = JSON.parse(readFileSync(join(this.folder, name), 'utf8')) as { owner: string };
        this.byTerm.set(term, owner);
      } catch {
        // Pruned meanwhile: it was seen before, or nobody heard it.
      }
    }
  }
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
