// One connection of the NBD server, as a pure state machine: bytes in, bytes and requests out.
//
//   greeting ─► flags ─► option ──┬─► option data ─► option ...
//                                 └── GO, EXPORT_NAME ─► request ──► write data ─► request ...
//   anything ──abort, disconnect, bytes that are not NBD──► over
//
// A request is handed out only after it was checked: inside the export, with known flags, not empty. What is wrong with
// one is answered with NBD's error for it and counted; only bytes after which the stream cannot be followed (a wrong
// magic, a length beyond the limits) end the connection. Replies may come in any order.
// Its limits are in limits.ts: at those of requests in flight it stops reading until one was answered.

import * as limits from './limits.ts';
import * as nbd from './protocol.ts';

export interface NbdExport {
  name: string;
  sizeBytes: number;
  readOnly: boolean;
  /** Whether clients may send FLUSH; without it QEMU takes every flush of this node as done. */
  flush: boolean;
}

export type NbdRequest = {
  /** NBD's cookie of the request: the reply repeats it. */
  cookie: bigint;
  exportName: string;
} & (
  | { kind: 'read'; offset: number; length: number }
  /** The data belongs to whoever handles the request. */
  | { kind: 'write'; offset: number; length: number; data: Buffer; fua: boolean }
  | { kind: 'writeZeroes'; offset: number; length: number; mayUnmap: boolean; fua: boolean }
  | { kind: 'trim'; offset: number; length: number }
  | { kind: 'flush' }
);

export interface SessionPorts {
  send(...parts: Uint8Array[]): void;
  request(request: NbdRequest): void;
  /** The connection ends; `why` is undefined when the client ended it in order. */
  ended(why: string | undefined): void;
}

interface Head {
  flags: number;
  command: number;
  cookie: bigint;
  offset: number;
  length: number;
}

type State =
  | { kind: 'flags' }
  | { kind: 'option' }
  | { kind: 'optionData'; option: number; length: number }
  | { kind: 'request' }
  | { kind: 'writeData'; head: Head; data: Buffer; filled: number }
  | { kind: 'over' };

export class NbdSession {
  readonly counters = { requests: 0, refused: 0 };
  private readonly exports: ReadonlyMap<string, NbdExport>;
  private readonly ports: SessionPorts;
  private state: State = { kind: 'flags' };
  private chosen: NbdExport | undefined;
  private noZeroes = false;
  private optionCount = 0;
  private pending: Buffer = Buffer.alloc(0);
  private readonly bytesOf = new Map<NbdRequest, number>();
  private bytesInFlight = 0;

  constructor(exports: readonly NbdExport[], ports: SessionPorts) {
    this.exports = new Map(exports.map((one) => [one.name, one]));
    this.ports = ports;
    const greeting = Buffer.alloc(18);
    greeting.writeBigUInt64BE(nbd.magics.greeting, 0);
    greeting.writeBigUInt64BE(nbd.magics.option, 8);
    greeting.writeUInt16BE(nbd.handshakeFlags.fixedNewstyle | nbd.handshakeFlags.noZeroes, 16);
    ports.send(greeting);
  }

  /** True while so much is unanswered that nothing more is to be read. */
  get full(): boolean {
    return this.bytesOf.size >= limits.requestsInFlightMax || this.bytesInFlight >= limits.requestBytesInFlightMax;
  }

  get over(): boolean {
    return this.state.kind === 'over';
  }

  /** Requests handed out and not answered. */
  get inFlight(): number {
    return this.bytesOf.size;
  }

  push(chunk: Buffer): void {
    if (this.over) return;
    this.pending = this.pending.length === 0 ? chunk : Buffer.concat([this.pending, chunk]);
    this.advance();
  }

  /** Answers a request that was handed out. */
  reply(request: NbdRequest, error: nbd.NbdError, data?: Uint8Array): void {
    const bytes = this.bytesOf.get(request);
    if (bytes === undefined) return;
    this.bytesOf.delete(request);
    this.bytesInFlight -= bytes;
    if (this.over) return;
    this.sendReply(request.cookie, error, error === nbd.nbdErrors.none ? data : undefined);
    this.advance();
  }

  /** Ends the connection from our side. */
  end(why: string | undefined): void {
    if (this.over) return;
    this.state = { kind: 'over' };
    this.pending = Buffer.alloc(0);
    this.ports.ended(why);
  }

  private advance(): void {
    while (!this.over && !this.full && this.step());
  }

  /** One step of the state machine; false when it needs more bytes. */
  private step(): boolean {
    const { state } = this;
    switch (state.kind) {
      case 'flags':
        return this.withBytes(4, (bytes) => this.onFlags(bytes.readUInt32BE(0)));
      case 'option':
        return this.withBytes(nbd.optionHeadBytes, (bytes) => this.onOptionHead(bytes));
      case 'optionData':
        return this.withBytes(state.length, (bytes) => this.onOption(state.option, bytes));
      case 'request':
        return this.withBytes(nbd.requestHeadBytes, (bytes) => this.onRequestHead(bytes));
      case 'writeData':
        return this.fillWrite(state);
      default:
        return false;
    }
  }

