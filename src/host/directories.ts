// Where colo keeps what it can make again. One place, so that removing it removes everything.

import { homedir } from 'node:os';
import { join } from 'node:path';

/** The cache: $XDG_CACHE_HOME/colo, or ~/.cache/colo. */
export function cacheDirectory(): string {
  const base = process.env['XDG_CACHE_HOME'];
  return join(base !== undefined && base.startsWith('/') ? base : join(homedir(), '.cache'), 'colo');
}
