// Disk messages of the bulk link, and the record that is the same on the link and in the journal. Big-endian.
//
//    primary                               secondary
//      │ session ─────────────────────────────►│  before the template: how many disks, how large
//      │ record record record ... ────────────►│  the initial copy: written to the replica at once
//      │ mark(1) ─────────────────────────────►│  at a capture, guest stopped: all before belongs to the checkpoint
//      │ record ... checkpoint ... record ────►│  from here on records wait in the journal for their checkpoint
//      │ abort(n) ────────────────────────────►│  that capture never happened: its records belong to the next
//      │ hash(n) ─────────────────────────────►│  protect.verify: what the replica must be after applying n
//      │ ◄───────────────────── held(position) │  (packet link) what the journal holds: opens the window
//
//    session   version u16 │ disks u16 │ durable u8 │ 0 u8 │ lineage 16 bytes │ from u64 │ since u64 │
//              disks x sizeBytes u64
//    record    disk u16 │ kind u8 (1 data, 2 zeroes) │ 0 u8 │ length u32 │ offset u64 │ position u64 │ data
//    mark      epoch u64 │ position u64
//    abort     epoch u64
//    hash      epoch u64 │ disk u16 │ text
//
// `position` counts the records of a VM on its node; those of a session begin behind `from`. A secondary whose replica
// is of the same `lineage` at `since` or behind it keeps it, and says so (`diskKept`, packet link): then only what
// changed comes (notes.ts). All ones in `since`: nothing can be kept. The bulk link keeps order, so when the end of a
// checkpoint arrives every record before its mark is there; the mark names the position, which shows that none is
// missing.
//
// Parsers return the message or a ColoError; they never throw, whatever the bytes.

import { ColoError, errorCodes } from '../base/errors.ts';
import { diskBytesMax, disksMax, hashBytesMax, recordBytesMax } from './limits.ts';

/** Types on the bulk link; checkpoint/message.ts has those below 32. */
export const diskMessages = { session: 32, record: 33, mark: 34, abort: 35, hash: 36 } as const;

export const recordKinds = { data: 1, zeroes: 2 } as const;
export type RecordKind = (typeof recordKinds)[keyof typeof recordKinds];

const version = 2;
const sessionHeadBytes = 38;
const lineageBytes = 16;
const never = 0xffff_ffff_ffff_ffffn;
export const recordHeadBytes = 24;

export interface Session {
  sizes: number[];
  /** Whether the secondary must have a record on its disk, not only in its page cache, before it says `held`. */
  durable: boolean;
  /** 32 hex digits: of the VM's run on the primary's node, in which positions only grow. */
  lineage?: string;
  /** The position before the session's first record; 0 when left out. */
  from?: number;
  /** Replicas of the lineage at this position or behind it need only what changed; left out: none does. */
  since?: number;
}

/** One change of one disk. */
export interface DiskRecord {
  disk: number;
  kind: RecordKind;
  offset: number;
  length: number;
  position: number;
  /** Empty for zeroes. */
  data: Uint8Array;
}

export interface Mark {
  epoch: number;
  position: number;
}

export interface DiskHash {
  epoch: number;
  disk: number;
  hash: string;
}

export function diskError(message: string, hint?: string): ColoError {
  return new ColoError(errorCodes.checkpoint, message, hint === undefined ? {} : { hint });
}

const malformed = (what: string) => diskError(`a disk ${what} message is malformed`);

export function encodeSession(session: Session): Uint8Array {
  const bytes = Buffer.alloc(sessionHeadBytes + session.sizes.length * 8);
  bytes.writeUInt16BE(version, 0);
  bytes.writeUInt16BE(session.sizes.length, 2);
  bytes.writeUInt8(session.durable ? 1 : 0, 4);
  bytes.write(session.lineage ?? '', 6, lineageBytes, 'hex');
  bytes.writeBigUInt64BE(BigInt(session.from ?? 0), 22);
  bytes.writeBigUInt64BE(session.since === undefined ? never : BigInt(session.since), 30);
  session.sizes.forEach((size, index) => bytes.writeBigUInt64BE(BigInt(size), sessionHeadBytes + index * 8));
  return bytes;
}

