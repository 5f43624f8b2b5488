// The transport below the link: a Unix socket of this machine, or TCP on loopback. This is the only file that knows;
// mutual TLS between hosts is to be put here (a TLSSocket is a Socket, so nothing above changes).
//
// A socket file left over by a dead process is replaced; one that answers is in use and is left alone. Files are
// created with mode 0600: who may open them may speak for a node.

import { once } from 'node:events';
import { lstatSync, unlinkSync } from 'node:fs';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { isMainThread } from 'node:worker_threads';
import { ColoError, errorCodes } from '../base/errors.ts';
import { probeTimeoutMs } from './limits.ts';

export type Address = { path: string } | { host: string; port: number };

export function addressText(address: Address): string {
  return 'path' in address ? address.path : `${address.host}:${address.port}`;
}

/** Opens a connection; rejects with a ColoError that names the address, also when the signal ends it. */
export function dial(address: Address, signal: AbortSignal): Promise<Socket> {
  const socket = createConnection({ ...address });
  socket.setNoDelay(true);
  return new Promise((resolve, reject) => {
    const fail = (cause: unknown): void => {
      socket.destroy();
      reject(dialError(address, cause));
    };
    const abort = (): void => fail(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort, { once: true });
    socket.once('error', fail);
    socket.once('connect', () => {
      signal.removeEventListener('abort', abort);
      socket.removeListener('error', fail);
      resolve(socket);
    });
  });
}

function dialError(address: Address, cause: unknown): ColoError {
  return new ColoError(errorCodes.channel, `cannot connect to the peer at ${addressText(address)}`, {
    cause,
    hint: 'Check that colod runs on the peer, and that the address in both configurations is the same.',
  });
}

/** Listens at the address; every accepted socket goes to `accept`. */
export async function bind(address: Address, accept: (socket: Socket) => void): Promise<Server> {
  if ('path' in address) await clearLeftOver(address.path);
  const server = createServer({ noDelay: true }, accept);
  // The file is made inside listen(), in this tick: no other file of this process is created under this mask.
  const mask = isMainThread && 'path' in address ? process.umask(0o177) : undefined;
  try {
    server.listen({ ...address });
  } finally {
    if (mask !== undefined) process.umask(mask);
  }
  try {
    await once(server, 'listening');
  } catch (cause) {
    throw new ColoError(errorCodes.channel, `cannot listen at ${addressText(address)}`, {
      cause,
      hint: 'Choose another address, or end the process that holds this one.',
    });
  }
  return server;
}

/** Removes a socket file that nobody listens at. */
async function clearLeftOver(path: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket()) {
    throw new ColoError(errorCodes.channel, `${path} exists and is not a socket`, {
      hint: 'Remove it, or choose another path.',
    });
  }
  if (await answers(path)) {
    throw new ColoError(errorCodes.channel, `another process listens at ${path}`, {
      hint: 'Stop that process first; two nodes cannot share one socket.',
    });
  }
  unlinkSync(path);
}

/** Whether someone listens at the socket file. Anything but a plain refusal counts as yes: never take a live one. */
async function answers(path: string): Promise<boolean> {
  const socket = createConnection({ path });
  try {
    await once(socket, 'connect', { signal: AbortSignal.timeout(probeTimeoutMs) });
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ECONNREFUSED';
  } finally {
    socket.destroy();
  }
}
