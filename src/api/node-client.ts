// Asks a node over its API: HTTP on a Unix socket of this machine.

import { request } from 'node:http';
import { ColoError, type ErrorCode, errorCodes } from '../base/errors.ts';
import { answerBytesMax } from './limits.ts';
import type { NodeStatus } from './node-status.ts';
import type { ApiError } from './refusal.ts';

/** The response's JSON; a refusal becomes the ColoError that the node meant. */
export function callNode(options: {
  socketPath: string;
  method: 'GET' | 'POST' | 'PUT' | 'DELETE';
  path: string;
  /** Sent as JSON. */
  body?: unknown;
  timeoutMs?: number;
}): Promise<unknown> {
  const { promise, resolve, reject } = Promise.withResolvers<unknown>();
  const call = request(
    { socketPath: options.socketPath, method: options.method, path: options.path, timeout: options.timeoutMs ?? 5000 },
    (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        text += chunk;
        if (text.length > answerBytesMax) call.destroy(new Error('the answer is too long'));
      });
      response.on('error', reject);
      response.on('end', () => {
        try {
          const body: unknown = text === '' ? undefined : JSON.parse(text);
          if ((response.statusCode ?? 500) < 400) resolve(body);
          else reject(refusalOf(body));
        } catch (error) {
          reject(error);
        }
      });
    },
  );
  call.on('timeout', () => call.destroy(new Error('no answer in time')));
  call.on('error', (cause) =>
    reject(new ColoError(errorCodes.host, `the node at ${options.socketPath} does not answer`, { cause })),
  );
  call.end(options.body === undefined ? undefined : JSON.stringify(options.body));
  return promise;
}

export async function nodeStatus(socketPath: string, timeoutMs = 2000): Promise<NodeStatus> {
  return (await callNode({ socketPath, method: 'GET', path: '/status', timeoutMs })) as NodeStatus;
}

/** The error that a refusal means. */
export function refusalOf(body: unknown): ColoError {
  const error = (body as ApiError | undefined)?.error;
  const code = Object.values(errorCodes).find((known) => known === error?.code) ?? errorCodes.host;
  return new ColoError(code satisfies ErrorCode, error?.message ?? 'the node refused', {
    ...(error?.hint === undefined ? {} : { hint: error.hint }),
  });
}
