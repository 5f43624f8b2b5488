// A host for clients, on the guest's own link: a process in a network namespace without a name, whose only interface is
// a TAP that it joins to the demo's switch. Ordinary sockets there speak IPv4 and IPv6 to the guest, and the guest can
// call them. The namespace, its TAP and its clients are gone with the process, and the process is gone with us.
//
//   this process                        process in the namespace (host-main.ts)
//   ┌───────────────────────┐           ┌─────────────────────────────────────────────┐
//   │ demo ── RemoteClient ─┼─ messages ┼─ client ── socket ── kernel ── TAP ─┐       │
//   │ switch ── port ───────┼───────────┼──────────────────────── frames ─────┘       │
//   └───────────────────────┘           └─────────────────────────────────────────────┘
//
// Needs root, or a kernel that lets users make namespaces (`unshare -r`), and /dev/net/tun. Where that is missing,
// `ClientHost.open` says why, and the demo reaches its guest through the gateway instead.

import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process';
import { join } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import { childEnvironment } from '../../base/environment.ts';
import { ColoError, errorCodes } from '../../base/errors.ts';
import { tiedToUs } from '../../base/processes.ts';
import { endChild } from '../../local/namespace.ts';
import type { Client, ClientReport } from './client.ts';
import type { WantedClient } from './clients.ts';
import type { Answer, Order } from './host-message.ts';

const openTimeoutMs = 120_000;
const startTimeoutMs = 120_000;
const wordsMax = 2000;

export class ClientHost {
  /** Why there is no IPv6 behind it; undefined when there is. */
  ipv6Refusal: string | undefined;
  private readonly child: ChildProcess;
  private readonly clock: Clock;
  private readonly clients: RemoteClient[] = [];
  private readonly waiting = new Set<(answer: Answer) => void>();
  private words = '';
  private ended = '';

  private constructor(child: ChildProcess, clock: Clock) {
    this.child = child;
    this.clock = clock;
    child.stderr?.on('data', (chunk: Buffer) => {
      this.words = (this.words + chunk.toString()).slice(-wordsMax);
    });
    child.on('message', (answer: Answer) => this.take(answer));
    child.once('error', (error) => this.end(error.message));
    child.once('close', () => this.end(this.words.trim().split('\n').at(-1) ?? ''));
  }

  /** Makes the namespace; throws with the reason where that cannot be. */
  static async open(clock: Clock): Promise<ClientHost> {
    const isRoot = process.getuid?.() === 0;
    const tries = isRoot ? [['-n'], ['-r', '-n']] : [['-r', '-n']];
    let refusal: unknown;
    for (const how of tries) {
      const host = new ClientHost(spawnInNamespace(how), clock);
      try {
        const ready = await host.answer('namespace-ready', openTimeoutMs);
        host.ipv6Refusal = ready.ipv6Refusal;
        return host;
      } catch (error) {
        refusal ??= error;
        await host.stop();
      }
    }
    throw refusal;
  }

  /** Joins it to the switch at `path`; `pcap` is a file for every frame that its clients send and are sent. */
  async connect(path: string, pcap?: string): Promise<void> {
    this.tell({ do: 'connect', path, pcap });
    await this.answer('connected', openTimeoutMs);
  }

  async start(wanted: WantedClient): Promise<Client> {
    const index = this.clients.length;
    const name = 'name' in wanted && wanted.name !== undefined ? wanted.name : wanted.kind;
    const client = new RemoteClient(name, index, (order) => this.tell(order));
    this.clients.push(client);
    this.tell({ do: 'start', index, wanted });
    await this.answer('started', startTimeoutMs, (answer) => answer.index === index);
    return client;
  }

  async stop(): Promise<void> {
    await endChild(this.child);
  }

  private tell(order: Order): void {
    if (this.child.connected) this.child.send(order, () => undefined);
  }

  private take(answer: Answer): void {
    if (answer.is === 'progress') {
      for (const [index, { text, gapMs }] of answer.all.entries()) this.clients[index]?.heard(text, gapMs);
    } else if (answer.is === 'finished') this.clients[answer.index]?.finished(answer.report);
    for (const waiter of this.waiting) waiter(answer);
  }

  private end(why: string): void {
    if (this.ended !== '') return;
    this.ended = why || 'it ended';
    for (const client of this.clients) client.lost(`the clients' host ended: ${this.ended}`);
    this.take({ is: 'failed', why: this.ended });
  }

  private async answer<Is extends Answer['is']>(
    is: Is,
    timeoutMs: number,
    holds: (answer: Extract<Answer, { is: Is }>) => boolean = () => true,
  ): Promise<Extract<Answer, { is: Is }>> {
    const { promise, resolve, reject } = Promise.withResolvers<Extract<Answer, { is: Is }>>();
    const fail = (why: string) => reject(new ColoError(errorCodes.host, why));
    const waiter = (answer: Answer) => {
      if (answer.is === 'failed') fail(answer.why);
      else if (answer.is === is && holds(answer as Extract<Answer, { is: Is }>))
        resolve(answer as Extract<Answer, { is: Is }>);
    };
    const cancel = this.clock.after(timeoutMs, () => fail(`the clients' host did not answer in ${timeoutMs / 1000} s`));
    this.waiting.add(waiter);
    if (this.ended !== '') fail(this.ended);
    try {
      return await promise;
    } finally {
      cancel();
      this.waiting.delete(waiter);
    }
  }
}

/** A client of the other process, as far as this one needs it. */
class RemoteClient implements Client {
  readonly name: string;
  private readonly index: number;
  private readonly tell: (order: Order) => void;
  private text = '';
  private gapMs = 0;
  private why = '';
  private done: ((report: ClientReport) => void) | undefined;

  constructor(name: string, index: number, tell: (order: Order) => void) {
    this.name = name;
    this.index = index;
    this.tell = tell;
  }

  progress(): string {
    return this.text;
  }

  markFault(): void {
    this.tell({ do: 'mark', index: this.index });
  }

  takeGap(): number {
    const gap = this.gapMs;
    this.gapMs = 0;
    return gap;
  }

  finish(deadlineMs: number): Promise<ClientReport> {
    if (this.why !== '') return Promise.resolve(lostReport(this.name, this.why));
    const { promise, resolve } = Promise.withResolvers<ClientReport>();
    this.done = resolve;
    this.tell({ do: 'finish', index: this.index, deadlineMs });
    return promise;
  }

  abort(): void {
    this.tell({ do: 'abort', index: this.index });
  }

  heard(text: string, gapMs: number): void {
    this.text = text;
    this.gapMs = Math.max(this.gapMs, gapMs);
  }

  finished(report: ClientReport): void {
    this.done?.(report);
  }

  lost(why: string): void {
    this.why = why;
    this.done?.(lostReport(this.name, why));
  }
}

function lostReport(name: string, detail: string): ClientReport {
  const gaps = { gapMsMax: 0, gapBeforeFaultMsMax: 0, gapAfterFaultMsMax: 0 };
  return { name, ok: false, connections: 0, sent: 0, received: 0, ...gaps, latencyMsP50: null, detail };
}

/** Tied to us within the namespace: with new rights, as of a user's namespace, the kernel forgets the death signal. */
function spawnInNamespace(how: readonly string[]): ChildProcess {
  const main = join(import.meta.dirname, 'host-main.ts');
  const [command, args] = tiedToUs(process.execPath, ['--disable-warning=ExperimentalWarning', main]);
  const stdio: StdioOptions = ['ignore', 'ignore', 'pipe', 'ipc'];
  return spawn('unshare', [...how, '--', command, ...args], { stdio, env: childEnvironment({}) });
}
