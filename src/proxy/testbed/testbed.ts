// For tests: both proxies, joined without a network in between, and a client that checks every frame it is given.

import assert from 'node:assert/strict';
import { type Address, buildTcp, type Segment } from '../../packet/build.ts';
import { checksum } from '../../packet/checksum.ts';
import { FrameView } from '../../packet/frame-view.ts';
import { ipProtocol } from '../../packet/ipv4.ts';
import { parseIpv6 } from '../../packet/ipv6.ts';
import { advance, distance } from '../../packet/sequence.ts';
import { tcpFlag } from '../../packet/tcp.ts';
import { transportChecksum } from '../../packet/transport-checksum.ts';
import { type PrimaryOptions, PrimaryProxy } from '../primary.ts';
import type { CheckpointReason } from '../reason.ts';
import { SecondaryProxy } from '../secondary.ts';

export const guest = { mac: Uint8Array.of(2, 0, 0, 0, 0, 1), ip: 0x0a00020f, port: 80 };
export const client = { mac: Uint8Array.of(2, 0, 0, 0, 0, 2), ip: 0x0a000202, port: 4711 };

/** Two ends that talk to each other, over everything that the proxy looks through. */
export interface Ends {
  name: string;
  guest: Address;
  client: Address;
}

const guestIpv6 = parseIpv6('2001:db8::15') ?? new Uint8Array(16);
const clientIpv6 = parseIpv6('2001:db8::2') ?? new Uint8Array(16);
const over = (name: string, isIpv6: boolean, tags: number[]): Ends => ({
  name,
  guest: { ...guest, tags, ...(isIpv6 ? { ip: guestIpv6 } : {}) },
  client: { ...client, tags, ...(isIpv6 ? { ip: clientIpv6 } : {}) },
});

export const overIpv4 = over('IPv4', false, []);
export const overIpv6 = over('IPv6', true, []);
export const allEnds: readonly Ends[] = [
  overIpv4,
  overIpv6,
  over('IPv4 in a VLAN', false, [5]),
  over('IPv6 in stacked VLANs', true, [100, 5]),
];

export const synOptionBytes = Uint8Array.of(2, 4, 5, 180, 1, 3, 3, 7, 4, 2, 1, 1);

/** A segment of the guest to the client, and the other way. */
export const fromGuest = (segment: Segment): Uint8Array => buildTcp(guest, client, segment);
export const toGuest = (segment: Segment): Uint8Array => buildTcp(client, guest, segment);

/** Lengths and checksums of a frame must be right. */
export function assertValid(frame: Uint8Array): void {
  const view = new FrameView().parse(frame);
  assert.equal(view.refusal, undefined);
  if (view.kind !== 'tcp' && view.kind !== 'udp') return;
  if (!view.isIpv6) assert.equal(checksum(frame, view.ipAt, view.transportAt), 0, 'IP checksum');
  const protocol = view.kind === 'tcp' ? ipProtocol.tcp : ipProtocol.udp;
  const field = view.transportAt + (view.kind === 'tcp' ? 16 : 6);
  const found = ((frame[field] ?? 0) << 8) | (frame[field + 1] ?? 0);
  const right = transportChecksum(frame, view.ipAt, view.transportAt, view.endAt, protocol);
  assert.ok(found === right || (found === 0xffff && right === 0), 'transport checksum');
}

/** An uplink that has written what it was given, at once. */
export const promptUplink = { progress: { taken: 0, settled: 0, lost: 0 }, unwritten: (): Uint8Array[] => [] };

/** This host's time in all tests: Sun, 06 Nov 1994 08:49:37 GMT. */
export const wallMs = 784_111_777_000;

/** Puts the guest's bytes together as a client would. */
export class Reassembly {
  readonly bytes = new Map<number, number>();
  readonly isn: number;
  finAt: number | undefined = undefined;

  constructor(isn: number) {
    this.isn = isn;
  }

  take(frame: Uint8Array): void {
    const view = new FrameView().parse(frame);
    if (view.kind !== 'tcp' || view.isReset) return;
    const from = distance(view.sequence, advance(this.isn, 1)) + (view.isSyn ? 1 : 0);
    for (let at = 0; at < view.payloadBytes; at += 1) {
      const value = frame[view.payloadAt + at] ?? 0;
      const before = this.bytes.get(from + at);
      assert.ok(before === undefined || before === value, `byte ${from + at} was another one before`);
      this.bytes.set(from + at, value);
    }
    if (view.isFin) this.finAt = from + view.payloadBytes;
  }

  /** The contiguous bytes from the start of the stream. */
  stream(): Uint8Array {
    const found: number[] = [];
    for (let at = 0; ; at += 1) {
      const value = this.bytes.get(at);
      if (value === undefined) return Uint8Array.from(found);
      found.push(value);
    }
  }
}

export interface BedOptions {
  mode?: 'colo' | 'remus';
  /** False: what the secondary proxy sends is not delivered until `deliver`. */
  isDirect?: boolean;
  /** More of what the spec can say. */
  more?: Partial<PrimaryOptions>;
  /** Called for every frame at the moment it leaves to the network. */
  onLeave?: (frame: Uint8Array) => void;
}

