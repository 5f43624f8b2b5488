// What clients ask the guest, and how they know that an answer is the only right one.
//
//    request     client u32 │ number u32 │ operation u8 │ 0 u8 │ body u16 │ sum u32 │ body bytes
//    answer      client u32 │ number u32 │ operation u8 │ memory u8 │ body u16 │ count u32 │ token before u32
//                token u32 │ second u32 │ sum u32 │ body bytes
//
// `count` grows by one with every request of a client, wherever it is answered: an answer that was given and then
// forgotten, or a request done twice, shows in the next one. `token` is drawn by the guest and told again as `token
// before` in the next answer: two copies draw differently, so what a client was told must be what the survivor knows.
// `memory` is 1 when the guest found its own RAM inconsistent, 2 when its disk is not what it wrote, 3 when
// a connection that it opened itself was cut off. The body is a function of client and number.

export const requestHeaderBytes = 16;
export const answerHeaderBytes = 32;

export const operations = {
  /** A short answer. */
  add: 1,
  /** A long answer. */
  read: 2,
  /** The token is drawn anew: two copies answer differently. */
  draw: 3,
  /** The token is drawn anew and told only the next time. */
  hide: 4,
  /** The request has a long body. */
  write: 5,
} as const;

export type Operation = (typeof operations)[keyof typeof operations];

export interface Request {
  client: number;
  number: number;
  operation: number;
  bodyBytes: number;
  sum: number;
}

/** Fills `into` with the bytes that belong to one request or answer. */
export function fillBody(into: Uint8Array, client: number, number: number): void {
  let state = (Math.imul(client + 1, 0x9e3779b1) ^ Math.imul(number + 7, 0x85ebca6b)) >>> 0;
  for (let at = 0; at < into.length; at += 1) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    into[at] = state >>> 24;
  }
}

export function sumOf(bytes: Uint8Array): number {
  let sum = 17;
  for (let at = 0; at < bytes.length; at += 1) sum = (Math.imul(sum, 31) + (bytes[at] ?? 0)) >>> 0;
  return sum;
}

export function encodeRequest(request: Omit<Request, 'sum'>): Uint8Array {
  const bytes = new Uint8Array(requestHeaderBytes + request.bodyBytes);
  const view = new DataView(bytes.buffer);
  const body = bytes.subarray(requestHeaderBytes);
  fillBody(body, request.client, request.number);
  view.setUint32(0, request.client);
  view.setUint32(4, request.number);
  view.setUint8(8, request.operation);
  view.setUint16(10, request.bodyBytes);
  view.setUint32(12, sumOf(body));
  return bytes;
}

/** The request at the start of `bytes`, when it is there whole. */
export function readRequest(bytes: Uint8Array): Request | undefined {
  if (bytes.length < requestHeaderBytes) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const bodyBytes = view.getUint16(10);
  if (bytes.length < requestHeaderBytes + bodyBytes) return undefined;
  const sum = sumOf(bytes.subarray(requestHeaderBytes, requestHeaderBytes + bodyBytes));
  return { client: view.getUint32(0), number: view.getUint32(4), operation: view.getUint8(8), bodyBytes, sum };
}

export interface Answer {
  client: number;
  number: number;
  operation: number;
  memory: number;
  bodyBytes: number;
  count: number;
  tokenBefore: number;
  token: number;
  second: number;
  sum: number;
}

export function encodeAnswer(answer: Answer): Uint8Array {
  const bytes = new Uint8Array(answerHeaderBytes + answer.bodyBytes);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, answer.client);
  view.setUint32(4, answer.number);
  view.setUint8(8, answer.operation);
  view.setUint8(9, answer.memory);
  view.setUint16(10, answer.bodyBytes);
  view.setUint32(12, answer.count);
  view.setUint32(16, answer.tokenBefore);
  view.setUint32(20, answer.token);
  view.setUint32(24, answer.second);
  view.setUint32(28, answer.sum);
  fillBody(bytes.subarray(answerHeaderBytes), answer.client, answer.number);
  return bytes;
}

export function readAnswer(bytes: Uint8Array): Answer | undefined {
  if (bytes.length < answerHeaderBytes) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const bodyBytes = view.getUint16(10);
  if (bytes.length < answerHeaderBytes + bodyBytes) return undefined;
  return {
    ...{ client: view.getUint32(0), number: view.getUint32(4), operation: view.getUint8(8), memory: view.getUint8(9) },
    ...{ bodyBytes, count: view.getUint32(12), tokenBefore: view.getUint32(16), token: view.getUint32(20) },
    ...{ second: view.getUint32(24), sum: view.getUint32(28) },
  };
}

/** A datagram: client u32 │ number u32 │ kind u8 (1 question, 2 answer) │ sum u32 of the first eight bytes. */
export function encodeDatagram(client: number, number: number, kind: 1 | 2): Uint8Array {
  const bytes = new Uint8Array(13);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, client);
  view.setUint32(4, number);
  view.setUint8(8, kind);
  view.setUint32(9, sumOf(bytes.subarray(0, 9)));
  return bytes;
}

export function readDatagram(bytes: Uint8Array): { client: number; number: number; kind: number } | undefined {
  if (bytes.length !== 13) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  if (view.getUint32(9) !== sumOf(bytes.subarray(0, 9))) return undefined;
  return { client: view.getUint32(0), number: view.getUint32(4), kind: view.getUint8(8) };
}

/** An echo request or reply of ICMP, of either family, at `at`. */
export function readEcho(frame: Uint8Array, at: number): { reply: boolean; id: number; sequence: number } | undefined {
  const type = frame[at] ?? 0;
  if (![0, 8, 128, 129].includes(type)) return undefined;
  const view = new DataView(frame.buffer, frame.byteOffset + at);
  return { reply: type === 0 || type === 129, id: view.getUint16(4), sequence: view.getUint16(6) };
}
