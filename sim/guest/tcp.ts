// A small TCP endpoint for the guest and for the clients: handshake, retransmission with backoff, fast retransmission,
// delayed acknowledgements, out-of-order segments, FIN in both directions, resets. All of its state is plain data, so
// that a guest's connections travel in its device state.
//
// Numbers are positions in a stream, which never wrap: 0 is the SYN, 1 the first byte, and the FIN takes one behind the
// last. On the wire: sequence = ISN + position, modulo 2^32.
//
// Timestamps (RFC 7323) and ECN are used by a connection when both ends speak of them; what is older than what was seen
// is dropped.
//
// How large segments are, when acknowledgements leave and how wide the window is, the ports say: two copies of one
// guest differ in exactly that.

import { type Address, buildTcp, timestampsOption } from '../../src/packet/build.ts';
import type { FrameView } from '../../src/packet/frame-view.ts';
import { distance } from '../../src/packet/sequence.ts';
import { tcpFlag } from '../../src/packet/tcp.ts';
import { onWire, type Wire } from './wire.ts';

export interface TcpState {
  /** The other end. */
  remote: Address;
  localPort: number;
  phase: 'syn-sent' | 'syn-received' | 'open' | 'dead';
  iss: number;
  irs: number;
  /** Sent and not acknowledged: from `una`; next to send: `nxt`; highest ever sent: `max`. */
  una: number;
  nxt: number;
  max: number;
  /** Bytes from position `outBase` on. */
  out: Uint8Array;
  outBase: number;
  finAt: number;
  rcv: number;
  apart: { at: number; bytes: Uint8Array }[];
  remoteFinAt: number;
  edge: number;
  edgeSaid: number;
  rtoMs: number;
  rtoAt: number;
  ackAt: number;
  recover: number;
  duplicateAcks: number;
  endedAt: number;
  /** What its own SYN says: largest segment, and whether it agrees to ECN. */
  mss: number;
  ecn: boolean;
  /** Both SYNs had timestamps; the newest of the other end. */
  stamps: boolean;
  recent: number;
}

export interface TcpPorts {
  /** `state`: whose frame it is; undefined for the reset of a connection that nobody has. */
  emit(frame: Uint8Array, state: TcpState | undefined): void;
  /** Largest payload of the next segment. */
  segmentBytes(): number;
  /** Until an acknowledgement leaves by itself; 0: at once. */
  ackDelayMs(): number;
  windowBytes(): number;
  /** Its clock for timestamps; undefined: it uses none. */
  stamp(): number | undefined;
  /** Said in a SYN. */
  mss(): number;
  ecn(): boolean;
  opened?(state: TcpState): void;
  data(state: TcpState, bytes: Uint8Array): void;
  ended(state: TcpState): void;
  /** `halfOpen`: somebody else's SYN, perhaps an old one, was all there was of it. */
  reset(state: TcpState, halfOpen: boolean): void;
}

export const never = Number.POSITIVE_INFINITY;
export const windowShift = 2;
/** Largest segment, no-op, window scale. */
const synOptions = (mss: number) => Uint8Array.of(2, 4, mss >>> 8, mss & 0xff, 1, 3, 3, windowShift);
/** Flags of ECN (RFC 3168). */
const ece = 0x40;
const cwr = 0x80;
const firstRtoMs = 200;
const rtoMsMax = 1200;
const flightMax = 16;
const none = new Uint8Array(0);

function newState(remote: Address, localPort: number, iss: number): TcpState {
  return {
    ...{ remote, localPort, phase: 'syn-sent' as const, iss, irs: 0, una: 0, nxt: 0, max: 0, out: none, outBase: 1 },
    ...{ finAt: never, rcv: 0, apart: [], remoteFinAt: never, edge: 1, edgeSaid: 0, rtoMs: firstRtoMs },
    ...{ rtoAt: never, ackAt: never, recover: 0, duplicateAcks: 0, endedAt: never },
    ...{ mss: 1460, ecn: false, stamps: false, recent: 0 },
  };
}

export class TcpStack {
  private readonly local: { mac: Uint8Array; ip: number };
  private readonly wire: Wire;
  private readonly ports: TcpPorts;