  private withBytes(count: number, use: (bytes: Buffer) => void): boolean {
    if (this.pending.length < count) return false;
    const bytes = this.pending.subarray(0, count);
    this.pending = this.pending.subarray(count);
    use(bytes);
    return true;
  }

  // ---- handshake ----

  private onFlags(flags: number): void {
    const known = nbd.handshakeFlags.fixedNewstyle | nbd.handshakeFlags.noZeroes;
    if ((flags & ~known) !== 0) return this.end(`the client wants unknown handshake flags ${flags}`);
    this.noZeroes = (flags & nbd.handshakeFlags.noZeroes) !== 0;
    this.state = { kind: 'option' };
  }

  private onOptionHead(bytes: Buffer): void {
    if (bytes.readBigUInt64BE(0) !== nbd.magics.option) return this.end('the client sent no option where one was due');
    const length = bytes.readUInt32BE(12);
    this.optionCount += 1;
    if (length > limits.optionBytesMax) return this.end(`the client sent an option of ${length} bytes`);
    if (this.optionCount > limits.optionsMax) return this.end('the client sends options without end');
    this.state = { kind: 'optionData', option: bytes.readUInt32BE(8), length };
  }

  private onOption(option: number, data: Buffer): void {
    this.state = { kind: 'option' };
    switch (option) {
      case nbd.options.exportName:
        return this.onExportName(data.toString('utf8'));
      case nbd.options.abort:
        this.replyOption(option, nbd.optionReplies.ack);
        return this.end(undefined);
      case nbd.options.list:
        return this.onList(option, data);
      case nbd.options.info:
      case nbd.options.go:
        return this.onGo(option, data);
      default:
        return this.replyOption(option, nbd.optionReplies.unsupported);
    }
  }

  private onExportName(name: string): void {
    const found = this.exports.get(name);
    // This oldest option has no reply that says no.
    if (found === undefined) return this.end(`the client asks for an export ${JSON.stringify(name.slice(0, 60))}`);
    const answer = Buffer.alloc(10 + (this.noZeroes ? 0 : 124));
    answer.writeBigUInt64BE(BigInt(found.sizeBytes), 0);
    answer.writeUInt16BE(flagsOf(found), 8);
    this.ports.send(answer);
    this.begin(found);
  }

  private onList(option: number, data: Buffer): void {
    if (data.length !== 0) return this.replyOption(option, nbd.optionReplies.invalid);
    for (const name of this.exports.keys()) {
      const bytes = Buffer.from(name);
      const length = Buffer.alloc(4);
      length.writeUInt32BE(bytes.length, 0);
      this.replyOption(option, nbd.optionReplies.server, Buffer.concat([length, bytes]));
    }
    this.replyOption(option, nbd.optionReplies.ack);
  }

  private onGo(option: number, data: Buffer): void {
    const asked = parseGo(data);
    if (asked === undefined) return this.replyOption(option, nbd.optionReplies.invalid);
    const found = this.exports.get(asked.name);
    if (found === undefined) return this.replyOption(option, nbd.optionReplies.unknown);
    const info = Buffer.alloc(12);
    info.writeUInt16BE(nbd.infoTypes.export, 0);
    info.writeBigUInt64BE(BigInt(found.sizeBytes), 2);
    info.writeUInt16BE(flagsOf(found), 10);
    this.replyOption(option, nbd.optionReplies.info, info);
    if (asked.infos.includes(nbd.infoTypes.blockSize)) this.replyOption(option, nbd.optionReplies.info, blockSizes());
    this.replyOption(option, nbd.optionReplies.ack);
    if (option === nbd.options.go) this.begin(found);
  }

  private begin(chosen: NbdExport): void {
    this.chosen = chosen;
    this.state = { kind: 'request' };
  }

  private replyOption(option: number, reply: number, data: Buffer = Buffer.alloc(0)): void {
    const head = Buffer.alloc(20);
    head.writeBigUInt64BE(nbd.magics.optionReply, 0);
    head.writeUInt32BE(option, 8);
    head.writeUInt32BE(reply, 12);
    head.writeUInt32BE(data.length, 16);
    this.ports.send(head, data);
  }

  // ---- transmission ----

  private onRequestHead(bytes: Buffer): void {
    if (bytes.readUInt32BE(0) !== nbd.magics.request) return this.end('the client sent no request where one was due');
    const offset = bytes.readBigUInt64BE(16);
    const head: Head = {
      flags: bytes.readUInt16BE(4),
      command: bytes.readUInt16BE(6),
      cookie: bytes.readBigUInt64BE(8),
      // Beyond 2^53 lies no export: any such offset is out of range as well.
      offset: offset > BigInt(Number.MAX_SAFE_INTEGER) ? Number.MAX_SAFE_INTEGER : Number(offset),
      length: bytes.readUInt32BE(24),
    };
    this.counters.requests += 1;
    if (head.command === nbd.commands.disconnect) return this.end(undefined);
    if (head.command !== nbd.commands.write) return this.handle(head);
    if (head.length > limits.requestBytesMax) return this.end(`the client writes ${head.length} bytes at once`);
    this.state = { kind: 'writeData', head, data: Buffer.allocUnsafeSlow(head.length), filled: 0 };
  }

