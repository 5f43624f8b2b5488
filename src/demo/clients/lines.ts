// Request and reply over one TCP connection, one outstanding request at a time or paced: the numbered-line session and
// the redis counter are both this, with another request and another rule for the reply.

import { createConnection, type Socket } from 'node:net';
import type { Clock } from '../../base/clock.ts';
import { type ClientReport, MeasuredClient, untilConnected } from './client.ts';

export interface LineRules {
  name: string;
  /** Where the guest or its forward is; 127.0.0.1 by default. */
  host?: string;
  port: number;
  /** Milliseconds between requests; 0: the next follows the reply at once. */
  paceMs: number;
  /** Text of request `index` (from 0), with its line end. */
  request(index: number): string;
  /** The reply that request `index` must have, without its line end; where it is not known, what it must look like. */
  reply(index: number): string | RegExp;
}

/**
 * Requests without a reply that are let stand before the client waits: a paced client does not flood a silent server.
 */
const outstandingMax = 1000;

export class LineClient extends MeasuredClient {
  readonly name: string;
  private readonly rules: LineRules;
  private readonly socket: Socket;
  private readonly sentAt: number[] = [];
  private received = 0;
  private text = '';
  private stopPacing: () => void = () => undefined;

  private constructor(rules: LineRules, clock: Clock, socket: Socket) {
    super(clock);
    this.name = rules.name;
    this.rules = rules;
    this.socket = socket;
  }

  static async start(rules: LineRules, clock: Clock): Promise<LineClient> {
    const socket = createConnection({ port: rules.port, host: rules.host ?? '127.0.0.1', noDelay: true });
    await untilConnected(socket);
    const client = new LineClient(rules, clock, socket);
    client.watch(socket, (chunk) => client.take(chunk.toString('latin1')));
    if (rules.paceMs > 0) client.stopPacing = clock.every(rules.paceMs, () => client.ask());
    client.ask();
    return client;
  }

  progress(): string {
    return `${this.received} replies`;
  }

  async finish(deadlineMs: number): Promise<ClientReport> {
    this.finishing = true;
    this.stopPacing();
    await this.untilDone(deadlineMs, () => this.endWhenAnswered());
    const complete = this.received === this.sentAt.length;
    this.abort();
    return {
      name: this.name,
      ok: complete && this.wrong === '' && this.received > 0,
      connections: 1,
      sent: this.sentAt.length,
      received: this.received,
      ...this.gaps.report(),
      detail: this.wrong === '' ? (complete ? 'every reply in order' : 'replies are missing') : this.wrong,
    };
  }

  abort(): void {
    this.stopPacing();
    this.socket.removeAllListeners('close');
    this.socket.destroy();
  }

  private ask(): void {
    if (this.finishing || this.wrong !== '' || this.sentAt.length - this.received >= outstandingMax) return;
    const index = this.sentAt.length;
    this.sentAt.push(this.clock.now());
    this.socket.write(this.rules.request(index));
  }

  private take(chunk: string): void {
    this.text += chunk;
    for (let end = this.text.indexOf('\n'); end >= 0; end = this.text.indexOf('\n')) {
      this.check(this.text.slice(0, end).replace(/\r$/, ''));
      this.text = this.text.slice(end + 1);
    }
    this.endWhenAnswered();
  }

  private check(line: string): void {
    if (this.wrong !== '') return;
    const index = this.received;
    const expected = this.rules.reply(index);
    if (typeof expected === 'string' ? line !== expected : !expected.test(line)) {
      this.fail(`reply ${index} was ${JSON.stringify(line.slice(0, 60))}, not ${JSON.stringify(String(expected))}`);
      return;
    }
    this.received += 1;
    this.gaps.progress(this.clock.now() - (this.sentAt[index] ?? 0));
    if (this.rules.paceMs === 0) this.ask();
  }

  private endWhenAnswered(): void {
    if (this.finishing && this.received >= this.sentAt.length) this.done();
  }
}

/** Numbered lines, echoed: one every `paceMs`. */
export function echoRules(port: number, paceMs = 20): LineRules {
  const line = (index: number) => `line ${index} of an echo session that must not notice`;
  return { name: 'echo', port, paceMs, request: (index) => `${line(index)}\n`, reply: line };
}

/** Numbered lines that come back behind the number that the guest has counted on this connection (the bare guest). */
export function numberedRules(port: number, paceMs = 20): LineRules {
  const line = (index: number) => `line ${index} that the guest counts`;
  return {
    ...{ name: 'numbered', port, paceMs },
    request: (index) => `${line(index)}\n`,
    reply: (index) => `${index + 1} ${line(index)}`,
  };
}

/** Lines that are answered with the guest's TSC (the bare guest): no two copies say the same. */
export function timesRules(port: number, paceMs = 500): LineRules {
  return { name: 'times', port, paceMs, request: (index) => `time ${index}\n`, reply: () => /^\d+$/ };
}

/** INCR of one counter, which stands at `from`, one every `paceMs`; the reply is the new value. */
export function redisRules(port: number, paceMs = 10, from = 0): LineRules {
  const request = '*2\r\n$4\r\nINCR\r\n$12\r\ncolo-counter\r\n';
  return { name: 'redis', port, paceMs, request: () => request, reply: (index) => `:${from + index + 1}` };
}

/** Bulk to the guest: redis stores values one after the other, as fast as it confirms them. */
export function uploadRules(port: number, valueBytes = 64 * 1024): LineRules {
  const head = `*3\r\n$3\r\nSET\r\n$11\r\ncolo-upload\r\n$${valueBytes}\r\n`;
  // Every value differs from the one before, so that the guest's memory really changes.
  const value = (index: number) => String(index).padEnd(valueBytes, 'colo upload ');
  return { name: 'upload', port, paceMs: 0, request: (index) => `${head}${value(index)}\r\n`, reply: () => '+OK' };
}
