// Logs: JSON lines through pino. Levels by who must act: error = an operator's action failed or the pair is
// unprotected; warn = abnormal, still protected; info = state changes; debug = per checkpoint; trace = per frame.

import { destination, type Logger, pino } from 'pino';

export type Log = Logger;

export interface LogOptions {
  level: string;
  /** Standard error, unless given. */
  file?: string;
  /** What stands on every line: vm, node, pid. */
  bindings?: Record<string, unknown>;
  /** What stands on a line as it is in that moment: term, epoch. What the line itself says of it wins. */
  moment?: () => object;
}

export function openLog({ level, file, bindings = {}, moment }: LogOptions): Log {
  const target = destination({ dest: file ?? 2, sync: true, append: true, mkdir: true });
  const mixin = moment === undefined ? {} : { mixin: moment };
  return pino({ level, base: bindings, timestamp: pino.stdTimeFunctions.isoTime, ...mixin }, target);
}

export const silentLog: Log = pino({ level: 'silent' });
