// What the primary says of the first SYN of its guest on a connection, in the order of the mirrored frames:
//
//    0        1                     2                                              6
//    | family | 1: has a timestamp | TSval of its SYN, or 0 | flow key |            the ISN travels beside it

import { read32, write32 } from '../../packet/checksum.ts';
import { type FlowKey, family, flowKeyBytes, packFlowKey, unpackFlowKey } from '../../packet/flow-key.ts';
import { ipProtocol } from '../../packet/ipv4.ts';

const keyAt = 6;

/** What the primary says of its guest's SYN, as it travels. `time` is its TSval in client space. */
export function packAnnouncement(key: FlowKey, time: number | undefined): Uint8Array {
  const isIpv6 = key.family === family.ipv6;
  const bytes = new Uint8Array(keyAt + (isIpv6 ? flowKeyBytes.ipv6 : flowKeyBytes.ipv4));
  bytes[0] = key.family;
  bytes[1] = time === undefined ? 0 : 1;
  write32(bytes, 2, time ?? 0);
  packFlowKey(key, bytes, keyAt);
  return bytes;
}

export interface Announcement {
  key: FlowKey;
  time: number | undefined;
}

export function unpackAnnouncement(bytes: Uint8Array): Announcement | undefined {
  const version = bytes[0];
  if (version !== family.ipv4 && version !== family.ipv6) return undefined;
  const key = unpackFlowKey(bytes, keyAt, version === family.ipv6, ipProtocol.tcp);
  return key === undefined ? undefined : { key, time: bytes[1] === 1 ? read32(bytes, 2) : undefined };
}
