// The transport below the link, and the only file that knows it: a Unix socket of this machine, or TCP between hosts
// with mutual TLS 1.3, always. A TLSSocket is a Socket, so nothing above differs.
//
// Who a peer is, its certificate says: signed by the cluster's authority, valid now, with the node's name as its common
// name (host/certificates.ts makes them). `peerName` is what the link compares with the peer's own words. Names of
// hosts are not checked: nodes are known by their names, whatever address they have today.
//
// A socket file left over by a dead process is replaced; one that answers is in use and is left alone. Files are
// created with mode 0600: who may open them may speak for a node.
//
// A renewed certificate, and a list of revoked ones, count from the next connection on, of either side. What is
// connected stays. A TLS session is never resumed, so that every connection proves who it is.

import { once } from 'node:events';
import { lstatSync, unlinkSync } from 'node:fs';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { connect as connectTls, createServer as createTlsServer, type SecureVersion, TLSSocket } from 'node:tls';
import { isMainThread } from 'node:worker_threads';
import { systemClock } from '../base/clock.ts';
import { setSocketOption } from '../base/descriptors.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import type { Identity, IdentitySource } from '../base/identity.ts';
import { certificateRole } from '../base/roles.ts';
import { socketDescriptor } from '../base/socket-queue.ts';
import { followIdentity, tlsIdentity } from '../base/tls-identity.ts';
import { Door, type Verdict } from './door.ts';
import { guard } from './guard.ts';
import { linkDoorLimits, probeTimeoutMs, unacknowledgedMs } from './limits.ts';

const tcpLevel = 6;
const tcpUserTimeout = 18;

export type Address = { path: string } | { host: string; port: number };

export function addressText(address: Address): string {
  return 'path' in address ? address.path : `${address.host}:${address.port}`;
}

/**
 * The node's name in the certificate that the peer has proven to own; '' of one that is no node's; undefined on a Unix
 * socket.
 */
export function peerName(socket: Socket): string | undefined {
  if (!(socket instanceof TLSSocket)) return undefined;
  const { subject } = socket.getPeerCertificate();
  const name: unknown = subject?.CN;
  // No name, or several, is a name that nobody has.
  return typeof name === 'string' && certificateRole(subject) === 'node' ? name : '';
}

/** Opens a connection; rejects with a ColoError that names the address, also when the signal ends it. */
export function dial(address: Address, signal: AbortSignal, identity?: Identity): Promise<Socket> {
  const isTls = !('path' in address);
  const socket = isTls
    ? connectTls({ ...address, ...tlsOptions(address, identity), checkServerIdentity: () => undefined })
    : createConnection({ ...address });
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
    socket.once(isTls ? 'secureConnect' : 'connect', () => {
      signal.removeEventListener('abort', abort);
      socket.removeListener('error', fail);
      if (isTls) boundSilence(socket);
      resolve(socket);
    });
  });
}

function tlsOptions(address: Address, identity: Identity | undefined) {
  if (identity === undefined)
    throw new ColoError(errorCodes.input, `no certificates for the connection at ${addressText(address)}`, {
      hint: 'Between hosts TLS is never left out: make certificates with `colo init` and `colo join`.',
    });
  const minVersion: SecureVersion = 'TLSv1.3';
  return { ...tlsIdentity(identity), minVersion, rejectUnauthorized: true };
}

function dialError(address: Address, cause: unknown): ColoError {
  return new ColoError(errorCodes.channel, `cannot connect to the peer at ${addressText(address)}`, {
    cause,
    hint: 'Check that colod runs on the peer, and that the address in both configurations is the same.',
  });
}

export interface Acceptor {
  accept(socket: Socket): void;
  /** A connection that did not get through the TLS handshake, with the reason. */
  refused?(cause: unknown): void;
  /** A connection that was not let to begin one (door.ts). */
  turnedBack?(verdict: Exclude<Verdict, 'admitted'>, address: string): void;
  handshakeTimeoutMs?: number;
}

/** Listens at the address; every accepted socket, on TCP one whose peer has proven who it is, goes to `accept`. */
export async function bind(address: Address, acceptor: Acceptor, identity?: IdentitySource): Promise<Server> {
  if ('path' in address) await clearLeftOver(address.path);
  const server = 'path' in address ? plainServer(acceptor) : secureServer(address, acceptor, identity);
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

function plainServer(acceptor: Acceptor): Server {
  return createServer({ noDelay: true }, (socket) => acceptor.accept(socket));
}

function secureServer(address: Address, acceptor: Acceptor, source: IdentitySource | undefined): Server {
  const { handshakeTimeoutMs } = acceptor;
  const identity = typeof source === 'function' ? source() : source;
  const server = createTlsServer(
    {
      ...tlsOptions(address, identity),
      requestCert: true,
      noDelay: true,
      ...(handshakeTimeoutMs === undefined ? {} : { handshakeTimeout: handshakeTimeoutMs }),
    },
    (socket) => {
      boundSilence(socket);
      acceptor.accept(socket);
    },
  );
  server.on('tlsClientError', (cause, socket) => {
    socket.destroy();
    acceptor.refused?.(cause);
  });
  if (typeof source === 'function') followIdentity(server, source, { optionsOf: (now) => tlsIdentity(now) });
  guard(server, {
    ...{ door: new Door(linkDoorLimits, systemClock.now()), clock: systemClock },
    refused: (verdict, address) => acceptor.turnedBack?.(verdict, address),
  });
  return server;
}

/** Left to itself, TCP goes on trying for a quarter of an hour when nothing is acknowledged. */
function boundSilence(socket: Socket): void {
  const descriptor = socketDescriptor(socket);
  if (descriptor === undefined) return;
  const value = new Uint8Array(4);
  new DataView(value.buffer).setUint32(0, unacknowledgedMs, true);
  setSocketOption(descriptor, tcpLevel, tcpUserTimeout, value);
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
