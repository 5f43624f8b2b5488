// The words of `colo demo` that do not go together, and the place for its report: found out before anything is started,
// because an option that does nothing, or a report that cannot be written, would be noticed a minute later or never.

import { constants } from 'node:fs';
import { access, stat, writeFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { ColoError, errorCodes } from '../../base/errors.ts';
import type { FaultKind } from '../../demo/faults.ts';

export interface DemoWords {
  guest: 'demo' | 'bare';
  accel: 'tcg' | 'kvm';
  machine?: string;
  mode: 'colo' | 'remus' | 'none';
  fault: FaultKind;
  failovers: number;
  hosts?: number;
  disk: boolean;
  verify: boolean;
  tracker: string;
  seed?: number;
  flush: 'local' | 'replicated';
  report?: string;
}

/** Refuses what would be ignored, with one line. */
export function refuseContradiction(words: DemoWords): void {
  const { guest, accel, machine, mode, fault, failovers, hosts, disk, verify, tracker, seed, flush } = words;
  const isPlain = guest === 'demo' && accel === 'tcg' && machine === undefined;
  const isKill = fault === 'primary-kill';
  const contradictions: [boolean, string][] = [
    [failovers > 1 && !isKill, '--failovers kills the primary: it does not go with another --fault'],
    [failovers > 1 && mode === 'none', '--failovers needs protection: it does not go with --mode none'],
    [!disk && seed !== undefined, '--seed goes with --disk'],
    [!disk && flush !== 'local', '--flush goes with --disk'],
    [hosts !== undefined && disk, '--hosts and --disk are two demos'],
    [
      hosts !== undefined && (!isKill || failovers > 1),
      '--hosts kills hosts: it does not go with --fault or --failovers',
    ],
    [(hosts !== undefined || disk) && tracker !== 'auto', '--tracker goes with neither --hosts nor --disk'],
    [(hosts !== undefined || disk) && !isPlain, '--guest, --accel and --machine go with neither --hosts nor --disk'],
    [hosts !== undefined && verify, '--verify does not go with --hosts'],
  ];
  const found = contradictions.find(([holds]) => holds);
  if (found !== undefined) throw new ColoError(errorCodes.input, found[1], { hint: 'see `colo demo --help`' });
}

/** Refuses a file that could not be written when the demo is over. */
export async function refuseUnwritable(report: string | undefined): Promise<void> {
  if (report === undefined) return;
  const refusal = (cause: unknown) =>
    new ColoError(errorCodes.input, `cannot write the report to ${report}`, {
      cause,
      hint: '--report takes the path of a file, in a folder that is there',
    });
  const known = await stat(report).catch(() => undefined);
  if (known?.isDirectory() === true) throw refusal('it is a folder');
  await access(known === undefined ? dirname(resolve(report)) : report, constants.W_OK).catch((cause: unknown) => {
    throw refusal(cause);
  });
}

/** Writes the report to its file if it has one; returns the text. */
export async function writeReport(report: object, path: string | undefined): Promise<string> {
  const text = `${JSON.stringify(report, null, 2)}\n`;
  if (path === undefined) return text;
  await writeFile(path, text).catch((cause: unknown) => {
    throw new ColoError(errorCodes.host, `cannot write the report to ${path}`, { cause });
  });
  return text;
}
