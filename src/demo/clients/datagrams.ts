// Numbered datagrams, echoed. UDP promises nothing, so a datagram that gets no answer is sent again, as any real client
// does; what must hold is that every number is answered with its own bytes. Copies are counted, not wrong.

import { createSocket, type Socket } from 'node:dgram';
import { isIPv6 } from 'node:net';
import type { Clock } from '../../base/clock.ts';
import { type ClientReport, MeasuredClient } from './client.ts';

export interface DatagramRules {
  name?: string;
  /** Where the guest or its forward is; 127.0.0.1 by default. */
  host?: string;
  port: number;
  paceMs?: number;
}

const repeatMs = 200;

export class DatagramClient extends MeasuredClient {
  readonly name: string;
  private readonly socket: Socket;
  private readonly port: number;
  private readonly host: string;
  private sent = 0;
  private received = 0;
  private repeated = 0;
  private copies = 0;
  private firstSentAt = 0;
  private lastSentAt = 0;
  private readonly stopTimer: () => void;

  private constructor(rules: DatagramRules, clock: Clock, socket: Socket) {
    super(clock);
    this.name = rules.name ?? 'udp';
    this.port = rules.port;
    this.host = rules.host ?? '127.0.0.1';
    this.socket = socket;
    this.stopTimer = clock.every(rules.paceMs ?? 20, () => this.turn());
  }

  static async start(rules: DatagramRules, clock: Clock): Promise<DatagramClient> {
    const socket = createSocket(isIPv6(rules.host ?? '') ? 'udp6' : 'udp4');
    await new Promise<void>((resolve) => socket.bind(0, resolve));
    const client = new DatagramClient(rules, clock, socket);
    socket.on('message', (bytes) => client.take(bytes.toString('latin1')));
    socket.on('error', (error) => client.fail(error.message));
    return client;
  }

  progress(): string {
    return `${this.received} replies`;
  }

  async finish(deadlineMs: number): Promise<ClientReport> {
    this.finishing = true;
    await this.untilDone(deadlineMs, () => {
      if (this.received === this.sent) this.done();
    });
    this.abort();
    const complete = this.received === this.sent && this.received > 0;
    return {
      name: this.name,
      ok: complete && this.wrong === '',
      connections: 1,
      sent: this.sent,
      received: this.received,
      ...this.gaps.report(),
      detail:
        this.wrong ||
        `${complete ? 'every datagram answered' : 'answers are missing'}, ${this.repeated} sent again, ` +
          `${this.copies} copies`,
    };
  }

  abort(): void {
    this.stopTimer();
    this.socket.removeAllListeners('message');
    try {
      this.socket.close();
    } catch {
      // Already closed: nothing is left to do.
    }
  }

  private turn(): void {
    const now = this.clock.now();
    if (this.received < this.sent) {
      if (now - this.lastSentAt < repeatMs) return;
      this.repeated += 1;
      this.send(this.sent - 1, now);
    } else if (!this.finishing) {
      this.sent += 1;
      this.firstSentAt = now;
      this.send(this.sent - 1, now);
    }
  }

  private send(index: number, now: number): void {
    this.lastSentAt = now;
    this.socket.send(text(index), this.port, this.host);
  }

  private take(answer: string): void {
    const index = Number(/^datagram (\d+) /.exec(answer)?.[1] ?? Number.NaN);
    if (answer !== text(index)) this.wrong ||= `answer ${JSON.stringify(answer.slice(0, 60))} was never asked for`;
    else if (index < this.received) this.copies += 1;
    else if (index === this.received) {
      this.received += 1;
      this.gaps.progress(this.clock.now() - this.firstSentAt);
      if (this.finishing && this.received === this.sent) this.done();
    }
  }
}

function text(index: number): string {
  return `datagram ${index} that must be answered with itself`;
}
