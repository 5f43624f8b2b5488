// Logs: JSON lines through pino. Levels by who must act: error = an operator's action failed or the pair is
// unprotected; warn = abnormal, still protected; info = state changes; debug = per checkpoint; trace = per frame.

import { destination, type Logger, pino } from 'pino';

export type Log = Logger;

/** A log that writes to `file`, or to standard error; `bindings` (vm, node, role) stand on every line. */
export function openLog(options: { level: string; file?: string; bindings?: Record<string, unknown> }): Log {
  const target = destination({ dest: options.file ?? 2, sync: true, append: true, mkdir: true });
  return pino({ level: options.level, base: options.bindings ?? {}, timestamp: pino.stdTimeFunctions.isoTime }, target);
}

export const silentLog: Log = pino({ level: 'silent' });
