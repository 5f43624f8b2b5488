// What a checkpoint is made of on its way. Big-endian; u64 stay below 2^53. Everything the primary sends here takes the
// bulk link; the secondary answers on the packet link (node/pairing/message.ts: `committed`, `refused`, `applied`), so
// that an answer comes before the frames of its epoch. The payload of `applied` is here.
//
//    primary                                   secondary
//      │ template                                │  once per session: what the snapshot carrier is made from
//      │ begin(round) pages... end               │  initial copying, guest running; written as it arrives
//      │ begin(checkpoint) pages... state end ──►│  staged; complete only when totals and hash agree
//      │ ◄──────────────── committed | refused ──│  from committed on it may never take over from an older state
//      │ ◄──────────────────────────── applied ──│  the SVM runs from it
//
//    begin      epoch u64 │ base u64 │ sequence u32 │ kind u8 (1 round, 2 checkpoint)
//    pages      epoch u64 │ index u32 │ rawBytes u32 │ runs u16 │ deltas u16 │ encoding u8 │ 0 u8
//               runs x (firstPage u32 │ pages u32) │ deltas x (firstPage u32 │ pages u32) │ data
//    state      epoch u64 │ standsMs f64 │ device u32 │ table u32 │ held u32 │ hash u16
//               device bytes │ table bytes │ held bytes │ hash text
//    end        epoch u64 │ batches u32 │ pages u32 │ rawBytes u64 │ hash u32
//    applied    epoch u64 │ ok u8 │ verified u8 (0 not asked, 1 equal, 2 different) │ ownPages u32
//               stopMs f64 │ rollbackMs f64 │ writeMs f64 │ loadMs f64 │ fixMs f64 │ resumeMs f64
//    template   rawBytes u32 │ encoding u8 │ 0 u8 │ hash u16 │ hash text │ data
//
// `base` is the epoch of the checkpoint that this one's pages are relative to: a secondary whose last complete one is
// another refuses, because pages missing in between would make a state that never was. `deltas` are those of the runs
// that travel as the difference to that checkpoint (delta.ts). `hash` in `end` is the crc32 of
// the payloads of begin, pages and state, chained: it shows a message left out or belonging to another checkpoint.
//
// Parsers return the message or a ColoError (code checkpoint); they never throw, whatever the bytes.

import { ColoError, errorCodes } from '../base/errors.ts';
import { PageRuns, pageSize } from '../base/page-runs.ts';
import { contains } from './delta.ts';
import {
  batchRawBytesMax,
  batchRunsMax,
  deviceBytesMax,
  hashBytesMax,
  heldBytesMax,
  tableBytesMax,
  templateBytesMax,
  templateRawBytesMax,
} from './limits.ts';
import { PayloadReader, PayloadWriter } from './payload.ts';

/** Message types on the bulk link. */
export const checkpointTypes = {
  begin: 1,
  pages: 2,
  state: 3,
  end: 4,
  template: 8,
} as const;

/** How page contents travel. */
export const encodings = { raw: 0, lz4: 1, deflate: 2 } as const;
export type Encoding = (typeof encodings)[keyof typeof encodings];

/** round: part of the initial copying. checkpoint: all or nothing. */
export type TransferKind = 'round' | 'checkpoint';

export interface Begin {
  epoch: number;
  /** The epoch of the newest complete checkpoint that this one builds on; 0 for none. */
  base: number;
  /** Counts the rounds of one initial copying. */
  sequence: number;
  kind: TransferKind;
}

export interface Pages {
  epoch: number;
  /** Counts the batches of one transfer, from 0. */
  index: number;
  rawBytes: number;
  runs: PageRuns;
  /** Which of `runs` are differences to the base; their bounds lie within those of `runs`. */
  deltas: PageRuns;
  encoding: Encoding;
  /** A view of the payload that was parsed. */
  data: Uint8Array;
}

/** Everything of a capture that is not pages. */
export interface CaptureState {
  deviceState: Uint8Array;
  /** The proxy's connection table, opaque here. */
  table: Uint8Array;
  /** Frames that the primary held at the capture, opaque here. */
  held: Uint8Array;
  /**
   * From the marker until the guest's clocks went on as they are in the device state, for the secondary's. Negative
   * where they run on during a pause: then they are of a moment before the marker.
   */
  standsMs: number;
  /** Hash of the primary's RAM; empty when not verifying. */
  ramHash: string;
}

export interface State extends CaptureState {
  epoch: number;
}

export interface End {
  epoch: number;
  batches: number;
  pages: number;
  rawBytes: number;
  hash: number;
}

