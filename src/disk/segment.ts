// A segment of the journal as a file: records one after the other, each with its checksum, so that what a crash cut off
// is seen.
//
//    magic u32 │ crc32 u32 of all that follows │ record head (message.ts) │ data
//
// Pure: bytes in, records out.

import { crc32 } from 'node:zlib';
import { ColoError } from '../base/errors.ts';
import { type DiskRecord, encodeRecordHead, parseRecord, recordHeadBytes, recordKinds } from './message.ts';

const magic = 0xd15c_70a1;
export const segmentRecordHeadBytes = 8 + recordHeadBytes;

export function segmentRecordBytes(record: DiskRecord): number {
  return segmentRecordHeadBytes + record.data.length;
}

/** A record as it stands in the file, in parts. */
export function encodeSegmentRecord(record: DiskRecord): Uint8Array[] {
  const head = encodeRecordHead(record);
  const frame = Buffer.alloc(8);
  frame.writeUInt32BE(magic, 0);
  frame.writeUInt32BE(crc32(record.data, crc32(head)), 4);
  return [frame, head, record.data];
}

/** The length of the data of the record whose head begins at `at`; undefined when there is no whole head. */
function dataBytesAt(bytes: Buffer, at: number): number | undefined {
  if (bytes.length < at + segmentRecordHeadBytes || bytes.readUInt32BE(at) !== magic) return undefined;
  return bytes.readUInt8(at + 10) === recordKinds.data ? bytes.readUInt32BE(at + 12) : 0;
}

/** The record at `at` and where the next begins; undefined when there is none, or not a whole and undamaged one. */
export function segmentRecordAt(
  bytes: Buffer,
  at: number,
  sizes: readonly number[],
): { record: DiskRecord; next: number } | undefined {
  const dataBytes = dataBytesAt(bytes, at);
  if (dataBytes === undefined) return undefined;
  const next = at + segmentRecordHeadBytes + dataBytes;
  if (next > bytes.length) return undefined;
  const payload = bytes.subarray(at + 8, next);
  if (crc32(payload) !== bytes.readUInt32BE(at + 4)) return undefined;
  const record = parseRecord(payload, sizes);
  return record instanceof ColoError ? undefined : { record, next };
}
