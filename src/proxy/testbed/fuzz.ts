// For tests: mutated frames of every kind through both proxies, with checkpoints, aborts, a gate and takeovers in
// between. From a seed, so that a run can be repeated.

import assert from 'node:assert/strict';
import { seededRandom } from '../../base/random.ts';
import { announce } from '../../packet/arp.ts';
import { buildFragments, buildIcmp, buildIcmpEcho, buildTcp, buildUdp, timestampsOption } from '../../packet/build.ts';
import { tcpFlag } from '../../packet/tcp.ts';
import { proxyLimits } from '../limits.ts';
import { allEnds, Bed, bytes, type Ends, synOptionBytes } from './testbed.ts';

/** Valid frames of one pair of ends, in one direction. */
function framesBetween({ guest: from, client: to }: Ends): Uint8Array[] {
  const isIpv6 = typeof from.ip !== 'number';
  const tcp = (sequence: number, flags: number, payload = '', options = timestampsOption(sequence, 7)) =>
    buildTcp(from, to, { sequence, ack: 5001, flags, options, payload: bytes(payload) });
  const datagram = buildUdp(from, to, bytes('x'.repeat(300)));
  const sack = Uint8Array.of(1, 1, 5, 10, 0, 0, 3, 240, 0, 0, 4, 0);
  const quote = Uint8Array.from([0, 0, 0, 0, ...tcp(1001, 0, 'quoted').subarray(isIpv6 ? 14 : 14)]);
  const fragments = (from.tags?.length ?? 0) > 0 ? [] : buildFragments(datagram, 77, 128);
  return [
    tcp(1000, tcpFlag.syn, '', synOptionBytes),
    tcp(1001, tcpFlag.psh, 'hello'),
    tcp(1006, tcpFlag.psh, 'world'.repeat(50)),
    tcp(1001, 0, '', sack),
    tcp(1256, tcpFlag.fin),
    tcp(1001, tcpFlag.rst),
    datagram,
    ...fragments,
    buildIcmpEcho(from, to, { reply: false, id: 1, sequence: 2 }),
    buildIcmp(from, to, { type: isIpv6 ? 1 : 3, code: 3, body: quote }),
    buildIcmp(from, to, { type: isIpv6 ? 135 : 13, code: 0, body: new Uint8Array(36).fill(14) }),
  ];
}

export interface Corpus {
  ofGuest: Uint8Array[];
  ofClient: Uint8Array[];
}

/** Valid frames of every kind, in both directions. */
export function frameCorpus(): Corpus {
  const ofGuest = allEnds.flatMap((ends) => framesBetween(ends));
  const ofClient = allEnds.flatMap(({ name, guest, client }) => framesBetween({ name, guest: client, client: guest }));
  ofGuest.push(announce(Uint8Array.of(2, 0, 0, 0, 0, 1), 0x0a00020f));
  return { ofGuest, ofClient };
}

/** Puts `count` frames through a bed; throws when a proxy does, or outgrows its bounds. Returns how many left. */
export function fuzzProxy(seed: number, count: number): number {
  const random = seededRandom(seed);
  const below = (limit: number) => Math.floor(random() * limit);
  const { ofGuest, ofClient } = frameCorpus();
  let left = 0;
  let bed = newBed();
  for (let index = 0; index < count; index += 1) {
    const leg = below(3);
    const source = leg === 2 ? ofClient : ofGuest;
    const frame = mutate(source[below(source.length)] ?? new Uint8Array(0), below);
    if (leg === 0) bed.pvm(frame);
    else if (leg === 1) bed.svm(frame);
    else bed.client(frame);
    if (index % 16 === 0) step(bed, below(12), frame);
    if (index % 512 !== 0) continue;
    left += bed.network.length;
    assertBounded(bed);
    if (index % 16_384 === 0) bed = newBed();
  }
  return left;
}

function newBed(): Bed {
  const bed = new Bed({ onLeave: () => undefined });
  bed.protect();
  return bed;
}

/** Up to four bytes changed, sometimes cut short or made longer. */
function mutate(valid: Uint8Array, below: (limit: number) => number): Uint8Array {
  const shape = below(16);
  const length = shape === 0 ? below(valid.length + 1) : shape === 1 ? valid.length + below(64) : valid.length;
  const frame = new Uint8Array(length);
  frame.set(valid.subarray(0, length));
  for (let changes = below(5); changes > 0 && length > 0; changes -= 1) frame[below(Math.min(length, 90))] = below(256);
  return frame;
}

function step(bed: Bed, what: number, frame: Uint8Array): void {
  const { primary, secondary } = bed;
  if (what === 0) bed.checkpoint();
  else if (what === 1) {
    const { epoch } = primary.capture(bed.now);
    secondary.captureMarker(epoch);
    bed.pvm(frame);
    secondary.abortMarker(epoch);
    primary.abort(epoch, bed.now);
  } else if (what === 2) primary.setGate(false, bed.now);
  else if (what === 3) primary.setGate(true, bed.now);
  else if (what === 4) secondary.isn(frame, 7, bed.now);
  else if (what === 5) {
    secondary.takeover(bed.now);
    bed.checkpoint();
  } else bed.pass(20);
}

function assertBounded(bed: Bed): void {
  const primary = bed.primary.counters;
  const secondary = bed.secondary.counters;
  assert.ok(primary.heldBytes >= 0 && primary.heldBytes <= 2 * proxyLimits.heldBytesMax);
  assert.ok(primary.heldFrames >= 0 && primary.heldFrames <= 2 * proxyLimits.heldFramesMax);
  assert.ok(primary.aheadBytes >= 0 && primary.aheadBytes <= 2 * proxyLimits.aheadBytesMax);
  assert.ok(primary.gatedBytes >= 0 && primary.gatedBytes <= 3 * proxyLimits.gatedBytesMax);
  assert.ok(primary.connections <= proxyLimits.connectionsMax);
  assert.ok(secondary.unconfirmedBytes >= 0 && secondary.unconfirmedBytes <= 2 * proxyLimits.unconfirmedBytesMax);
  assert.ok(secondary.logBytes >= 0 && secondary.logBytes <= 2 * proxyLimits.logBytesMax);
  bed.checkpoint();
  assert.deepEqual([bed.primary.counters.heldBytes, bed.primary.counters.aheadBytes], [0, 0]);
  for (const list of [bed.network, bed.toPrimaryGuest, bed.toSecondaryGuest, bed.wanted]) list.length = 0;
}
