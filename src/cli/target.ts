// Where a command of a cluster asks: this host's colod on its socket, or any node's over TLS.
//
//   --at /run/colo/colod.sock                                    as whoever may open it
//   --at https://10.0.0.1:7700 --identity FOLDER                 with a certificate (colo join)
//   --at https://10.0.0.1:7700 --token-file FILE --ca FILE       with a token (colo token)

import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Target } from '../api/cluster-client.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import { identityFiles, readIdentity } from '../base/identity.ts';

export const defaultSocket = '/run/colo/colod.sock';

export interface TargetOptions {
  at?: string;
  identity?: string;
  tokenFile?: string;
  ca?: string;
}

/** True when a command is meant for a cluster. */
export function isCluster(options: TargetOptions): boolean {
  return options.at !== undefined || options.identity !== undefined || options.tokenFile !== undefined;
}

export function targetOf(options: TargetOptions): Target {
  const { at = defaultSocket } = options;
  if (at.startsWith('/')) {
    if (existsSync(at)) return { socketPath: at };
    throw new ColoError(errorCodes.host, `no colod listens at ${at}`, {
      hint: 'start it (systemctl start colod), or name a node: --at https://HOST:7700 --identity FOLDER',
    });
  }
  const url = URL.canParse(at) ? new URL(at) : undefined;
  if (url === undefined || url.protocol !== 'https:')
    throw new ColoError(errorCodes.input, `--at ${at}: neither the path of a socket nor https://HOST:PORT`);
  const place = { host: url.hostname.replace(/^\[|\]$/g, ''), port: Number(url.port === '' ? 7700 : url.port) };
  if (options.tokenFile !== undefined)
    return { ...place, ca: authority(options), as: { token: secret(options.tokenFile) } };
  if (options.identity === undefined)
    throw new ColoError(errorCodes.input, 'over the network a node has to know who asks', {
      hint: 'give --identity FOLDER (colo join), or --token-file FILE and --ca FILE',
    });
  const identity = readIdentity(options.identity);
  return { ...place, ca: identity.ca, as: identity };
}

function authority({ ca, identity }: TargetOptions): string {
  const path = ca ?? (identity === undefined ? undefined : join(identity, identityFiles.ca));
  if (path === undefined)
    throw new ColoError(errorCodes.input, 'a token needs the authority whose nodes are believed', {
      hint: "give --ca FILE: the cluster's ca.pem",
    });
  return read(path);
}

function secret(path: string): string {
  const text = read(path).trim();
  if ((statSync(path).mode & 0o077) !== 0)
    throw new ColoError(errorCodes.input, `${path} can be read by others`, { hint: `chmod 600 ${path}` });
  return text;
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new ColoError(errorCodes.input, `cannot read ${path}`, { cause });
  }
}
