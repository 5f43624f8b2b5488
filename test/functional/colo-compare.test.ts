// Our comparison against QEMU's colo-compare, both as black boxes fed with the same frames: on plain in-order IPv4 TCP
// and UDP the verdicts are equal; where they differ, a test shows what QEMU does, what we do, and why.
//
// A verdict is what has left, frame by frame, and whether a checkpoint is wanted. QEMU is slower to say so than we are:
// every look at it waits for a frame that it passes uncompared (ARP), sent behind the others on the same socket.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { delay, systemClock } from '../../src/base/clock.ts';
import { announce } from '../../src/packet/arp.ts';
import { type Address, buildFragments, buildTcp, buildUdp } from '../../src/packet/build.ts';
import { FrameView } from '../../src/packet/frame-view.ts';
import { tcpFlag } from '../../src/packet/tcp.ts';
import { Bed, bytes, guest, overIpv6, text } from '../../src/proxy/testbed/testbed.ts';
import { ColoCompare, packFrames } from './colo-compare.ts';

interface Step {
  leg: 'primary' | 'secondary';
  frame: Uint8Array;
}

interface Verdict {
  /** What left, as hexadecimal. */
  left: string[];
  isCheckpointWanted: boolean;
}

let compare: ColoCompare;
/** Longer than any starved host makes a test wait: a verdict is never one of QEMU's patience. */
const compareTimeoutMs = 900_000;
const answerTimeoutMs = 60_000;
let released: string[] = [];
let wanted = 0;

before(async () => {
  compare = await ColoCompare.start(
    {
      released: (frame) => void released.push(Buffer.from(frame).toString('hex')),
      checkpointWanted: () => {
        wanted += 1;
      },
    },
    compareTimeoutMs,
  );
});
after(() => compare.stop());

let probes = 0;
let client: Address = { mac: Uint8Array.of(2, 0, 0, 0, 0, 2), ip: 0x0a000202, port: 10_000 };

/** Every test has a client of its own: QEMU remembers connections. */
function nextClient(): void {
  client = { ...client, port: client.port + 1 };
}

/** Waits until QEMU has looked at everything sent on the primary's leg. */
async function settle(): Promise<void> {
  probes += 1;
  const probe = announce(Uint8Array.of(2, 0, 0, 0, 0, 9), probes);
  const mark = Buffer.from(probe).toString('hex');
  compare.send('primary', packFrames([probe]));
  await until(() => released.includes(mark), 'the probe');
  released = released.filter((frame) => frame !== mark);
}

async function until(isSo: () => boolean, what: string): Promise<void> {
  const deadline = systemClock.now() + answerTimeoutMs;
  while (!isSo()) {
    assert.ok(systemClock.now() < deadline, `QEMU never: ${what}`);
    await delay(1);
  }
}

/** What QEMU does. The legs are two sockets: each step is seen before the next is sent. */
async function askQemu(steps: readonly Step[]): Promise<Verdict> {
  released = [];
  wanted = 0;
  for (const { leg, frame } of steps) {
    compare.send(leg, packFrames([frame]));
    if (leg === 'primary') await settle();
    else await secondaryTaken();
  }
  const verdict = { left: [...released], isCheckpointWanted: wanted > 0 };
  compare.checkpoint();
  await settle();
  return verdict;
}

/** A pair of datagrams on a flow of their own comes out when QEMU has read the secondary's leg so far. */
async function secondaryTaken(): Promise<void> {
  probes += 1;
  const content = Uint8Array.of(probes >>> 24, probes >>> 16, probes >>> 8, probes);
  const probe = buildUdp({ ...guest, port: 9 }, { ...client, port: 1 + (probes % 9000) }, content);
  const mark = Buffer.from(probe).toString('hex');
  compare.send('primary', packFrames([probe]));
  await settle();
  compare.send('secondary', packFrames([probe]));
  await until(() => released.includes(mark), 'the pair of datagrams');
  released = released.filter((frame) => frame !== mark);
}