  private fillWrite(state: Extract<State, { kind: 'writeData' }>): boolean {
    const taken = this.pending.copy(state.data, state.filled);
    this.pending = this.pending.subarray(taken);
    state.filled += taken;
    if (state.filled < state.data.length) return false;
    this.state = { kind: 'request' };
    this.handle(state.head, state.data);
    return true;
  }

  private handle(head: Head, data: Buffer = Buffer.alloc(0)): void {
    const { chosen } = this;
    if (chosen === undefined) return;
    const error = refusal(head, chosen);
    const request = error === nbd.nbdErrors.none ? toRequest(head, chosen.name, data) : undefined;
    if (request === undefined) {
      this.counters.refused += 1;
      this.sendReply(head.cookie, error === nbd.nbdErrors.none ? nbd.nbdErrors.invalid : error);
      return;
    }
    const bytes = request.kind === 'read' || request.kind === 'write' ? request.length : 0;
    this.bytesOf.set(request, bytes);
    this.bytesInFlight += bytes;
    this.ports.request(request);
  }

  private sendReply(cookie: bigint, error: nbd.NbdError, data?: Uint8Array): void {
    const head = Buffer.alloc(16);
    head.writeUInt32BE(nbd.magics.simpleReply, 0);
    head.writeUInt32BE(error, 4);
    head.writeBigUInt64BE(cookie, 8);
    if (data === undefined) this.ports.send(head);
    else this.ports.send(head, data);
  }
}

function flagsOf(one: NbdExport): number {
  const { hasFlags, readOnly, sendFlush, sendFua, sendTrim, sendWriteZeroes } = nbd.exportFlags;
  if (one.readOnly) return hasFlags | readOnly | (one.flush ? sendFlush : 0);
  return hasFlags | sendFua | sendTrim | sendWriteZeroes | (one.flush ? sendFlush : 0);
}

/** Any byte may be addressed; whole pages are best. */
function blockSizes(): Buffer {
  const info = Buffer.alloc(14);
  info.writeUInt16BE(nbd.infoTypes.blockSize, 0);
  info.writeUInt32BE(1, 2);
  info.writeUInt32BE(4096, 6);
  info.writeUInt32BE(limits.requestBytesMax, 10);
  return info;
}

/** Name and wanted informations of INFO and GO; undefined when the data is not that. */
function parseGo(data: Buffer): { name: string; infos: number[] } | undefined {
  if (data.length < 6) return undefined;
  const nameBytes = data.readUInt32BE(0);
  if (nameBytes > limits.nameBytesMax || data.length < 6 + nameBytes) return undefined;
  const count = data.readUInt16BE(4 + nameBytes);
  if (data.length !== 6 + nameBytes + count * 2) return undefined;
  const infos = Array.from({ length: count }, (_, index) => data.readUInt16BE(6 + nameBytes + index * 2));
  return { name: data.toString('utf8', 4, 4 + nameBytes), infos };
}

/** NBD's error for a request that must not be done; `none` for one that may. */
function refusal(head: Head, chosen: NbdExport): nbd.NbdError {
  const { command, length } = head;
  const { none, invalid, permission, noSpace } = nbd.nbdErrors;
  if ((head.flags & ~knownFlags(command)) !== 0) return invalid;
  if (command === nbd.commands.flush) return head.offset === 0 && length === 0 && chosen.flush ? none : invalid;
  const writes = command !== nbd.commands.read;
  if (writes && chosen.readOnly) return permission;
  if (length === 0) return invalid;
  if (command === nbd.commands.read && length > limits.requestBytesMax) return invalid;
  if (head.offset + length > chosen.sizeBytes)
    return command === nbd.commands.write || command === nbd.commands.writeZeroes ? noSpace : invalid;
  return none;
}

function knownFlags(command: number): number {
  const { fua, noHole } = nbd.commandFlags;
  if (command === nbd.commands.writeZeroes) return fua | noHole;
  return fua;
}

function toRequest(head: Head, exportName: string, data: Buffer): NbdRequest | undefined {
  const { cookie, offset, length } = head;
  const fua = (head.flags & nbd.commandFlags.fua) !== 0;
  switch (head.command) {
    case nbd.commands.read:
      return { kind: 'read', cookie, exportName, offset, length };
    case nbd.commands.write:
      return { kind: 'write', cookie, exportName, offset, length, data, fua };
    case nbd.commands.writeZeroes: {
      const mayUnmap = (head.flags & nbd.commandFlags.noHole) === 0;
      return { kind: 'writeZeroes', cookie, exportName, offset, length, mayUnmap, fua };
    }
    case nbd.commands.trim:
      return { kind: 'trim', cookie, exportName, offset, length };
    case nbd.commands.flush:
      return { kind: 'flush', cookie, exportName };
    default:
      return undefined;
  }
}
