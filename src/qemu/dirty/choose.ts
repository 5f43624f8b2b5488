// Chooses the tracker for one QEMU by trying: userfaultfd, then soft-dirty, then compare. Every way that was passed
// over is named with its reason, because the difference in cost is tenfold and an operator should know.

import { closeSync, openSync, readSync, writeFileSync } from 'node:fs';
import { ColoError, errorCodes, errorText } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { PageRuns, pageSize } from '../../base/page-runs.ts';
import { addressOf } from '../libc.ts';
import { CompareScanner } from './compare.ts';
import { scannerOf } from './pieces.ts';
import { addSoftDirty, hostHasSwap, SoftDirtyScanner } from './soft-dirty.ts';
import { type DirtyTracker, type PageScanner, RunTracker, type TrackerKind, trackerKinds } from './tracker.ts';
import { UserfaultfdScanner } from './userfaultfd.ts';

export interface TrackedMemory {
  pid: number;
  /** Where the parts of the RAM file lie in QEMU's address space, ascending by their offsets. */
  parts: readonly { offset: number; address: number; bytes: number }[];
  /** The RAM file. */
  ram: Buffer;
  /** The guest runs under KVM, whose page tables an ordinary re-arming scan would cost it (userfaultfd.ts). */
  underKvm: boolean;
}

/** Opens one way of tracking, or throws with the reason why it does not work here. */
function open(kind: TrackerKind, memory: TrackedMemory): PageScanner {
  if (kind === 'compare') return new CompareScanner(memory.ram);
  if (kind === 'soft-dirty') assertSoftDirtyWorks();
  const scanner = scannerOf(
    memory.parts.map(({ offset, address, bytes }) => {
      const target = { pid: memory.pid, ramAddress: address, ramBytes: bytes };
      const scanner =
        kind === 'soft-dirty'
          ? new SoftDirtyScanner(target)
          : new UserfaultfdScanner({ ...target, gently: memory.underKvm });
      return { offset, bytes, scanner };
    }),
  );
  try {
    scanner.scan({ rearm: false });
    return scanner;
  } catch (error) {
    scanner.close();
    throw error;
  }
}

/** Throws unless clearing and writing a page of our own memory shows in its soft-dirty bit. */
function assertSoftDirtyWorks(): void {
  if (hostHasSwap()) {
    throw new ColoError(errorCodes.host, 'The host has swap: soft-dirty bits of swapped pages would be lost.');
  }
  const page = new BigUint64Array(pageSize / 8);
  const written = () => isSoftDirty(addressOf(page));
  page.fill(1n);
  writeFileSync('/proc/self/clear_refs', '4');
  const cleared = !written();
  page.fill(2n);
  if (!cleared || !written()) throw new ColoError(errorCodes.host, 'The kernel has no soft-dirty bits.');
}

function isSoftDirty(address: bigint): boolean {
  const entry = new Uint32Array(2);
  const fd = openSync('/proc/self/pagemap', 'r');
  try {
    readSync(fd, Buffer.from(entry.buffer), 0, 8, Number(address / BigInt(pageSize)) * 8);
  } finally {
    closeSync(fd);
  }
  const runs = new PageRuns();
  addSoftDirty(runs, entry, 0);
  return runs.runs > 0;
}

export function chooseTracker(wanted: TrackerKind | 'auto', memory: TrackedMemory, log: Log): DirtyTracker {
  const reasons: string[] = [];
  for (const kind of wanted === 'auto' ? trackerKinds : [wanted]) {
    try {
      const tracker = new RunTracker(open(kind, memory), memory.ram.length);
      if (reasons.length > 0) log.warn({ tracker: kind, reasons }, 'written pages are found in a slower way');
      return tracker;
    } catch (error) {
      reasons.push(`${kind}: ${errorText(error)}`);
    }
  }
  throw new ColoError(errorCodes.host, `Written pages cannot be tracked here. ${reasons.join(' ')}`, {
    hint: 'Choose the tracker "auto": comparing with a copy works on every host.',
  });
}
