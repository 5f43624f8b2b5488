// What colod is told on standard input.

import type { NodeConfig } from '../node/config.ts';

export interface DaemonConfig {
  node: NodeConfig;
  apiPath: string;
  logFile: string;
  logLevel: string;
  /** Where a child of the service says who it is, for whoever adopts it later. */
  identityPath?: string;
}
