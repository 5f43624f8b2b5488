// How a guest keeps time that has no NTP: a pair in remus mode, whose primary is paused ten times a second, for as long
// as asked for. `colo bench clocks --minutes 60` prints the table, or JSON, and ends with exit code 1 when a clock is
// off by more than 20 ms at any time, or has gone back.
//
//   bare guest: its clocks in a page of its RAM ◄── read here, in the primary's RAM file, every few seconds, against
//   QEMU ◄── stop, save, cont, 10 times a second    CLOCK_MONOTONIC of this host, between two bounds (clock-sample.ts)
//
// An error is given as what is certain of it: 0 when the bounds of the two samples hold it.
// The host's own clock is not judged. Where NTP steers it, TSC and kvmclock, which follow the oscillator, differ by
// what it steers. KVM's PIT runs at 1,193,181 Hz, and so loses 2 ms in an hour (0.56 ppm).

import { join } from 'node:path';
import { buildBareGuest } from '../guest/bare/build.ts';
import { ControlPage } from '../guest/bare/control.ts';
import { delay, systemClock } from '../src/base/clock.ts';
import { ColoError, errorCodes } from '../src/base/errors.ts';
import { checkSpec } from '../src/config/spec.ts';
import { consoleSays } from '../src/demo/console.ts';
import { bareDemoGuest } from '../src/demo/guest.ts';
import {
  type Bounds,
  type ClockName,
  type ClockSample,
  clockNames,
  clockTexts,
  gain,
  sampleClocks,
  stepsBack,
} from '../src/demo/prove/clock-sample.ts';
import { runDirectory } from '../src/local/directories.ts';
import { LocalPair } from '../src/local/pair.ts';
import { type Mapping, mapFile } from '../src/qemu/libc.ts';

export interface ClockBenchOptions {
  minutes?: number;
  /** `kvm` when left out. */
  accel?: 'tcg' | 'kvm';
  json: boolean;
  print?: (text: string) => void;
}

export interface ClockFigures {
  clock: ClockName;
  /** How far it was from the host's at the end, and when it was furthest: what is certain. Positive: ahead. */
  endMs: number;
  worstMs: number;
  /** How far from `endMs` it may be at most: half of what the bounds leave open. */
  openMs: number;
  backMs: number;
}

export interface ClockBenchReport {
  ok: boolean;
  accel: 'tcg' | 'kvm';
  minutes: number;
  samples: number;
  checkpoints: number;
  pauseMsP50: number;
  /** About: what the guest stood still in all, and would have lost. */
  pausedS: number;
  takeovers: number;
  clocks: ClockFigures[];
}

const vm = 'bench-clocks';
const ramMib = 128;
const sampleEveryMs = 5_000;
const tellEveryMs = 60_000;
const errorMsMax = 20;
const answerTimeoutMs = 10_000;
/** With fewer samples nothing is judged: the guest was not there. */
const samplesWanted = 0.5;
const bootTimeoutMs = 180_000;
const protectTimeoutMs = 180_000;

export async function benchClocks(options: ClockBenchOptions): Promise<ClockBenchReport> {
  const { minutes = 2, accel = 'kvm', json } = options;
  const print = options.print ?? ((text: string) => void process.stdout.write(text));
  const guest = bareDemoGuest(await buildBareGuest());
  const machine = { ...guest.machine, memory: `${ramMib}M`, type: 'q35' as const, accel };
  const protect = { mode: 'remus' as const, interval: '100ms' };
  const spec = checkSpec({ vm, boot: { guest: guest.kind }, machine, protect }, 'the benchmark');
  const pair = await LocalPair.start({ spec, boot: guest.boot, clock: systemClock, forwards: [], gateway: false });
  try {
    const path = join(pair.logDir, 'a.serial');
    await consoleSays(pair.a, { path, text: guest.readyLine, timeoutMs: bootTimeoutMs });
    await pair.startSecondary();
    await pair.until('protected', protectTimeoutMs, (all) =>
      all.some((one) => one.role === 'primary' && one.protected),
    );
    const watched = await watch(pair, { untilMs: systemClock.now() + minutes * 60_000, quiet: json });
    const report = { accel, minutes, ...watched };
    const wasThere = report.samples >= (samplesWanted * minutes * 60_000) / (sampleEveryMs + answerTimeoutMs);
    const isKept = report.clocks.every(({ worstMs, backMs }) => Math.abs(worstMs) <= errorMsMax && backMs === 0);
    const ok = wasThere && isKept;
    print(json ? `${JSON.stringify({ ok, ...report }, null, 2)}\n` : tableOf({ ok, ...report }));
    return { ok, ...report };
  } finally {
    await pair.stop();
  }
}

/** The control page of whoever is primary now. */
class PrimaryPage {
  private readonly pair: LocalPair;
  private mapping: Mapping | undefined;
  private node = '';
  takeovers = -1;
  checkpoints = 0;
  pauseMsP50 = 0;
  private counted = 0;

  constructor(pair: LocalPair) {
    this.pair = pair;
  }

