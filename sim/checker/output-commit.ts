// A frame of a protected guest leaves only if the secondary's copy has said the same in the same epoch, or if the secondary
// holds, complete, a checkpoint taken after the frame was made.
//
// The checker keeps its own books, from what the two guests say and from what leaves, and believes nothing of the proxies.
// Per connection everything is a position in the guest's stream (0 is the SYN, then bytes, then the FIN):
//
//    0 ────────── covered ──── said by the SVM ────
//                 what may leave ─────────────────►|     and of acknowledgements and edges of windows the same
//
//   covered    what had been said (and acknowledged) at the capture of the newest checkpoint that is complete
//   said       the SVM's bytes of this epoch, which must be the same bytes
//
// At the moment a checkpoint is complete the SVM's own epoch is void: had more of it left than the checkpoint covers, a
// takeover would not know of it.

import { FrameView } from '../../src/packet/frame-view.ts';
import { distance } from '../../src/packet/sequence.ts';
import { targetIp } from '../guest/addresses.ts';
import { type TcpState, windowShift } from '../guest/tcp.ts';
import type { SimNode } from '../host/node.ts';
import type { SimVm } from '../host/vm.ts';
import type { Checker } from '../world/checker.ts';
import { flowOf, type Origins, ResetBook } from '../world/reset-book.ts';
import type { World } from '../world/world.ts';

/** One connection, by its ports, the client's address and its initial sequence number: 0 while the guest calls and knows none. */
interface Book extends Origins {
  left: Limits;
  covered: Limits;
  /** Of the SVM in this epoch: its bytes, and what it has said. */
  bytes: Uint8Array;
  said: Limits;
}

/** How far something goes: positions behind the last one said, behind the last acknowledged, and the edge of the window. */
interface Limits {
  end: number;
  ack: number;
  edge: number;
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
}

const connectionsKept = 400;
const capturesKept = 64;

