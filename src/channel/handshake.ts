// The first message of a connection, on both sides:
//
//    client                                server
//      │ hello {vm, node, kind, ...} ────────► │  checked, and offered to `accept`
//      │ ◄──────── hello {...}  or  refuse {reason}
//      │ messages ◄──────────────────► messages
//
// The client may say nothing more until it has its answer; more than a hello before that is refused. The server may
// go on at once, so what follows its hello in the same chunk is put back into the socket and read after `start`.

import type { Socket } from 'node:net';
import { FrameDecoder, linkTypes, type Refusal } from './frame.ts';
import type { Hello } from './hello.ts';
import { helloBytesMax, messageBytesMax } from './limits.ts';

export interface FirstMessage {
  type: number;
  payload: Buffer;
  /** The decoder, ready for the second message. */
  decoder: FrameDecoder;
  /** Bytes that arrived behind the message, still to be decoded. */
  rest: Buffer;
}

/** Reads one message and leaves the socket paused. Never rejects: a broken or silent peer is a refusal. */
export function readFirstMessage(socket: Socket, signal: AbortSignal): Promise<FirstMessage | Refusal> {
  const decoder = new FrameDecoder(helloBytesMax);
  return new Promise((resolve) => {
    const finish = (result: FirstMessage | Refusal): void => {
      socket.pause();
      socket.removeListener('data', data);
      socket.removeListener('close', closed);
      socket.removeListener('end', closed);
      signal.removeEventListener('abort', aborted);
      resolve(result);
    };
    const closed = (): void => finish({ kind: 'end', text: 'ended before its hello' });
    const aborted = (): void => finish({ kind: 'timeout', text: 'did not say hello in time' });
    const data = (chunk: Buffer): void => {
      let first: { type: number; payload: Buffer } | undefined;
      const refusal = decoder.push(chunk, (type, payload) => {
        first = { type, payload: Buffer.from(payload) };
        return false;
      });
      if (refusal !== undefined) finish(refusal);
      else if (first !== undefined) finish({ ...first, decoder, rest: chunk.subarray(decoder.consumed) });
    };
    socket.on('data', data);
    socket.once('close', closed);
    socket.once('end', closed);
    if (signal.aborted) aborted();
    else signal.addEventListener('abort', aborted, { once: true });
  });
}

/** Whether a first message is what it may be on the server's side: a hello and nothing behind it. */
export function checkClientHello(first: FirstMessage): Refusal | undefined {
  if (first.type !== linkTypes.hello) return { kind: 'hello', text: `began with type ${first.type}, not with a hello` };
  if (first.rest.length > 0) return { kind: 'hello', text: 'sent more than its hello before it was answered' };
  return undefined;
}

/** Lifts the bound of the hello once it is over. */
export function afterHello(decoder: FrameDecoder): FrameDecoder {
  decoder.payloadBytesMax = messageBytesMax;
  return decoder;
}

/** Whether the peer is who it says: `name` is what its certificate says, or whom we meant to reach. */
export function checkName(peer: Hello, name: string | undefined): Refusal | undefined {
  if (name === undefined || name === peer.node) return undefined;
  return { kind: 'identity', text: `says that it is ${peer.node}, and is ${name === '' ? 'nobody' : name}` };
}