/** What we do. The connections of these tests begin in the middle, as after a checkpoint that both guests share. */
function askOurs(steps: readonly Step[], opening: readonly Uint8Array[] = []): Verdict {
  const bed = new Bed({ onLeave: () => undefined });
  bed.primary.startMirroring();
  for (const frame of opening) bed.pvm(frame);
  bed.checkpoint();
  bed.network.length = 0;
  for (const { leg, frame } of steps) {
    if (leg === 'primary') bed.pvm(frame);
    else bed.svm(frame);
  }
  bed.pass(30);
  const left = bed.network.map((frame) => Buffer.from(frame).toString('hex'));
  return { left, isCheckpointWanted: bed.wanted.length > 0 };
}

const segment = (sequence: number, content: string, more: { ack?: number; flags?: number; window?: number } = {}) =>
  buildTcp(guest, client, {
    sequence,
    ack: more.ack ?? 5001,
    flags: more.flags ?? tcpFlag.psh,
    window: more.window ?? 1000,
    payload: bytes(content),
  });
const datagram = (content: string) => buildUdp(guest, client, bytes(content));
const primary = (frame: Uint8Array): Step => ({ leg: 'primary', frame });
const secondary = (frame: Uint8Array): Step => ({ leg: 'secondary', frame });

/** What both guests said before: both comparers know the connection. */
const opening = () => [segment(1000, '', { flags: 0 })];

async function open(): Promise<void> {
  nextClient();
  await askQemu([...opening().map(primary), ...opening().map(secondary)]);
}

const payloads = ({ left }: Verdict) => left.map((hex) => text(new FrameView().parse(Buffer.from(hex, 'hex'))));

test('equal in-order conversations: every frame leaves, in both, and nobody wants a checkpoint', async () => {
  const contents = fc.array(fc.stringMatching(/^[a-z]{1,30}$/), { minLength: 1, maxLength: 4 });
  await fc.assert(
    fc.asyncProperty(contents, fc.boolean(), async (parts, isTcp) => {
      await open();
      let sequence = 1000;
      const steps: Step[] = [];
      for (const content of parts) {
        const frame = isTcp ? segment(sequence, content) : datagram(content);
        sequence += content.length;
        steps.push(primary(frame), secondary(Uint8Array.from(frame)));
      }
      assert.deepEqual(askOurs(steps, opening()), await askQemu(steps));
    }),
    { numRuns: 15 },
  );
});

test('one differing byte: both want a checkpoint, and the frame does not leave', async () => {
  const place = fc.nat({ max: 19 });
  await fc.assert(
    fc.asyncProperty(place, fc.boolean(), async (at, isTcp) => {
      await open();
      const content = 'abcdefghijklmnopqrst';
      const other = `${content.slice(0, at)}#${content.slice(at + 1)}`;
      const frame = (payload: string) => (isTcp ? segment(1000, payload) : datagram(payload));
      const steps = [primary(frame(content)), secondary(frame(other))];
      const [ours, theirs] = [askOurs(steps, opening()), await askQemu(steps)];
      assert.equal(theirs.isCheckpointWanted, true);
      assert.equal(ours.isCheckpointWanted, true);
      assert.deepEqual(theirs.left, []);
      // We let the equal beginning of the segment leave.
      assert.deepEqual(payloads(ours).join(''), isTcp ? content.slice(0, at) : '');
    }),
    { numRuns: 10 },
  );
});

test('differs: IPv6 leaves QEMU uncompared; we compare it', async () => {
  const frame = (content: string) => buildUdp(overIpv6.guest, overIpv6.client, bytes(content));
  const steps = [primary(frame('one'))];
  assert.equal((await askQemu(steps)).left.length, 1);
  assert.equal(askOurs(steps).left.length, 0);
});

