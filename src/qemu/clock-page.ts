// The page through which a node holds and starts the clocks of its QEMU (native/preload.c), under KVM.
//
//   0  u32  state: 0 running | 1 holding: over a pause | 2 starting: from a loaded state
//   4  u32  how often kvmclock was left running over a pause
//   8  u64  what QEMU's clock shows meanwhile, in ns; 0: what it is when QEMU first reads it
//   16 u64  of what moment the TSC is that is being loaded, in ns; 0: none is
//   24 u32  how often kvmclock was started from a loaded state
//   28 u32  how often a TSC was
//   32 u64  when QEMU last read kvmclock and the TSC: when the guest had stopped, in ns
//   40 u32  1 over a pause in which nothing is loaded
//   44 u32  how often KVM's PIT was left running over a pause
//   48 u32  how often the timer of a local APIC was started from a loaded state
//   52 u32  1 when the library in QEMU has this page
//
// QEMU's clock stands still with its guest, and so PM timer, HPET and PIT would fall behind the TSC by every pause.
// When it is held from before the stop until after the restart, QEMU finds that no time has passed in between, and once
// it is let go the clock is where it would be without the pause. kvmclock is simply left running.
//
// A loaded state is of a moment that is over. QEMU's clock is held at that moment when it is started; kvmclock and the
// TSC get the time since then added when they are set. So no duration is guessed
// (docs/decisions/0007-clock-alignment.md).

import { writeFileSync } from 'node:fs';
import { type Mapping, mapFile } from './libc.ts';

const pageBytes = 4096;
const keptAt = 4;
const heldAt = 8;
const loadedAt = 16;
const startedAt = 24;
const tscMovedAt = 28;
const readAt = 32;
const pausingAt = 40;
const pitKeptAt = 44;
const timerMovedAt = 48;
const heardAt = 52;
const running = 0;
const holding = 1;
const starting = 2;

export class ClockPage {
  readonly #mapping: Mapping;

  constructor(path: string) {
    writeFileSync(path, Buffer.alloc(pageBytes), { mode: 0o600 });
    this.#mapping = mapFile(path, pageBytes);
  }

  /** Whether anybody in QEMU minds it. */
  get isHeard(): boolean {
    return this.#isOpen && this.#mapping.buffer.readUInt32LE(heardAt) === 1;
  }

  /** Right before the guest is stopped for a pause; nothing is loaded before it runs again. */
  hold(): void {
    if (this.#isOpen) this.#mapping.buffer.writeUInt32LE(1, pausingAt);
    this.#set(holding, 0n);
  }

  /** When the guest runs again, or is not to. QEMU has done it already, unless its machine has no kvmclock. */
  letGo(): void {
    if (!this.#isOpen) return;
    this.#mapping.buffer.writeUInt32LE(running, 0);
    this.#mapping.buffer.writeUInt32LE(0, pausingAt);
  }

  /** Right before a state is loaded whose clocks are of the moment `loadedNs`; undefined: as they are. */
  beforeLoad(loadedNs: bigint | undefined): void {
    this.letGo();
    if (this.#isOpen) this.#mapping.buffer.writeBigUInt64LE(loadedNs ?? 0n, loadedAt);
  }

  /** Right before a guest is started from a state whose clocks are of that moment. */
  beforeStart(loadedNs: bigint): void {
    this.#set(starting, loadedNs);
  }

  /**
   * From what moments the clocks of a guest are that was stopped while they were held, in ns; undefined: nobody knows.
   */
  get moments(): { timers: bigint; kvmclock: bigint } | undefined {
    if (!this.#isOpen) return undefined;
    const timers = this.#mapping.buffer.readBigUInt64LE(heldAt);
    const kvmclock = this.#mapping.buffer.readBigUInt64LE(readAt);
    return timers === 0n || kvmclock < timers ? undefined : { timers, kvmclock };
  }

  /** What was done so far. */
  get counts(): { kept: number; started: number; tscMoved: number; pitKept: number; timerMoved: number } {
    const count = (at: number) => (this.#isOpen ? this.#mapping.buffer.readUInt32LE(at) : 0);
    const ofPauses = { kept: count(keptAt), pitKept: count(pitKeptAt) };
    return { ...ofPauses, started: count(startedAt), tscMoved: count(tscMovedAt), timerMoved: count(timerMovedAt) };
  }

  close(): void {
    this.#mapping.close();
  }

  get #isOpen(): boolean {
    return this.#mapping.buffer.length > 0;
  }

  #set(state: number, heldNs: bigint): void {
    if (!this.#isOpen) return;
    const { buffer } = this.#mapping;
    buffer.writeUInt32LE(running, 0);
    buffer.writeBigUInt64LE(heldNs, heldAt);
    buffer.writeUInt32LE(state, 0);
  }
}
