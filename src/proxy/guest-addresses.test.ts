// The guest's addresses: learned from its own claims, never from what it passes on; announced in their VLAN; bounded.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { announce, announceMac } from '../packet/arp.ts';
import { buildIcmp, buildUdp } from '../packet/build.ts';
import { withCard } from '../packet/card.ts';
import { write16 } from '../packet/checksum.ts';
import { claimOf } from '../packet/claim.ts';
import { FrameView } from '../packet/frame-view.ts';
import { ipv6 } from '../packet/ipv6.ts';
import { transportChecksum } from '../packet/transport-checksum.ts';
import { GuestAddresses } from './guest-addresses.ts';
import { guestAddressAgeMs, guestAddressesMax } from './limits.ts';

const mac = Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56);
const other = Uint8Array.of(2, 0, 0, 0, 0, 9);
const everybody = new Uint8Array(6).fill(0xff);
const own = Uint8Array.of(10, 0, 2, 15);
const linkLocal = Uint8Array.from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x50, 0x54, 0, 0xff, 0xfe, 0x12, 0x34, 0x56]);
const neighbour = Uint8Array.from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);

const addressesOf = () => new GuestAddresses([{ mac, address: own }]);

/** A neighbour advertisement as a guest answers with; `flags`: 0x20 override, 0x40 solicited, 0x80 router. */
function advertisement(from: Uint8Array, target: Uint8Array, flags: number, tags: readonly number[] = []): Uint8Array {
  const body = Uint8Array.from([flags, 0, 0, 0, ...target, 2, 1, ...from]);
  const frame = buildIcmp(
    { mac: from, ip: target, port: 0, tags },
    { mac: other, ip: neighbour, port: 0 },
    {
      ...{ type: 136, code: 0, body },
    },
  );
  frame[14 + tags.length * 4 + ipv6.hopLimit] = 255;
  return frame;
}

function texts(addresses: GuestAddresses): string[] {
  return addresses.announcements().map((frame) => Buffer.from(claimOf(frame)?.address ?? []).toString('hex'));
}

test('the address of the spec is announced, with nothing learned', () => {
  assert.deepEqual(addressesOf().announcements(), [announce(mac, 0x0a00020f)]);
});

test('an address that the guest has advertised is announced by a valid unsolicited advertisement to all nodes', () => {
  const addresses = addressesOf();
  assert.equal(addresses.said(advertisement(mac, linkLocal, 0x60), 1), true);
  assert.equal(addresses.said(advertisement(mac, linkLocal, 0x60), 1), false);
  const frame = addresses.announcements()[1];
  assert.ok(frame);
  assert.equal(Buffer.from(frame.subarray(0, 14)).toString('hex'), '33330000000152540012345686dd');
  const view = new FrameView();
  view.parse(frame);
  assert.equal(view.refusal, undefined);
  assert.equal(Buffer.from(frame.subarray(22, 38)).equals(linkLocal), true);
  assert.equal(Buffer.from(frame.subarray(38, 54)).toString('hex'), 'ff020000000000000000000000000001');
  assert.equal(frame[14 + ipv6.hopLimit], 255);
  assert.equal(frame[54], 136);
  assert.equal(frame[58], 0x20, 'override; not solicited; no router');
  assert.equal(transportChecksum(frame, 14, 54, frame.length, 58), (frame[56] as number) * 256 + (frame[57] as number));
  assert.deepEqual(claimOf(frame)?.mac, mac);
});

test('a router is announced as one, and in its VLAN', () => {
  const addresses = addressesOf();
  assert.equal(addresses.said(advertisement(mac, linkLocal, 0xe0, [0x6000 | 42]), 1), true);
  assert.equal(addresses.said(advertisement(mac, linkLocal, 0xe0, [42]), 1), false, 'a priority is no other VLAN');
  const frame = addresses.announcements()[1];
  assert.ok(frame);
  assert.equal(Buffer.from(frame.subarray(12, 18)).toString('hex'), '8100002a86dd');
  assert.equal(frame[62], 0xa0);
});

test('a second IPv4 address is learned from the ARP requests that the guest sends from it', () => {
  const addresses = addressesOf();
  assert.equal(addresses.said(announce(mac, 0x0a000263), 1), true);
  assert.equal(addresses.said(announce(mac, 0x0a00020f), 1), false, 'that of the spec is known');
  assert.deepEqual(texts(addresses), ['0a00020f', '0a000263']);
});

test('what the guest answers for others, passes on, or only probes for is not its own', () => {
  const addresses = addressesOf();
  const reply = announce(mac, 0x0a000263);
  write16(reply, 20, 2);
  const frames = [
    reply,
    announce(mac, 0),
    announce(other, 0x0a000263),
    advertisement(mac, linkLocal, 0x40),
    advertisement(other, neighbour, 0x60),
    advertisement(mac, Uint8Array.from([0xff, 2, ...new Uint8Array(13), 1]), 0x60),
    buildUdp({ mac, ip: 0xc0a80001, port: 1 }, { mac: everybody, ip: 0x0a000202, port: 2 }, new Uint8Array(4)),
  ];
  for (const frame of frames) assert.equal(addresses.said(frame, 1), false);
  assert.equal(addresses.count, 1);
});