  constructor(local: { mac: Uint8Array; ip: number }, wire: Wire, ports: TcpPorts) {
    this.local = local;
    this.wire = wire;
    this.ports = ports;
  }

  connect(remote: Address, localPort: number, iss: number, now: number): TcpState {
    const state = newState(remote, localPort, iss);
    state.mss = this.ports.mss();
    state.ecn = this.ports.ecn();
    this.transmit(state, now);
    return state;
  }

  accept(remote: Address, view: FrameView, iss: number, now: number): TcpState {
    const state = newState(remote, view.targetPort, iss);
    state.phase = 'syn-received';
    state.irs = view.sequence;
    state.rcv = 1;
    state.mss = this.ports.mss();
    state.ecn = asksForEcn(view) && this.ports.ecn();
    this.noteStamps(state, view);
    this.transmit(state, now);
    return state;
  }

  send(state: TcpState, bytes: Uint8Array, now: number): void {
    if (state.phase === 'dead' || state.finAt !== never) return;
    state.out = Buffer.concat([state.out, bytes]);
    this.transmit(state, now);
  }

  /** No more bytes will come. */
  finish(state: TcpState, now: number): void {
    if (state.phase === 'dead' || state.finAt !== never) return;
    state.finAt = state.outBase + state.out.length;
    this.transmit(state, now);
  }

  /** Whether the acknowledgement of a segment can be of this connection. */
  isOurs(state: TcpState, view: FrameView): boolean {
    const ack = state.una + distance(view.ack, (state.iss + state.una) >>> 0);
    return ack <= state.max && ack >= state.una - 150_000;
  }

  /** Both directions have ended and were acknowledged. */
  isDone(state: TcpState): boolean {
    return state.phase === 'dead' || (state.una > state.finAt && state.rcv > state.remoteFinAt);
  }

  deadline(state: TcpState): number {
    return Math.min(state.rtoAt, state.ackAt);
  }

  tick(state: TcpState, now: number): void {
    if (state.phase === 'dead') return;
    if (now >= state.ackAt) this.emitAck(state);
    if (now < state.rtoAt) return;
    state.rtoMs = Math.min(state.rtoMs * 2, rtoMsMax);
    state.rtoAt = never;
    state.recover = state.max;
    state.nxt = Math.max(state.nxt, state.una);
    this.emitAt(state, state.una, true);
    this.armRto(state, now);
  }

  input(state: TcpState, view: FrameView, now: number): void {
    if (state.phase === 'dead') return;
    if (state.phase === 'syn-sent') return this.inputSynSent(state, view, now);
    if (view.isReset) {
      if (distance(view.sequence, (state.irs + state.rcv) >>> 0) === 0) this.die(state, now);
      return;
    }
    if (!view.isSyn && this.isOld(state, view)) return this.emitAck(state);
    if (view.isSyn) {
      // A repeated SYN is answered as before; another one on an open connection by an acknowledgement.
      if (state.phase === 'syn-received' && view.sequence === state.irs) this.emitAt(state, 0, true);
      else this.emitAck(state);
      return;
    }
    if (!view.hasAck || !this.inputAck(state, view, now)) return;
    this.inputPayload(state, view, now);
    this.transmit(state, now);
  }

  private inputSynSent(state: TcpState, view: FrameView, now: number): void {
    const isOurs = view.hasAck && view.ack === (state.iss + 1) >>> 0;
    if (view.isReset) {
      if (isOurs) this.die(state, now);
      return;
    }
    if (!isOurs) {
      // What the other end still takes for an older connection is reset, so that it can begin anew.
      if (view.hasAck) this.emitReset(state.remote, state.localPort, view.ack);
      return;
    }
    if (!view.isSyn) return;
    state.irs = view.sequence;
    state.rcv = 1;
    state.ecn &&= (view.flags & ece) !== 0;
    this.noteStamps(state, view);
    state.phase = 'open';
    state.una = 1;
    state.edge = 1 + view.window;
    state.rtoAt = never;
    state.rtoMs = firstRtoMs;
    state.endedAt = never;
    this.emitAck(state);
    this.ports.opened?.(state);
    this.transmit(state, now);
  }

  private noteStamps(state: TcpState, syn: FrameView): void {
    state.stamps = syn.timestampsAt !== 0 && this.ports.stamp() !== undefined;
    state.recent = syn.timestamp;
  }