  async control(): Promise<ControlPage | undefined> {
    const primary = await this.pair.primary();
    if (primary === undefined) return undefined;
    if (primary.node !== this.node) {
      this.close();
      this.node = primary.node;
      this.takeovers += 1;
      this.counted = 0;
      this.mapping = mapFile(join(runDirectory(vm), primary.node, 'vm', 'ram'), ramMib * 2 ** 20);
    }
    const { count = 0, pauseMs } = primary.checkpoints ?? {};
    // Counted anew by a primary that was protected anew.
    this.checkpoints += count < this.counted ? count : count - this.counted;
    this.counted = count;
    this.pauseMsP50 = pauseMs?.p50 ?? this.pauseMsP50;
    return this.mapping === undefined ? undefined : new ControlPage({ ram: this.mapping.buffer });
  }

  close(): void {
    this.mapping?.close();
    this.mapping = undefined;
  }
}

/** A primary that is taken over in this moment answers no more; the next one does. */
async function sampleUnlessGone(control: ControlPage): Promise<ClockSample | undefined> {
  try {
    return await sampleClocks({ control }, answerTimeoutMs);
  } catch (error) {
    if (error instanceof ColoError && error.code === errorCodes.timeout) return undefined;
    throw error;
  }
}

async function watch(pair: LocalPair, { untilMs, quiet }: { untilMs: number; quiet: boolean }) {
  const page = new PrimaryPage(pair);
  const began = systemClock.now();
  let first: ClockSample | undefined;
  let toldMs = began;
  let samples = 0;
  const errors = new ClockErrors();
  let steps: Partial<Record<ClockName, number>> = {};
  try {
    while (systemClock.now() < untilMs) {
      const control = await page.control();
      if (control !== undefined) {
        const sample = await sampleUnlessGone(control);
        if (sample !== undefined) {
          first ??= sample;
          errors.note(first, sample);
          steps = stepsBack(control);
          samples += 1;
        }
      }
      if (!quiet && systemClock.now() - toldMs >= tellEveryMs) {
        toldMs += tellEveryMs;
        process.stderr.write(`- ${Math.round((toldMs - began) / 60_000)} min: ${errors.text()}\n`);
      }
      await delay(sampleEveryMs);
    }
  } finally {
    page.close();
  }
  const { checkpoints, pauseMsP50, takeovers } = page;
  const totals = { samples, checkpoints, pauseMsP50, pausedS: (checkpoints * pauseMsP50) / 1000 };
  return { ...totals, takeovers, clocks: errors.figures(steps) };
}

/** How far each clock was from the host's. */
class ClockErrors {
  private readonly ends = new Map<ClockName, Bounds>();
  private readonly worst = new Map<ClockName, number>();

  note(first: ClockSample, now: ClockSample): void {
    for (const name of clockNames) {
      const bounds = gain(name, first, now);
      if (bounds === undefined) continue;
      this.ends.set(name, bounds);
      const error = certain(bounds);
      if (Math.abs(error) >= Math.abs(this.worst.get(name) ?? 0)) this.worst.set(name, error);
    }
  }

  text(): string {
    return [...this.ends].map(([name, bounds]) => `${clockTexts[name]} ${rangeText(bounds)}`).join(', ');
  }

  figures(steps: Partial<Record<ClockName, number>>): ClockFigures[] {
    return [...this.ends].map(([clock, bounds]) => ({
      clock,
      endMs: certain(bounds),
      worstMs: this.worst.get(clock) ?? 0,
      openMs: (bounds.most - bounds.least) / 2,
      backMs: steps[clock] ?? 0,
    }));
  }
}

/** What of an error the bounds leave no doubt of. */
function certain({ least, most }: Bounds): number {
  return least > 0 ? least : most < 0 ? most : 0;
}

function rangeText({ least, most }: Bounds): string {
  return `${least.toFixed(2)} to ${most.toFixed(2)} ms`;
}

function tableOf(report: ClockBenchReport): string {
  const cells = (texts: string[]) =>
    `${texts.map((text, index) => (index === 0 ? text.padEnd(20) : text.padStart(14))).join('')}\n`;
  const { accel, minutes, samples, checkpoints, pauseMsP50, pausedS, takeovers } = report;
  return [
    `${minutes} min under ${accel}, remus, ${checkpoints} checkpoints of ${pauseMsP50.toFixed(1)} ms (p50): `,
    `about ${pausedS.toFixed(0)} s of pauses, ${takeovers} takeovers, ${samples} samples\n`,
    cells(['off by, in ms', 'at the end', 'at most', 'left open', 'gone back']),
    ...report.clocks.map(({ clock, endMs, worstMs, openMs, backMs }) =>
      cells([clockTexts[clock], ...[endMs, worstMs, openMs, backMs].map((ms) => ms.toFixed(2))]),
    ),
    report.ok ? `no clock was off by more than ${errorMsMax} ms, and none went back\n` : 'NOT kept\n',
  ].join('');
}
