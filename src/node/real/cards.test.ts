// Several cards as one: what comes in at a card or an uplink goes out at the same one, flows of two cards are two
// flows, and nobody outside can name a card.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Uplink } from '../../netdev/endpoint.ts';
import type { FrameHandlers } from '../../netdev/frame-socket.ts';
import { announce } from '../../packet/arp.ts';
import { type Address, buildTcp, buildUdp } from '../../packet/build.ts';
import { cardOf, withCard, withoutCard } from '../../packet/card.ts';
import { announcementOf, claimOf } from '../../packet/claim.ts';
import { flowText, packFlowKey, unpackFlowKey } from '../../packet/flow-key.ts';
import { FrameView } from '../../packet/frame-view.ts';
import { tcpFlag } from '../../packet/tcp.ts';
import { PrimaryProxy } from '../../proxy/primary.ts';
import type { GuestCard } from '../platform.ts';
import { Cards, Uplinks } from './cards.ts';

const guest: Address = { mac: Uint8Array.of(0x52, 0x54, 0, 0, 0, 1), ip: 0x0a00020f, port: 80 };
const client: Address = { mac: Uint8Array.of(2, 0, 0, 0, 0, 9), ip: 0x0a000202, port: 4711 };

class TestCard implements GuestCard {
  handler: ((frame: Uint8Array) => void) | undefined;
  readonly sent: Uint8Array[] = [];
  bytesIn = 0;
  isSettled: boolean | undefined = true;
  isPaused = false;
  isClosed = false;
  send(frame: Uint8Array): void {
    this.sent.push(frame);
  }
  flush(): void {}
  drain(): void {}
  settled(): boolean | undefined {
    return this.isSettled;
  }
  pause(paused: boolean): void {
    this.isPaused = paused;
  }
  async close(): Promise<void> {
    this.isClosed = true;
  }
}

test('a frame of a card comes out at that card, as it was', async () => {
  const inner = [new TestCard(), new TestCard(), new TestCard()];
  const cards = new Cards(inner);
  const frame = buildUdp(client, guest, Uint8Array.of(1, 2, 3));
  const seen: Uint8Array[] = [];
  cards.handler = (marked) => seen.push(marked);
  for (const [index, card] of inner.entries()) {
    card.handler?.(frame);
    const marked = seen[index];
    assert.ok(marked);
    assert.equal(cardOf(marked), index);
    cards.send(marked);
    assert.deepEqual(card.sent, [frame]);
  }
  await cards.close();
  assert.ok(inner.every((card) => card.isClosed));
});

interface Opened {
  sent: Uint8Array[];
  progress: { taken: number; settled: number; lost: number };
}

test('an uplink for each card; a failure to open one closes the others', async () => {
  const frame = buildUdp(client, guest, Uint8Array.of(1));
  const opened: (Opened & { handlers: FrameHandlers; isClosed: boolean })[] = [];
  const openOne = async (index: number, handlers: FrameHandlers): Promise<Uplink> => {
    if (index === 2) throw new Error('no such bridge');
    const progress = { taken: 0, settled: 0, lost: 0 };
    const one = { handlers, sent: [] as Uint8Array[], isClosed: false, progress };
    opened.push(one);
    return {
      send: (bytes) => {
        one.sent.push(bytes);
        one.progress.taken += 1;
      },
      close: () => void (one.isClosed = true),
      ...{ pause: () => undefined, resume: () => undefined, problem: '' },
      ...{ progress: one.progress, unwritten: () => one.sent.slice(one.progress.settled) },
      counters: { framesIn: 1, bytesIn: 2, framesOut: 3, bytesOut: 4 },
    };
  };
  const seen: Uint8Array[] = [];
  let told = 0;
  const settled = () => void (told += 1);
  const handlers = { frame: (bytes: Uint8Array) => void seen.push(bytes), closed: () => undefined, settled };
  const uplinks = await Uplinks.open(2, handlers, openOne);
  for (const one of opened) one.handlers.frame(frame);
  for (const bytes of seen) uplinks.send(bytes);
  assert.deepEqual(seen.map(cardOf), [0, 1]);
  for (const one of opened) assert.deepEqual(one.sent, [frame]);
  // What one card has written says nothing about what waits at another.
  assert.deepEqual(uplinks.unwritten().map(cardOf), [0, 1]);
  assert.deepEqual(uplinks.progress, { taken: 2, settled: 0, lost: 0 });
  for (const [index, one] of opened.entries()) {
    one.progress.settled = 1;
    one.handlers.settled?.();
    assert.equal(uplinks.progress.settled, index === 0 ? 0 : 2);
  }
  assert.equal(told, 2);
  assert.deepEqual(uplinks.counters, { framesIn: 2, bytesIn: 4, framesOut: 6, bytesOut: 8 });
  opened.length = 0;
  await assert.rejects(Uplinks.open(3, handlers, openOne), /no such bridge/);
  assert.ok(opened.length === 2 && opened.every((one) => one.isClosed));
});

