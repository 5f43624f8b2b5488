// A frame of a protected guest leaves only if the secondary's copy has said the same in the same epoch, or if the
// secondary holds, complete, a checkpoint taken after the frame was made.
//
// The checker keeps its own books, from what the two guests say and from what leaves, and believes nothing of the
// proxies. Per connection everything is a position in the guest's stream (0 is the SYN, then bytes, then the FIN):
//
//    0 ────────── covered ──── said by the SVM ────
//                 what may leave ─────────────────►|     and of acknowledgements and edges of windows the same
//
//   covered    what had been said (and acknowledged) at the capture of the newest checkpoint that is complete
//   said       the SVM's bytes of this epoch, which must be the same bytes
//
// What is said again must be what left, or what the primary's guest had said by that capture, or what the SVM has said.
// A SYN's options and flags are what the SVM's SYN has, or what that of a covered one had. A timestamp is never beyond
// the SVM's latest, or a covered one, and never before one that has left. All that is no TCP goes by its content
// (datagrams.ts).
//
// At the moment a checkpoint is complete the SVM's own epoch is void: had more of it left than the checkpoint covers, a
// takeover would not know of it.

import { FrameView } from '../../src/packet/frame-view.ts';
import { distance } from '../../src/packet/sequence.ts';
import { tcp } from '../../src/packet/tcp.ts';
import { type TcpState, windowShift } from '../guest/tcp.ts';
import type { SimNode } from '../host/node.ts';
import type { SimVm } from '../host/vm.ts';
import type { Checker } from '../world/checker.ts';
import { DatagramNames } from '../world/datagrams.ts';
import { keyOf } from '../world/left-streams.ts';
import { flowOf, type Origins, ResetBook } from '../world/reset-book.ts';
import type { World } from '../world/world.ts';

/**
 * One connection, by its ports, the client's address and its initial sequence number: 0 while the guest calls and knows
 * none.
 */
interface Book extends Origins {
  left: Limits;
  covered: Limits;
  /** The SVM in this epoch: its bytes, and what it has said. */
  bytes: Stream;
  said: Limits;
  /** The bytes that have left, and those of the primary's guest. */
  leftBytes: Stream;
  ownBytes: Stream;
  /**
   * The primary's guest has said its SYN with several timestamps: which of them the SVM's are counted from is not
   * known.
   */
  isVague: boolean;
  /**
   * What the SYNs say beside their numbers: the SVM's of this epoch, and those of the primary's guest, the covered one
   * at last.
   */
  synSaid: string | undefined;
  synOwn: string | undefined;
  synCovered: string | undefined;
}

/** Bytes by their position in the stream; undefined where nothing is known. */
class Stream {
  private bytes = new Uint8Array(0);
  private known = new Uint8Array(0);

  put(from: number, bytes: Uint8Array): void {
    const end = from + bytes.length;
    if (this.bytes.length < end) {
      const room = 2 * end + 1024;
      this.bytes = grown(this.bytes, room);
      this.known = grown(this.known, room);
    }
    this.bytes.set(bytes, from);
    this.known.fill(1, from, end);
  }

  clear(): void {
    this.known.fill(0);
  }

  at(position: number): number | undefined {
    return this.known[position] === 1 ? this.bytes[position] : undefined;
  }
}

function grown(bytes: Uint8Array, length: number): Uint8Array<ArrayBuffer> {
  const copy = new Uint8Array(length);
  copy.set(bytes);
  return copy;
}

/**
 * How far something goes: positions behind the last one said, behind the last acknowledged, and the edge of the window.
 */
interface Limits {
  end: number;
  ack: number;
  edge: number;
  /**
   * The newest timestamp, counted from that of the SYN (each copy has a clock of its own); undefined while there was
   * none.
   */
  stamp?: number | undefined;
  /** That of the SYN; NaN when it was said again with another one, and who counts from which is not known. */
  base?: number | undefined;
}

interface Capture {
  books: Map<string, { limits: Limits; isOpen: boolean }>;
  datagrams: number;
  resets: number;
}

const nowhere = (): Limits => ({ end: 0, ack: 0, edge: 0 });

function extend(limits: Limits, by: Limits): void {
  limits.end = Math.max(limits.end, by.end);
  limits.ack = Math.max(limits.ack, by.ack);
  limits.edge = Math.max(limits.edge, by.edge);
  limits.stamp = newest(limits.stamp, by.stamp);
}

