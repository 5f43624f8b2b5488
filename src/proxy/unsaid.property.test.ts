// Nothing of a frame leaves that the secondary's guest has not said: of any frame of any kind, any bit is turned round
// on the primary's side. What leaves then is what the secondary said, but for the fields that docs/comparison.md names.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { buildFragments, buildIcmp, buildIcmpEcho, buildTcp, buildUdp, timestampsOption } from '../packet/build.ts';
import { read16, write16 } from '../packet/checksum.ts';
import { FrameView } from '../packet/frame-view.ts';
import { tcpFlag } from '../packet/tcp.ts';
import { finishIp } from './frames/rewrite.ts';
import { Bed, bytes, type Ends, overIpv4, overIpv6, synOptionBytes } from './testbed/testbed.ts';

const isn = 77;

/** Frames of one guest whose last one may be changed. */
type Make = (ends: Ends) => Uint8Array[];

const segment = (more: object) => (ends: Ends) => [
  buildTcp(ends.guest, ends.client, { sequence: isn + 1, ack: 5001, flags: 0, window: 1000, ...more }),
];

/** `options` between the IPv4 header and what it carries; IPv6: as a hop-by-hop header. */
function withOptions(frame: Uint8Array, options: Uint8Array): Uint8Array {
  const isIpv6 = (frame[14] ?? 0) >>> 4 === 6;
  const at = isIpv6 ? 54 : 34;
  const longer = Uint8Array.from([...frame.subarray(0, at), ...options, ...frame.subarray(at)]);
  if (isIpv6) {
    longer[at] = longer[20] ?? 0;
    longer[20] = 0;
    longer[at + 1] = 0;
  } else longer[14] = 0x45 + options.length / 4;
  finishIp(longer, 14);
  return longer;
}

function withSurplus(frame: Uint8Array, surplus: string): Uint8Array {
  const longer = Uint8Array.from([...frame, ...bytes(surplus)]);
  finishIp(longer, 14);
  return longer;
}

const padded = (frame: Uint8Array) => Uint8Array.from([...frame, 0, 0, 0, 0, 0, 0]);
const options = Uint8Array.of(0x94, 4, 0, 0, 1, 1, 1, 0);

/** An ARP request, with padding. */
function arpRequest(): Uint8Array {
  const frame = new Uint8Array(60);
  frame.set([255, 255, 255, 255, 255, 255, ...overIpv4.guest.mac, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, ...overIpv4.guest.mac]);
  frame.set([10, 0, 2, 15, 0, 0, 0, 0, 0, 0, 10, 0, 2, 2], 28);
  return frame;
}

const kinds: Record<string, Make> = {
  data: segment({ payload: bytes('hello'), options: timestampsOption(500, 7) }),
  'data, padded': (ends) => segment({ payload: bytes('hi') })(ends).map(padded),
  'data and FIN': segment({ payload: bytes('bye'), flags: tcpFlag.fin }),
  'data, urgent': segment({ payload: bytes('now'), urgent: 2 }),
  reset: segment({ flags: tcpFlag.rst, payload: bytes('no port here') }),
  'unknown option': segment({ payload: bytes('x'), options: Uint8Array.of(30, 8, 1, 2, 3, 4, 5, 6) }),
  'IP options around TCP': (ends) => segment({ payload: bytes('x') })(ends).map((one) => withOptions(one, options)),
  acknowledgement: segment({ options: timestampsOption(500, 7) }),
  UDP: (ends) => [buildUdp(ends.guest, ends.client, bytes('answer'))],
  'UDP with a surplus': (ends) => [withSurplus(buildUdp(ends.guest, ends.client, bytes('answer')), 'more')],
  'UDP with IP options': (ends) => [withOptions(buildUdp(ends.guest, ends.client, bytes('answer')), options)],
  'UDP, padded': (ends) => [padded(buildUdp(ends.guest, ends.client, bytes('hi')))],
  echo: (ends) => [buildIcmpEcho(ends.guest, ends.client, { reply: true, id: 4, sequence: 9 })],
  error: ({ guest, client }) => [
    buildIcmp(guest, client, { type: 3, code: 3, body: Uint8Array.of(0, 0, 0, 0, ...bytes('what was wrong....')) }),
  ],
  ARP: () => [arpRequest()],
  'something else': () => [Uint8Array.from([...arpRequest().subarray(0, 12), 0x88, 0xcc, 1, 2, 3, 4])],
  fragments: ({ guest, client }) => buildFragments(buildUdp(guest, client, bytes('a'.repeat(60))), 3, 40),
};

/** Bits of fields that are not compared are 0, and so is what lies behind the packet. */
function meaning(frame: Uint8Array): string {
  const masked = Uint8Array.from(frame);
  const view = new FrameView().parse(frame);
  if (view.kind === 'other') return Buffer.from(masked).toString('hex');
  // Where it goes and whence it comes on the local network.
  masked.fill(0, 0, 12);
  if (view.kind === 'arp') masked.fill(0, 32, read16(frame, 20) === 1 ? 38 : 32);
  else if (view.isIpv6) masked.fill(0, 14, 18).fill(0, 21, 22);
  else {
    masked.fill(0, 15, 16).fill(0, 18, 20).fill(0, 22, 23).fill(0, 24, 26);
    masked[20] = (masked[20] ?? 0) & 0x3f;
  }
  if (view.kind === 'fragment' && !view.isIpv6) write16(masked, 20, read16(frame, 20) & 0x3fff);
  if (view.kind === 'icmp') masked.fill(0, view.transportAt + 2, view.transportAt + 4);
  if (view.kind === 'udp') masked.fill(0, view.transportAt + 6, view.transportAt + 8);
  if (view.kind === 'tcp') maskTcp(masked, view);
  // A reserved byte, two reserved bits, and the packet's number.
  if (view.isIpv6 && view.kind === 'fragment') {
    const at = view.transportAt - 8;
    masked.fill(0, at + 1, at + 2).fill(0, at + 4, at + 8);
    masked[at + 3] = (masked[at + 3] ?? 0) & 0xf9;
  }
  return Buffer.from(masked).toString('hex');
}

