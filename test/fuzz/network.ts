// What a guest, and its network, send before anything compares it, as targets of the fuzzer: the stream of frames out
// of QEMU's socket, the marks of network cards, claims of addresses; and a peer's list of the guest's addresses.
//
//   guest-stream   cut u8 │ card u8 │ the stream
//   addresses      0 a list of a peer, else one frame of a card: kind u8 │ the rest

import assert from 'node:assert/strict';
import { FrameParser } from '../../src/netdev/frame-parser.ts';
import type { GuestCard } from '../../src/node/platform.ts';
import { Cards } from '../../src/node/real/cards.ts';
import { announce } from '../../src/packet/arp.ts';
import { cardOf, withCard } from '../../src/packet/card.ts';
import { announcementOf, type Claim, claimOf } from '../../src/packet/claim.ts';
import { tagBytesMax } from '../../src/packet/limits.ts';
import { GuestAddresses } from '../../src/proxy/guest-addresses.ts';
import { frameCorpus } from '../../src/proxy/testbed/fuzz.ts';
import type { Target } from './fuzz.ts';

const macs = [Uint8Array.of(2, 0, 0, 0, 0, 1), Uint8Array.of(2, 0, 0, 0, 0, 3)];
const address4 = Uint8Array.of(10, 0, 2, 15);
const address6 = Uint8Array.from({ length: 16 }, (_, at) => at + 32);
const vlan = (id: number) => Uint8Array.of(0x81, 0, 0, id);

const newAddresses = () =>
  new GuestAddresses(macs.map((mac, card) => ({ mac, ...(card === 0 ? { address: address4 } : {}) })));

function claimFrames(): Uint8Array[] {
  const base = { mac: macs[0] ?? new Uint8Array(6), isReply: false };
  return [
    announce(base.mac, 0x0a00020f),
    announce(base.mac, 0x0a000210),
    announce(Uint8Array.of(2, 0, 0, 0, 0, 9), 0x0a000210),
    announcementOf({ ...base, address: address6, tags: new Uint8Array(0), isRouter: true }),
    announcementOf({ ...base, address: address6, tags: vlan(7), isRouter: false }),
    announcementOf({ ...base, address: address4, tags: Uint8Array.from([...vlan(7), ...vlan(8)]), isRouter: false }),
    withCard(announce(macs[1] ?? base.mac, 0x0a000303), 1),
  ];
}

/** A card whose QEMU is the test; it keeps what it is sent. */
class OneCard implements GuestCard {
  handler: ((frame: Uint8Array) => void) | undefined;
  readonly sent: Uint8Array[] = [];
  readonly bytesIn = 0;
  send(frame: Uint8Array): void {
    this.sent.push(frame);
  }
  flush(): void {}
  drain(): void {}
  settled(): boolean {
    return true;
  }
  pause(): void {}
  async close(): Promise<void> {}
}

/** A frame of a card goes inwards, and comes out again at that card and no other, as it was. */
function throughCards(frame: Uint8Array, index: number): Uint8Array | undefined {
  const ends = [new OneCard(), new OneCard(), new OneCard()];
  const cards = new Cards(ends);
  const taken: Uint8Array[] = [];
  cards.handler = (marked) => void taken.push(marked);
  ends[index]?.handler?.(frame);
  assert.equal(taken.length + cards.refused, 1);
  const [marked] = taken;
  if (marked === undefined) return undefined;
  assert.equal(cardOf(marked), index, 'the mark of another card');
  cards.send(marked);
  const told = ends.flatMap(({ sent }, at) => sent.map((one) => ({ at, frame: Buffer.from(one) })));
  assert.deepEqual(told, [{ at: index, frame: Buffer.from(frame) }]);
  return marked;
}

/**
 * What a claim says is what its announcement says, so that neighbours learn what the guest claimed and nothing else.
 */
function assertClaim(claim: Claim): void {
  const { address, tags, isRouter } = claim;
  assert.equal(claim.mac.length, 6);
  assert.ok(address.length === 4 || address.length === 16);
  assert.ok(tags.length <= tagBytesMax && tags.length % 4 === 0);
  const again = claimOf(announcementOf(claim)) ?? assert.fail('an announcement that announces nothing');
  const bytesOf = (one: Claim) => [one.mac, one.address, one.tags].map((bytes) => Buffer.from(bytes).toString('hex'));
  assert.deepEqual([...bytesOf(again), again.isRouter], [...bytesOf(claim), isRouter]);
}

