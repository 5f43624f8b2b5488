// Failover after failover: a connection that began with other sequence numbers on every node is carried on by each.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { FrameView } from '../packet/frame-view.ts';
import { advance } from '../packet/sequence.ts';
import { PrimaryProxy } from './primary.ts';
import { SecondaryProxy } from './secondary.ts';
import { assertValid, Bed, bytes, fromGuest, promptUplink, text, toGuest } from './testbed/testbed.ts';

interface Node {
  primary: PrimaryProxy;
  network: Uint8Array[];
  guest: Uint8Array[];
}

function silentPorts() {
  return { mirror: () => undefined, announceIsn: () => undefined, confirm: () => undefined };
}

/** The primary on a node that took over with `table`. */
function survivor(table: Uint8Array): Node {
  const network: Uint8Array[] = [];
  const guest: Uint8Array[] = [];
  const primary = new PrimaryProxy(
    {
      ...silentPorts(),
      ...promptUplink,
      tolerate: () => undefined,
      toNetwork: (frame) => void network.push(new Uint8Array(frame)),
      toGuest: (frame) => void guest.push(new Uint8Array(frame)),
      wantCheckpoint: () => undefined,
      pauseGuest: () => undefined,
    },
    { mode: 'colo', compareTimeoutMs: 200, patienceMs: 200, table, now: 2000 },
  );
  return { primary, network, guest };
}

/** The node after `before`: its secondary was given one checkpoint, and the primary died. */
function nextSurvivor(before: Node): Node {
  const secondary = new SecondaryProxy({ toGuest: () => undefined, toPrimary: () => undefined }, { mode: 'colo' });
  before.primary.startMirroring();
  const { epoch, table, held } = before.primary.capture(3000);
  before.primary.commit(epoch, 3000);
  secondary.suspend();
  secondary.resume(epoch, table, held, 3000);
  return survivor(secondary.takeover(3000).table);
}

const isn = fc.nat({ max: 0xffffffff });

test('a connection lives through any number of failovers, in the sequence numbers that its client knows', () => {
  fc.assert(
    fc.property(isn, isn, fc.integer({ min: 1, max: 5 }), (primaryIsn, secondaryIsn, failovers) => {
      const bed = new Bed();
      bed.protect();
      bed.connect(primaryIsn, secondaryIsn);
      let node = survivor(bed.secondary.takeover(bed.now).table);
      for (let index = 1; index < failovers; index += 1) node = nextSurvivor(node);
      const said = fromGuest({ sequence: advance(secondaryIsn, 1), ack: 5001, flags: 0, payload: bytes('still here') });
      node.primary.fromGuest(new Uint8Array(said), 4000);
      const [frame] = node.network.map((one) => new FrameView().parse(one));
      assert.ok(frame !== undefined);
      assertValid(frame.frame);
      assert.equal(frame.sequence, advance(primaryIsn, 1));
      assert.equal(text(frame), 'still here');
      node.primary.fromNetwork(toGuest({ sequence: 5001, ack: advance(primaryIsn, 11), flags: 0 }), 4000);
      const [answer] = node.guest.map((one) => new FrameView().parse(one));
      assert.equal(answer?.ack, advance(secondaryIsn, 11));
    }),
  );
});