test('differs: a VLAN tag makes QEMU pass a frame uncompared; we look behind it', async () => {
  const steps = [primary(buildUdp({ ...guest, tags: [5] }, { ...client, tags: [5] }, bytes('one')))];
  assert.equal((await askQemu(steps)).left.length, 1);
  assert.equal(askOurs(steps).left.length, 0);
});

test('differs: ARP leaves QEMU uncompared; ours waits for the secondary', async () => {
  const steps = [primary(announce(guest.mac, 77))];
  assert.equal((await askQemu(steps)).left.length, 1);
  assert.equal(askOurs(steps).left.length, 0);
});

test('differs: datagrams that the secondary sends in another order are a divergence for QEMU, none for us', async () => {
  await open();
  const steps = [
    primary(datagram('first')),
    primary(datagram('other')),
    secondary(datagram('other')),
    secondary(datagram('first')),
  ];
  const theirs = await askQemu(steps);
  const ours = askOurs(steps);
  assert.deepEqual([ours.left.length, ours.isCheckpointWanted], [2, false]);
  assert.ok(theirs.isCheckpointWanted || theirs.left[0] !== ours.left[0], 'QEMU diverges, or leaves them turned round');
});

test('differs: QEMU acknowledges what the secondary never received; we say what both have', async () => {
  await open();
  const steps = [primary(segment(1000, 'x', { ack: 5101 })), secondary(segment(1000, 'x', { ack: 5001 }))];
  const ack = ({ left }: Verdict) => new FrameView().parse(Buffer.from(left[0] ?? '', 'hex')).ack;
  assert.equal(ack(await askQemu(steps)), 5101);
  assert.equal(ack(askOurs(steps, opening())), 5001);
});

test("differs: QEMU tells the window of the primary; we tell none beyond the secondary's", async () => {
  await open();
  const steps = [primary(segment(1000, 'x', { window: 60_000 })), secondary(segment(1000, 'x', { window: 2000 }))];
  const window = ({ left }: Verdict) => new FrameView().parse(Buffer.from(left[0] ?? '', 'hex')).window;
  assert.equal(window(await askQemu(steps)), 60_000);
  assert.equal(window(askOurs(steps, opening())), 2000);
});

test("differs: a FIN leaves QEMU without the secondary's; ours waits for it", async () => {
  await open();
  const fin = segment(1000, '', { flags: tcpFlag.fin });
  const steps = [secondary(segment(1000, '', { flags: 0 })), primary(fin)];
  assert.equal((await askQemu(steps)).left.length, 1);
  assert.deepEqual(
    askOurs(steps, opening()).left.filter((frame) => new FrameView().parse(Buffer.from(frame, 'hex')).isFin),
    [],
  );
});

test('differs: a segment of the secondary out of order is a divergence for QEMU, none for us', async () => {
  await open();
  const steps = [
    primary(segment(1000, 'abc')),
    primary(segment(1003, 'def')),
    secondary(segment(1003, 'def')),
    secondary(segment(1000, 'abc')),
  ];
  const theirs = await askQemu(steps);
  const ours = askOurs(steps, opening());
  assert.deepEqual([payloads(ours).join(''), ours.isCheckpointWanted], ['abcdef', false]);
  assert.notDeepEqual(theirs, ours);
});

test('differs: fragments that are cut otherwise do not match in QEMU; we put them together and let them leave', async () => {
  nextClient();
  const whole = datagram('x'.repeat(200));
  const steps = [...buildFragments(whole, 7, 64).map(primary), ...buildFragments(whole, 8, 96).map(secondary)];
  const theirs = await askQemu(steps);
  const ours = askOurs(steps);
  assert.deepEqual([ours.left.length, ours.isCheckpointWanted], [4, false]);
  assert.ok(theirs.left.length < 4, 'QEMU holds fragments back');
});

/** A short frame as some links deliver it: filled up to 60 bytes. */
function padded(frame: Uint8Array): Uint8Array {
  const longer = new Uint8Array(60);
  longer.set(frame);
  return longer;
}

