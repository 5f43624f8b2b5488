// What the parts of a node stand on: its configuration, the time, the log, the arbiter and the platform.

import type { Arbiter } from '../arbiter/arbiter.ts';
import type { ArbiterProblem } from '../arbiter/watched.ts';
import type { Clock } from '../base/clock.ts';
import type { Log } from '../base/log.ts';
import type { NodeConfig } from './config.ts';
import type { Platform } from './platform.ts';

export interface NodeContext {
  config: NodeConfig;
  clock: Clock;
  /** This host's time, in milliseconds since 1970: for what guests say of it, never for waiting. */
  wallMs: () => number;
  log: Log;
  /** With `problem` where it is watched (arbiter/watched.ts). */
  arbiter: Arbiter & { readonly problem?: ArbiterProblem | undefined };
  platform: Platform;
}
