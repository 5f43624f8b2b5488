// Calls into libc that Node does not offer: taking a file's room, mapping it, and the ioctl that reads and arms write
// tracking.
//
// A mapped file is a Buffer over the mapping itself. After an unmap such a Buffer would point at nothing and the first
// read through it would end the process, so `close` first takes the memory away from the ArrayBuffer: every Buffer over
// it then has length 0. Memory for captures is unmapped when the last Buffer over it has been collected; its owner may
// give it back to the kernel before (discardContents).

import { closeSync, openSync } from 'node:fs';
import koffi from 'koffi';
import { ColoError, errorCodes } from '../base/errors.ts';
import { libc } from '../base/libc.ts';

const mmapFunction = libc.func('void *mmap(void *where, size_t length, int prot, int flags, int fd, long offset)');
const munmapFunction = libc.func('int munmap(void *where, size_t length)');
const madviseFunction = libc.func('int madvise(void *where, size_t length, int advice)');
const fallocateFunction = libc.func('int posix_fallocate(int fd, long offset, long length)');
const ioctlFunction = libc.func('int ioctl(int fd, unsigned long request, void *argument)');

const protReadWrite = 3;
const mapShared = 0x01;
const mapPopulate = 0x8000;
const advisePopulateWrite = 23;
const adviseDontNeed = 4;
const mapFailed = 0xffff_ffff_ffff_ffffn;

export interface Mapping {
  readonly buffer: Buffer;
  /** Unmaps; `buffer` and every Buffer made from it are empty afterwards. */
  close(): void;
}

/** Maps `bytes` of the file shared, read-write, with every page already in our page table. */
export function mapFile(path: string, bytes: number): Mapping {
  const fd = openSync(path, 'r+');
  let address: bigint;
  try {
    address = BigInt(mmapFunction(null, bytes, protReadWrite, mapShared | mapPopulate, fd, 0));
  } finally {
    closeSync(fd);
  }
  if (BigInt.asUintN(64, address) === mapFailed) {
    throw new ColoError(errorCodes.host, `The file ${path} cannot be mapped (errno ${koffi.errno()}).`);
  }
  const memory = koffi.view(address, bytes);
  let open = true;
  return {
    buffer: Buffer.from(memory),
    close() {
      if (!open) return;
      open = false;
      memory.transfer();
      munmapFunction(address, bytes);
    },
  };
}

/**
 * Takes the room of a file of `bytes`, so that no write to a mapping of it can find the file system full, which would
 * end the process (SIGBUS), and has all of it cleared now: QEMU and we map it in a moment then, where the first touch
 * of much memory takes many seconds. On another thread.
 */
export async function takeRoom(fd: number, bytes: number): Promise<void> {
  const errno = await onAnotherThread(fallocateFunction, fd, 0, bytes);
  if (errno !== 0) throw new ColoError(errorCodes.host, `There is no room for ${bytes} bytes (errno ${errno}).`);
  const address = BigInt(mmapFunction(null, bytes, protReadWrite, mapShared, fd, 0));
  if (BigInt.asUintN(64, address) === mapFailed) return;
  // A kernel before 5.14 cannot; then whoever touches it first has it cleared.
  await onAnotherThread(madviseFunction, address, bytes, advisePopulateWrite);
  await onAnotherThread(munmapFunction, address, bytes);
}

function onAnotherThread(call: typeof fallocateFunction, ...parameters: unknown[]): Promise<number> {
  return new Promise((resolve, reject) => {
    call.async(...parameters, (error: Error | null, result: number) => {
      if (error === null) resolve(result);
      else reject(error);
    });
  });
}

const hugePageBytes = 2 * 1024 * 1024;
const mapPrivateAnonymous = 0x22;
const adviseHugePage = 14;

// Runs when the last Buffer over such memory is gone: nothing can point at it any more.
const unmapWhenUnused = new FinalizationRegistry((range: { address: bigint; bytes: number }) => {
  munmapFunction(range.address, range.bytes);
});

const hugeRanges = new WeakMap<ArrayBufferLike, { address: bigint; bytes: number }>();

/**
 * Memory in huge pages where the host has them, all of it present. Copying scattered pages into it costs a quarter less
 * than into ordinary memory (0.6 us a page instead of 0.8). Made on another thread: the kernel clears some 400 MB/s.
 */
export async function hugeBuffer(bytes: number): Promise<Buffer> {
  const mapped = bytes + hugePageBytes;
  const address = BigInt.asUintN(64, BigInt(mmapFunction(null, mapped, protReadWrite, mapPrivateAnonymous, -1, 0)));
  if (address === mapFailed) throw new ColoError(errorCodes.host, `The host has no ${bytes} bytes of memory left.`);
  const aligned = (address + BigInt(hugePageBytes - 1)) & ~BigInt(hugePageBytes - 1);
  madviseFunction(aligned, bytes, adviseHugePage);
  const memory = koffi.view(aligned, bytes);
  unmapWhenUnused.register(memory, { address, bytes: mapped });
  hugeRanges.set(memory, { address: aligned, bytes });
  // Advice only: a kernel before 5.14 does not know it, and then the first use of each page is slower.
  await new Promise((resolve) => madviseFunction.async(aligned, bytes, advisePopulateWrite, resolve));
  return Buffer.from(memory);
}

/**
 * Gives the memory of a hugeBuffer back to the kernel at once, where the garbage collector, which sees none of its
 * size, may take minutes; who still reads it finds zeros. Memory from elsewhere is left alone. True when it was given
 * back.
 */
export function discardContents(buffer: Buffer): boolean {
  const range = hugeRanges.get(buffer.buffer);
  return range !== undefined && madviseFunction(range.address, range.bytes, adviseDontNeed) === 0;
}

/** ioctl with a structure as its argument; a negative errno on failure. */
export function ioctl(fd: number, request: number, argument: BigUint64Array): number {
  const result: number = ioctlFunction(fd, request, argument);
  return result < 0 ? -koffi.errno() : result;
}

/** The address of an array's memory. It must be larger than 64 bytes: V8 moves smaller ones. */
export function addressOf(array: BigUint64Array): bigint {
  return koffi.address(array);
}
