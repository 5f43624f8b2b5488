// A primary and one secondary after another, whose links are in memory: what a pairing may still do when it is over,
// when the gate is open, and in what order a commit is dealt with.

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { MemoryArbiter, type Terms as Records } from '../../arbiter/memory.ts';
import { silentLog } from '../../base/log.ts';
import { encodeApplied } from '../../checkpoint/message.ts';
import { leaseMs } from '../../heartbeat/limits.ts';
import { beatTypes } from '../../heartbeat/message.ts';
import { Tolerance } from '../../heartbeat/tolerance.ts';
import { GuestAddresses } from '../../proxy/guest-addresses.ts';
import { unprotectedSilenceMs } from '../limits.ts';
import { encodeCount, encodeEgressHead, encodeText, messages } from '../pairing/message.ts';
import {
  type MemoryLinks,
  memoryLinks,
  TestCard,
  TestClock,
  TestVm,
  testConfig,
  testFrame,
  testPlatform,
  turn,
} from '../pairing/testbed.ts';
import { Terms } from '../terms.ts';
import { Troubles } from '../troubles.ts';
import { UplinkHealth } from '../uplink-health.ts';
import { PrimaryNode } from './primary.ts';

/** A primary that runs, and whatever node asks it opens the links of `next`. */
function open(context: TestContext) {
  const clock = new TestClock();
  const records: Records = new Map([['web', { term: 1, owner: 'a', peer: null }]]);
  const vm = new TestVm();
  const nic = new TestCard();
  const left: Buffer[] = [];
  const made: MemoryLinks[] = [];
  const uplink = {
    send: (frame: Uint8Array) => void left.push(Buffer.from(frame)),
    get progress() {
      return { taken: left.length, settled: left.length, lost: 0 };
    },
    ...{ unwritten: () => [], pause: () => undefined, resume: () => undefined, close: () => undefined, problem: '' },
    counters: { framesIn: 0, bytesIn: 0, framesOut: 0, bytesOut: 0 },
  };
  const openLinks = async () => {
    const links = memoryLinks();
    made.push(links);
    return links;
  };
  const troubles = new Troubles(silentLog);
  const node = {
    ...{ config: testConfig(), clock, wallMs: () => 0, log: silentLog, arbiter: new MemoryArbiter(records) },
    platform: testPlatform({ openLinks }),
  };
  const terms = new Terms(node);
  const uplinkHealth = new UplinkHealth({ clock, troubles });
  const shared = { terms, tolerance: new Tolerance(), addresses: new GuestAddresses([]), troubles, uplinkHealth };
  const parts = { ...shared, verified: { equal: 0, different: 0 }, vm, nic, uplink, template: Uint8Array.of(7) };
  const primary = new PrimaryNode(node, parts);
  context.after(() => primary.shutDown());
  const settled = async () => {
    for (let at = 0; at < 20; at += 1) await turn();
  };
  /** Gets on until the secondary of now is asked for its first commit; its links. */
  const pairUp = async (): Promise<MemoryLinks> => {
    await settled();
    const links = made.at(-1) ?? assert.fail('no node was asked');
    links.packet.hear(messages.ready);
    await settled();
    assert.equal(primary.pair.state.kind, 'protected');
    return links;
  };
  /** The secondary holds checkpoint `epoch`, and has loaded it. */
  const commit = (links: MemoryLinks, epoch: number) => links.packet.hear(messages.committed, encodeCount(epoch));
  const apply = async (links: MemoryLinks, epoch: number) => {
    const phases = { stopMs: 0, rollbackMs: 0, writeMs: 0, loadMs: 0, fixMs: 0, resumeMs: 0 };
    links.packet.hear(messages.applied, encodeApplied({ epoch, ok: true, verified: null, ownPages: 0, phases }));
    await settled();
  };
  /** The newest beat comes back. */
  const echo = async (links: MemoryLinks) => {
    const beat = links.beat.said.at(-1) ?? assert.fail('no beat was sent');
    links.beat.hear(beatTypes.echo, beat.payload);
    await settled();
  };
  const protect = async (): Promise<MemoryLinks> => {
    const links = await pairUp();
    await clock.pass(10);
    await echo(links);
    commit(links, 1);
    await apply(links, 1);
    return links;
  };
  primary.start();
  return { primary, clock, vm, nic, left, made, records, pairUp, commit, apply, echo, protect, settled };
}

test('a beat that is echoed too late shuts the gate: what both guests have said waits for a new one', async (context) => {
  const { primary, clock, left, protect, echo } = open(context);
  const links = await protect();
  assert.equal(primary.maySpeak, true);
  const late = links.beat.said.at(-1)?.payload ?? assert.fail('no beat');
  clock.stand(leaseMs + 1);
  // The beat was sent before, however late its echo comes.
  links.beat.hear(beatTypes.echo, late);
  primary.fromGuest(testFrame(1), clock.now());
  links.packet.hear(messages.egress, Buffer.concat([encodeEgressHead(1, 1), testFrame(1)]));
  assert.equal(primary.gate.isOpen, false);
  assert.equal(left.length, 0);
  await clock.pass(1);
  await echo(links);
  assert.equal(primary.maySpeak, true);
  assert.deepEqual(left, [Buffer.from(testFrame(1))]);
});