/** What applying cost on the secondary, in milliseconds. */
export interface ApplyPhases {
  stopMs: number;
  rollbackMs: number;
  writeMs: number;
  loadMs: number;
  fixMs: number;
  resumeMs: number;
}

export interface Applied {
  epoch: number;
  ok: boolean;
  /** Whether RAM was equal on both sides; null when it was not compared. */
  verified: boolean | null;
  /** Pages the SVM had written itself and that were rolled back. */
  ownPages: number;
  phases: ApplyPhases;
}

export interface Template {
  rawBytes: number;
  encoding: Encoding;
  /** Hash of the machine's spec: both sides must mean the same machine. */
  specHash: string;
  data: Uint8Array;
}

/** A refusal of bytes, as the error that the controller acts on. */
export function checkpointError(message: string): ColoError {
  return new ColoError(errorCodes.checkpoint, message, {
    hint:
      'The checkpoint was dropped and the secondary is unchanged. If it repeats, compare the versions of ' +
      'both nodes.',
  });
}

const pagesHeadBytes = 22;

const malformed = (name: string, what: string): ColoError => checkpointError(`a ${name} message ${what}`);

export function encodeBegin(begin: Begin): Uint8Array {
  const kind = begin.kind === 'round' ? 1 : 2;
  return new PayloadWriter(21).u64(begin.epoch).u64(begin.base).u32(begin.sequence).u8(kind).bytes;
}

export function parseBegin(payload: Uint8Array): Begin | ColoError {
  const reader = new PayloadReader(payload);
  const begin = { epoch: reader.u64(), base: reader.u64(), sequence: reader.u32() };
  const kind = reader.u8();
  if (!reader.done || (kind !== 1 && kind !== 2)) return malformed('begin', 'is malformed');
  return { ...begin, kind: kind === 1 ? 'round' : 'checkpoint' };
}

/** The head of a batch; its data follows as a part of its own, so that it is not copied. */
export function encodePagesHead(pages: Omit<Pages, 'data'>): Uint8Array {
  const { runs, deltas } = pages;
  const writer = new PayloadWriter(pagesHeadBytes + (runs.runs + deltas.runs) * 8);
  writer.u64(pages.epoch).u32(pages.index).u32(pages.rawBytes);
  writer.u16(runs.runs).u16(deltas.runs).u8(pages.encoding).u8(0);
  for (const list of [runs, deltas])
    list.forEach((start, end) => void writer.u32(start / pageSize).u32((end - start) / pageSize));
  return writer.bytes;
}

export function parsePages(payload: Uint8Array): Pages | ColoError {
  const reader = new PayloadReader(payload);
  const head = { epoch: reader.u64(), index: reader.u32(), rawBytes: reader.u32() };
  const runCount = reader.u16();
  const deltaCount = reader.u16();
  const encoding = parseEncoding(reader.u8());
  const reserved = reader.u8();
  if (reader.failed || encoding === undefined || reserved !== 0) return malformed('pages', 'is malformed');
  if (head.rawBytes > batchRawBytesMax || runCount > batchRunsMax || deltaCount > batchRunsMax)
    return malformed('pages', 'is too large');
  const runs = parseRuns(reader, runCount);
  const deltas = parseRuns(reader, deltaCount);
  if (runs === undefined || deltas === undefined) return malformed('pages', 'names its pages wrongly');
  if (runs.bytes !== head.rawBytes) return malformed('pages', 'has another size than its pages');
  if (!contains(runs, deltas)) return malformed('pages', 'has differences of pages that it does not bring');
  return { ...head, runs, deltas, encoding, data: reader.rest() };
}

/** Runs that ascend, touch nowhere out of order and are not empty. */
function parseRuns(reader: PayloadReader, runCount: number): PageRuns | undefined {
  const runs = new PageRuns();
  let previousEnd = 0;
  for (let index = 0; index < runCount; index += 1) {
    const start = reader.u32() * pageSize;
    const end = start + reader.u32() * pageSize;
    if (reader.failed || end <= start || start < previousEnd) return undefined;
    runs.add(start, end);
    previousEnd = end;
  }
  return runs;
}

function parseEncoding(value: number): Encoding | undefined {
  if (value === encodings.raw || value === encodings.lz4 || value === encodings.deflate) return value;
  return undefined;
}

export function encodeState(state: State): Uint8Array {
  const hash = Buffer.from(state.ramHash);
  const { deviceState, table, held } = state;
  requireSize('device state', deviceState.length, deviceBytesMax);
  requireSize('connection table', table.length, tableBytesMax);
  requireSize('held frames', held.length, heldBytesMax);
  requireSize('RAM hash', hash.length, hashBytesMax);
  const writer = new PayloadWriter(30 + deviceState.length + table.length + held.length + hash.length);
  writer.u64(state.epoch).f64(state.standsMs);
  writer.u32(deviceState.length).u32(table.length).u32(held.length).u16(hash.length);
  return writer.raw(deviceState).raw(table).raw(held).raw(hash).bytes;
}