/** Both proxies; every frame is copied where a port hands it over, as the shells must do. */
export class Bed {
  now = 1000;
  readonly network: Uint8Array[] = [];
  readonly toPrimaryGuest: Uint8Array[] = [];
  readonly toSecondaryGuest: Uint8Array[] = [];
  readonly wanted: CheckpointReason[] = [];
  readonly toPrimary: { epoch: number; id: number; frame: Uint8Array }[] = [];
  /** Times that the secondary was asked to take for its own. */
  readonly asked: Uint8Array[] = [];
  private readonly unanswered: Uint8Array[] = [];
  /** The numbers of all frames that the secondary proxy has sent. */
  readonly numbers: number[] = [];
  isPaused = false;
  readonly primary: PrimaryProxy;
  readonly secondary: SecondaryProxy;
  private readonly isDirect: boolean;

  constructor(options: BedOptions = {}) {
    const mode = options.mode ?? 'colo';
    const onLeave = options.onLeave ?? assertValid;
    this.isDirect = options.isDirect ?? true;
    this.primary = new PrimaryProxy(
      {
        toNetwork: (frame) => {
          onLeave(frame);
          this.network.push(new Uint8Array(frame));
        },
        toGuest: (frame) => void this.toPrimaryGuest.push(new Uint8Array(frame)),
        mirror: (frame) => this.secondary.fromPrimary(frame, this.now),
        announceIsn: (key, isn) => this.secondary.isn(key, isn, this.now),
        ...promptUplink,
        confirm: (ids) => this.secondary.confirm(ids),
        tolerate: (patch) => {
          this.asked.push(patch);
          if (this.isDirect) this.unanswered.push(patch);
        },
        wantCheckpoint: (reason) => void this.wanted.push(reason),
        pauseGuest: (paused) => {
          this.isPaused = paused;
        },
      },
      { mode, compareTimeoutMs: 200, patienceMs: 200, wallMs: () => wallMs, ...options.more },
    );
    this.secondary = new SecondaryProxy(
      {
        toGuest: (frame) => void this.toSecondaryGuest.push(new Uint8Array(frame)),
        toPrimary: (epoch, id, frame) => {
          this.numbers.push(id);
          this.toPrimary.push({ epoch, id, frame: new Uint8Array(frame) });
          if (this.isDirect) this.deliver();
        },
      },
      { mode, bypass: options.more?.bypass ?? [] },
    );
  }

  /** Hands what the secondary has sent to the primary. */
  deliver(): void {
    for (const { epoch, id, frame } of this.toPrimary.splice(0)) {
      const copy = new Uint8Array(frame);
      this.primary.fromSecondary(epoch, id, copy, this.now);
      copy.fill(0xee);
    }
  }

  /** A frame of the PVM; its bytes are overwritten afterwards, as a shell's buffer would be. */
  pvm(frame: Uint8Array): void {
    const copy = new Uint8Array(frame);
    this.primary.fromGuest(copy, this.now);
    copy.fill(0xdd);
    this.answer();
  }

  svm(frame: Uint8Array): void {
    const copy = new Uint8Array(frame);
    this.secondary.fromGuest(copy, this.now);
    copy.fill(0xcc);
    this.answer();
  }

  /** In a buffer that the link uses again. */
  private overLink(patch: Uint8Array): void {
    const buffer = Buffer.from(patch);
    const isTaken = this.secondary.tolerate(buffer);
    buffer.fill(0xaa);
    const answer = Buffer.from(patch);
    if (isTaken) this.primary.tolerated(answer, this.now);
    answer.fill(0xaa);
  }

  /** As over a link: never within the call that asked. */
  private answer(): void {
    for (let patch = this.unanswered.shift(); patch !== undefined; patch = this.unanswered.shift())
      this.overLink(patch);
  }

  client(frame: Uint8Array): void {
    const copy = new Uint8Array(frame);
    this.primary.fromNetwork(copy, this.now);
    copy.fill(0xbb);
  }

  /** A whole checkpoint. */
  checkpoint(): void {
    const { epoch, table, held } = this.primary.capture(this.now);
    this.secondary.captureMarker(epoch);
    this.primary.commit(epoch, this.now);
    this.secondary.released(this.primary.releasedEpoch);
    this.apply(epoch, table, held);
  }

  apply(epoch: number, table: Uint8Array, held: Uint8Array): void {
    this.secondary.suspend();
    this.secondary.resume(epoch, table, held, this.now);
    this.secondary.released(this.primary.releasedEpoch);
    this.primary.resumed(epoch, this.now);
  }

  /** Protects, and forgets what has left so far. */
  protect(): void {
    this.primary.startMirroring();
    this.checkpoint();
    this.network.length = 0;
  }

  /** A client's connection to the guest, up to established: ISN of the PVM and of the SVM. */
  connect(isn: number, sIsn: number, clientIsn = 5000, { guest, client }: Ends = overIpv4): void {
    const ack = advance(clientIsn, 1);
    const syn = { flags: tcpFlag.syn, options: synOptionBytes };
    this.client(buildTcp(client, guest, { sequence: clientIsn, ...syn }));
    this.pvm(buildTcp(guest, client, { sequence: isn, ack, ...syn }));
    this.svm(buildTcp(guest, client, { sequence: sIsn, ack, ...syn }));
    this.client(buildTcp(client, guest, { sequence: ack, ack: advance(isn, 1), flags: 0 }));
  }

  /** Takes what has left since the last call. */
  left(): FrameView[] {
    return this.network.splice(0).map((frame) => new FrameView().parse(frame));
  }

  pass(ms: number): void {
    this.now += ms;
    this.primary.poll(this.now);
  }
}

export const text = (view: FrameView): string =>
  Buffer.from(view.frame.subarray(view.payloadAt, view.payloadAt + view.payloadBytes)).toString('latin1');

export const bytes = (content: string): Uint8Array => new Uint8Array(Buffer.from(content, 'latin1'));
