// A secondary and the primary that it follows, over links in memory: when its copy is one, when it may ask for the
// term, and that nothing comes of a pairing that is over.

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { MemoryArbiter, type Terms as Records } from '../../arbiter/memory.ts';
import { silentLog } from '../../base/log.ts';
import { Records as CheckpointRecords } from '../../checkpoint/record.ts';
import { leaseMs, takeoverMarginMs } from '../../heartbeat/limits.ts';
import { beatTypes, encodeBeat } from '../../heartbeat/message.ts';
import { Tolerance } from '../../heartbeat/tolerance.ts';
import { GuestAddresses } from '../../proxy/guest-addresses.ts';
import { PairLinks } from '../pairing/links.ts';
import { countAt, encodeCount, encodeText, messages } from '../pairing/message.ts';
import {
  memoryLinks,
  TestCard,
  TestClock,
  TestVm,
  testConfig,
  testFrame,
  testPlatform,
  turn,
} from '../pairing/testbed.ts';
import type { PeerLinks } from '../platform.ts';
import { Captures } from '../primary/checkpoint/capture.ts';
import { Checkpointer } from '../primary/checkpoint/checkpointer.ts';
import { Ingress } from '../primary/ingress.ts';
import { Terms } from '../terms.ts';
import { Troubles } from '../troubles.ts';
import { UplinkHealth } from '../uplink-health.ts';
import { type Inheritance, SecondaryNode } from './secondary.ts';

async function settled(): Promise<void> {
  for (let at = 0; at < 20; at += 1) await turn();
}

/** What a primary of term 2 would send in bulk: its checkpointer, with a machine of its own. */
function openPrimary(clock: TestClock) {
  const near = memoryLinks();
  const vm = new TestVm();
  const context = { config: testConfig('a'), clock, log: silentLog, platform: testPlatform() };
  let epoch = 0;
  const proxy = {
    get currentEpoch() {
      return epoch;
    },
    abort: () => void (epoch -= 1),
    counters: { heldFrames: 0 },
    capture: () => ({ epoch: (epoch += 1), table: new Uint8Array(), held: new Uint8Array() }),
  };
  const ingress = new Ingress(() => undefined);
  const releaseIngress = () => ingress.release(clock.now(), false);
  const captures = new Captures({ context, vm, nic: new TestCard(), ingress, releaseIngress, proxy });
  const checkpointer = new Checkpointer({
    ...{ context, vm, captures, proxy, links: new PairLinks(near, clock), mirror: undefined },
    ...{ compressor: context.platform.compressor(), records: new CheckpointRecords(), post: () => undefined },
  });
  return { checkpointer, vm, near };
}

async function open(test: TestContext) {
  const clock = new TestClock();
  const records: Records = new Map([['web', { term: 2, owner: 'a', peer: 'b' }]]);
  let accept: ((links: PeerLinks) => void) | undefined;
  const nic = new TestCard();
  const svm = new TestVm();
  const platform = testPlatform({
    acceptLinks: async ({ paired }) => {
      accept = paired;
      return { close: async () => undefined };
    },
    listenCard: async () => nic,
    startVm: async () => svm,
  });
  const config = testConfig('b');
  const troubles = new Troubles(silentLog);
  const node = {
    ...{ config, clock, platform, wallMs: () => 0, log: silentLog },
    arbiter: new MemoryArbiter(records),
  };
  const secondary = new SecondaryNode(node, {
    ...{ terms: new Terms(node), tolerance: new Tolerance(), addresses: new GuestAddresses([]), troubles },
    uplinkHealth: new UplinkHealth({ clock, troubles }),
    verified: { equal: 0, different: 0 },
  });
  const taken: Inheritance[] = [];
  secondary.onTakenOver = (inheritance) => void taken.push(inheritance);
  test.after(() => secondary.stop());
  await secondary.start();
  /** A primary whose links are there. */
  const follow = async () => {
    const links = memoryLinks('a', 2);
    accept?.(links);
    await settled();
    const { checkpointer, vm, near } = openPrimary(clock);
    let heard = 0;
    /** What the checkpointer has sent since the last call arrives, and the answers come back. */
    const deliver = async () => {
      for (const { type, payload } of near.bulk.said.splice(0)) links.bulk.hear(type, payload);
      await settled();
      for (const { type, payload } of links.packet.said.slice(heard)) {
        if (type === messages.committed) checkpointer.committed(countAt(payload, 0), clock.now());
        if (type === messages.applied) checkpointer.applied(payload);
      }
      heard = links.packet.said.length;
    };
    /** Everything up to a checkpoint, which may arrive. */
    const checkpoint = async () => {
      await checkpointer.capture({ kind: 'test' });
      for (const { type, payload } of near.packet.said.splice(0)) links.packet.hear(type, payload);
      await checkpointer.sendCheckpoint();
    };
    const begin = async () => {
      await checkpointer.sendSession(Uint8Array.of(7));
      await deliver();
      await checkpointer.sendRound(0);
      await checkpoint();
    };
    const beat = () => links.beat.hear(beatTypes.beat, encodeBeat({ sequence: 1, term: 2, sentAt: clock.now() }));
    return { links, vm, begin, deliver, checkpoint, beat };
  };
  return { secondary, clock, records, svm, nic, taken, follow };
}