test('a frame that comes in with a mark is refused and counted, at every card and uplink', async () => {
  const card = new TestCard();
  const further = new TestCard();
  const cards = new Cards([card, further]);
  cards.handler = () => assert.fail('it went on');
  const forged = withCard(buildUdp(client, guest, Uint8Array.of(1)), 1);
  const short = Uint8Array.from(forged.subarray(0, 14));
  for (const frame of [forged, short]) for (const one of [card, further]) one.handler?.(frame);
  assert.equal(cards.refused, 4);
  let inward: FrameHandlers | undefined;
  const uplinks = await Uplinks.open(
    1,
    { frame: () => assert.fail('it went on'), closed: () => undefined },
    async (_, own) => {
      inward = own;
      return {
        send: () => undefined,
        close: () => undefined,
        pause: () => undefined,
        resume: () => undefined,
        problem: '',
        ...{ progress: { taken: 0, settled: 0, lost: 0 }, unwritten: () => [] },
        counters: { framesIn: 0, bytesIn: 0, framesOut: 0, bytesOut: 0 },
      };
    },
  );
  inward?.frame(forged);
  assert.equal(uplinks.refused, 1);
});

test('a mark is part of the name of a flow, beside its VLAN tags, and changes nothing else', () => {
  for (const tags of [[], [42], [42, 7]]) {
    const plain = buildTcp({ ...guest, tags }, client, { sequence: 1, flags: tcpFlag.syn });
    const marked = withCard(plain, 3);
    assert.deepEqual(withoutCard(marked), plain);
    const one = new FrameView().parse(plain);
    const other = new FrameView().parse(marked);
    assert.equal(other.kind, 'tcp');
    assert.equal(other.transportAt, one.transportAt + 4);
    assert.equal(one.key.equals(other.key), false);
    const packed = new Uint8Array(40);
    packFlowKey(other.key, packed, 0);
    const unpacked = unpackFlowKey(packed, 0, false, 6);
    assert.ok(unpacked?.equals(other.key));
    const vlan = tags.length === 0 ? '' : ` vlan ${tags.join('.')}`;
    assert.equal(flowText(other.key, 'tcp'), `10.0.2.2:4711 > 10.0.2.15:80 tcp card 3${vlan}`);
    other.key.tags &= 0x0fffffff;
    assert.ok(one.key.equals(other.key));
  }
});

test('an announcement goes out at the card that the claim was seen at', () => {
  const marked = withCard(announce(guest.mac, 0x0a00030f), 2);
  const claim = claimOf(marked);
  assert.ok(claim);
  assert.deepEqual(announcementOf(claim), marked);
});

test('the same connection on two cards is two connections: what one of them said proves nothing for the other', () => {
  const left: Uint8Array[] = [];
  const proxy = new PrimaryProxy(
    {
      toNetwork: (frame) => void left.push(Uint8Array.from(frame)),
      ...{ toGuest: () => undefined, mirror: () => undefined, announceIsn: () => undefined, confirm: () => undefined },
      tolerate: () => undefined,
      ...{ wantCheckpoint: () => undefined, pauseGuest: () => undefined },
      ...{ progress: { taken: 0, settled: 0, lost: 0 }, unwritten: () => [] },
    },
    { mode: 'colo', compareTimeoutMs: 200, patienceMs: 0 },
  );
  proxy.startMirroring();
  proxy.commit(proxy.capture(0).epoch, 0);
  proxy.resumed(1, 0);
  const says = (text: string) => buildUdp(guest, client, Buffer.from(text));
  proxy.fromGuest(withCard(says('one'), 1), 1);
  proxy.fromSecondary(1, 1, says('one'), 2);
  assert.equal(left.length, 0);
  proxy.fromSecondary(1, 2, withCard(says('one'), 1), 3);
  assert.deepEqual(left, [withCard(says('one'), 1)]);
});

test('a frame that is too short for a mark is refused and counted, and never thrown on', () => {
  const inner = [new TestCard(), new TestCard()];
  const cards = new Cards(inner);
  let seen = 0;
  cards.handler = () => void (seen += 1);
  for (let length = 0; length < 14; length += 1) inner[1]?.handler?.(new Uint8Array(length));
  assert.equal(cards.refused, 14);
  assert.equal(seen, 0);
  inner[1]?.handler?.(new Uint8Array(14));
  assert.equal(seen, 1);
});