function newest(...stamps: (number | undefined)[]): number | undefined {
  const known = stamps.filter((stamp) => stamp !== undefined);
  return known.length === 0 ? undefined : Math.max(...known);
}

/** Counts the timestamp of a segment from that of its connection's SYN, which is noted in `limits` when this is one. */
function stampOf(limits: Limits, view: FrameView): number | undefined {
  if (view.timestampsAt === 0) return undefined;
  if (view.isSyn) limits.base = (limits.base ?? view.timestamp) === view.timestamp ? view.timestamp : Number.NaN;
  const { base } = limits;
  return base === undefined || Number.isNaN(base) ? undefined : distance(view.timestamp, base);
}

const connectionsKept = 2000;
const capturesKept = 64;

export const sentence =
  'A frame of a protected guest leaves only if the secondary has said the same in the same epoch, or holds ' +
  'a complete checkpoint taken after it.';

export function outputCommit(world: World): Checker {
  return new OutputCommit(world);
}

class OutputCommit implements Checker {
  readonly name = 'output-commit';
  readonly sentence = sentence;
  private readonly world: World;
  private readonly view = new FrameView();
  private readonly books = new Map<string, Book>();
  /** The newest connection of a client's address and port. */
  private readonly newest = new Map<string, { key: string; clientIsn: number }>();
  /** Calls of the guest that their clients have not answered yet: its own initial sequence numbers. */
  private readonly calls = new Map<string, number>();
  private readonly captures = new Map<number, Capture>();
  private newestCapture = 0;
  private readonly byEpoch = new Map<string, number>();
  /** Datagrams of the PVM by content: when each was said last, counted; those of the SVM in this epoch. */
  private readonly datagrams = new Map<string, number>();
  private datagramCount = 0;
  private datagramsCovered = 0;
  private readonly svmDatagrams = new Set<string>();
  private readonly saidNames = new WeakMap<SimVm, DatagramNames>();
  private readonly leftNames = new Map<SimNode, DatagramNames>();
  private readonly resets = new ResetBook();
  /**
   * What each machine has said, its past before its capture included, and on connections that it has forgotten.
   */
  private readonly words = new WeakMap<SimVm, Map<string, Limits>>();
  /** The secondary's machine, once it holds a complete checkpoint. */
  private replica: SimVm | undefined;
  private replicaCapture = 0;
  private owner: string | undefined;

  constructor(world: World) {
    this.world = world;
  }

  booted(): void {
    this.books.clear();
    this.newest.clear();
    this.replica = undefined;
  }

  guestSaid(vm: SimVm, frame: Uint8Array, state: TcpState | undefined): void {
    const view = this.view.parse(frame);
    const isReplica = vm === this.replica && vm.loadedFrom === this.replicaCapture;
    if (view.kind !== 'tcp') return this.otherSaid(vm, frame, isReplica);
    const by = isReplica ? 'replica' : this.isPrimary(vm) ? 'primary' : undefined;
    if (view.isReset && by !== undefined) this.resets.said(by, view);
    if (state === undefined || view.isReset) return;
    const key = keyOf(state);
    const position = distance(view.sequence, state.iss);
    const said = this.noteWord(vm, key, { view, limits: limitsOf(view, position, state.irs) });
    if (by === undefined) return;
    const book = this.bookOf(key);
    book[by] = state.iss;
    if (view.isSyn) book[isReplica ? 'synSaid' : 'synOwn'] = synText(view);
    if (said.stamp === Number.POSITIVE_INFINITY) book.isVague = true;
    if (isReplica) this.note(book, view, position, said);
    else book.ownBytes.put(position + (view.isSyn ? 1 : 0), payloadOf(view));
  }

  private otherSaid(vm: SimVm, frame: Uint8Array, isReplica: boolean): void {
    const names = this.saidNames.get(vm) ?? new DatagramNames();
    this.saidNames.set(vm, names);
    const name = names.nameOf(frame);
    if (name === undefined) return;
    if (isReplica) this.svmDatagrams.add(name);
    if (this.isPrimary(vm)) this.datagramSaid(name);
  }

  /** A question that was doubled on its way is answered twice; the first answer is the one that counts. */
  private datagramSaid(content: string): void {
    this.datagramCount += 1;
    if (!this.datagrams.has(content)) this.datagrams.set(content, this.datagramCount);
  }

