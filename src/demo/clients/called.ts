// A connection that the guest opens: the client asks the guest's service to call it, and answers the numbered questions
// that come over that one connection with their own words, each after a pause. The guest asks the next question only
// when the one before was answered rightly, and ends the connection otherwise.
//
//   client ── "call ADDRESS PORT" ──► guest, port 11
//   client ◄── connection ─────────── guest
//          ◄── "question 0 ..." ─────
//          ─── "question 0 ..." ────►

import { createConnection, createServer, type Server, type Socket } from 'node:net';
import type { Clock } from '../../base/clock.ts';
import { ColoError, errorCodes } from '../../base/errors.ts';
import { type ClientReport, MeasuredClient } from './client.ts';

export interface CalledRules {
  name: string;
  /** The guest's service, or its forward. */
  host: string;
  port: number;
  /** Where this client listens, and how the guest calls that place. */
  listen: string;
  address: string;
  /** Milliseconds from a question to its answer. */
  paceMs: number;
}

const openTimeoutMs = 60_000;
const lineBytesMax = 256;

export class CalledClient extends MeasuredClient {
  readonly name: string;
  private readonly rules: CalledRules;
  private readonly server: Server;
  private socket: Socket | undefined;
  private calls = 0;
  private asked = 0;
  private answered = 0;
  private answeredAt: number | undefined;
  private text = '';
  private cancelAnswer: () => void = () => undefined;

  private constructor(rules: CalledRules, clock: Clock, server: Server) {
    super(clock);
    this.name = rules.name;
    this.rules = rules;
    this.server = server;
    server.on('connection', (socket) => this.called(socket));
  }

  static async start(rules: CalledRules, clock: Clock): Promise<CalledClient> {
    const server = createServer({ noDelay: true });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(0, rules.listen, resolve);
    });
    const client = new CalledClient(rules, clock, server);
    try {
      await client.askForTheCall();
      return client;
    } catch (error) {
      client.abort();
      throw error;
    }
  }

  progress(): string {
    return `${this.asked} questions`;
  }

  async finish(deadlineMs: number): Promise<ClientReport> {
    this.finishing = true;
    await this.untilDone(deadlineMs, () => {
      if (this.wrong !== '') this.done();
    });
    this.abort();
    // The last question stays without an answer: it shows that the answer before it arrived.
    const complete = this.asked === this.answered + 1 && this.answered > 0;
    const text = complete
      ? 'every question in order, over the connection that the guest opened'
      : 'questions are missing';
    return {
      name: this.name,
      ok: complete && this.wrong === '' && this.calls === 1,
      connections: this.calls,
      sent: this.answered,
      received: this.asked,
      ...this.gaps.report(),
      detail: this.wrong || text,
    };
  }

  abort(): void {
    this.cancelAnswer();
    this.socket?.removeAllListeners('close');
    this.socket?.destroy();
    this.server.close();
  }

  /** Resolves when the guest has called. */
  private async askForTheCall(): Promise<void> {
    const address = this.server.address();
    const ownPort = typeof address === 'object' && address !== null ? address.port : 0;
    const control = createConnection({ host: this.rules.host, port: this.rules.port });
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const fail = (why: string) => reject(new ColoError(errorCodes.timeout, `the guest opened no connection: ${why}`));
    const cancel = this.clock.after(openTimeoutMs, () => fail('it did not call in time'));
    this.server.once('connection', () => resolve());
    control.on('error', (error) => fail(error.message));
    control.on('data', (chunk: Buffer) => {
      if (!chunk.toString().startsWith('connected')) fail(chunk.toString('latin1').trim());
    });
    control.write(`call ${this.rules.address} ${ownPort}\n`);
    try {
      await promise;
    } finally {
      cancel();
      control.destroy();
    }
  }

  private called(socket: Socket): void {
    this.calls += 1;
    if (this.socket !== undefined) {
      socket.destroy();
      this.fail('the guest opened a second connection');
      return;
    }
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => this.take(chunk.toString('latin1')));
    socket.on('error', (error) => this.fail(`connection failed: ${error.message}`));
    socket.on('close', () => this.fail('the guest closed the connection'));
  }

  private take(chunk: string): void {
    this.text += chunk;
    const end = this.text.indexOf('\n');
    if (end < 0) {
      if (this.text.length > lineBytesMax) this.fail('the guest sends no lines');
      return;
    }
    const question = this.text.slice(0, end);
    const expected = `question ${this.asked} of a session that the guest has opened`;
    if (question !== expected || this.text.length > end + 1 || this.asked !== this.answered) {
      this.fail(`question ${this.asked} was ${JSON.stringify(this.text.slice(0, 80))}`);
      return;
    }
    this.text = '';
    this.asked += 1;
    this.gaps.progress(this.answeredAt === undefined ? undefined : this.clock.now() - this.answeredAt);
    if (this.finishing && this.answered > 0) this.done();
    else this.cancelAnswer = this.clock.after(this.rules.paceMs, () => this.answer(question));
  }

  private answer(question: string): void {
    if (this.wrong !== '') return;
    this.answered += 1;
    this.answeredAt = this.clock.now();
    this.socket?.write(`${question}\n`);
  }

  protected override fail(why: string): void {
    this.cancelAnswer();
    super.fail(why);
  }
}
