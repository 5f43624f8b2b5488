// ARP for IPv4 over Ethernet (RFC 826), offsets from the ARP header:
//
//    0      2          4    5    6   8           14         18          24         28
//    | kind | protocol | hl | pl | op | sender MAC | sender IP | target MAC | target IP |

import { read16, write16, write32 } from './checksum.ts';
import { broadcastMac, ethernet, etherType, type Refusal, writeEthernet } from './ethernet.ts';

export const arp = {
  operation: 6,
  senderMac: 8,
  senderIp: 14,
  targetMac: 18,
  targetIp: 24,
  headerBytes: 28,
  request: 1,
  reply: 2,
  reverseRequest: 3,
} as const;

/** Checks the ARP header at `at`; its fields are then read at the offsets above. */
export function checkArp(frame: Uint8Array, at: number): Refusal | undefined {
  if (frame.length < at + arp.headerBytes) return 'arp-truncated';
  const isIpOverEthernet = read16(frame, at) === 1 && read16(frame, at + 2) === etherType.ipv4;
  return isIpOverEthernet && read16(frame, at + 4) === 0x0604 ? undefined : 'arp-kind';
}

/**
 * A gratuitous ARP request: "`ip` is at `mac`", to everybody. Sent after a takeover so that switches learn the port.
 */
export function announce(mac: Uint8Array, ip: number): Uint8Array {
  const frame = arpFrame(etherType.arp, arp.request, mac);
  const at = ethernet.headerBytes;
  write32(frame, at + arp.senderIp, ip);
  write32(frame, at + arp.targetIp, ip);
  return frame;
}

/** A reverse ARP request (RFC 903), which claims no address: switches learn where `mac` is, and nobody answers. */
export function announceMac(mac: Uint8Array): Uint8Array {
  const frame = arpFrame(etherType.reverseArp, arp.reverseRequest, mac);
  frame.set(mac.subarray(0, 6), ethernet.headerBytes + arp.targetMac);
  return frame;
}

function arpFrame(type: number, operation: number, mac: Uint8Array): Uint8Array {
  const frame = new Uint8Array(ethernet.bytesMin);
  writeEthernet(frame, broadcastMac, mac, type);
  const at = ethernet.headerBytes;
  write16(frame, at, 1);
  write16(frame, at + 2, etherType.ipv4);
  write16(frame, at + 4, 0x0604);
  write16(frame, at + arp.operation, operation);
  frame.set(mac.subarray(0, 6), at + arp.senderMac);
  return frame;
}
