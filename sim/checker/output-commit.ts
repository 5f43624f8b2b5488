// A frame of a protected guest leaves only if the secondary's copy has said the same in the same epoch, or if the secondary
// holds, complete, a checkpoint taken after the frame was made.
//
// The checker keeps its own books, from what the two guests say and from what leaves, and believes nothing of the proxies.
// Per connection everything is a position in the guest's stream (0 is the SYN, then bytes, then the FIN):
//
//    0 ────────── covered ──── said by the SVM ────
//                 what may leave ─────────────────►|     and of acknowledgements the same
//
//   covered    what had been said (and acknowledged) at the capture of the newest checkpoint that is complete
//   said       the SVM's bytes of this epoch, which must be the same bytes
//
// At the moment a checkpoint is complete the SVM's own epoch is void: had more of it left than the checkpoint covers, a
// takeover would not know of it.

import { FrameView } from '../../src/packet/frame-view.ts';
import { distance } from '../../src/packet/sequence.ts';
import { targetIp } from '../addresses.ts';
import type { Checker } from '../checker.ts';
import type { SimNode } from '../node.ts';
import type { TcpState } from '../tcp.ts';
import type { SimVm } from '../vm.ts';
import type { World } from '../world.ts';

/** One connection, by the client's address, port and initial sequence number. */
interface Book {
  /** The guest's initial sequence number as the client knows it. */
  isn: number | undefined;
  left: number;
  leftAck: number;
  covered: number;
  coveredAck: number;
  /** Of the SVM in this epoch: its bytes, and the positions behind the last one said and acknowledged. */
  bytes: Uint8Array;
  said: number;
  saidAck: number;
}

interface Capture {
  books: { key: string; next: number; ack: number; isOpen: boolean }[];
  datagrams: number;
}

const connectionsKept = 400;
const capturesKept = 64;

export function outputCommit(world: World): Checker {
  return new OutputCommit(world);
}

