// A person logged in over SSH: Debian's own client and server, a session that is opened before the fault and must
// outlive it.
//
// The session runs `cat` in the guest. A numbered line goes in, and the next one only when it has come back: each is
// encrypted and authenticated with the session's keys and counters, so a survivor that was off by a single byte would
// be refused by the client. openLogin() makes a session of its own, key exchange and all.

import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { type Clock, delay } from '../../base/clock.ts';
import { ColoError, errorCodes } from '../../base/errors.ts';
import { tryCommand } from '../../host/command.ts';
import { type ClientReport, MeasuredClient } from './client.ts';

export interface LoginPlace {
  /** Forwarded port of the guest's SSH server. */
  port: number;
  /** File with the private key, and the key that the server must show. */
  keyPath: string;
  hostKey: string;
  /** Where this writes the file of known servers. */
  knownPath: string;
}

const openTimeoutMs = 120_000;
const paceMs = 500;
/** Characters of what ssh says on its error output. */
const complaintCharactersMax = 400;

async function sshArguments({ port, keyPath, hostKey, knownPath }: LoginPlace): Promise<string[]> {
  await writeFile(knownPath, `[127.0.0.1]:${port} ${hostKey}\n`, { mode: 0o600 });
  const options = {
    ...{ BatchMode: 'yes', IdentitiesOnly: 'yes', IdentityAgent: 'none', ControlPath: 'none', ControlMaster: 'no' },
    ...{ StrictHostKeyChecking: 'yes', UserKnownHostsFile: knownPath, GlobalKnownHostsFile: '/dev/null' },
    ...{ LogLevel: 'ERROR', TCPKeepAlive: 'no' },
  };
  const given = Object.entries(options).flatMap(([name, value]) => ['-o', `${name}=${value}`]);
  return ['-F', '/dev/null', '-T', '-i', keyPath, ...given, '-p', String(port), 'root@127.0.0.1'];
}

/** Logs in, runs one command in the guest and returns what it printed. */
export async function openLogin(place: LoginPlace, command: string): Promise<string> {
  const result = await tryCommand('ssh', [...(await sshArguments(place)), command], { timeoutMs: openTimeoutMs });
  if (result.code === 0) return result.stdout;
  const why = (result.failure ?? result.stderr).trim().slice(-complaintCharactersMax);
  throw new ColoError(errorCodes.timeout, `the guest could not be logged in to (ssh says ${result.code}): ${why}`);
}

export class LoginClient extends MeasuredClient {
  readonly name = 'ssh';
  private readonly session: ChildProcessWithoutNullStreams;
  private sent = 0;
  private received = 0;
  private askedAt = 0;
  private text = '';
  private complaint = '';

  private constructor(session: ChildProcessWithoutNullStreams, clock: Clock) {
    super(clock);
    this.session = session;
    session.stdout.on('data', (chunk: Buffer) => this.take(chunk.toString('latin1')));
    session.stderr.on('data', (chunk: Buffer) => {
      this.complaint = (this.complaint + chunk.toString('latin1')).slice(-complaintCharactersMax);
    });
    session.stdin.on('error', (error) => this.fail(error.message));
    session.on('error', (error) => this.fail(error.message));
    session.on('close', () => this.fail(`the session was closed: ${this.complaint.trim()}`));
  }

  /** Resolves when the session is open and the first line has come back. */
  static async start(place: LoginPlace, clock: Clock): Promise<LoginClient> {
    const session = spawn('ssh', [...(await sshArguments(place)), 'exec cat'], { stdio: 'pipe' });
    const client = new LoginClient(session, clock);
    const end = clock.now() + openTimeoutMs;
    client.ask();
    while (client.received === 0 && client.wrong === '' && clock.now() < end) await delay(20, clock);
    if (client.received > 0) return client;
    client.abort();
    throw new ColoError(errorCodes.timeout, `no SSH session was opened: ${client.wrong}`);
  }

  progress(): string {
    return `${this.received} lines`;
  }

  async finish(deadlineMs: number): Promise<ClientReport> {
    this.finishing = true;
    const end = this.clock.now() + deadlineMs;
    while (this.received < this.sent && this.wrong === '' && this.clock.now() < end) await delay(20, this.clock);
    const silent = this.received < this.sent ? 'a line never came back' : '';
    const wrong = this.wrong === '' ? silent : this.wrong;
    this.abort();
    return {
      ...{ name: this.name, ok: wrong === '', connections: 1, sent: this.sent, received: this.received },
      ...this.gaps.report(),
      detail: wrong === '' ? 'every line came back, in one session' : wrong,
    };
  }

  abort(): void {
    this.finishing = true;
    this.session.kill('SIGKILL');
  }

  private ask(): void {
    if (this.finishing || this.wrong !== '') return;
    this.askedAt = this.clock.now();
    this.sent += 1;
    this.session.stdin.write(`${lineOf(this.sent)}\n`);
  }

  private take(text: string): void {
    this.text += text;
    const expected = `${lineOf(this.sent)}\n`;
    if (this.text.length < expected.length) return;
    if (this.text !== expected) return this.fail(`line ${this.sent} came back as ${JSON.stringify(this.text)}`);
    this.text = '';
    this.received += 1;
    this.gaps.progress(this.clock.now() - this.askedAt);
    delay(paceMs, this.clock).then(
      () => this.ask(),
      () => undefined,
    );
  }

  protected override fail(why: string): void {
    // An end that was asked for is none.
    if (!this.finishing || this.received < this.sent) this.wrong ||= why;
  }
}

function lineOf(index: number): string {
  return `line ${index} of a session that outlives its host`;
}
