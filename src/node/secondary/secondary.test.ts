// Whom a secondary follows: the node that the arbiter says is the primary, at the term that it says, and nobody else.

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { MemoryArbiter, type Terms as Records } from '../../arbiter/memory.ts';
import { type Clock, systemClock } from '../../base/clock.ts';
import { ColoError, errorCodes } from '../../base/errors.ts';
import { handClock } from '../../base/hand-clock.ts';
import { silentLog } from '../../base/log.ts';
import type { LinkHandlers, LinkKind } from '../../channel/link.ts';
import { protectSchema } from '../../config/spec.ts';
import { leaseMs, takeoverMarginMs } from '../../heartbeat/limits.ts';
import { beatTypes, encodeBeat } from '../../heartbeat/message.ts';
import { Tolerance } from '../../heartbeat/tolerance.ts';
import { GuestAddresses } from '../../proxy/guest-addresses.ts';
import type { NodeConfig } from '../config.ts';
import type { NodeContext } from '../context.ts';
import type { PeerLink, PeerLinks, Platform } from '../platform.ts';
import { Terms } from '../terms.ts';
import { Troubles } from '../troubles.ts';
import { UplinkHealth } from '../uplink-health.ts';
import { SecondaryNode } from './secondary.ts';

/** One end of a link whose other end is the test. */
class TestLink implements PeerLink {
  readonly peer: PeerLink['peer'];
  readonly ends = { local: '', remote: '' };
  endedByPeer = true;
  readonly farewell = '';
  said = '';
  ended = false;
  handlers: LinkHandlers | undefined;
  constructor(kind: LinkKind, from: { node: string; term: number }) {
    this.peer = { vm: 'web', kind, session: 's', ...from };
  }
  /** What is said to it. */
  heard = 0;
  send(): void {
    assert.ok(this.handlers !== undefined, 'nothing is said to one that is not followed');
    this.heard += 1;
  }
  start(handlers: LinkHandlers): void {
    this.handlers = handlers;
  }
  async drain(): Promise<void> {}
  close(why = ''): void {
    this.said = why;
    this.ended = true;
  }
  destroy(): void {
    this.ended = true;
  }
}

type TestLinks = { [kind in LinkKind]: TestLink };

function linksOf(node: string, term: number, bulk = { node, term }): TestLinks {
  const of = (kind: LinkKind, from = { node, term }) => new TestLink(kind, from);
  return { beat: of('beat'), packet: of('packet'), bulk: of('bulk', bulk) };
}

async function stage(test: TestContext, records: Records, clock: Clock = systemClock) {
  let acceptor: { busy: () => string | undefined; paired: (links: PeerLinks) => void } | undefined;
  const platform = {
    acceptLinks: async (options: NonNullable<typeof acceptor>) => {
      acceptor = options;
      return { close: async () => undefined };
    },
  };
  const config = { vm: 'web', node: 'b', protect: protectSchema.parse({}) } as NodeConfig;
  const arbiter = new MemoryArbiter(records);
  const state = { answers: true };
  const context: NodeContext = {
    ...{ config, clock, wallMs: () => 0, log: silentLog, platform: platform as unknown as Platform },
    arbiter: {
      read: (vm) => (state.answers ? arbiter.read(vm) : Promise.reject(new ColoError(errorCodes.arbiter, 'silent'))),
      claim: () => assert.fail('nothing is claimed'),
      probe: () => assert.fail('nothing is probed'),
      close: () => arbiter.close(),
    },
  };
  const terms = new Terms(context);
  const troubles = new Troubles(silentLog);
  const secondary = new SecondaryNode(context, {
    ...{ terms, tolerance: new Tolerance(), addresses: new GuestAddresses([]), troubles },
    uplinkHealth: new UplinkHealth({ clock, troubles }),
    verified: { equal: 0, different: 0 },
  });
  test.after(() => secondary.stop());
  await secondary.start();
  const { busy, paired } = acceptor ?? assert.fail('it accepts no links');
  /** Resolves when it is decided. */
  const knock = async (links: TestLinks): Promise<string> => {
    paired(links);
    if (links.packet.said === '') assert.equal(busy(), 'this node is paired already');
    await terms.isLost();
    await new Promise(setImmediate);
    const { said } = links.packet;
    const all = Object.values(links);
    assert.ok(all.every((one) => one.ended === (said !== '') && (one.handlers === undefined) === (said !== '')));
    return said;
  };
  return { secondary, knock, state };
}

test('a secondary follows the owner of the term alone: any other node is turned away before its state arrives', async (context) => {
  const records: Records = new Map([['web', { term: 3, owner: 'a', peer: null }]]);
  const { secondary, knock, state } = await stage(context, records);
  assert.equal(await knock(linksOf('x', 3)), 'you were turned away: a owns the VM (term 3), not x');
  assert.equal(await knock(linksOf('a', 2)), 'you were turned away: a is at term 2, and the arbiter at 3');
  assert.equal(await knock(linksOf('a', 4)), 'you were turned away: a is at term 4, and the arbiter at 3');
  const mixed = linksOf('a', 3, { node: 'x', term: 3 });
  assert.equal(await knock(mixed), 'you were turned away: its links are of several nodes');
  state.answers = false;
  assert.equal(await knock(linksOf('a', 3)), 'you were turned away: the arbiter did not say who owns the VM');
  state.answers = true;
  records.clear();
  assert.match(await knock(linksOf('a', 3)), /^you were turned away: the arbiter (has no record|did not say)/);
  records.set('web', { term: 3, owner: 'a', peer: null });
  assert.equal(secondary.pair.state.kind, 'idle');
  assert.equal(await knock(linksOf('a', 3)), '');
  assert.equal(secondary.pair.state.kind, 'joining');
});

test('a role that ends while the arbiter is asked about a primary follows nobody', async (context) => {
  const { secondary, knock } = await stage(context, new Map([['web', { term: 1, owner: 'a', peer: null }]]));
  const links = linksOf('a', 1);
  const knocking = knock(links).catch(() => 'no answer');
  await secondary.stop();
  await knocking;
  assert.equal(secondary.pair.state.kind, 'idle');
  assert.ok(Object.values(links).every((one) => one.ended && one.handlers === undefined));
});

test('links that the primary ended leave it no lease; those that this node gave up leave it what it was lent last', async (context) => {
  for (const endedByPeer of [true, false]) {
    const clock = handClock();
    const { secondary, knock } = await stage(context, new Map([['web', { term: 1, owner: 'a', peer: null }]]), clock);
    const links = linksOf('a', 1);
    assert.equal(await knock(links), '');
    links.beat.handlers?.message(beatTypes.beat, Buffer.from(encodeBeat({ sequence: 1, term: 1, sentAt: 0 })));
    assert.equal(links.beat.heard, 1, 'a beat is echoed');
    links.packet.endedByPeer = endedByPeer;
    links.packet.handlers?.closed(new ColoError(errorCodes.channel, 'the connection broke'));
    clock.move(leaseMs + takeoverMarginMs - 1);
    assert.equal(secondary.pair.state.kind === 'joining', !endedByPeer);
    clock.move(1);
    assert.notEqual(secondary.pair.state.kind, 'joining');
  }
});