  private noteWord(vm: SimVm, key: string, { view, limits: said }: { view: FrameView; limits: Limits }): Limits {
    const words = this.words.get(vm) ?? new Map<string, Limits>();
    this.words.set(vm, words);
    const limits = words.get(key) ?? nowhere();
    keepNewest(words, key, limits);
    said.stamp = stampOf(limits, view);
    // Which of its SYNs its clock is counted from nobody knows: nothing is beyond it.
    if (Number.isNaN(limits.base)) said.stamp = Number.POSITIVE_INFINITY;
    extend(limits, said);
    return said;
  }

  private isPrimary(vm: SimVm): boolean {
    const node = this.world.nodes.find(({ node: own, vm: its }) => its === vm && own?.primary !== undefined);
    // What one says that has lost the term, and does not know it yet, counts for nobody.
    return node !== undefined && (this.world.record?.owner ?? node.name) === node.name;
  }

  /** What the SVM says. */
  private note(book: Book, view: FrameView, position: number, said: Limits): void {
    book.bytes.put(position + (view.isSyn ? 1 : 0), payloadOf(view));
    extend(book.said, said);
  }

  captured(vm: SimVm, captureId: number): void {
    const words = this.words.get(vm) ?? new Map<string, Limits>();
    // What was held on a connection that the guest has forgotten may leave with the commit.
    const books = new Map([...words].map(([key, limits]) => [key, { limits: { ...limits }, isOpen: true }]));
    for (const tcp of vm.guest.connections) {
      const { edge, stamp, base } = words.get(keyOf(tcp)) ?? nowhere();
      books.set(keyOf(tcp), {
        limits: { end: tcp.max, ack: tcp.rcv, edge, stamp, base },
        isOpen: tcp.phase !== 'syn-received',
      });
    }
    this.captures.set(captureId, { books, datagrams: this.datagramCount, resets: this.resets.count });
    this.captures.delete(captureId - capturesKept);
    this.newestCapture = captureId;
  }

  resumedFrom(vm: SimVm, captureId: number): void {
    const books = [...(this.captures.get(captureId)?.books ?? [])];
    this.words.set(vm, new Map(books.map(([key, { limits }]) => [key, { ...limits }])));
  }

  reached(node: SimNode, point: string, epoch: number): void {
    if (point === 'capture.done' && node.process !== undefined)
      this.byEpoch.set(`${node.process.name} ${epoch}`, this.newestCapture);
    if (point === 'stage.complete') this.complete(node, epoch);
  }

  /** The secondary on `node` holds the checkpoint of `epoch`. */
  private complete(node: SimNode, epoch: number): void {
    const captureId = this.byEpoch.get(`${node.peerProcess?.name ?? ''} ${epoch}`);
    const capture = captureId === undefined ? undefined : this.captures.get(captureId);
    if (capture === undefined || captureId === undefined) return;
    const wasProtected = this.replica !== undefined;
    this.replica = node.vm;
    this.replicaCapture = captureId;
    this.svmDatagrams.clear();
    this.datagramsCovered = capture.datagrams;
    this.resets.complete(capture.resets);
    for (const book of this.books.values()) {
      book.said = nowhere();
      book.bytes.clear();
      book.synSaid = undefined;
    }
    for (const [key, { limits, isOpen }] of capture.books) {
      const book = this.bookOf(key);
      // An old SYN that is repeated begins a connection of which its client, that has gone on, knows nothing.
      if (!isOpen && book.left.end > 1) {
        book.covered.edge = Math.max(book.covered.edge, limits.edge);
        continue;
      }
      if (wasProtected) this.mustKnow(key, book.left, limits, epoch);
      book.covered = limits;
      book.synCovered = book.synOwn;
    }
  }

  private mustKnow(key: string, left: Limits, known: Limits, epoch: number): void {
    const unknown = (what: string) => this.complain(`${key}: ${what} that checkpoint ${epoch} does not know`);
    if (left.end > known.end) unknown(`${left.end - known.end} positions have left`);
    if (left.ack > known.ack) unknown('an acknowledgement has left');
    if (left.edge > known.edge) unknown('a window has been opened');
  }

  termChanged(): void {
    const { record } = this.world;
    if (record?.peer === null) this.replica = undefined;
    if (record?.owner === this.owner) return;
    this.owner = record?.owner;
    // What the primary of before has said is gone with it, as far as no checkpoint and no frame that left has it.
    for (const book of this.books.values()) {
      book.ownBytes.clear();
      book.synOwn = undefined;
      book.synCovered = undefined;
    }
  }

