// A door without TLS and without names, for monitoring alone: it answers what monitor.ts does, to GET, and nothing
// else. Only where the configuration names it (`monitoring`), since whoever reaches it reads which VMs there are.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { requestTimeoutMs } from '../api/limits.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import { monitorConnectionsMax } from './limits.ts';
import type { PlainAnswer } from './monitor-answers.ts';

export interface PlainDoor {
  port: number;
  close(): Promise<void>;
}

export async function openPlainDoor(
  at: { host: string; port: number },
  answer: (path: string) => Promise<PlainAnswer | undefined>,
): Promise<PlainDoor> {
  const server = createServer((request, reply) => void answerOne(request, reply, answer));
  server.maxConnections = monitorConnectionsMax;
  server.headersTimeout = requestTimeoutMs;
  server.requestTimeout = requestTimeoutMs;
  await listening(server, at);
  const address = server.address();
  return {
    port: typeof address === 'object' && address !== null ? address.port : 0,
    close: async () => {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

async function listening(server: Server, { host, port }: { host: string; port: number }): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, resolve);
  }).catch((cause: unknown) => {
    throw new ColoError(errorCodes.host, `cannot listen at ${host}:${port} for monitoring`, {
      cause,
      hint: 'give another address or port: monitoring',
    });
  });
}

async function answerOne(
  request: IncomingMessage,
  reply: ServerResponse,
  answer: (path: string) => Promise<PlainAnswer | undefined>,
): Promise<void> {
  request.resume();
  const path = (request.url ?? '').split('?')[0] ?? '';
  const found = request.method === 'GET' || request.method === 'HEAD' ? await answer(path).catch(failed) : undefined;
  sendPlain(reply, found ?? { status: 404, type: 'text/plain', text: 'there is nothing here\n' });
}

/** A mistake of ours costs this answer, and not the service. */
function failed(): PlainAnswer {
  return { status: 500, type: 'text/plain', text: 'the answer could not be made\n' };
}

export function sendPlain(reply: ServerResponse, { status, type, text }: PlainAnswer): void {
  if (reply.headersSent) return;
  reply.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' });
  reply.end(text);
}