test('an address that another machine claims is given up, that of the spec too, until the guest claims it again', () => {
  const addresses = addressesOf();
  addresses.said(announce(mac, 0x0a000263), 1);
  assert.equal(addresses.heard(announce(mac, 0x0a000263)), false);
  assert.equal(addresses.heard(announce(other, 0x0a00020f)), true);
  assert.deepEqual(texts(addresses), ['0a000263']);
  assert.equal(addresses.heard(announce(other, 0x0a000263)), true);
  assert.deepEqual(addresses.announcements(), [announceMac(mac)]);
  assert.equal(addresses.said(announce(mac, 0x0a00020f), 2), true);
  assert.deepEqual(texts(addresses), ['0a00020f']);
});

test('an address ends when the guest claims it no more; what the spec names counts until the guest claims another one', () => {
  const addresses = addressesOf();
  const later = 1 + guestAddressAgeMs;
  assert.equal(addresses.expire(100 * later), false);
  assert.equal(addresses.said(announce(mac, 0x0a000263), 100 * later), true);
  assert.equal(addresses.said(advertisement(mac, linkLocal, 0x60), 100 * later), true);
  assert.equal(addresses.expire(100 * later + guestAddressAgeMs - 1), false);
  addresses.said(announce(mac, 0x0a000263), 100 * later + guestAddressAgeMs - 1);
  assert.equal(addresses.expire(101 * later + 1000), true);
  assert.deepEqual(texts(addresses), ['0a000263']);
});

test('an address of another family, card or VLAN says nothing against that of the spec', () => {
  const addresses = new GuestAddresses([{ mac, address: own }, { mac: other }]);
  addresses.said(advertisement(mac, linkLocal, 0x60), 1);
  addresses.said(withCard(announce(other, 0x0a000301), 1), 1);
  assert.equal(addresses.expire(2 * guestAddressAgeMs), true);
  assert.deepEqual(addresses.announcements(), [announce(mac, 0x0a00020f), withCard(announceMac(other), 1)]);
});

test('a peer that takes over knows what the spec names and what its guest has given up', () => {
  const addresses = addressesOf();
  const peer = addressesOf();
  assert.equal(peer.accept(addresses.encode(), 1), true);
  assert.equal(peer.expire(10 * guestAddressAgeMs), false);
  addresses.said(announce(mac, 0x0a000263), 1);
  assert.equal(peer.accept(addresses.encode(), 1), true);
  assert.equal(peer.expire(20 * guestAddressAgeMs), true);
  assert.equal(peer.count, 0);
  peer.reset();
  assert.deepEqual(texts(peer), ['0a00020f']);
});

test('the peer gets the same list, however long it becomes, and refuses what is none', () => {
  const addresses = addressesOf();
  addresses.said(advertisement(mac, linkLocal, 0xe0, [42]), 1);
  for (let index = 0; index < guestAddressesMax + 10; index += 1) addresses.said(announce(mac, 0x0a010000 + index), 1);
  assert.equal(addresses.count, guestAddressesMax);
  addresses.said(advertisement(mac, linkLocal, 0xe0, [42]), 1);
  const peer = addressesOf();
  assert.equal(peer.accept(addresses.encode(), 1), true);
  assert.deepEqual(peer.announcements(), addresses.announcements());
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      if (!peer.accept(bytes, 1)) return;
      assert.ok(peer.count <= guestAddressesMax);
      peer.announcements();
    }),
  );
  assert.equal(
    peer.accept(
      Uint8Array.from(Array.from({ length: guestAddressesMax + 1 }, (_, at) => [0, 4, 1, 2, 3, at]).flat()),
      1,
    ),
    false,
  );
});

test('no frame of anybody throws, or makes the list grow beyond its bound', () => {
  const addresses = addressesOf();
  const seed = advertisement(mac, linkLocal, 0x60);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 120 }), fc.nat(120), (noise, keep) => {
      const frame = Uint8Array.from([...seed.subarray(0, keep), ...noise]);
      addresses.said(frame, 1);
      addresses.heard(frame);
      assert.ok(addresses.count <= guestAddressesMax);
    }),
  );
});

test('what was learned or told is kept when the buffer that it came in is used for something else, and looking at a frame changes nothing', () => {
  const tagged = [...advertisement(mac, linkLocal, 0x20, [7])];
  // With a priority in its tag, which is no part of where an address is.
  tagged[14] = 0xe0;
  const frame = Buffer.from(tagged);
  const learned = addressesOf();
  const accepted = addressesOf();
  learned.said(frame, 0);
  assert.deepEqual([...frame], tagged);
  const list = Buffer.from(learned.encode());
  assert.equal(accepted.accept(list, 0), true);
  const before = texts(learned);
  frame.fill(0xe7);
  list.fill(0xe7);
  assert.equal(before.length, 2);
  assert.deepEqual(texts(learned), before);
  assert.deepEqual(texts(accepted), before);
});
