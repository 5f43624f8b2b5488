// Our translation of sequence numbers against QEMU's filter-rewriter, both as black boxes: on an ordinary connection of
// a client they say the same; where they differ, a test shows what QEMU does, what we do, and why.
//
// Everywhere here the primary's guest began with number 1000 and the secondary's with 9000.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { type Address, buildTcp, type Segment, timestampsOption } from '../../src/packet/build.ts';
import { read32 } from '../../src/packet/checksum.ts';
import { FrameView } from '../../src/packet/frame-view.ts';
import { forEachSackEdge, tcpFlag } from '../../src/packet/tcp.ts';
import { assertValid, Bed, bytes, guest, synOptionBytes } from '../../src/proxy/testbed/testbed.ts';
import { FilterRewriter } from './filter-rewriter.ts';

const primaryIsn = 1000;
const secondaryIsn = 9000;
let qemu: FilterRewriter;
before(async () => {
  qemu = await FilterRewriter.start();
});
after(() => qemu.stop());

let port = 20_000;

/** Both translators and a connection of its own: QEMU remembers connections. */
class Both {
  readonly bed = new Bed();
  private readonly client: Address = { mac: Uint8Array.of(2, 0, 0, 0, 0, 2), ip: 0x0a000202, port: (port += 1) };

  constructor() {
    this.bed.protect();
  }

  /** A segment of the client; what the secondary's guest gets of it. */
  async toGuest(segment: Segment): Promise<{ theirs: FrameView; ours: FrameView }> {
    const frame = buildTcp(this.client, guest, segment);
    this.bed.client(frame);
    return viewsOf(await qemu.client(frame), this.bed.toSecondaryGuest.at(-1));
  }

  /** A segment of both guests, that of the secondary with its own numbers; what the secondary's becomes. */
  async fromGuests(segment: Omit<Segment, 'sequence'>, at: number): Promise<{ theirs: FrameView; ours: FrameView }> {
    const of = (isn: number) => buildTcp(guest, this.client, { ...segment, sequence: isn + at });
    this.bed.pvm(of(primaryIsn));
    this.bed.svm(of(secondaryIsn));
    return viewsOf(await qemu.guest(of(secondaryIsn)), this.bed.network.at(-1));
  }

  async connect(options = synOptionBytes): Promise<void> {
    await this.toGuest({ sequence: 5000, flags: tcpFlag.syn, options });
    await this.fromGuests({ ack: 5001, flags: tcpFlag.syn, options }, 0);
    await this.toGuest({ sequence: 5001, ack: primaryIsn + 1, flags: 0 });
  }
}

function viewsOf(theirs: Uint8Array, ours: Uint8Array | undefined): { theirs: FrameView; ours: FrameView } {
  assert.ok(ours !== undefined);
  assertValid(ours);
  return { theirs: new FrameView().parse(theirs), ours: new FrameView().parse(ours) };
}

const numbers = (view: FrameView) => ({ sequence: view.sequence, ack: view.ack });

test('a connection of a client: both translate sequence and acknowledgement alike', async () => {
  const both = new Both();
  await both.connect();
  const request = await both.toGuest({
    sequence: 5001,
    ack: primaryIsn + 1,
    flags: tcpFlag.psh,
    payload: bytes('get'),
  });
  assert.deepEqual(numbers(request.theirs), { sequence: 5001, ack: secondaryIsn + 1 });
  assert.deepEqual(numbers(request.ours), numbers(request.theirs));
  const answer = await both.fromGuests({ ack: 5004, flags: tcpFlag.psh, payload: bytes('here') }, 1);
  assert.deepEqual(numbers(answer.theirs), { sequence: primaryIsn + 1, ack: 5004 });
  assert.deepEqual(numbers(answer.ours), numbers(answer.theirs));
});

