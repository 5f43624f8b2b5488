// Bodies of requests: read whole, within a bound, whatever the sender does.

import type { IncomingMessage } from 'node:http';
import { ColoError, errorCodes } from '../base/errors.ts';

/** The body as text; throws a ColoError(input) at the bound, without reading on. */
export async function readBody(request: IncomingMessage, bytesMax: number): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > bytesMax) throw new ColoError(errorCodes.input, `the body has more than ${bytesMax} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}