test('a commit lets the frames before it leave before anything behind it on the link is heard', async (context) => {
  const { primary, clock, left, protect, commit, apply, settled, echo } = open(context);
  const links = await protect();
  primary.fromGuest(testFrame(1), clock.now());
  assert.equal(left.length, 0, 'the other guest has not said it');
  void primary.checkpoint();
  await settled();
  await echo(links);
  assert.deepEqual(links.packet.types.filter((type) => type === messages.marker).length, 2);
  assert.equal(left.length, 0);
  commit(links, 2);
  assert.deepEqual(left, [Buffer.from(testFrame(1))], 'it left before the call returned');
  assert.equal(links.packet.types.at(-1), messages.released);
  await apply(links, 2);
  primary.fromGuest(testFrame(2), clock.now());
  links.packet.hear(messages.egress, Buffer.concat([encodeEgressHead(2, 1), testFrame(2)]));
  assert.deepEqual(left[1], Buffer.from(testFrame(2)));
});

test('the end of the links shuts the gate before the pair hears of it', async (context) => {
  const { primary, clock, left, protect } = open(context);
  const links = await protect();
  links.packet.lose(true);
  assert.equal(primary.pair.state.kind, 'protected');
  assert.equal(primary.gate.isOpen, false);
  primary.fromGuest(testFrame(1), clock.now());
  assert.equal(left.length, 0);
  assert.ok(links.beat.ended && links.bulk.ended);
});

test("what a dropped pairing still says is nobody's", async (context) => {
  const { primary, clock, left, records, protect, commit, apply, echo, settled, made, pairUp } = open(context);
  const old = await protect();
  primary.fromGuest(testFrame(1), clock.now());
  void primary.checkpoint().catch(() => undefined);
  await settled();
  old.packet.lose(true);
  await settled();
  assert.equal(primary.pair.state.kind, 'alone');
  assert.deepEqual(records.get('web'), { term: 3, owner: 'a', peer: null });
  assert.deepEqual(left, [Buffer.from(testFrame(1))], 'alone it speaks');
  const said = old.packet.said.length;
  commit(old, 2);
  await apply(old, 2);
  old.packet.hear(messages.egress, Buffer.concat([encodeEgressHead(1, 1), testFrame(9)]));
  old.packet.hear(messages.refused, Buffer.concat([encodeCount(2), encodeText('no')]));
  old.packet.hear(messages.diskFailed, encodeText('full'));
  assert.equal(primary.pair.state.kind, 'alone');
  assert.equal(primary.pairing, undefined);
  assert.equal(old.packet.said.length, said);

  await clock.pass(400);
  const links = await pairUp();
  assert.ok(links !== old && made.length === 2);
  await clock.pass(10);
  old.beat.hear(beatTypes.echo, links.beat.said.at(-1)?.payload);
  assert.equal(primary.maySpeak, false, 'only the secondary of now lends');
  commit(old, 2);
  assert.ok('complete' in primary.pair.state && primary.pair.state.complete === false);
  await echo(links);
  assert.equal(primary.maySpeak, true);
});

test('a refused checkpoint leaves nothing behind: its pages go with the next one, and its line is taken away', async (context) => {
  const { primary, clock, vm, left, protect, commit, settled, echo } = open(context);
  const links = await protect();
  const taken = vm.taken;
  vm.write(2, 9);
  primary.fromGuest(testFrame(1), clock.now());
  primary.checkpoint().catch(() => undefined);
  await settled();
  assert.equal(vm.taken, taken + 1);
  links.packet.hear(messages.refused, Buffer.concat([encodeCount(2), encodeText('damaged')]));
  await settled();
  const { marker, abort } = messages;
  const lines = () => links.packet.types.filter((type) => type === marker || type === abort);
  assert.deepEqual(lines(), [marker, marker, abort]);
  assert.ok(vm.isRunning && vm.taken === taken, 'the memory of the refused one is free');
  assert.equal(left.length, 0);
  primary.checkpoint().catch(() => undefined);
  await settled();
  assert.deepEqual(lines(), [marker, marker, abort, marker]);
  await echo(links);
  commit(links, 2);
  assert.equal(left.length, 1);
  assert.equal(primary.records.newest(1)[0]?.pages, 1);
});

test('a node that is to become the secondary and says nothing is given up, and another is asked', async (context) => {
  const { primary, clock, made, settled } = open(context);
  await settled();
  assert.equal(made.length, 1);
  await clock.pass(unprotectedSilenceMs + 400);
  assert.match(made[0]?.packet.goodbye ?? '', /said nothing/);
  assert.equal(made.length, 2);
  assert.equal(primary.pair.state.kind, 'alone');
});

test('a role that is over says goodbye, asks nobody any more and lends nothing', async (context) => {
  const { primary, clock, made, vm, protect } = open(context);
  const links = await protect();
  const lease = primary.pairing?.lease ?? assert.fail('no lease');
  primary.shutDown();
  assert.match(links.packet.goodbye ?? '', /no longer the primary/);
  assert.equal(lease.valid(clock.now()), false);
  assert.equal(vm.taken, 0, 'no captured memory is left');
  await clock.pass(2000);
  assert.equal(made.length, 1);
});