class OutputCommit implements Checker {
  readonly name = 'output-commit';
  readonly sentence =
    'A frame of a protected guest leaves only if the secondary has said the same in the same epoch, or holds a complete checkpoint taken after it.';
  private readonly world: World;
  private readonly view = new FrameView();
  private readonly books = new Map<string, Book>();
  /** The newest connection of a client's address and port. */
  private readonly newest = new Map<string, { key: string; clientIsn: number }>();
  private readonly captures = new Map<number, Capture>();
  private newestCapture = 0;
  private readonly byEpoch = new Map<string, number>();
  /** Datagrams of the PVM by content: when each was said last, counted; those of the SVM in this epoch. */
  private readonly datagrams = new Map<string, number>();
  private datagramCount = 0;
  private datagramsCovered = 0;
  private readonly svmDatagrams = new Set<string>();
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
    if (view.kind !== 'tcp' || tcp === undefined || !isReplica) return;
    this.note(this.bookOf(keyOf(tcp)), view, distance(view.sequence, tcp.iss), tcp.irs);
  }

  /** A question that was doubled on its way is answered twice; the first answer is the one that counts. */
  private datagramSaid(content: string): void {
    this.datagramCount += 1;
    if (!this.datagrams.has(content)) this.datagrams.set(content, this.datagramCount);
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
    book.said = Math.max(book.said, end + (view.isFin ? 1 : 0));
    if (view.hasAck) book.saidAck = Math.max(book.saidAck, distance(view.ack, clientIsn));
  }

  captured(vm: SimVm, captureId: number): void {
    const books = vm.guest.connections.map((tcp) => ({
      ...{ key: keyOf(tcp), next: tcp.max, ack: tcp.rcv },
      isOpen: tcp.phase !== 'syn-received',
    }));
    this.captures.set(captureId, { books, datagrams: this.datagramCount });
    this.captures.delete(captureId - capturesKept);
    this.newestCapture = captureId;
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
    for (const book of this.books.values()) {
      book.said = 0;
      book.saidAck = 0;
    }
    for (const { key, next, ack, isOpen } of capture.books) {
      const book = this.bookOf(key);
      // An old SYN that is repeated begins a connection of which its client, that has gone on, knows nothing.
      if (!isOpen && book.left > 1) continue;
      if (wasProtected && book.left > next)
        this.complain(`${key}: ${book.left - next} positions have left that checkpoint ${epoch} does not know`);
      if (wasProtected && book.leftAck > ack)
        this.complain(`${key}: an acknowledgement has left that checkpoint ${epoch} does not know`);
      book.covered = next;
      book.coveredAck = ack;
    }
  }

  termChanged(): void {
    if (this.world.record?.peer === null) this.replica = undefined;
  }

  frameLeft(_node: SimNode, frame: Uint8Array): void {
    if (this.world.record?.peer === null) this.replica = undefined;
    const view = this.view.parse(frame);
    if (view.kind === 'udp') this.datagramLeft(view);
    if (view.kind === 'tcp' && !view.isReset) this.segmentLeft(view);
  }

  private datagramLeft(view: FrameView): void {
    if (this.replica === undefined) return;
    const content = contentOf(view);
    const isCovered = (this.datagrams.get(content) ?? 0) <= this.datagramsCovered;
    if (!isCovered && !this.svmDatagrams.has(content))
      this.complain('a datagram leaves that the secondary has not said');
  }

  private segmentLeft(view: FrameView): void {
    const flow = `${targetIp(view)}:${view.targetPort}`;
    if (view.isSyn && view.hasAck) {
      const clientIsn = (view.ack - 1) >>> 0;
      this.newest.set(flow, { key: `${flow} ${clientIsn}`, clientIsn });
      this.bookOf(`${flow} ${clientIsn}`).isn = view.sequence;
    }
    const newest = this.newest.get(flow);
    const book = newest === undefined ? undefined : this.books.get(newest.key);
    if (newest === undefined || book?.isn === undefined) return;
    const position = distance(view.sequence, book.isn);
    const ack = distance(view.ack, newest.clientIsn);
    const end = position + view.payloadBytes + (view.isSyn ? 1 : 0) + (view.isFin ? 1 : 0);
    // Late frames of an older connection on the same ports.
    if (position < 0 || ack < 0 || end > 1e8 || ack > 1e8 || position > Math.max(book.left, book.covered) + 200_000)
      return;
    if (this.replica !== undefined) this.judge(newest.key, book, view, { position, end, ack });
    book.left = Math.max(book.left, end);
    book.leftAck = Math.max(book.leftAck, ack);
  }

  private judge(
    key: string,
    book: Book,
    view: FrameView,
    { position, end, ack }: { position: number; end: number; ack: number },
  ): void {
    if (ack > Math.max(book.leftAck, book.coveredAck, book.saidAck))
      this.complain(
        `${key}: byte ${ack} is acknowledged, and the secondary has ${Math.max(book.coveredAck, book.saidAck)}`,
      );
    const free = Math.max(book.left, book.covered);
    const hasBytes = view.payloadBytes + (view.isSyn || view.isFin ? 1 : 0) > 0;
    if (!hasBytes || end <= free) return;
    if (end > book.said) {
      this.complain(
        `${key}: position ${end} leaves; the secondary has said ${book.said}, its checkpoint ${book.covered}`,
      );
      return;
    }
    const from = position + (view.isSyn ? 1 : 0);
    for (let at = Math.max(from, free); at < from + view.payloadBytes; at += 1) {
      if (book.bytes[at] === view.frame[view.payloadAt + at - from]) continue;
      this.complain(`${key}: byte ${at} leaves that is another one on the secondary`);
      return;
    }
  }

  private bookOf(key: string): Book {
    let book = this.books.get(key);
    if (book === undefined) {
      book = {
        ...{ isn: undefined, left: 0, leftAck: 0, covered: 0, coveredAck: 0 },
        ...{ bytes: new Uint8Array(1024), said: 0, saidAck: 0 },
      };
      this.books.set(key, book);
      const [oldest] = this.books.keys();
      if (this.books.size > connectionsKept && oldest !== undefined) this.books.delete(oldest);
    }
    return book;
  }

  private complain(what: string): void {
    this.world.violate(this.name, this.sentence, what);
  }
}

function keyOf(tcp: TcpState): string {
  return `${String(tcp.remote.ip)}:${tcp.remote.port} ${tcp.irs}`;
}

function contentOf(view: FrameView): string {
  const content = view.frame.subarray(view.contentFrom, view.contentTo);
  return `${targetIp(view)} ${Buffer.from(content.buffer, content.byteOffset, content.length).toString('latin1')}`;
}
