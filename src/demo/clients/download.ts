// Large downloads, one after the other, over one TCP connection that is never opened again; each is hashed, and must be
// the file the guest was built with. As fast as they go, or as fast as the client reads: nginx's own rate limit counts
// in whole seconds of the guest's clock, so two guests that are a millisecond apart may wait up to a second for each
// other.

import { createHash } from 'node:crypto';
import { createConnection, type Socket } from 'node:net';
import type { Clock } from '../../base/clock.ts';
import { type ClientReport, MeasuredClient, untilConnected } from './client.ts';

export interface DownloadRules {
  name?: string;
  /** Where the guest or its forward is; 127.0.0.1 by default. */
  host?: string;
  port: number;
  /** Path with query. */
  path: string;
  bytes: number;
  sha256: string;
  /** The client reads no faster, and TCP holds the guest back; unlimited by default. */
  bytesPerSecondMax?: number;
  /** Whether the time from a request to the last byte is reported. */
  isTimed?: boolean;
}

const headBytesMax = 16 * 1024;
/** Reading stops for no less than this. */
const slowDownMsMin = 5;

export class DownloadClient extends MeasuredClient {
  readonly name: string;
  private readonly rules: DownloadRules;
  private readonly socket: Socket;
  private hash = createHash('sha256');
  private head = '';
  private inBody = false;
  /** Bytes of the file that is on its way; bytes and number of those before. */
  private received = 0;
  private receivedBefore = 0;
  private files = 0;
  private requestedAt = 0;
  private readonly startedAt: number;
  private cancelResume: () => void = () => undefined;

  private constructor(rules: DownloadRules, clock: Clock, socket: Socket) {
    super(clock);
    this.name = rules.name ?? 'download';
    this.rules = rules;
    this.startedAt = clock.now();
    this.socket = socket;
  }

  static async start(rules: DownloadRules, clock: Clock): Promise<DownloadClient> {
    const socket = createConnection({ port: rules.port, host: rules.host ?? '127.0.0.1' });
    await untilConnected(socket);
    const client = new DownloadClient(rules, clock, socket);
    client.watch(socket, (chunk) => client.take(chunk));
    client.request();
    return client;
  }

  progress(): string {
    return `${(this.bytes / 1024 ** 2).toFixed(0)} MiB`;
  }

  /** Sum over all files so far. */
  get bytes(): number {
    return this.receivedBefore + this.received;
  }

  async finish(deadlineMs: number): Promise<ClientReport> {
    this.finishing = true;
    // The rest of the last file comes as fast as it goes.
    this.cancelResume();
    this.socket.resume();
    await this.untilDone(deadlineMs, () => {
      if (this.wrong !== '' || this.received === this.rules.bytes) this.done();
    });
    this.abort();
    const missing = this.rules.bytes - this.received;
    const complete = missing === 0 && this.wrong === '' && this.files > 0;
    return {
      name: this.name,
      ok: complete,
      connections: 1,
      sent: this.files + (missing === 0 ? 0 : 1),
      received: this.bytes,
      ...this.gaps.report(),
      detail:
        this.wrong ||
        (missing > 0
          ? `${missing} bytes missing`
          : `${this.files} times sha256 ${this.rules.sha256.slice(0, 16)}…, as the original`),
    };
  }

  abort(): void {
    this.cancelResume();
    this.socket.removeAllListeners('close');
    this.socket.destroy();
  }

  private request(): void {
    this.requestedAt = this.clock.now();
    this.socket.write(`GET ${this.rules.path} HTTP/1.1\r\nHost: guest\r\n\r\n`);
  }

  private take(chunk: Buffer): void {
    if (this.inBody) this.body(chunk);
    else this.header(chunk);
    this.slowDown();
  }

  private slowDown(): void {
    const { bytesPerSecondMax } = this.rules;
    if (bytesPerSecondMax === undefined || this.finishing) return;
    const dueMs = (this.bytes / bytesPerSecondMax) * 1000;
    const earlyMs = this.startedAt + dueMs - this.clock.now();
    if (earlyMs < slowDownMsMin) return;
    this.socket.pause();
    this.cancelResume = this.clock.after(earlyMs, () => this.socket.resume());
  }

  private header(chunk: Buffer): void {
    this.head += chunk.toString('latin1');
    const end = this.head.indexOf('\r\n\r\n');
    if (end < 0) {
      if (this.head.length > headBytesMax) this.fail('the answer is not HTTP');
      return;
    }
    const head = this.head.slice(0, end);
    if (!head.startsWith('HTTP/1.1 200')) return this.fail(`the server said ${head.split('\r\n')[0] ?? ''}`);
    const length = Number(/^content-length: (\d+)$/im.exec(head)?.[1]);
    if (length !== this.rules.bytes) return this.fail(`the file has ${length} bytes, not ${this.rules.bytes}`);
    this.inBody = true;
    this.body(Buffer.from(this.head.slice(end + 4), 'latin1'));
  }

  private body(bytes: Buffer): void {
    if (bytes.length === 0) return;
    this.received += bytes.length;
    this.hash.update(bytes);
    const isLast = this.received >= this.rules.bytes;
    this.gaps.progress(isLast && this.rules.isTimed === true ? this.clock.now() - this.requestedAt : undefined);
    if (isLast) this.complete();
  }

  private complete(): void {
    const sum = this.hash.digest('hex');
    if (sum !== this.rules.sha256 || this.received > this.rules.bytes) {
      this.fail(`file ${this.files} DIFFERS: ${this.received} bytes, sha256 ${sum}`);
      return;
    }
    this.files += 1;
    if (this.finishing) {
      this.done();
      return;
    }
    this.receivedBefore += this.received;
    this.received = 0;
    this.head = '';
    this.inBody = false;
    this.hash = createHash('sha256');
    this.request();
  }
}