  frameLeft(_node: SimNode, frame: Uint8Array): void {
    if (this.world.record?.peer === null) this.replica = undefined;
    const view = this.view.parse(frame);
    if (view.kind !== 'tcp') this.datagramLeft(_node, frame);
    if (view.kind === 'tcp' && view.isReset) this.resetLeft(view);
    else if (view.kind === 'tcp') this.segmentLeft(view);
  }

  private datagramLeft(node: SimNode, frame: Uint8Array): void {
    const names = this.leftNames.get(node) ?? new DatagramNames();
    this.leftNames.set(node, names);
    const content = names.nameOf(frame);
    if (this.replica === undefined || content === undefined) return;
    const isCovered = (this.datagrams.get(content) ?? 0) <= this.datagramsCovered;
    if (!isCovered && !this.svmDatagrams.has(content))
      this.complain(`a datagram leaves that the secondary has not said: ${content.split(' ', 1)[0]}`);
  }

  private resetLeft(view: FrameView): void {
    if (this.replica === undefined) return;
    const flow = `${flowOf(view)} `;
    const connections = [...this.books].flatMap(([key, book]) => (key.startsWith(flow) ? [book] : []));
    if (!this.resets.mayLeave(view, connections))
      this.complain(`${flow}: a reset leaves at ${view.sequence} that the secondary has not said`);
  }

  private segmentLeft(view: FrameView): void {
    const flow = flowOf(view);
    const call = this.calls.get(flow);
    if (view.isSyn && !view.hasAck) this.callLeft(flow, view.sequence);
    else if (view.isSyn || call !== undefined) this.begin(flow, (view.ack - 1) >>> 0, call ?? view.sequence);
    const newest = this.newest.get(flow);
    const book = newest === undefined ? undefined : this.books.get(newest.key);
    if (newest === undefined || book?.isn === undefined) return;
    const position = distance(view.sequence, book.isn);
    const says = limitsOf(view, position, newest.clientIsn);
    says.stamp = stampOf(book.left, view);
    const known = Math.max(book.left.end, book.covered.end);
    // Late frames of an older connection on the same ports.
    if (position < 0 || says.ack < 0 || says.end > 1e8 || says.ack > 1e8 || position > known + 200_000) return;
    if (this.replica !== undefined) this.judge(newest.key, book, view, { position, says });
    book.leftBytes.put(position + (view.isSyn ? 1 : 0), payloadOf(view));
    extend(book.left, says);
  }

  /** Until the client's own number is known its book is the one of 0. */
  private callLeft(flow: string, isn: number): void {
    if (this.calls.get(flow) === isn || this.books.get(this.newest.get(flow)?.key ?? '')?.isn === isn) return;
    const book = this.bookOf(`${flow} 0`);
    book.left = nowhere();
    book.leftBytes.clear();
    this.begin(flow, 0, isn);
    this.calls.set(flow, isn);
  }

  private begin(flow: string, clientIsn: number, isn: number): void {
    this.calls.delete(flow);
    this.newest.set(flow, { key: `${flow} ${clientIsn}`, clientIsn });
    const book = this.bookOf(`${flow} ${clientIsn}`);
    // An old SYN that was on its way for long begins another connection, of which nothing but its SYN has left.
    if (book.isn !== undefined && book.isn !== isn && book.left.end > 1) {
      book.left = nowhere();
      book.leftBytes.clear();
    }
    book.isn = isn;
  }

  private judge(
    key: string,
    book: Book,
    view: FrameView,
    { position, says }: { position: number; says: Limits },
  ): void {
    const { left, covered, said } = book;
    const free = { ...left };
    extend(free, covered);
    if (says.ack > Math.max(free.ack, said.ack))
      this.complain(
        `${key}: byte ${says.ack} is acknowledged, and the secondary has ${Math.max(covered.ack, said.ack)}`,
      );
    if (says.edge > Math.max(free.edge, said.edge))
      this.complain(
        `${key}: the window is open up to ${says.edge}, the secondary's to ${Math.max(covered.edge, said.edge)}`,
      );
    this.judgeStamp(key, book, says);
    if (view.isSyn) this.judgeSyn(key, book, view);
    this.judgeAgain(key, book, view, position + (view.isSyn ? 1 : 0));
    if (says.end === position || says.end <= free.end) return;
    if (says.end > said.end) {
      this.complain(
        `${key}: position ${says.end} leaves; the secondary has said ${said.end}, its checkpoint ${covered.end}`,
      );
      return;
    }
    const from = position + (view.isSyn ? 1 : 0);
    for (let at = Math.max(from, free.end); at < from + view.payloadBytes; at += 1) {
      if (book.bytes.at(at) === view.frame[view.payloadAt + at - from]) continue;
      this.complain(`${key}: byte ${at} leaves that is another one on the secondary`);
      return;
    }
  }

