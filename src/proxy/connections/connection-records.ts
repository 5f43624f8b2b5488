// The travelling part of every connection of a node, in one flat array for each family that is copied in one go while
// the guest stands still. After the key, 16 bytes:
//
//    0       4            8            12      13             14
//    | delta | client ISN | time delta | flags | window shift | reserved |       record: 32 bytes, IPv6: 56
//
//    table:   | magic, version | number of IPv4 records | of IPv6 records | records ... |

import { read32 } from '../../packet/checksum.ts';
import { flowKeyBytes } from '../../packet/flow-key.ts';
import type { Connection } from './connection.ts';

/** Offsets behind the key. */
export const record = { delta: 0, clientIsn: 4, timeDelta: 8, flags: 12, windowShift: 13, bytes: 16 } as const;
/** The last byte is the version of the encoding. */
export const tableMagic = 0x434f5403;
export const tableHeaderBytes = 12;

/** The records of the connections of one family. */
export class Section<Attachment> {
  readonly bySlot: Connection<Attachment>[] = [];
  readonly isIpv6: boolean;
  readonly keyBytes: number;
  readonly recordBytes: number;
  records: Uint8Array;

  constructor(isIpv6: boolean) {
    this.isIpv6 = isIpv6;
    this.keyBytes = isIpv6 ? flowKeyBytes.ipv6 : flowKeyBytes.ipv4;
    this.recordBytes = this.keyBytes + record.bytes;
    this.records = new Uint8Array(64 * this.recordBytes);
  }

  get bytes(): number {
    return this.bySlot.length * this.recordBytes;
  }

  add(connection: Connection<Attachment>): void {
    connection.slot = this.bySlot.length;
    this.bySlot.push(connection);
    if (this.bytes <= this.records.length) return;
    const grown = new Uint8Array(this.records.length * 2);
    grown.set(this.records);
    this.records = grown;
  }

  /** Fills the place of `connection` with the last one, which is returned when it has moved. */
  remove(connection: Connection<Attachment>): Connection<Attachment> | undefined {
    const last = this.bySlot.pop();
    if (last === undefined || last === connection) return undefined;
    last.slot = connection.slot;
    this.bySlot[last.slot] = last;
    return last;
  }
}

/** How many of the bytes are the table at their beginning; all of them when they are none. */
export function encodedTableBytes(bytes: Uint8Array): number {
  if (bytes.length < tableHeaderBytes || read32(bytes, 0) !== tableMagic) return bytes.length;
  const ipv4Bytes = read32(bytes, 4) * (flowKeyBytes.ipv4 + record.bytes);
  return Math.min(bytes.length, tableHeaderBytes + ipv4Bytes + read32(bytes, 8) * (flowKeyBytes.ipv6 + record.bytes));
}
