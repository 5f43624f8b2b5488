// Ethernet II, without preamble and checksum:
//
//    0        6        12     14
//    | target | source | type | payload ... (padded to 60 bytes on some links)
//
// With 802.1Q tags, up to two (a stacked one has type 0x88a8 or 0x8100), four bytes each before the type:
//
//    12     14                        16
//    | 8100 | priority, drop, VLAN id | type | payload ...
//
// A frame with more tags is compared as a whole.

export const ethernet = { target: 0, source: 6, type: 12, headerBytes: 14, bytesMin: 60 } as const;

export const etherType = {
  ipv4: 0x0800,
  arp: 0x0806,
  reverseArp: 0x8035,
  vlan: 0x8100,
  stackedVlan: 0x88a8,
  ipv6: 0x86dd,
  /** Within a node only: the mark of a further card (card.ts). */
  card: 0xffff,
} as const;

export const broadcastMac = new Uint8Array(6).fill(0xff);

/** Why a frame is not what its type says. Such a frame is compared as a whole and counted. */
export type Refusal =
  | 'ethernet-truncated'
  | 'vlan-truncated'
  | 'arp-truncated'
  | 'arp-kind'
  | 'ipv4-truncated'
  | 'ipv4-version'
  | 'ipv4-header-length'
  | 'ipv4-total-length'
  | 'ipv6-truncated'
  | 'ipv6-version'
  | 'ipv6-payload-length'
  | 'ipv6-extension'
  | 'tcp-truncated'
  | 'tcp-data-offset'
  | 'tcp-flags'
  | 'udp-truncated'
  | 'udp-length'
  | 'icmp-truncated';

export function writeEthernet(frame: Uint8Array, target: Uint8Array, source: Uint8Array, type: number): void {
  frame.set(target.subarray(0, 6), ethernet.target);
  frame.set(source.subarray(0, 6), ethernet.source);
  frame[ethernet.type] = type >>> 8;
  frame[ethernet.type + 1] = type;
}
