// What a server answers to the bytes of one input, for the targets that speak over a socket.

import type { Socket } from 'node:net';

/**
 * Collects until the answer is whole, the other side hangs up, or `limitMs` are over: then `late` is what came of it.
 * The caller writes, and the socket is its own.
 */
export async function firstAnswer(
  socket: Socket,
  {
    isWhole,
    limitMs,
    late,
  }: { isWhole: (answer: string) => boolean; limitMs: number; late: (answer: string) => string },
): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  let answer = '';
  socket.on('error', () => resolve(answer));
  socket.on('close', () => resolve(answer));
  socket.on('data', (chunk: Buffer) => {
    answer += chunk.toString('latin1');
    if (isWhole(answer)) resolve(answer);
  });
  const limit = setTimeout(() => resolve(late(answer)), limitMs);
  const said = await promise;
  clearTimeout(limit);
  return said;
}
