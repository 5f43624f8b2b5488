// Calls into libc on file descriptors that Node does not offer: network devices, raw sockets, network namespaces.

import { closeSync, openSync } from 'node:fs';
import koffi from 'koffi';
import { ColoError, errorCodes } from './errors.ts';
import { libc } from './libc.ts';

const socketFunction = libc.func('int socket(int domain, int type, int protocol)');
const socketpairFunction = libc.func('int socketpair(int domain, int type, int protocol, _Out_ int *pair)');
const dup2Function = libc.func('int dup2(int from, int to)');
const ioctlFunction = libc.func('int ioctl(int fd, unsigned long request, _Inout_ uint8_t *argument)');
const bindFunction = libc.func('int bind(int fd, const uint8_t *address, uint32_t length)');
const setsockoptFunction = libc.func(
  'int setsockopt(int fd, int level, int name, const uint8_t *value, uint32_t length)',
);
const flockFunction = libc.func('int flock(int fd, int operation)');
const mkfifoFunction = libc.func('int mkfifo(const char *path, uint32_t mode)');
const fcntlFunction = libc.func('int fcntl(int fd, int command, int argument)');
const setnsFunction = libc.func('int setns(int fd, int kind)');

const unixFamily = 1;
const stream = 1;
const nonBlocking = 0o4000;
const closeOnExec = 0o2000000;
const networkNamespace = 0x4000_0000;

/** The errno of a failed call, as an Error whose text names the call. */
class SystemError extends Error {
  readonly errno: number;

  constructor(call: string) {
    super(`${call}: errno ${koffi.errno()}`);
    this.errno = koffi.errno();
  }
}

function checked(result: number, call: string): number {
  if (result < 0) throw new SystemError(call);
  return result;
}

const lockExclusively = 2 | 4;
const wouldBlock = 11;

/** Locks the whole file for as long as this descriptor is open; false when somebody else has it locked. */
export function tryLock(fd: number): boolean {
  if (flockFunction(fd, lockExclusively) === 0) return true;
  if (koffi.errno() === wouldBlock) return false;
  throw new SystemError('flock');
}

export function openSocket(family: number, kind: number, protocol: number): number {
  return checked(socketFunction(family, kind | nonBlocking | closeOnExec, protocol), 'socket');
}

/** Makes a named pipe that only its owner can open. */
export function makePipe(path: string): void {
  checked(mkfifoFunction(path, 0o600), 'mkfifo');
}

const setPipeSize = 1031;

/** Gives a pipe room for so many bytes, where this user may have as much. */
export function growPipe(fd: number, bytes: number): void {
  fcntlFunction(fd, setPipeSize, bytes);
}

/** Two connected Unix stream sockets. */
export function openSocketPair(): [number, number] {
  const pair: [number, number] = [-1, -1];
  checked(socketpairFunction(unixFamily, stream | nonBlocking | closeOnExec, 0, pair), 'socketpair');
  return pair;
}

/** Makes the descriptor `to` another name of what `from` is; what `to` was is closed. */
export function replaceDescriptor(from: number, to: number): void {
  checked(dup2Function(from, to), 'dup2');
}

/** ioctl with a structure, which the kernel may write into. */
export function controlDevice(fd: number, request: number, argument: Uint8Array, what: string): void {
  checked(ioctlFunction(fd, request, argument), what);
}

export function bindSocket(fd: number, address: Uint8Array): void {
  checked(bindFunction(fd, address, address.length), 'bind');
}

export function setSocketOption(fd: number, level: number, name: number, value: Uint8Array): void {
  checked(setsockoptFunction(fd, level, name, value, value.length), 'setsockopt');
}

/**
 * Moves the calling thread, and what it opens or starts from here on, into a network namespace. Returns the way back.
 */
export function enterNetwork(path: string): () => void {
  const before = openSync('/proc/thread-self/ns/net', 'r');
  try {
    move(path);
  } catch (error) {
    closeSync(before);
    throw error;
  }
  return () => {
    try {
      checked(setnsFunction(before, networkNamespace), 'setns');
    } finally {
      closeSync(before);
    }
  };
}

function move(path: string): void {
  const target = openSync(path, 'r');
  try {
    checked(setnsFunction(target, networkNamespace), 'setns');
  } catch (cause) {
    throw new ColoError(errorCodes.host, `the network namespace ${path} cannot be entered`, {
      cause,
      hint: 'run as root',
    });
  } finally {
    closeSync(target);
  }
}
