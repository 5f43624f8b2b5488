// What two nodes say on the packet link: the mirrored ingress one way, the secondary's answers the other way, and the
// few words of control whose place between the packets matters. All fields big-endian. Epochs and positions count for
// ever: u64, below 2^53. The ids of egress wrap: only those of frames that are kept must differ, which are far fewer.
//
//   type         from       payload
//   ingress      primary    Ethernet frame, client space
//   isn          primary    u32 initial sequence number, then what proxy/announcement.ts packs
//   marker       primary    u64 epoch, f64 at: everything after it came after that capture, at that moment of its clock
//   abort        primary    u64 epoch: that capture never happened
//   replay       primary    Ethernet frame that the capture may not have seen: log it, do not deliver it now
//   confirm      primary    u32 ids of secondary frames that it may forget
//   released     primary    u64 epoch: what the checkpoint held has left
//   handover     primary    text: take over now
//   end          primary    text: the guest ended by itself
//   addresses    primary    what is to be announced after a takeover: the list of proxy/guest-addresses.ts
//   tolerate     primary    a time of its guest that the SVM is to say too: proxy/patches.ts
//   ready        secondary  (empty) its VM waits, paused
//   egress       secondary  u64 epoch, u32 id, Ethernet frame in client space
//   committed    secondary  u64 epoch: that checkpoint is complete here
//   refused      secondary  u64 epoch, text
//   applied      secondary  what the apply cost: `applied` of checkpoint/message.ts
//   diskHeld     secondary  u64 position: its journal holds the records up to there
//   diskFailed   secondary  text: its disk takes no more, no checkpoint can be completed
//   uplink       secondary  text: why the network is not reached through its node; empty while it is
//   tolerated    secondary  the same: from here on it does
//   diskKept     secondary  u64 position, before `ready`: its replica stands there, only what changed since is needed
//   leaving      secondary  text: it is to end, and keeps its copy until the primary goes on alone
//
// `committed` and `applied` travel here and not on the bulk link, so that they come before the answers of their epoch.

import { assert } from '../../base/assert.ts';
import { ColoError, errorCodes } from '../../base/errors.ts';
import { textBytesMax } from '../limits.ts';

export const messages = {
  ingress: 1,
  isn: 2,
  marker: 3,
  abort: 4,
  replay: 5,
  confirm: 6,
  released: 7,
  handover: 8,
  end: 9,
  addresses: 10,
  tolerate: 11,
  ready: 16,
  egress: 17,
  committed: 18,
  refused: 19,
  applied: 20,
  diskHeld: 21,
  diskFailed: 22,
  diskKept: 23,
  uplink: 24,
  tolerated: 25,
  leaving: 26,
} as const;

/** Modulo 2^32. */
export function encodeNumber(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value >>> 0);
  return bytes;
}

/** An epoch or a position. */
export function encodeCount(count: number): Uint8Array {
  const bytes = new Uint8Array(8);
  writeCount(bytes, count);
  return bytes;
}

function writeCount(bytes: Uint8Array, count: number): void {
  assert(Number.isSafeInteger(count) && count >= 0, `${count} is no count`);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, Math.floor(count / 2 ** 32));
  view.setUint32(4, count >>> 0);
}

/** The count at `at`; one that no counting reaches is a peer's fault. */
export function countAt(payload: Uint8Array, at: number): number {
  const count = numberAt(payload, at) * 2 ** 32 + numberAt(payload, at + 4);
  if (!Number.isSafeInteger(count)) throw new ColoError(errorCodes.channel, 'a message from the peer counts too far');
  return count;
}

export const countBytes = 8;

/** The line of a capture, and when it was drawn, by the primary's own clock; undefined when it does not say. */
export interface Marker {
  epoch: number;
  at: number | undefined;
}

export function encodeMarker({ epoch, at }: { epoch: number; at: number }): Uint8Array {
  const bytes = new Uint8Array(2 * countBytes);
  bytes.set(encodeCount(epoch));
  new DataView(bytes.buffer).setFloat64(countBytes, at);
  return bytes;
}

export function parseMarker(payload: Uint8Array): Marker {
  const epoch = countAt(payload, 0);
  if (payload.length !== 2 * countBytes) return { epoch, at: undefined };
  const at = new DataView(payload.buffer, payload.byteOffset).getFloat64(countBytes);
  return { epoch, at: Number.isFinite(at) ? at : undefined };
}

/** What stands before the frame in `egress`. */
export function encodeEgressHead(epoch: number, id: number): Uint8Array {
  const bytes = new Uint8Array(egressHeadBytes);
  writeCount(bytes, epoch);
  new DataView(bytes.buffer).setUint32(countBytes, id >>> 0);
  return bytes;
}

export const egressHeadBytes = countBytes + 4;

export function encodeNumbers(values: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(values.length * 4);
  const view = new DataView(bytes.buffer);
  values.forEach((value, index) => view.setUint32(index * 4, value >>> 0));
  return bytes;
}

/** The number at `at`; a payload that is too short is a peer's fault, not ours. */
export function numberAt(payload: Uint8Array, at: number): number {
  if (payload.length < at + 4) throw new ColoError(errorCodes.channel, 'a message from the peer is too short');
  return new DataView(payload.buffer, payload.byteOffset).getUint32(at);
}

export function decodeNumbers(payload: Uint8Array): number[] {
  const values: number[] = [];
  for (let at = 0; at + 4 <= payload.length; at += 4) values.push(numberAt(payload, at));
  return values;
}

export function encodeText(text: string): Uint8Array {
  return Buffer.from(text.slice(0, textBytesMax / 4), 'utf8');
}

export function decodeText(payload: Uint8Array): string {
  return Buffer.from(payload.subarray(0, textBytesMax)).toString('utf8');
}