test('a checkpoint is committed when all of it is here, then applied, and then the SVM is what the primary was', async (context) => {
  const { secondary, svm, follow } = await open(context);
  const { links, vm, begin, deliver, checkpoint } = await follow();
  vm.write(1, 5);
  await begin();
  const words = () => links.packet.types.filter((type) => type !== messages.uplink);
  assert.deepEqual(words(), [messages.ready]);
  assert.equal(secondary.pair.state.kind, 'joining');
  await deliver();
  assert.deepEqual(words(), [messages.ready, messages.committed, messages.applied]);
  assert.deepEqual(svm.ram, vm.ram);
  // What the SVM wrote itself is gone with the next one.
  svm.write(3, 9);
  vm.write(2, 6);
  await checkpoint();
  await deliver();
  assert.deepEqual(words().slice(3), [messages.committed, messages.applied]);
  assert.deepEqual(svm.ram, vm.ram);
});

test('links that the primary ended are a doubt at once, and the copy goes on with the term', async (context) => {
  const { secondary, records, svm, taken, follow } = await open(context);
  const { links, begin, deliver } = await follow();
  await begin();
  await deliver();
  links.packet.lose(true);
  await settled();
  assert.deepEqual(records.get('web'), { term: 3, owner: 'b', peer: null });
  assert.equal(taken[0]?.applier.vm, svm);
  assert.equal(secondary.pairing, undefined);
  assert.equal(secondary.pair.state.kind, 'primary');
});

test('links that this node gave up are no doubt before what it lent has run out', async (context) => {
  const { secondary, clock, records, follow } = await open(context);
  const { links, begin, deliver, beat } = await follow();
  await begin();
  await deliver();
  beat();
  assert.deepEqual(links.beat.types, [beatTypes.echo]);
  links.packet.lose(false);
  await clock.pass(leaseMs);
  assert.equal(secondary.pair.state.kind, 'protected');
  assert.equal(records.get('web')?.term, 2);
  beat();
  assert.equal(links.beat.said.length, 1, 'nothing more is lent');
  await clock.pass(takeoverMarginMs + 1);
  await settled();
  assert.equal(records.get('web')?.owner, 'b');
});

test('a node that is told to end while what it lent runs out asks for no term: its copy is gone', async (context) => {
  const { secondary, clock, records, follow } = await open(context);
  const { links, begin, deliver, beat } = await follow();
  await begin();
  await deliver();
  beat();
  links.packet.lose(false);
  await secondary.stop();
  await clock.pass(2 * leaseMs);
  await settled();
  assert.deepEqual(records.get('web'), { term: 2, owner: 'a', peer: 'b' });
});

test("a lost primary of which no checkpoint is complete leaves no copy, and what it still says is nobody's", async (context) => {
  const { secondary, records, svm, nic, follow } = await open(context);
  const first = await follow();
  await first.begin();
  first.links.packet.lose(true);
  await settled();
  assert.equal(secondary.pair.state.kind, 'idle');
  assert.equal(secondary.applier, undefined);
  assert.equal(records.get('web')?.term, 2);
  await svm.exited;
  const said = first.links.packet.said.length;
  await first.deliver();
  first.links.packet.hear(messages.ingress, testFrame(1));
  first.links.packet.hear(messages.handover, encodeText('take it'));
  assert.equal(first.links.packet.said.length, said);
  assert.equal(nic.sent.length, 0);

  const next = await follow();
  first.links.packet.hear(messages.end, encodeText('it is over'));
  first.links.packet.hear(messages.marker, encodeCount(1));
  assert.equal(secondary.pair.state.kind, 'joining');
  assert.equal(secondary.pairing?.node, 'a');
  assert.ok(!next.links.packet.ended);
});

test('a stream that is not a session ends the pairing, and the node is free for another primary', async (context) => {
  const { secondary, follow } = await open(context);
  for (const [type, why] of [
    [0, /unknown|session/],
    [200, /session|never named/],
  ] as const) {
    const { links } = await follow();
    links.bulk.hear(type);
    await settled();
    assert.match(links.packet.goodbye ?? '', why);
    assert.equal(secondary.pair.state.kind, 'idle');
  }
});