  /** Protection against wrapped sequences (RFC 7323, 5): an older stamp than the newest is of an old duplicate. */
  private isOld(state: TcpState, view: FrameView): boolean {
    if (!state.stamps || view.timestampsAt === 0) return false;
    const age = distance(state.recent, view.timestamp);
    if (age < 0 && distance(view.sequence, (state.irs + state.rcv) >>> 0) <= 0) state.recent = view.timestamp;
    return age > 0;
  }

  /** False: the segment is to be dropped. */
  private inputAck(state: TcpState, view: FrameView, now: number): boolean {
    const ack = state.una + distance(view.ack, (state.iss + state.una) >>> 0);
    // RFC 5961: neither of what was never sent, nor so old that it is of another connection.
    if (ack > state.max || ack < state.una - 150_000) return false;
    if (state.phase === 'syn-received') {
      if (ack < 1) return false;
      state.phase = 'open';
      this.ports.opened?.(state);
    }
    const edge = ack + (view.window << windowShift);
    if (ack > state.una) {
      this.acknowledged(state, ack, now);
    } else if (ack === state.una && view.payloadBytes === 0 && edge <= state.edge && state.max > state.una) {
      state.duplicateAcks += 1;
      if (state.duplicateAcks === 3) this.emitAt(state, state.una, true);
    }
    state.edge = Math.max(state.edge, edge);
    return true;
  }

  private acknowledged(state: TcpState, ack: number, now: number): void {
    const drop = Math.min(Math.max(0, ack - state.outBase), state.out.length);
    state.out = state.out.subarray(drop);
    state.outBase += drop;
    state.una = ack;
    state.nxt = Math.max(state.nxt, ack);
    state.duplicateAcks = 0;
    state.rtoMs = firstRtoMs;
    state.rtoAt = never;
    if (state.una < state.recover) this.emitAt(state, state.una, true);
    this.armRto(state, now);
    this.noteEnd(state, now);
  }

  private inputPayload(state: TcpState, view: FrameView, now: number): void {
    if (view.payloadBytes === 0 && !view.isFin) return;
    const at = state.rcv + distance(view.sequence, (state.irs + state.rcv) >>> 0);
    const bytes = view.frame.subarray(view.payloadAt, view.payloadAt + view.payloadBytes);
    if (view.isFin) state.remoteFinAt = at + bytes.length;
    const isInOrder = at <= state.rcv;
    if (bytes.length > 0 && at + bytes.length > state.rcv && state.apart.length < 64)
      state.apart.push({ at, bytes: Uint8Array.from(bytes) });
    const before = state.rcv;
    this.join(state);
    if (state.rcv === state.remoteFinAt) state.rcv += 1;
    const delayMs = isInOrder && state.rcv > before ? this.ports.ackDelayMs() : 0;
    if (delayMs <= 0) this.emitAck(state);
    else state.ackAt = Math.min(state.ackAt, now + delayMs);
    if (state.rcv > state.remoteFinAt && before <= state.remoteFinAt) this.ports.ended(state);
    this.noteEnd(state, now);
  }

  private join(state: TcpState): void {
    for (let found = true; found; ) {
      found = false;
      for (const piece of state.apart) {
        const end = piece.at + piece.bytes.length;
        if (piece.at > state.rcv || end <= state.rcv) continue;
        const fresh = piece.bytes.subarray(state.rcv - piece.at);
        state.rcv = end;
        found = true;
        this.ports.data(state, fresh);
      }
      state.apart = state.apart.filter(({ at, bytes }) => at + bytes.length > state.rcv);
    }
  }

  private noteEnd(state: TcpState, now: number): void {
    if (state.endedAt === never && this.isDone(state)) state.endedAt = now;
  }

  private die(state: TcpState, now: number): void {
    const halfOpen = state.phase === 'syn-received';
    state.phase = 'dead';
    state.endedAt = now;
    state.rtoAt = never;
    state.ackAt = never;
    this.ports.reset(state, halfOpen);
  }