/**
 * Its window and acknowledgement are clamped, which other tests look at; a receiver ignores an urgent pointer without
 * its flag.
 */
function maskTcp(masked: Uint8Array, { transportAt: at, flags, timestampsAt }: FrameView): void {
  masked.fill(0, at + 8, at + 12).fill(0, at + 14, at + 18);
  masked[at + 12] = (masked[at + 12] ?? 0) & 0xf0;
  masked[at + 13] = flags & ~(tcpFlag.psh | 0xc0);
  if ((flags & tcpFlag.urg) === 0) masked.fill(0, at + 18, at + 20);
  if (timestampsAt !== 0) masked.fill(0, timestampsAt, timestampsAt + 8);
}

const isSegment = (frame: Uint8Array) => new FrameView().parse(frame).kind === 'tcp';

function protectedBed(ends: Ends): Bed {
  const bed = new Bed({ onLeave: () => undefined });
  bed.protect();
  bed.connect(isn, isn, 5000, ends);
  bed.network.length = 0;
  return bed;
}

for (const [name, make] of Object.entries(kinds))
  test(`whatever bit of the primary's is another one, it leaves as the secondary's or not at all: ${name}`, () => {
    const ends = fc.constantFrom(overIpv4, overIpv6);
    fc.assert(
      fc.property(ends, fc.nat(), fc.boolean(), (end, place, isPrimaryFirst) => {
        const secondary = make(end);
        const primary = secondary.map((frame) => Uint8Array.from(frame));
        const last = primary.at(-1) ?? assert.fail();
        // Behind the type of the frame: a frame of another type is another test.
        const bit = 14 * 8 + (place % ((last.length - 14) * 8));
        last[bit >> 3] = (last[bit >> 3] ?? 0) ^ (1 << (bit & 7));
        const bed = protectedBed(end);
        if (isPrimaryFirst) for (const frame of primary) bed.pvm(frame);
        for (const frame of secondary) bed.svm(frame);
        if (!isPrimaryFirst) for (const frame of primary) bed.pvm(frame);
        bed.pass(1000);
        const said = secondary.map(meaning);
        for (const frame of bed.network) assertSaid(frame, said, secondary);
      }),
      { numRuns: 300 },
    );
  });

function assertSaid(frame: Uint8Array, said: readonly string[], secondary: readonly Uint8Array[]): void {
  if (said.includes(meaning(frame))) return;
  // A segment may be cut, or be an acknowledgement of ours: its bytes must be the secondary's at their place.
  assert.ok(isSegment(frame), `${Buffer.from(frame).toString('hex')} was not said`);
  const left = new FrameView().parse(frame);
  const other = new FrameView().parse(secondary[0] ?? assert.fail());
  const at = left.sequence - other.sequence;
  const isEmpty = left.payloadBytes === 0 && (left.flags & (tcpFlag.rst | tcpFlag.syn | tcpFlag.urg)) === 0;
  assert.ok(
    isEmpty || (at >= 0 && at + left.payloadBytes <= other.payloadBytes),
    'bytes where the secondary said none',
  );
  const bytesOf = (view: FrameView, from: number, count: number) =>
    Buffer.from(view.frame.subarray(view.payloadAt + from, view.payloadAt + from + count)).toString('hex');
  if (!isEmpty) assert.equal(bytesOf(left, 0, left.payloadBytes), bytesOf(other, at, left.payloadBytes));
  if (left.isFin) assert.ok(other.isFin && at + left.payloadBytes === other.payloadBytes, 'an end that was not said');
  assert.equal(left.payloadAt - left.transportAt, other.payloadAt - other.transportAt, 'other options');
}

test('whatever bit of a SYN-ACK is another one, it leaves as the secondary has said it or not at all', () => {
  const answer = ({ guest, client }: Ends) =>
    buildTcp(guest, client, {
      sequence: isn,
      ack: 5001,
      flags: tcpFlag.syn | 0x40,
      window: 1000,
      options: synOptionBytes,
    });
  fc.assert(
    fc.property(fc.constantFrom(overIpv4, overIpv6), fc.nat(), fc.boolean(), (ends, place, isAgain) => {
      const bed = new Bed({ onLeave: () => undefined });
      bed.protect();
      const syn = { sequence: 5000, flags: tcpFlag.syn | 0xc0, options: synOptionBytes };
      bed.client(buildTcp(ends.client, ends.guest, syn));
      const secondary = answer(ends);
      const primary = answer(ends);
      const at = new FrameView().parse(primary).transportAt;
      const bit = (at + 12) * 8 + (place % ((primary.length - at - 12) * 8));
      primary[bit >> 3] = (primary[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      if (isAgain) bed.pvm(secondary);
      bed.svm(secondary);
      bed.pvm(primary);
      bed.pass(1000);
      for (const frame of bed.network) {
        const [left, said] = [frame, secondary].map((one) => Uint8Array.from(one)) as [Uint8Array, Uint8Array];
        for (const one of [left, said]) {
          one.fill(0, at + 14, at + 20);
          one[at + 13] = (one[at + 13] ?? 0) & ~tcpFlag.psh;
        }
        assert.equal(Buffer.from(left).toString('hex'), Buffer.from(said).toString('hex'));
      }
    }),
    { numRuns: 500 },
  );
});
