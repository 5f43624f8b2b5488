// Writes to the disk from inside the guest (guest/disk/rootfs/write.pl), told and timed from outside.
//
// The guest says on its console when a part begins and when it has ended. The time of a part is this host's, between
// those two lines, so it has the pauses in it in which the guest, and with it its clock, stood still; never less than
// the guest's own, since a starved host may read both lines at once. The latency of single writes is the guest's. The
// console is no network: what it says waits for no comparison and no checkpoint.

import { createReadStream } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { delay, systemClock } from '../src/base/clock.ts';
import { ColoError, errorCodes } from '../src/base/errors.ts';
import { median } from '../src/base/quantile.ts';

export const writeParts = ['sequential', 'random'] as const;
export type WritePart = (typeof writeParts)[number];

/** Medians over the rounds. */
export interface WriteFigures {
  part: WritePart;
  rounds: number;
  mibPerSecond: number;
  writesPerSecond: number;
  latencyMsP50: number;
  latencyMsP99: number;
  latencyMsMax: number;
}

interface Round {
  part: WritePart;
  count: number;
  bytes: number;
  hostMs: number;
  p50Ms: number;
  p99Ms: number;
  maxMs: number;
}

const pollMs = 5;
const tellAgainMs = 15_000;
/** A part ends by itself after 15 s of the guest's time. */
const partTimeoutMs = 60_000;
const mebibyte = 1024 * 1024;

/** Has the guest write `rounds` times. */
export async function guestWrites(options: {
  name: string;
  rounds: number;
  controlPort: number;
  consolePath: string;
}): Promise<WriteFigures[]> {
  const { name, rounds, controlPort, consolePath } = options;
  const lines = new ConsoleLines(consolePath);
  await lines.next();
  const line = `write ${name} ${rounds}\n`;
  // Between two lines to its port 9 the guest listens to nobody for a moment; a name is measured once.
  const told = [tell(controlPort, line)];
  const stop = systemClock.every(tellAgainMs, () => void told.push(tell(controlPort, line)));
  const found: Round[] = [];
  const begun = new Map<string, number>();
  const wanted = rounds * writeParts.length;
  let end = systemClock.now() + partTimeoutMs;
  try {
    while (found.length < wanted) {
      for (const said of await lines.next()) {
        const start = /^colo-guest writes (\S+)\.$/.exec(said)?.[1];
        if (start?.startsWith(`${name}.`) === true) {
          stop();
          begun.set(start, systemClock.now());
        }
        const round = parseRound(said, begun);
        if (round === undefined) continue;
        found.push(round);
        end = systemClock.now() + partTimeoutMs;
      }
      if (systemClock.now() > end)
        throw new ColoError(errorCodes.timeout, `the guest wrote ${found.length} of ${wanted} parts and no more`, {
          hint: `its console is in ${consolePath}`,
        });
      await delay(pollMs);
    }
  } finally {
    stop();
    for (const connection of told) connection.destroy();
  }
  return writeParts.map((part) =>
    figuresOf(
      part,
      found.filter((each) => each.part === part),
    ),
  );
}

function tell(port: number, line: string): Socket {
  const guest = connect(port, '127.0.0.1');
  guest.on('error', () => undefined);
  guest.on('connect', () => guest.end(line));
  return guest;
}

/** Whole lines of a file that grows, each once. */
class ConsoleLines {
  private readonly path: string;
  private at = 0;
  private rest = '';

  constructor(path: string) {
    this.path = path;
  }

  async next(): Promise<string[]> {
    for await (const chunk of createReadStream(this.path, { start: this.at })) {
      if (!Buffer.isBuffer(chunk)) continue;
      this.at += chunk.length;
      this.rest += chunk.toString('latin1');
    }
    const lines = this.rest.split(/\r?\n/);
    this.rest = lines.pop() ?? '';
    return lines;
  }
}

/** "colo-guest wrote NAME.ROUND.PART COUNT BYTES NS P50 P99 MAX." of a part whose beginning was seen. */
function parseRound(line: string, begun: ReadonlyMap<string, number>): Round | undefined {
  const fields = /^colo-guest wrote (\S+\.(sequential|random)) (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)\.$/.exec(line);
  const start = begun.get(fields?.[1] ?? '');
  const part = writeParts.find((each) => each === fields?.[2]);
  if (fields === null || start === undefined || part === undefined) return undefined;
  const [count = 0, bytes = 0, ns = 0, p50 = 0, p99 = 0, max = 0] = fields.slice(3).map(Number);
  const hostMs = Math.max(systemClock.now() - start, ns / 1e6);
  return { part, count, bytes, hostMs, p50Ms: p50 / 1e6, p99Ms: p99 / 1e6, maxMs: max / 1e6 };
}

function figuresOf(part: WritePart, rounds: readonly Round[]): WriteFigures {
  return {
    part,
    rounds: rounds.length,
    mibPerSecond: median(rounds.map((each) => each.bytes / mebibyte / (each.hostMs / 1000))),
    writesPerSecond: median(rounds.map((each) => each.count / (each.hostMs / 1000))),
    latencyMsP50: median(rounds.map((each) => each.p50Ms)),
    latencyMsP99: median(rounds.map((each) => each.p99Ms)),
    latencyMsMax: median(rounds.map((each) => each.maxMs)),
  };
}