test('differs: behind a padded ACK QEMU lets differing bytes pass; padding is no payload for us', async () => {
  await open();
  const ack = padded(segment(1000, '', { flags: 0 }));
  const steps = [primary(ack), secondary(ack), primary(segment(1000, 'abc')), secondary(segment(1000, 'xyz'))];
  const theirs = await askQemu(steps);
  const ours = askOurs(steps, opening());
  assert.deepEqual([payloads(ours).join(''), ours.isCheckpointWanted], ['', true]);
  assert.deepEqual([payloads(theirs).at(-1), theirs.isCheckpointWanted], ['abc', false]);
});

test('differs: a new connection on an old 5-tuple with lower numbers passes QEMU unlooked at; we compare it', async () => {
  await open();
  const first = segment(4_000_000, 'old');
  await askQemu([primary(first), secondary(first)]);
  const syn = segment(10, '', { flags: tcpFlag.syn });
  const steps = [primary(syn), secondary(syn), primary(segment(11, 'abc')), secondary(segment(11, 'xyz'))];
  const theirs = await askQemu(steps);
  const ours = askOurs(steps, opening());
  assert.deepEqual([payloads(ours).join(''), ours.isCheckpointWanted], ['', true]);
  assert.deepEqual([payloads(theirs).at(-1), theirs.isCheckpointWanted], ['abc', false]);
});

test('differs: QEMU asks for a checkpoint for each later frame of a diverged connection; we ask once', async () => {
  await open();
  released = [];
  wanted = 0;
  compare.send('primary', packFrames([segment(1000, 'aaaa')]));
  await settle();
  compare.send('secondary', packFrames([segment(1000, 'bbbb')]));
  await until(() => wanted > 0, 'a checkpoint wanted');
  for (let at = 1; at < 4; at += 1) compare.send('primary', packFrames([segment(1000 + 4 * at, 'more')]));
  await until(() => wanted > 1, 'a second request');
  compare.checkpoint();
  await settle();
  const bed = new Bed();
  bed.primary.startMirroring();
  for (const frame of opening()) bed.pvm(frame);
  bed.checkpoint();
  bed.pvm(segment(1000, 'aaaa'));
  bed.svm(segment(1000, 'bbbb'));
  for (let at = 1; at < 4; at += 1) bed.pvm(segment(1000 + 4 * at, 'more'));
  bed.pass(1000);
  assert.equal(bed.wanted.length, 1);
});

test("differs: an RST leaves QEMU without the secondary's; ours waits for it", async () => {
  await open();
  const reset = buildTcp(guest, client, { sequence: 1000, ack: 5001, flags: tcpFlag.rst | tcpFlag.ack });
  const steps = [secondary(segment(1000, '', { flags: 0 })), primary(reset)];
  const resets = ({ left }: Verdict) => left.filter((hex) => new FrameView().parse(Buffer.from(hex, 'hex')).isReset);
  assert.equal(resets(await askQemu(steps)).length, 1);
  assert.equal(resets(askOurs(steps, opening())).length, 0);
});

test('differs: of more than 1024 frames that wait QEMU loses the rest in silence; we lose none', async () => {
  await open();
  const count = 1200;
  const frames = Array.from({ length: count }, (_, index) => segment(1000 + 10 * index, '0123456789'));
  released = [];
  compare.send('primary', packFrames(frames));
  await settle();
  compare.checkpoint();
  await until(() => released.length >= 1000, 'a release by the checkpoint');
  await settle();
  assert.ok(released.length < count, `${released.length} of ${count} have left after a checkpoint`);
  const bed = new Bed();
  bed.primary.startMirroring();
  for (const frame of opening()) bed.pvm(frame);
  bed.checkpoint();
  bed.network.length = 0;
  for (const frame of frames) bed.pvm(frame);
  bed.checkpoint();
  assert.equal(bed.network.length, count);
});
