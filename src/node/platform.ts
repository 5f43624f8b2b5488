// What a node stands on, as interfaces: QEMU, the sockets to its card, the links to its peer, the uplink. A real node
// gets them from real/platform.ts; the simulation (sim/) gives the same node others, under one virtual clock.
//
// The promises are those of the real things: src/qemu/vm.ts, src/node/real/nic.ts, src/channel/link.ts.

import type { Clock } from '../base/clock.ts';
import type { DiskActivity } from '../base/disk-activity.ts';
import type { Hello, LinkHandlers, LinkKind } from '../channel/link.ts';
import type { Compressor } from '../checkpoint/compress.ts';
import type { Spill } from '../checkpoint/spill.ts';
import type { Session } from '../disk/message.ts';
import type { Replica, ReplicaEvents } from '../disk/replica.ts';
import type { Answer } from '../disk/sink.ts';
import type { NbdRequest } from '../nbd/session.ts';
import type { Uplink } from '../netdev/endpoint.ts';
import type { FrameHandlers } from '../netdev/frame-socket.ts';
import type { DirtyTracker } from '../qemu/dirty/tracker.ts';
import type { Condition } from '../qemu/guard.ts';
import type { MachineFacts } from '../qemu/machine-facts.ts';
import type { Progress } from '../qemu/mirror.ts';
import type { Capture, CaptureOptions } from '../qemu/vm.ts';
import type { Peer } from './config.ts';
import type { FaultPoint } from './fault-points.ts';

/** `byHost`: it ended in order, but not because its guest did. */
export interface VmEnd {
  code: number | null;
  signal: string | null;
  /** What it said last. */
  stderr?: string;
  byHost?: true;
}

/** One virtual machine on this node: qemu/vm.ts. */
export interface GuestVm {
  readonly pid: number;
  readonly qemuVersion: string;
  /** What QEMU made of its command line; none where there is no QEMU. */
  readonly facts?: MachineFacts;
  readonly ram: Buffer;
  readonly tracker: DirtyTracker;
  readonly exited: Promise<VmEnd>;
  makeTemplate(): Promise<Uint8Array>;
  capture(options: CaptureOptions): Promise<Capture>;
  load(deviceState: Uint8Array): Promise<{ loadMs: number }>;
  /** Whether it runs, and what of it does not work (qemu/guard.ts). */
  condition(): Promise<Condition>;
  /** Asks the machine for a sign of life; rejects when it gives none in time, or is gone. */
  ping(): Promise<void>;
  stop(): Promise<void>;
  /**
   * Before a load: the clocks of the state are of this moment of our clock, and go on from it exactly. False, or none:
   * this machine cannot, and the state has to be moved.
   */
  startClocksFrom?(moment: number | undefined): boolean;
  resume(): Promise<void>;
  kill(): Promise<void>;
  /** Ends a machine that hangs, so that what it was asked fails now and not in time. `kill` frees what it used. */
  end(): void;
  /** At a takeover of a VM with disks: its overlays are the truth from now on. */
  keepDisks(): Promise<void>;
}

/** The disks of a VM that runs here, as a primary needs them: real/disks.ts. */
export interface DiskSource {
  /** Every write goes to `request` as well from now on; `failed` when that ended by itself (see qemu/mirror.ts). */
  mirror(handlers: MirrorHandlers): Promise<DiskMirrors>;
  /** Notes of which blocks change: disk/notes.ts. */
  readonly notes: ChangeNotes;
  sizes(): Promise<number[]>;
  /** Says what the guest's own writes and reads run into; `waits`: the machine stands still until it is resumed. */
  watch(trouble: (trouble: { why: string; waits: boolean }) => void): void;
  /** Whether the machine waits; `resume`: it is to try again. */
  waits(resume: boolean): Promise<boolean>;
  /** Writes overlays of a takeover into the images below them while the guest runs; nothing to do without overlays. */
  fold(progress: (progress: Progress) => void): Promise<void>;
  /** Lets the host write out what it caches of the images, so that a stop, which flushes, has little to do. */
  flush(): Promise<void>;
  /** `verify`: a hash of each disk, '' where the image is not the disk's bytes. The guest stands still. */
  hashes(): Promise<string[]>;
}

export interface MirrorHandlers {
  request(disk: number, request: NbdRequest, answer: Answer): void;
  failed(why: string, cancelled: boolean): void;
}

