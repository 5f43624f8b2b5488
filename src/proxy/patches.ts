// Bytes that the client was told although this node's guest says others: the primary's time in a header of an answer
// (compare/http-date.ts). Whatever this guest says at their place leaves with them, until the client has acknowledged
// them: no client gets a mixture. The secondary has them before they leave, and takes them along at a takeover.
//
//    0       8          12     41         42
//    | epoch | sequence | date | family   | flow key |          as they travel, one each; client space

import { read16, read32, write16, write32 } from '../packet/checksum.ts';
import { FlowKey, family, flowKeyBytes, packFlowKey, unpackFlowKey } from '../packet/flow-key.ts';
import type { FrameView } from '../packet/frame-view.ts';
import { ipProtocol } from '../packet/ipv4.ts';
import { advance, distance } from '../packet/sequence.ts';
import { tcp, tcpFlag } from '../packet/tcp.ts';
import { transportChecksum } from '../packet/transport-checksum.ts';
import { dateBytes } from './compare/http-date.ts';
import { encodedTableBytes } from './connections/connection-records.ts';
import { type FlowEntry, FlowMap } from './connections/flow-map.ts';
import { proxyLimits } from './limits.ts';
import { areFrames, decodeFrames, encodeFrames } from './output/held-frames.ts';

export interface Patch {
  key: FlowKey;
  epoch: number;
  sequence: number;
  bytes: Uint8Array;
}

const at = { epoch: 0, sequence: 8, bytes: 12, family: 12 + dateBytes, key: 13 + dateBytes } as const;

export function packPatch({ key, epoch, sequence, bytes }: Patch): Uint8Array {
  const packed = new Uint8Array(at.key + (key.family === family.ipv6 ? flowKeyBytes.ipv6 : flowKeyBytes.ipv4));
  write32(packed, at.epoch, Math.floor(epoch / 2 ** 32));
  write32(packed, at.epoch + 4, epoch >>> 0);
  write32(packed, at.sequence, sequence);
  packed.set(bytes.subarray(0, dateBytes), at.bytes);
  packed[at.family] = key.family;
  packFlowKey(key, packed, at.key);
  return packed;
}

/** Undefined when the bytes are none. */
export function unpackPatch(packed: Uint8Array): Patch | undefined {
  const version = packed[at.family];
  if (version !== family.ipv4 && version !== family.ipv6) return undefined;
  const key = unpackFlowKey(packed, at.key, version === family.ipv6, ipProtocol.tcp);
  const epoch = read32(packed, at.epoch) * 2 ** 32 + read32(packed, at.epoch + 4);
  if (key === undefined || !Number.isSafeInteger(epoch)) return undefined;
  // Copied: what comes over a link lies in a buffer that is used again.
  const bytes = Uint8Array.from(packed.subarray(at.bytes, at.bytes + dateBytes));
  return { key, epoch, sequence: read32(packed, at.sequence), bytes };
}

/**
 * A table of connections with what is patched in them, as both travel in a checkpoint and to a survivor's proxy: the
 * patches behind the table, whose header says where it ends (connections/connection-records.ts).
 */
export function packTable(table: Uint8Array, patches: Patches): Uint8Array {
  return patches.isEmpty ? table : Uint8Array.from(Buffer.concat([table, encodeFrames(patches.encode())]));
}

export function tableOf(bytes: Uint8Array): Uint8Array {
  return bytes.subarray(0, encodedTableBytes(bytes));
}

/** What is none is left out: `arePatches` has said before whether there is any. */
export function patchesOf(bytes: Uint8Array): Patch[] {
  const packed = decodeFrames(bytes.subarray(encodedTableBytes(bytes)));
  return packed.map(unpackPatch).filter((patch) => patch !== undefined);
}

export function arePatches(bytes: Uint8Array): boolean {
  const packed = bytes.subarray(encodedTableBytes(bytes));
  if (!areFrames(packed)) return false;
  const patches = decodeFrames(packed);
  return patches.length <= proxyLimits.patchesMax && patches.every((one) => unpackPatch(one) !== undefined);
}

class Patched implements FlowEntry<Patched> {
  readonly key: FlowKey;
  next: Patched | undefined = undefined;
  patches: Patch[] = [];

  constructor(key: FlowKey) {
    this.key = new FlowKey().copyFrom(key);
  }
}

/** The patches of all connections, which are few and short-lived. */
export class Patches {
  private readonly flows = new FlowMap<Patched>();
  private count = 0;

  get isEmpty(): boolean {
    return this.count === 0;
  }

  /** False when there is no room for it. */
  add(patch: Patch): boolean {
    if (this.count >= proxyLimits.patchesMax) return false;
    let flow = this.flows.get(patch.key);
    if (flow === undefined) {
      flow = new Patched(patch.key);
      this.flows.add(flow);
    }
    flow.patches.push(patch);
    this.count += 1;
    return true;
  }

  /** The client has everything before `ack` of the connection that the guest names `key`. */
  acked(key: FlowKey, ack: number): void {
    this.keep(key, (patch) => distance(advance(patch.sequence, dateBytes), ack) > 0);
  }

  /** Another connection begins on this 5-tuple, or it is forgotten. */
  forget(key: FlowKey): void {
    this.keep(key, () => false);
  }

  clear(): void {
    this.flows.clear();
    this.count = 0;
  }

  private keep(key: FlowKey, isKept: (patch: Patch) => boolean): void {
    const flow = this.flows.get(key);
    if (flow === undefined) return;
    const kept = flow.patches.filter(isKept);
    this.count -= flow.patches.length - kept.length;
    flow.patches = kept;
    if (kept.length === 0) this.flows.delete(flow);
  }

  /** Gives a segment of the guest, in client space, the bytes that its client knows, where it lies. */
  apply(view: FrameView): void {
    const flow = this.flows.get(view.key);
    if (flow === undefined || view.payloadBytes === 0) return;
    const { frame, transportAt, payloadAt, payloadBytes } = view;
    const sum = transportAt + tcp.checksum;
    const isRight = read16(frame, sum) === checksumOf(view);
    const from = advance(view.sequence, (view.flags & tcpFlag.syn) !== 0 ? 1 : 0);
    for (const { sequence, bytes } of flow.patches) {
      const offset = distance(sequence, from);
      for (let index = Math.max(0, -offset); index < dateBytes && offset + index < payloadBytes; index += 1)
        frame[payloadAt + offset + index] = bytes[index] as number;
    }
    // One that the guest has damaged stays damaged.
    if (isRight) write16(frame, sum, checksumOf(view));
  }

  encode(): Uint8Array[] {
    return [...this.flows.values()].flatMap(({ patches }) => patches.map(packPatch));
  }
}

function checksumOf({ frame, ipAt, transportAt, endAt }: FrameView): number {
  return transportChecksum(frame, ipAt, transportAt, endAt, ipProtocol.tcp);
}