test('differs: QEMU leaves SACK blocks in the numbers of the primary; we translate them', async () => {
  const both = new Both();
  await both.connect();
  await both.fromGuests({ ack: 5001, flags: tcpFlag.psh, payload: bytes('0123456789') }, 1);
  const options = Buffer.alloc(12);
  options.set([5, 10]);
  options.writeUInt32BE(primaryIsn + 6, 2);
  options.writeUInt32BE(primaryIsn + 11, 6);
  const { theirs, ours } = await both.toGuest({ sequence: 5001, ack: primaryIsn + 1, flags: 0, options });
  assert.deepEqual([theirs.ack, ours.ack], [secondaryIsn + 1, secondaryIsn + 1]);
  assert.deepEqual(edgesOf(theirs), [primaryIsn + 6, primaryIsn + 11]);
  assert.deepEqual(edgesOf(ours), [secondaryIsn + 6, secondaryIsn + 11]);
});

function edgesOf({ frame, transportAt }: FrameView): number[] {
  const edges: number[] = [];
  forEachSackEdge(frame, transportAt, (at) => edges.push(read32(frame, at)));
  return edges;
}

test("differs: QEMU gives the guest the other guest's time back in TSecr; we give it its own", async () => {
  const both = new Both();
  const syn = (value: number, echo: number) => Buffer.concat([synOptionBytes, timestampsOption(value, echo)]);
  await both.toGuest({ sequence: 5000, flags: tcpFlag.syn, options: syn(70, 0) });
  const { bed } = both;
  const answer = (isn: number, value: number) =>
    buildTcp(
      guest,
      { mac: Uint8Array.of(2, 0, 0, 0, 0, 2), ip: 0x0a000202, port },
      {
        ...{ sequence: isn, ack: 5001, flags: tcpFlag.syn, options: syn(value, 70) },
      },
    );
  bed.pvm(answer(primaryIsn, 500));
  bed.svm(answer(secondaryIsn, 90));
  await qemu.guest(answer(secondaryIsn, 90));
  const options = timestampsOption(80, 500);
  const { theirs, ours } = await both.toGuest({ sequence: 5001, ack: primaryIsn + 1, flags: 0, options });
  const echoOf = (view: FrameView) => read32(view.frame, view.timestampsAt + 4);
  assert.deepEqual([echoOf(theirs), echoOf(ours)], [500, 90]);
});

test('differs: a connection that the guest opens is not translated by QEMU, and dies; ours goes on', async () => {
  const both = new Both();
  const opening = await both.fromGuests({ flags: tcpFlag.syn, options: synOptionBytes }, 0);
  assert.deepEqual([opening.theirs.sequence, opening.ours.sequence], [secondaryIsn, primaryIsn]);
  const answer = { sequence: 5000, ack: primaryIsn + 1, flags: tcpFlag.syn, options: synOptionBytes };
  const { theirs, ours } = await both.toGuest(answer);
  // A guest whose SYN had 9000 resets a connection on which 1001 is acknowledged.
  assert.deepEqual([theirs.ack, ours.ack], [primaryIsn + 1, secondaryIsn + 1]);
});

test("differs: an ACK of the client before the secondary's SYN-ACK spoils QEMU's offset; ours is learned from the two SYN-ACKs", async () => {
  const both = new Both();
  const client = { mac: Uint8Array.of(2, 0, 0, 0, 0, 2), ip: 0x0a000202, port };
  await both.toGuest({ sequence: 5000, flags: tcpFlag.syn, options: synOptionBytes });
  const syn = { ack: 5001, flags: tcpFlag.syn, options: synOptionBytes };
  both.bed.pvm(buildTcp(guest, client, { ...syn, sequence: primaryIsn }));
  await both.toGuest({ sequence: 5001, ack: primaryIsn + 1, flags: 0 });
  both.bed.svm(buildTcp(guest, client, { ...syn, sequence: secondaryIsn }));
  await qemu.guest(buildTcp(guest, client, { ...syn, sequence: secondaryIsn }));
  const request = { sequence: 5001, ack: primaryIsn + 1, flags: tcpFlag.psh, payload: bytes('get') };
  const { theirs, ours } = await both.toGuest(request);
  assert.equal(ours.ack, secondaryIsn + 1);
  assert.notEqual(theirs.ack, secondaryIsn + 1);
});
