// Logs: JSON lines through pino. Levels by who must act: error = an operator's action failed or the pair is
// unprotected; warn = abnormal, still protected; info = state changes; debug = per checkpoint; trace = per frame.
//
// A line never waits for the disk, and one that cannot be written ends nothing (writer.ts). A file is cut by us: FILE
// and FILE.old have up to limits.logFileBytesMax each.

import { type Logger, pino } from 'pino';
import { errorText } from './errors.ts';
import { exitFlushMs, logFileBytesMax } from './limits.ts';
import { flushWriters, Writer } from './writer.ts';

export type Log = Logger;

export interface LogOptions {
  level: string;
  /** Standard error, unless given. */
  file?: string;
  /** What stands on every line: vm, node, pid. */
  bindings?: Record<string, unknown>;
  /** What stands on a line as it is in that moment: term, epoch. What the line itself says of it wins. */
  moment?: () => object;
  /** How large the file may be; limits.logFileBytesMax unless a test says otherwise. */
  fileBytesMax?: number;
}

export function openLog({ level, file, bindings = {}, moment, fileBytesMax = logFileBytesMax }: LogOptions): Log {
  const target = new Writer({ path: file, bytesMax: fileBytesMax, gap: 'json' });
  const mixin = moment === undefined ? {} : { mixin: moment };
  return pino({ level, base: bindings, timestamp: pino.stdTimeFunctions.isoTime, ...mixin }, target);
}

export const silentLog: Log = pino({ level: 'silent' });

/**
 * A bug of ours ends the process: its peer takes over, which is the case COLO exists for. What it was is logged within
 * a bound, whatever the disk does; and nothing that goes wrong meanwhile is handled by the same handler again.
 */
export function endOnBug(log: Log, says: string): void {
  let ending = false;
  process.on('uncaughtException', (error) => {
    if (ending) process.kill(process.pid, 'SIGKILL');
    ending = true;
    try {
      log.fatal({ error: errorText(error), stack: error.stack }, `bug: ${says}`);
    } finally {
      if (!flushWriters(exitFlushMs)) process.kill(process.pid, 'SIGKILL');
      process.exit(bugExitCode);
    }
  });
}

const bugExitCode = 70;
