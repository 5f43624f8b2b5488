// What colod is told on standard input.

import type { NodeConfig } from '../node/context.ts';

export interface DaemonConfig {
  node: NodeConfig;
  apiPath: string;
  logFile: string;
  logLevel: string;
}
