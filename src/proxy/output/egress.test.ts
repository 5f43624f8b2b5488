// What the secondary is told of what has left: nothing before it has been written, whatever the uplink does with it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { buildFragments, buildUdp } from '../../packet/build.ts';
import { PrimaryProxy } from '../primary.ts';
import { bytes, client, guest } from '../testbed/testbed.ts';

/** A primary whose uplink writes when it is told to. */
class SlowBed {
  readonly progress = { taken: 0, settled: 0, lost: 0 };
  readonly waiting: Uint8Array[] = [];
  readonly written: string[] = [];
  readonly confirmed: number[] = [];
  readonly proxy: PrimaryProxy;
  private ids = 0;

  constructor() {
    const nothing = () => undefined;
    this.proxy = new PrimaryProxy(
      {
        toNetwork: (frame) => {
          this.progress.taken += 1;
          this.waiting.push(Uint8Array.from(frame));
        },
        confirm: (ids) => void this.confirmed.push(...ids),
        progress: this.progress,
        unwritten: () => this.waiting.map((frame) => Uint8Array.from(frame)),
        ...{
          toGuest: nothing,
          mirror: nothing,
          announceIsn: nothing,
          tolerate: nothing,
          wantCheckpoint: nothing,
          pauseGuest: nothing,
        },
      },
      { mode: 'colo', compareTimeoutMs: 200, patienceMs: 200 },
    );
    this.checkpoint();
  }

  checkpoint(): Uint8Array {
    const { epoch, held } = this.proxy.capture(0);
    this.proxy.commit(epoch, 0);
    this.proxy.resumed(epoch, 0);
    return held;
  }

  pvm(frame: Uint8Array): void {
    this.proxy.fromGuest(Uint8Array.from(frame), 1);
  }

  svm(frame: Uint8Array): number {
    this.ids += 1;
    this.proxy.fromSecondary(this.proxy.currentEpoch, this.ids, Uint8Array.from(frame), 1);
    return this.ids;
  }

  /** Both guests say it; its id. */
  say(content: string): number {
    const frame = buildUdp(guest, client, bytes(content));
    this.pvm(frame);
    return this.svm(frame);
  }

  write(count: number): void {
    for (const frame of this.waiting.splice(0, count)) {
      this.progress.settled += 1;
      this.written.push(Buffer.from(frame).subarray(42).toString());
    }
    this.proxy.settled();
  }

  lose(): void {
    this.progress.settled += this.waiting.length;
    this.progress.lost += this.waiting.length;
    this.waiting.length = 0;
    this.proxy.settled();
  }
}

test('a datagram is confirmed when it has been written, and not before', () => {
  const bed = new SlowBed();
  const ids = [bed.say('one'), bed.say('two')];
  assert.deepEqual(bed.confirmed, []);
  bed.write(1);
  assert.deepEqual(bed.confirmed, ids.slice(0, 1));
  bed.write(1);
  assert.deepEqual(bed.confirmed, ids);
});

test('the fragments of an equal packet are confirmed with the last one that is written', () => {
  const bed = new SlowBed();
  const whole = buildUdp(guest, client, bytes('x'.repeat(100)));
  bed.pvm(whole);
  const ids = buildFragments(whole, 7, 40).map((fragment) => bed.svm(fragment));
  assert.deepEqual(bed.confirmed, []);
  bed.write(1);
  assert.deepEqual(bed.confirmed, ids);
});

test('what is confirmed has been written, whatever is lost', () => {
  const steps = fc.array(fc.oneof(fc.constant('lose' as const), fc.nat({ max: 4 }), fc.constant('say' as const)));
  fc.assert(
    fc.property(steps, (all) => {
      const bed = new SlowBed();
      for (const step of all) {
        if (step === 'say') bed.say(`${bed.proxy.counters.secondaryFrames + 1}`);
        else if (step === 'lose') bed.lose();
        else bed.write(step);
      }
      for (const id of bed.confirmed) assert.ok(bed.written.includes(`${id}`), `${id} was confirmed`);
    }),
  );
});

test('a checkpoint brings along what waits in the uplink, and has left when that has been written', () => {
  const bed = new SlowBed();
  bed.say('waits');
  const held = bed.checkpoint();
  assert.match(Buffer.from(held).toString('latin1'), /waits/);
  assert.equal(bed.proxy.releasedEpoch, 1);
  bed.write(1);
  assert.equal(bed.proxy.releasedEpoch, 2);
});

test('a checkpoint of which something was lost on its way out has not left, the next one may', () => {
  const bed = new SlowBed();
  bed.pvm(buildUdp(guest, client, bytes('by a commit')));
  bed.checkpoint();
  bed.lose();
  assert.equal(bed.proxy.releasedEpoch, 1);
  bed.checkpoint();
  assert.equal(bed.proxy.releasedEpoch, 3);
});