export interface ChangeNotes {
  /** The name of this VM's disks on this node: no other ever has the same, nor has this one after a restart. */
  readonly lineage: string;
  /** Written bytes after which a note is begun anew: notedBytesMax (disk/limits.ts), or less where disks are small. */
  readonly renewBytes: number;
  /** Every block that is written from now on is in the note `name`. */
  begin(name: string): Promise<void>;
  forget(name: string): Promise<void>;
  /** As `mirror`, but of what there is only the blocks of a note are copied. */
  mirrorChanged(name: string, handlers: MirrorHandlers): Promise<DiskMirrors>;
}

export interface DiskMirrors {
  /** Resolves when the secondary has everything; rejects when a mirror ends before. */
  readonly copied: Promise<void>;
  progress(): Promise<Progress>;
  cancel(): Promise<void>;
}

/** The node's end of the guest's network card: nic.ts. */
export interface GuestCard {
  /** Who handles the guest's frames now; they are dropped while nobody does. */
  handler: ((frame: Uint8Array) => void) | undefined;
  send(frame: Uint8Array): void;
  flush(): void;
  /** Takes what the guest has sent until this instant. */
  drain(): void;
  /** Bytes that the guest's machine has sent in all, as far as they were read. */
  readonly bytesIn: number;
  /** Whether the guest's machine has read everything sent to it; undefined when nobody can tell. */
  settled(): boolean | undefined;
  pause(paused: boolean): void;
  close(): Promise<void>;
}

/** One link to the peer: channel/link.ts. */
export interface PeerLink {
  readonly peer: Hello;
  readonly ended: boolean;
  /** It ended at the other end: the peer's process is gone, or closed it. False when this node gave it up. */
  readonly endedByPeer: boolean;
  /** Why the peer ended it, in its own words; '' when it said nothing. */
  readonly farewell: string;
  readonly ends: { local: string; remote: string };
  send(type: number, ...parts: Uint8Array[]): void;
  start(handlers: LinkHandlers): void;
  drain(): Promise<void>;
  /** Stops reading for a moment, or goes on. */
  pause?(paused: boolean): void;
  /** Says goodbye, and why. */
  close(why?: string): void;
  destroy(): void;
}

export type PeerLinks = Record<LinkKind, PeerLink>;

export interface Platform {
  connectUplink(handlers: FrameHandlers): Promise<Uplink>;
  listenCard(): Promise<GuestCard>;
  /** `overlays`: a secondary's disks over its replica. */
  startVm(options: { vmstateTemplate?: Uint8Array; overlays?: number }): Promise<GuestVm>;
  /** For VMs with disks. */
  diskSource(vm: GuestVm): DiskSource;
  openReplica(options: {
    session: Session;
    term: number;
    events: ReplicaEvents;
    activity: DiskActivity;
  }): Promise<Replica>;
  /** `verify`: the hash of the first `bytes` of a file; what it lacks of them reads as zeroes. */
  hashFile(path: string, bytes: number): Promise<string>;
  openLinks(peer: Peer, term: number, signal: AbortSignal): Promise<PeerLinks>;
  /** Accepts pairings: three links of one session, handed over together. */
  acceptLinks(options: {
    busy: () => string | undefined;
    paired: (links: PeerLinks) => void;
  }): Promise<{ close(): Promise<void> }>;
  compressor(): Compressor;
  openSpill(): Spill;
  /** A hash of all of a guest's RAM, for `verify`. */
  hashRam(ram: Buffer): string;
  /** Lets everything else that is due have its turn. */
  turn(): Promise<void>;
  /** A point that a test may want the node to die at; returns at once otherwise. */
  reached(point: FaultPoint, epoch: number): void;
}

/** Waits until QEMU has read all ingress, at most `waitMs`; false when it has not or nobody can tell. */
export async function settle(
  card: GuestCard,
  waitMs: number,
  context: { clock: Clock; platform: Pick<Platform, 'turn'> },
): Promise<boolean> {
  const start = context.clock.now();
  for (;;) {
    const settled = card.settled();
    if (settled !== false) return settled === true;
    if (context.clock.now() - start >= waitMs) return false;
    await context.platform.turn();
  }
}

/**
 * Waits until a stopped machine has nothing left to send. A card that found its socket full goes on when there is room
 * again, even while the machine is stopped, and writes to the guest's RAM as it does: late enough it would spoil the
 * RAM that is being put right, and QEMU refuses to load devices that do not fit it. `answer` gives QEMU a turn of its
 * main loop; when two of them bring nothing, nothing is left. It ends, because a stopped guest has no more than its
 * ring holds.
 */
export async function finishSending(card: GuestCard, answer: () => Promise<unknown>): Promise<void> {
  card.drain();
  for (let seen = -1; seen !== card.bytesIn; ) {
    seen = card.bytesIn;
    await answer();
    await answer();
    card.drain();
  }
}