/** The guest's addresses after a frame of the guest or of its network: bounded, its own, and the same for the peer. */
function hear(addresses: GuestAddresses, frame: Uint8Array, ofGuest: boolean): string {
  const claim = claimOf(frame);
  if (claim !== undefined) assertClaim(claim);
  const changed = ofGuest ? addresses.said(frame, 1) : addresses.heard(frame);
  if (changed) assert.ok(claim !== undefined, 'learned from no claim');
  const peer = newAddresses();
  assert.equal(peer.accept(addresses.encode(), 1), true, "the peer refuses this node's list");
  assert.deepEqual(peer.announcements(), addresses.announcements());
  for (const one of addresses.announcements()) {
    // For a card without an address its MAC alone is announced.
    const said = claimOf(one)?.mac ?? one.subarray(6, 12);
    assert.ok(
      macs.some((mac) => Buffer.compare(mac, said) === 0),
      "somebody else's address",
    );
  }
  const claimed =
    claim === undefined ? 'none' : `${claim.address.length} ${claim.tags.length} ${claim.isRouter} ${claim.isReply}`;
  return `${claimed} ${changed} ${addresses.count}`;
}

function cut(stream: Uint8Array, bytes: number): { frames: Buffer[]; aligned: boolean; broken: boolean } {
  const parser = new FrameParser();
  const frames: Buffer[] = [];
  let fine = true;
  for (let at = 0; fine && at < stream.length; at += bytes)
    fine = parser.push(stream.subarray(at, at + bytes), (frame) => void frames.push(Buffer.from(frame)));
  return { frames, aligned: fine && parser.aligned, broken: !fine };
}

function asStream(frames: readonly Uint8Array[]): Buffer {
  return Buffer.concat(
    frames.flatMap((frame) => {
      const head = Buffer.alloc(4);
      head.writeUInt32BE(frame.length);
      return [head, frame];
    }),
  );
}

const someFrames = () => [...claimFrames(), ...frameCorpus().ofGuest.slice(0, 12)];

export const guestStream: Target = {
  name: 'guest-stream',
  seeds: [
    ...claimFrames().map((frame, at) => Buffer.concat([Buffer.of(at * 5, at), asStream([frame, frame])])),
    Buffer.concat([Buffer.of(7, 1), asStream(someFrames())]),
    Buffer.concat([Buffer.of(200, 0), asStream([new Uint8Array(0), new Uint8Array(13), new Uint8Array(3000)])]),
    Buffer.of(3, 0, 0, 1, 0x10, 0, 1, 2),
    Buffer.of(3, 0, 0xff, 0xff, 0xff, 0xff),
  ],
  reaches: [/broken/, /half/, /refused/, /\b4 \d+ false false true/, /\b16 \d+ \w+ false true/, /16 4 \w+ false/],
  feed: (input) => {
    const [bytes = 0, which = 0] = input;
    const stream = input.subarray(2);
    const whole = cut(stream, Math.max(1, stream.length));
    const pieces = cut(stream, 1 + bytes);
    assert.deepEqual(pieces, whole, 'what comes of a stream depends on how it is cut');
    const words = [whole.broken ? 'broken' : whole.aligned ? 'whole' : 'half'];
    const addresses = newAddresses();
    for (const frame of whole.frames.slice(0, 40)) {
      const marked = throughCards(frame, which % 3);
      words.push(marked === undefined ? 'refused' : hear(addresses, marked, which < 128));
    }
    return [...words.slice(0, 1), ...new Set(words.slice(1))].slice(0, 4).join(' | ');
  },
};

function listSeeds(): Uint8Array[] {
  const addresses = newAddresses();
  const lists = [addresses.encode()];
  for (const frame of claimFrames()) {
    addresses.said(frame, 1);
    lists.push(addresses.encode());
  }
  return lists;
}

export const addressList: Target = {
  name: 'addresses',
  seeds: [
    ...listSeeds().map((list) => Buffer.concat([Buffer.of(0), list])),
    ...claimFrames().flatMap((frame) => [1, 2].map((kind) => Buffer.concat([Buffer.of(kind), frame]))),
    ...frameCorpus().ofClient.map((frame) => Buffer.concat([Buffer.of(1), frame])),
  ],
  reaches: [/list true [2-6]/, /list false/, /said .* true/, /heard .* false/, /said none/],
  feed: (input) => {
    const kind = (input[0] ?? 0) % 3;
    const rest = input.subarray(1);
    const addresses = newAddresses();
    if (kind > 0) return `${kind === 1 ? 'said' : 'heard'} ${hear(addresses, rest, kind === 1)}`;
    const before = addresses.announcements();
    const accepted = addresses.accept(rest, 1);
    if (!accepted) assert.deepEqual(addresses.announcements(), before, 'a refused list has changed something');
    for (const one of addresses.announcements()) {
      const said = claimOf(one);
      // What a peer may list is more than what a guest may claim: its announcement is still the guest's own card's.
      if (said !== undefined) assert.ok(macs.some((mac) => Buffer.compare(mac, said.mac) === 0));
    }
    return `list ${accepted} ${addresses.count}`;
  },
};