export function parseSession(payload: Uint8Array): Session | ColoError {
  const bytes = view(payload);
  if (bytes.length < sessionHeadBytes || bytes.readUInt16BE(0) !== version) return malformed('session');
  const disks = bytes.readUInt16BE(2);
  const durable = bytes.readUInt8(4);
  if (disks < 1 || disks > disksMax || durable > 1) return malformed('session');
  if (bytes.length !== sessionHeadBytes + disks * 8) return malformed('session');
  const sizes = Array.from({ length: disks }, (_, index) =>
    Number(bytes.readBigUInt64BE(sessionHeadBytes + index * 8)),
  );
  if (sizes.some((size) => size < 1 || size > diskBytesMax)) return malformed('session');
  const from = Number(bytes.readBigUInt64BE(22));
  const since = bytes.readBigUInt64BE(30);
  if (from > Number.MAX_SAFE_INTEGER || (since !== never && since > BigInt(from))) return malformed('session');
  const lineage = bytes.toString('hex', 6, 6 + lineageBytes);
  return {
    ...{ sizes, durable: durable === 1 },
    ...(/^0+$/.test(lineage) ? {} : { lineage }),
    ...(from === 0 ? {} : { from }),
    ...(since === never ? {} : { since: Number(since) }),
  };
}

/** The head of a record; its data follows it. */
export function encodeRecordHead(record: Omit<DiskRecord, 'data'>): Buffer {
  const head = Buffer.alloc(recordHeadBytes);
  head.writeUInt16BE(record.disk, 0);
  head.writeUInt8(record.kind, 2);
  head.writeUInt32BE(record.length, 4);
  head.writeBigUInt64BE(BigInt(record.offset), 8);
  head.writeBigUInt64BE(BigInt(record.position), 16);
  return head;
}

/** The record in `payload`, its data a view of it, when it lies within a disk of `sizes`. */
export function parseRecord(payload: Uint8Array, sizes: readonly number[]): DiskRecord | ColoError {
  const bytes = view(payload);
  if (bytes.length < recordHeadBytes) return malformed('record');
  const kind = bytes.readUInt8(2);
  if (kind !== recordKinds.data && kind !== recordKinds.zeroes) return malformed('record');
  const record = {
    disk: bytes.readUInt16BE(0),
    kind,
    length: bytes.readUInt32BE(4),
    offset: Number(bytes.readBigUInt64BE(8)),
    position: Number(bytes.readBigUInt64BE(16)),
    data: bytes.subarray(recordHeadBytes),
  };
  if (!areCounts(record.offset, record.position)) return malformed('record');
  const size = sizes[record.disk];
  if (size === undefined || record.length === 0 || record.offset + record.length > size)
    return diskError(`a disk record lies outside its disk (disk ${record.disk}, byte ${record.offset})`);
  const dataBytes = kind === recordKinds.data ? record.length : 0;
  if (record.data.length !== dataBytes || dataBytes > recordBytesMax) return malformed('record');
  return record;
}

export function encodeMark(mark: Mark): Uint8Array {
  const bytes = Buffer.alloc(16);
  bytes.writeBigUInt64BE(BigInt(mark.epoch), 0);
  bytes.writeBigUInt64BE(BigInt(mark.position), 8);
  return bytes;
}

export function parseMark(payload: Uint8Array): Mark | ColoError {
  const bytes = view(payload);
  if (bytes.length !== 16) return malformed('mark');
  const mark = { epoch: Number(bytes.readBigUInt64BE(0)), position: Number(bytes.readBigUInt64BE(8)) };
  return areCounts(mark.epoch, mark.position) ? mark : malformed('mark');
}

export function encodeAbort(epoch: number): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(epoch), 0);
  return bytes;
}

export function parseAbort(payload: Uint8Array): number | ColoError {
  const epoch = payload.length === 8 ? Number(view(payload).readBigUInt64BE(0)) : Number.NaN;
  return areCounts(epoch) ? epoch : malformed('abort');
}

export function encodeHash({ epoch, disk, hash }: DiskHash): Uint8Array {
  const head = Buffer.alloc(hashHeadBytes);
  head.writeBigUInt64BE(BigInt(epoch), 0);
  head.writeUInt16BE(disk, 8);
  return Buffer.concat([head, Buffer.from(hash)]);
}

export function parseHash(payload: Uint8Array): DiskHash | ColoError {
  const bytes = view(payload);
  if (bytes.length < hashHeadBytes || bytes.length > hashHeadBytes + hashBytesMax) return malformed('hash');
  const epoch = Number(bytes.readBigUInt64BE(0));
  if (!areCounts(epoch)) return malformed('hash');
  return { epoch, disk: bytes.readUInt16BE(8), hash: bytes.toString('utf8', hashHeadBytes) };
}

const hashHeadBytes = 10;

/** Epochs and positions count for ever, and nobody counts as far as 2^53. */
function areCounts(...counts: number[]): boolean {
  return counts.every((count) => Number.isSafeInteger(count));
}

function view(payload: Uint8Array): Buffer {
  return Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength);
}
