// A redis register under load from several connections at once: SET of values that are all different, and GET. Nobody
// can say beforehand what a reply must be; afterwards the whole history must be one that a single register could have
// given (linearizable.ts), whoever answered meanwhile.

import { createConnection, type Socket } from 'node:net';
import type { Clock } from '../../base/clock.ts';
import { type ClientReport, MeasuredClient, untilConnected } from './client.ts';
import { type Call, judge, type Operation } from './linearizable.ts';

const key = 'colo-register';
const connections = 4;

interface Worker {
  socket: Socket;
  text: string;
  /** The operation that waits for its reply. */
  open: { operation: Operation; called: number } | undefined;
  writes: number;
}

export class RegisterClient extends MeasuredClient {
  readonly name = 'register';
  private readonly paceMs: number;
  private readonly workers: Worker[] = [];
  private readonly history: Call[] = [];
  private order = 0;
  private asked = 0;
  private readonly stops: (() => void)[] = [];

  private constructor(clock: Clock, paceMs: number) {
    super(clock);
    this.paceMs = paceMs;
  }

  static async start(port: number, clock: Clock, paceMs = 25): Promise<RegisterClient> {
    const client = new RegisterClient(clock, paceMs);
    try {
      // One after the other: a forwarded port takes one waiting connection.
      for (let index = 0; index < connections; index += 1) await client.connect(port);
    } catch (error) {
      client.abort();
      throw error;
    }
    return client;
  }

  progress(): string {
    return `${this.history.length} operations`;
  }

  async finish(deadlineMs: number): Promise<ClientReport> {
    this.finishing = true;
    await this.untilDone(deadlineMs, () => this.endWhenAnswered());
    const isComplete = this.workers.every((worker) => worker.open === undefined);
    this.abort();
    const impossible = this.wrong === '' ? judge(this.history) : undefined;
    const detail = [this.wrong, isComplete ? '' : 'replies are missing', impossible ?? ''].find((text) => text !== '');
    return {
      name: this.name,
      ok: detail === undefined && this.history.length > 0,
      connections,
      sent: this.asked,
      received: this.history.length,
      ...this.gaps.report(),
      detail: detail ?? 'the history is linearizable',
    };
  }

  abort(): void {
    for (const stop of this.stops.splice(0)) stop();
    for (const { socket } of this.workers) {
      socket.removeAllListeners('close');
      socket.destroy();
    }
  }

  private async connect(port: number): Promise<void> {
    const socket = createConnection({ port, host: '127.0.0.1', noDelay: true });
    const number = this.workers.length;
    const worker: Worker = { socket, text: '', open: undefined, writes: 0 };
    this.workers.push(worker);
    await untilConnected(socket);
    this.watch(socket, (chunk) => this.take(worker, chunk.toString('latin1')));
    // Unequal paces: the operations of the connections overlap in ever new ways.
    this.stops.push(this.clock.every(this.paceMs + number * 3, () => this.ask(worker, number)));
  }

  private ask(worker: Worker, number: number): void {
    if (worker.open !== undefined || this.finishing || this.wrong !== '') return;
    const isWrite = (this.asked * 7 + number) % 5 < 2;
    this.asked += 1;
    const value = `${number}.${worker.writes}`;
    if (isWrite) worker.writes += 1;
    const operation: Operation = isWrite
      ? { client: number, kind: 'write', value }
      : { client: number, kind: 'read', value: null };
    worker.open = { operation, called: this.next() };
    const words = isWrite ? ['SET', key, value] : ['GET', key];
    worker.socket.write(`*${words.length}\r\n${words.map((word) => `$${word.length}\r\n${word}\r\n`).join('')}`);
  }

  private take(worker: Worker, chunk: string): void {
    worker.text += chunk;
    const { open } = worker;
    const reply = /^(\+OK\r\n|\$-1\r\n|\$\d+\r\n([^\r]*)\r\n)/.exec(worker.text);
    if (reply === null || open === undefined) return;
    worker.text = worker.text.slice(reply[0].length);
    worker.open = undefined;
    const { operation, called } = open;
    const isWrite = operation.kind === 'write';
    if (isWrite !== reply[0].startsWith('+') || worker.text !== '') {
      this.fail(`a ${operation.kind} was answered ${JSON.stringify(reply[0] + worker.text)}`);
      return;
    }
    const { client } = operation;
    const seen: Operation = isWrite ? operation : { client, kind: 'read', value: reply[2] ?? null };
    this.history.push({ operation: seen, called, returned: this.next() });
    this.gaps.progress();
    this.endWhenAnswered();
  }

  private next(): number {
    this.order += 1;
    return this.order;
  }

  private endWhenAnswered(): void {
    if (this.finishing && this.workers.every((worker) => worker.open === undefined)) this.done();
  }
}
