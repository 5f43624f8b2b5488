// Is every page that changes found, and what does finding them cost? A guest that writes, answers datagrams and reads
// its clocks is captured again and again, and all of its RAM is compared with what it was at the capture before: a page
// that differs and was not listed would be missing on a secondary.
//
//   capture n    guest writes, QEMU writes rings, the kernel writes kvmclock    capture n + 1
//      copy      ─────────────────────────────────────────────────────────►     compare, copy again

import { barePorts } from '../../../guest/bare/guest.ts';
import { type PageRuns, pageSize } from '../../base/page-runs.ts';
import { type Percentiles, percentiles } from '../../checkpoint/record.ts';
import type { BareVm } from '../bare-vm.ts';

export interface CaptureReport {
  captures: number;
  /** Pages that differed from the capture before, those that were listed, and those that differed and were not. */
  changedPages: number;
  listedPages: number;
  missedPages: number;
  /** Captured pages whose contents were not those of RAM. */
  wrongPages: number;
  pauseMs: Percentiles;
  problems: string[];
}

/** Datagrams between two captures: some of what changes is written by QEMU. */
const datagramsPerRound = 8;
const blockPages = 64;

/** Captures the guest so often, with turns and datagrams in between. */
export async function checkCaptures(guest: BareVm, captures: number): Promise<CaptureReport> {
  const { vm } = guest;
  const copy = Buffer.alloc(vm.ram.length);
  (await vm.capture({ onStopped: () => undefined, beforeResume: () => void vm.ram.copy(copy) })).release();
  const report = { captures, changedPages: 0, listedPages: 0, missedPages: 0, wrongPages: 0 };
  const pauses: number[] = [];
  const problems: string[] = [];
  for (let round = 0; round < captures; round++) {
    for (let index = 0; index < datagramsPerRound; index++) guest.card.say(barePorts.echoUdp, `${round} ${index}`);
    await guest.turns(1);
    let changed: number[] = [];
    const beforeResume = () => {
      changed = takeChanges(vm.ram, copy);
    };
    const capture = await vm.capture({ onStopped: () => undefined, beforeResume });
    const listed = pagesOf(capture.runs);
    const missed = changed.filter((page) => !listed.has(page));
    const wrong = differing(capture.runs, capture.pages, copy);
    capture.release();
    if (missed.length > 0) problems.push(`capture ${round}: pages ${describe(missed)} changed and were not listed`);
    if (wrong > 0) problems.push(`capture ${round}: ${wrong} captured runs were not what RAM held`);
    report.changedPages += changed.length;
    report.listedPages += listed.size;
    report.missedPages += missed.length;
    report.wrongPages += wrong;
    // The comparison stands in the last phase: it is ours and not the product's.
    const { stopMs, saveMs, scanMs, copyMs } = capture.phases;
    pauses.push(stopMs + saveMs + scanMs + copyMs);
  }
  if (report.changedPages === 0) problems.push('nothing changed between the captures: this proves nothing');
  if (guest.control.errors > 0) problems.push(`the guest found ${guest.control.errors} errors in its memory`);
  return { ...report, pauseMs: percentiles(pauses), problems };
}

/** The numbers of the pages that differ, which are copied. */
function takeChanges(ram: Buffer, copy: Buffer): number[] {
  const changed: number[] = [];
  for (let block = 0; block < ram.length; block += blockPages * pageSize) {
    const end = Math.min(ram.length, block + blockPages * pageSize);
    if (ram.compare(copy, block, end, block, end) === 0) continue;
    for (let at = block; at < end; at += pageSize) {
      if (ram.compare(copy, at, at + pageSize, at, at + pageSize) === 0) continue;
      ram.copy(copy, at, at, at + pageSize);
      changed.push(at / pageSize);
    }
  }
  return changed;
}

function pagesOf(runs: PageRuns): Set<number> {
  const pages = new Set<number>();
  runs.forEach((start, end) => {
    for (let at = start; at < end; at += pageSize) pages.add(at / pageSize);
  });
  return pages;
}

function differing(runs: PageRuns, pages: Buffer, copy: Buffer): number {
  let at = 0;
  let wrong = 0;
  runs.forEach((start, end) => {
    if (pages.compare(copy, start, end, at, at + end - start) !== 0) wrong += 1;
    at += end - start;
  });
  return wrong;
}

function describe(pages: readonly number[]): string {
  const named = pages.slice(0, 5).map((page) => `0x${(page * pageSize).toString(16)}`);
  return pages.length > named.length ? `${named.join(', ')} and ${pages.length - named.length} more` : named.join(', ');
}
