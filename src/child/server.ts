// The node's API: HTTP on a Unix socket that only its owner can open.
//
//   GET  /status      NodeStatus
//   POST /checkpoint  takes one now; answers when it is applied
//   POST /failover    planned: the secondary takes over
//   PUT  /peers       the nodes that can be the secondary: [{node, host, port}]
//   POST /leave       ends the node, which is no longer to protect the VM; 409 when it has the VM, or is about to take
//                     over
//   POST /stop        ends the node, its VM, and tells the peer that nothing is to be taken over

import { chmod, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { z } from 'zod';
import { readBody } from '../api/body.ts';
import { nodeBodyBytesMax } from '../api/limits.ts';
import type { NodeStatus, ProcessStatus } from '../api/node-status.ts';
import { Refusal, refusalAnswer } from '../api/refusal.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import { parseJson } from '../base/json.ts';
import { during } from '../base/loop-watch.ts';
import type { Peer } from '../node/config.ts';
import type { ColoNode } from '../node/node.ts';

/** What the API is of. */
export interface Served {
  node: ColoNode;
  stop: () => void;
  process: () => ProcessStatus;
}

export class ApiServer {
  private readonly server: Server;

  private constructor(server: Server) {
    this.server = server;
  }

  static async listen(path: string, served: Served): Promise<ApiServer> {
    await rm(path, { force: true });
    const server = createServer((request, response) => {
      answerRequest(served, request)
        .then((body) => send(response, 200, body))
        .catch((error: unknown) => sendError(response, error));
    });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(path, resolve);
    });
    await chmod(path, 0o600);
    return new ApiServer(server);
  }

  async close(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise<void>((resolve) => this.server.close(() => resolve()));
  }
}

async function answerRequest(served: Served, request: IncomingMessage): Promise<unknown> {
  const { node, stop } = served;
  const body = await readBody(request, nodeBodyBytesMax);
  switch (`${request.method} ${request.url}`) {
    case 'GET /status':
      return statusOf(served);
    case 'POST /checkpoint':
      await node.checkpoint();
      return statusOf(served);
    case 'POST /failover':
      await node.failover();
      return statusOf(served);
    case 'PUT /peers':
      node.setPeers(parsePeers(body));
      return {};
    case 'POST /leave':
      node.leave();
      setImmediate(stop);
      return {};
    case 'POST /stop':
      setImmediate(stop);
      return {};
    default:
      throw new Refusal(404, errorCodes.input, `there is no ${request.method} ${request.url?.slice(0, 200)}`);
  }
}

function statusOf({ node, process }: Served): NodeStatus {
  return during('call', () => ({ ...node.status(), process: process() }));
}

const peersSchema = z
  .array(z.strictObject({ node: z.string().min(1).max(64), host: z.string().min(1), port: z.int().min(1).max(65535) }))
  .max(64);

function parsePeers(body: string): Peer[] {
  const parsed = peersSchema.safeParse(parseJson(body));
  if (!parsed.success) throw new ColoError(errorCodes.input, `no list of peers: ${z.prettifyError(parsed.error)}`);
  return parsed.data.map(({ node, host, port }) => ({ node, address: { host, port } }));
}

function send(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(body));
}

function sendError(response: ServerResponse, error: unknown): void {
  const { status, body } = refusalAnswer(error);
  send(response, status, body);
}