/** The state; its byte fields are views of the payload. */
export function parseState(payload: Uint8Array): State | ColoError {
  const reader = new PayloadReader(payload);
  const head = { epoch: reader.u64(), standsMs: reader.f64() };
  const deviceBytes = reader.u32();
  const tableBytes = reader.u32();
  const heldBytes = reader.u32();
  const hashBytes = reader.u16();
  const tooLarge = deviceBytes > deviceBytesMax || tableBytes > tableBytesMax || heldBytes > heldBytesMax;
  if (tooLarge || hashBytes > hashBytesMax) return malformed('state', 'is too large');
  const deviceState = reader.raw(deviceBytes);
  const table = reader.raw(tableBytes);
  const held = reader.raw(heldBytes);
  const ramHash = reader.text(hashBytes);
  if (!reader.done) return malformed('state', 'is malformed');
  return { ...head, deviceState, table, held, ramHash };
}

function requireSize(what: string, bytes: number, bytesMax: number): void {
  if (bytes <= bytesMax) return;
  throw new ColoError(
    errorCodes.checkpoint,
    `the ${what} has ${bytes} bytes, more than the ${bytesMax} that can travel`,
    {
      hint: 'This checkpoint is not sent. Reduce what the machine carries (devices, connections), or report this.',
    },
  );
}

export function encodeEnd(end: End): Uint8Array {
  const writer = new PayloadWriter(28);
  return writer.u64(end.epoch).u32(end.batches).u32(end.pages).u64(end.rawBytes).u32(end.hash).bytes;
}

export function parseEnd(payload: Uint8Array): End | ColoError {
  const reader = new PayloadReader(payload);
  const epoch = reader.u64();
  const end = { epoch, batches: reader.u32(), pages: reader.u32(), rawBytes: reader.u64(), hash: reader.u32() };
  return reader.done ? end : malformed('end', 'is malformed');
}

const verifiedValues = [null, true, false] as const;

export function encodeApplied(applied: Applied): Uint8Array {
  const { phases } = applied;
  const writer = new PayloadWriter(62);
  writer
    .u64(applied.epoch)
    .u8(applied.ok ? 1 : 0)
    .u8(verifiedValues.indexOf(applied.verified))
    .u32(applied.ownPages);
  writer.f64(phases.stopMs).f64(phases.rollbackMs).f64(phases.writeMs);
  return writer.f64(phases.loadMs).f64(phases.fixMs).f64(phases.resumeMs).bytes;
}

export function parseApplied(payload: Uint8Array): Applied | ColoError {
  const reader = new PayloadReader(payload);
  const epoch = reader.u64();
  const ok = reader.u8();
  const verified = verifiedValues[reader.u8()];
  const ownPages = reader.u32();
  const phases: ApplyPhases = {
    stopMs: reader.f64(),
    rollbackMs: reader.f64(),
    writeMs: reader.f64(),
    loadMs: reader.f64(),
    fixMs: reader.f64(),
    resumeMs: reader.f64(),
  };
  if (!reader.done || ok > 1 || verified === undefined) return malformed('applied', 'is malformed');
  return { epoch, ok: ok === 1, verified, ownPages, phases };
}

export function encodeTemplateHead(template: Omit<Template, 'data'>): Uint8Array {
  const hash = Buffer.from(template.specHash);
  requireSize('snapshot template', template.rawBytes, templateRawBytesMax);
  requireSize('spec hash', hash.length, hashBytesMax);
  const writer = new PayloadWriter(8 + hash.length);
  return writer.u32(template.rawBytes).u8(template.encoding).u8(0).u16(hash.length).raw(hash).bytes;
}

export function parseTemplate(payload: Uint8Array): Template | ColoError {
  const reader = new PayloadReader(payload);
  const rawBytes = reader.u32();
  const encoding = parseEncoding(reader.u8());
  const reserved = reader.u8();
  const hashBytes = reader.u16();
  if (
    rawBytes > templateRawBytesMax ||
    payload.length > templateBytesMax + 8 + hashBytesMax ||
    hashBytes > hashBytesMax
  ) {
    return malformed('template', 'is too large');
  }
  const specHash = reader.text(hashBytes);
  if (reader.failed || encoding === undefined || reserved !== 0) return malformed('template', 'is malformed');
  return { rawBytes, encoding, specHash, data: reader.rest() };
}
