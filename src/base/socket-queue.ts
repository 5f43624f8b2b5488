// How much of what was written to a Unix socket its reader has not taken yet: ioctl SIOCOUTQ (linux/sockios.h). The
// kernel counts in its own buffer sizes for Unix sockets, so only "nothing" is exact; that is all we ask.

import type { Socket } from 'node:net';
import { libc } from './libc.ts';

const SIOCOUTQ = 0x5411;
const ioctl = libc.func('int ioctl(int fd, unsigned long request, _Out_ int *value)');

/** 0 when the reader has everything; undefined when the socket has no descriptor or the system does not tell. */
export function unreadBytes(socket: Socket): number | undefined {
  const descriptor = socketDescriptor(socket);
  if (descriptor === undefined) return undefined;
  const value: [number] = [0];
  return ioctl(descriptor, SIOCOUTQ, value) === 0 ? value[0] : undefined;
}

/** The descriptor under a socket. Node keeps it in a private field; a socket that was closed has none. */
export function socketDescriptor(socket: Socket): number | undefined {
  const handle: unknown = Reflect.get(socket, '_handle');
  if (typeof handle !== 'object' || handle === null) return undefined;
  const descriptor: unknown = Reflect.get(handle, 'fd');
  return typeof descriptor === 'number' && descriptor >= 0 ? descriptor : undefined;
}