export const sentence =
  'A frame of a protected guest leaves only if the secondary has said the same in the same epoch, or holds a complete checkpoint taken after it.';

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
  /** Of a call of the guest that its client has not answered yet: its own initial sequence number. */
  private readonly calls = new Map<string, number>();
  private readonly captures = new Map<number, Capture>();
  private newestCapture = 0;
  private readonly byEpoch = new Map<string, number>();
  /** Datagrams of the PVM by content: when each was said last, counted; those of the SVM in this epoch. */
  private readonly datagrams = new Map<string, number>();
  private datagramCount = 0;
  private datagramsCovered = 0;
  private readonly svmDatagrams = new Set<string>();
  private readonly resets = new ResetBook();
  /** Of each machine, its past before its capture included: what it has said, also of connections that it has forgotten. */
  private readonly words = new WeakMap<SimVm, Map<string, Limits>>();
  /** The secondary's machine, once it holds a complete checkpoint. */
  private replica: SimVm | undefined;
  private replicaCapture = 0;

  constructor(world: World) {
    this.world = world;
  }

  booted(): void {
    this.books.clear();
    this.newest.clear();
    this.replica = undefined;
  }

  guestSaid(vm: SimVm, frame: Uint8Array, tcp: TcpState | undefined): void {
    const view = this.view.parse(frame);
    const isReplica = vm === this.replica && vm.loadedFrom === this.replicaCapture;
    if (view.kind === 'udp') {
      const content = contentOf(view);
      if (isReplica) this.svmDatagrams.add(content);
      if (this.isPrimary(vm)) this.datagramSaid(content);
      return;
    }
    if (view.kind !== 'tcp') return;
    const by = isReplica ? 'replica' : this.isPrimary(vm) ? 'primary' : undefined;
    if (view.isReset && by !== undefined) this.resets.said(by, view);
    if (tcp === undefined || view.isReset) return;
    const key = keyOf(tcp);
    const position = distance(view.sequence, tcp.iss);
    this.noteWord(vm, key, limitsOf(view, position, tcp.irs));
    if (by === undefined) return;
    const book = this.bookOf(key);
    book[by] = tcp.iss;
    if (isReplica) this.note(book, view, position, tcp.irs);
  }

  /** A question that was doubled on its way is answered twice; the first answer is the one that counts. */
  private datagramSaid(content: string): void {
    this.datagramCount += 1;
    if (!this.datagrams.has(content)) this.datagrams.set(content, this.datagramCount);
  }

  private noteWord(vm: SimVm, key: string, said: Limits): void {
    const words = this.words.get(vm) ?? new Map<string, Limits>();
    this.words.set(vm, words);
    const limits = words.get(key) ?? nowhere();
    keepNewest(words, key, limits);
    extend(limits, said);
  }

  private isPrimary(vm: SimVm): boolean {
    return this.world.nodes.some(({ node, vm: own }) => own === vm && node?.primary !== undefined);
  }

  /** What the SVM says. */
  private note(book: Book, view: FrameView, position: number, clientIsn: number): void {
    const from = position + (view.isSyn ? 1 : 0);
    const end = from + view.payloadBytes;
    if (book.bytes.length < end + 1) {
      const grown = new Uint8Array(2 * end + 4096);
      grown.set(book.bytes);
      book.bytes = grown;
    }
    book.bytes.set(view.frame.subarray(view.payloadAt, view.payloadAt + view.payloadBytes), from);
    extend(book.said, limitsOf(view, position, clientIsn));
  }

  captured(vm: SimVm, captureId: number): void {
    const words = this.words.get(vm) ?? new Map<string, Limits>();
    // Of a connection that the guest has forgotten, what was held may leave with the commit.
    const books = new Map([...words].map(([key, limits]) => [key, { limits: { ...limits }, isOpen: true }]));
    for (const tcp of vm.guest.connections) {
      const { edge } = words.get(keyOf(tcp)) ?? nowhere();
      books.set(keyOf(tcp), { limits: { end: tcp.max, ack: tcp.rcv, edge }, isOpen: tcp.phase !== 'syn-received' });
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
    for (const book of this.books.values()) book.said = nowhere();
    for (const [key, { limits, isOpen }] of capture.books) {
      const book = this.bookOf(key);
      // An old SYN that is repeated begins a connection of which its client, that has gone on, knows nothing.
      if (!isOpen && book.left.end > 1) {
        book.covered.edge = Math.max(book.covered.edge, limits.edge);
        continue;
      }
      if (wasProtected) this.mustKnow(key, book.left, limits, epoch);
      book.covered = limits;
    }
  }

  private mustKnow(key: string, left: Limits, known: Limits, epoch: number): void {
    const unknown = (what: string) => this.complain(`${key}: ${what} that checkpoint ${epoch} does not know`);
    if (left.end > known.end) unknown(`${left.end - known.end} positions have left`);
    if (left.ack > known.ack) unknown('an acknowledgement has left');
    if (left.edge > known.edge) unknown('a window has been opened');
  }

  termChanged(): void {
    if (this.world.record?.peer === null) this.replica = undefined;
  }

  frameLeft(_node: SimNode, frame: Uint8Array): void {
    if (this.world.record?.peer === null) this.replica = undefined;
    const view = this.view.parse(frame);
    if (view.kind === 'udp') this.datagramLeft(view);
    if (view.kind === 'tcp' && view.isReset) this.resetLeft(view);
    else if (view.kind === 'tcp') this.segmentLeft(view);
  }

  private datagramLeft(view: FrameView): void {
    if (this.replica === undefined) return;
    const content = contentOf(view);
    const isCovered = (this.datagrams.get(content) ?? 0) <= this.datagramsCovered;
    if (!isCovered && !this.svmDatagrams.has(content))
      this.complain('a datagram leaves that the secondary has not said');
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
    const known = Math.max(book.left.end, book.covered.end);
    // Late frames of an older connection on the same ports.
    if (position < 0 || says.ack < 0 || says.end > 1e8 || says.ack > 1e8 || position > known + 200_000) return;
    if (this.replica !== undefined) this.judge(newest.key, book, view, { position, says });
    extend(book.left, says);
  }

  /** Until the client's own number is known its book is the one of 0. */
  private callLeft(flow: string, isn: number): void {
    if (this.calls.get(flow) === isn || this.books.get(this.newest.get(flow)?.key ?? '')?.isn === isn) return;
    const book = this.bookOf(`${flow} 0`);
    book.left = nowhere();
    this.begin(flow, 0, isn);
    this.calls.set(flow, isn);
  }

  private begin(flow: string, clientIsn: number, isn: number): void {
    this.calls.delete(flow);
    this.newest.set(flow, { key: `${flow} ${clientIsn}`, clientIsn });
    const book = this.bookOf(`${flow} ${clientIsn}`);
    // An old SYN that was on its way for long begins another connection, of which nothing but its SYN has left.
    if (book.isn !== undefined && book.isn !== isn && book.left.end > 1) book.left = nowhere();
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
    if (says.end === position || says.end <= free.end) return;
    if (says.end > said.end) {
      this.complain(
        `${key}: position ${says.end} leaves; the secondary has said ${said.end}, its checkpoint ${covered.end}`,
      );
      return;
    }
    const from = position + (view.isSyn ? 1 : 0);
    for (let at = Math.max(from, free.end); at < from + view.payloadBytes; at += 1) {
      if (book.bytes[at] === view.frame[view.payloadAt + at - from]) continue;
      this.complain(`${key}: byte ${at} leaves that is another one on the secondary`);
      return;
    }
  }

  private bookOf(key: string): Book {
    const book = this.books.get(key) ?? {
      ...{ isn: undefined, primary: undefined, replica: undefined },
      ...{ left: nowhere(), covered: nowhere(), said: nowhere(), bytes: new Uint8Array(1024) },
    };
    keepNewest(this.books, key, book);
    return book;
  }

  private complain(what: string): void {
    this.world.violate(this.name, this.sentence, what);
  }
}

/** Of those that are too many the one is forgotten that was silent for longest: an old connection may still speak. */
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

function keyOf(tcp: TcpState): string {
  return `${String(tcp.remote.ip)}:${tcp.remote.port}-${tcp.localPort} ${tcp.irs}`;
}

function contentOf(view: FrameView): string {
  const content = view.frame.subarray(view.contentFrom, view.contentTo);
  return `${targetIp(view)} ${Buffer.from(content.buffer, content.byteOffset, content.length).toString('latin1')}`;
}