  private transmit(state: TcpState, now: number): void {
    for (let count = 0; count < flightMax; count += 1) {
      const end = state.outBase + state.out.length;
      const hasFin = state.finAt !== never && state.nxt <= state.finAt;
      const isSyn = state.nxt === 0;
      if (!isSyn && state.phase !== 'open') break;
      if (!isSyn && state.nxt >= end && !hasFin) break;
      if (!isSyn && state.nxt < end && state.nxt >= state.edge) break;
      if (state.nxt - state.una > flightMax * 1460) break;
      state.nxt = this.emitAt(state, state.nxt, false);
      if (isSyn) break;
    }
    this.armRto(state, now);
  }

  private armRto(state: TcpState, now: number): void {
    const isWaiting = state.max > state.una || state.outBase + state.out.length > state.nxt;
    if (!isWaiting) state.rtoAt = never;
    else if (state.rtoAt === never) state.rtoAt = now + state.rtoMs;
  }

  /** Sends what stands at position `at`; returns the position behind it. */
  private emitAt(state: TcpState, at: number, isProbe: boolean): number {
    if (at === 0) {
      const ack = state.phase === 'syn-sent' ? undefined : (state.irs + state.rcv) >>> 0;
      const window = Math.min(this.ports.windowBytes(), 65535);
      state.edgeSaid = Math.max(state.edgeSaid, state.rcv + window);
      const isCall = ack === undefined;
      const flags = tcpFlag.syn | (state.ecn ? ece | (isCall ? cwr : 0) : 0);
      const options = [synOptions(state.mss), isCall || state.stamps ? this.stampOption(state) : none];
      this.emit(state, { sequence: state.iss, flags, window, options: Buffer.concat(options), ...withAck(ack) });
      state.max = Math.max(state.max, 1);
      return 1;
    }
    const from = Math.max(0, at - state.outBase);
    const room = Math.max(state.edge - at, isProbe ? 1 : 0);
    const payload = state.out.subarray(from, from + Math.min(this.ports.segmentBytes(), Math.max(1, room)));
    const end = at + payload.length;
    const isFin = end === state.finAt;
    if (payload.length === 0 && !isFin) return at;
    const flags = (isFin ? tcpFlag.fin : 0) | (payload.length > 0 ? tcpFlag.psh : 0);
    state.ackAt = never;
    const said = { sequence: (state.iss + at) >>> 0, ack: (state.irs + state.rcv) >>> 0 };
    this.emit(state, { ...said, flags, payload, window: this.windowField(state) });
    const next = end + (isFin ? 1 : 0);
    state.max = Math.max(state.max, next);
    return next;
  }

  private emitAck(state: TcpState): void {
    state.ackAt = never;
    const said = { sequence: (state.iss + state.nxt) >>> 0, ack: (state.irs + state.rcv) >>> 0 };
    this.emit(state, { ...said, flags: tcpFlag.ack, window: this.windowField(state) });
  }

  emitReset(remote: Address, localPort: number, sequence: number): void {
    const from = onWire({ ...this.local, port: localPort }, this.wire);
    const segment = { sequence, flags: tcpFlag.rst, window: 0 };
    this.ports.emit(buildTcp(from, onWire(remote, this.wire), segment), undefined);
  }

  private windowField(state: TcpState): number {
    const edge = Math.max(state.edgeSaid, state.rcv + this.ports.windowBytes());
    const field = Math.min((edge - state.rcv) >> windowShift, 0xffff);
    state.edgeSaid = state.rcv + (field << windowShift);
    return field;
  }

  private emit(state: TcpState, segment: Parameters<typeof buildTcp>[2]): void {
    const stamped = segment.options === undefined && state.stamps ? { options: this.stampOption(state) } : {};
    const said = { ...segment, ...stamped };
    const from = onWire({ ...this.local, port: state.localPort }, this.wire);
    this.ports.emit(buildTcp(from, onWire(state.remote, this.wire), said), state);
  }

  private stampOption(state: TcpState): Uint8Array {
    const stamp = this.ports.stamp();
    return stamp === undefined ? none : timestampsOption(stamp, state.recent);
  }
}

function asksForEcn({ flags }: FrameView): boolean {
  return (flags & ece) !== 0 && (flags & cwr) !== 0;
}

function withAck(ack: number | undefined): { ack?: number } {
  return ack === undefined ? {} : { ack };
}