  /** Bytes that have left before, or that a checkpoint covers. */
  private judgeAgain(key: string, { left, covered, ...book }: Book, view: FrameView, from: number): void {
    const end = Math.min(Math.max(left.end, covered.end), from + view.payloadBytes);
    for (let at = from; at < end; at += 1) {
      const byte = view.frame[view.payloadAt + at - from];
      const known = [book.leftBytes.at(at), book.bytes.at(at), at < covered.end ? book.ownBytes.at(at) : undefined];
      if (known.includes(byte) || known.every((one) => one === undefined)) continue;
      this.complain(`${key}: byte ${at} leaves again as another one`);
      return;
    }
  }

  private judgeSyn(key: string, { synSaid, synCovered, left }: Book, view: FrameView): void {
    const text = synText(view);
    // What a SYN says that left before there was a secondary, nobody knows any more who has said.
    if (synSaid === undefined && synCovered === undefined && left.end > 0) return;
    if (text === synSaid || text === synCovered) return;
    this.complain(`${key}: a SYN leaves with ${text}, the secondary's has ${synSaid ?? synCovered ?? 'nothing'}`);
  }

  private judgeStamp(key: string, { left, covered, said, isVague }: Book, { stamp }: Limits): void {
    if (stamp === undefined) return;
    if (left.stamp !== undefined && stamp < left.stamp)
      this.complain(`${key}: a timestamp leaves that is older than one that has left`);
    const known = newest(said.stamp, covered.stamp, left.stamp);
    if (!isVague && known !== undefined && stamp > known)
      this.complain(`${key}: a timestamp leaves that is ${stamp - known} ms beyond the secondary's`);
  }

  private bookOf(key: string): Book {
    const book = this.books.get(key) ?? {
      ...{ isn: undefined, primary: undefined, replica: undefined },
      ...{ left: nowhere(), covered: nowhere(), said: nowhere() },
      ...{ bytes: new Stream(), leftBytes: new Stream(), ownBytes: new Stream() },
      ...{ isVague: false, synSaid: undefined, synOwn: undefined, synCovered: undefined },
    };
    keepNewest(this.books, key, book);
    return book;
  }

  private complain(what: string): void {
    this.world.violate(this.name, this.sentence, what);
  }
}

/** Beyond the bound the one is forgotten that was silent for longest: an old connection may still speak. */
function keepNewest<T>(map: Map<string, T>, key: string, value: T): void {
  map.delete(key);
  map.set(key, value);
  const [oldest] = map.keys();
  if (map.size > connectionsKept && oldest !== undefined) map.delete(oldest);
}

/** What a segment says; the window of a SYN is never scaled. */
function limitsOf(view: FrameView, position: number, clientIsn: number): Limits {
  const end = position + view.payloadBytes + (view.isSyn ? 1 : 0) + (view.isFin ? 1 : 0);
  if (!view.hasAck) return { end, ack: 0, edge: 0 };
  const ack = distance(view.ack, clientIsn);
  return { end, ack, edge: ack + (view.window << (view.isSyn ? 0 : windowShift)) };
}

function payloadOf(view: FrameView): Uint8Array {
  return view.frame.subarray(view.payloadAt, view.payloadAt + view.payloadBytes);
}

/** The flags and options of a SYN, without the values of its timestamps. */
function synText(view: FrameView): string {
  const { frame, transportAt, payloadAt, timestampsAt } = view;
  const options = Buffer.from(frame.subarray(transportAt + tcp.headerBytesMin, payloadAt));
  const at = timestampsAt - transportAt - tcp.headerBytesMin;
  if (timestampsAt !== 0) options.fill(0, at, at + 8);
  return `${(frame[transportAt + tcp.flags] ?? 0).toString(16)} ${options.toString('hex')}`;
}
