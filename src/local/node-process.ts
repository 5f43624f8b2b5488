// One colod as a child process: its configuration goes in by standard input, which stays open as its life line; "ready"
// or "failed ..." comes back on standard output.

import type { ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { nodeStatus } from '../api/node-client.ts';
import { nodeEnvironment } from '../base/environment.ts';
import { ColoError, type ErrorCode, errorCodes } from '../base/errors.ts';
import { processIdentity } from '../base/processes.ts';
import type { DaemonConfig } from '../child/config.ts';
import { statusTimeoutMs, stopTimeoutMs } from './limits.ts';
import { spawnChild } from './namespace.ts';

const program = fileURLToPath(new URL('../child/main.ts', import.meta.url));

export class NodeProcess {
  readonly name: string;
  readonly apiPath: string;
  readonly ready: Promise<void>;
  readonly exited: Promise<void>;
  private readonly child: ChildProcess;

  private constructor(config: DaemonConfig, child: ChildProcess) {
    this.name = config.node.node;
    this.apiPath = config.apiPath;
    this.child = child;
    this.exited = new Promise((resolve) => child.once('close', () => resolve()));
    this.ready = this.waitReady(config.logFile);
    this.ready.catch(() => undefined);
    child.stdin?.on('error', () => undefined);
    child.stdin?.write(`${JSON.stringify(config)}\n`);
  }

  /** Starts it; with `namespace`, in that network namespace of this machine. */
  static spawn(config: DaemonConfig, namespace?: string): NodeProcess {
    // A session of its own: what a terminal tells its foreground is told to whoever starts this, who ends it.
    const child = spawnChild(process.execPath, [program], {
      stdio: ['pipe', 'pipe', 'pipe'],
      detached: true,
      env: nodeEnvironment(),
      namespace,
    });
    return new NodeProcess(config, child);
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  get alive(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  /** Sends a signal to this process alone. */
  signal(name: NodeJS.Signals): void {
    if (this.alive) this.child.kill(name);
  }

  /** Whether it stands still (SIGSTOP). */
  isStopped(): boolean {
    try {
      const stat = readFileSync(`/proc/${this.pid}/stat`, 'latin1');
      return stat.slice(stat.lastIndexOf(')') + 2).startsWith('T');
    } catch {
      return false;
    }
  }

  /** Ends it with its part in the VM: its life line ends. A signal would only make it hand the VM over. */
  async stop(): Promise<void> {
    if (!this.alive) return;
    this.signal('SIGCONT');
    this.child.stdin?.end();
    const timer = setTimeout(() => this.signal('SIGKILL'), stopTimeoutMs);
    await this.exited;
    clearTimeout(timer);
  }

  async kill(): Promise<void> {
    this.signal('SIGKILL');
    await this.exited;
  }

  /** The QEMU process of this node, from its status. */
  async findQemu(): Promise<number> {
    const status = await nodeStatus(this.apiPath, statusTimeoutMs);
    if (status.qemuPid === null) throw new ColoError(errorCodes.qemu, `node ${this.name} runs no QEMU`);
    return status.qemuPid;
  }

  /** What signals the QEMU of now, and never another process that gets its id later. */
  async holdQemu(): Promise<(name: NodeJS.Signals) => void> {
    const qemu = await this.findQemu();
    const identity = processIdentity(qemu);
    return (name) => {
      if (identity !== undefined && processIdentity(qemu) === identity) process.kill(qemu, name);
    };
  }

  private async waitReady(logFile: string): Promise<void> {
    let words = '';
    this.child.stderr?.on('data', (chunk: Buffer) => {
      words = (words + chunk.toString()).slice(-4000);
    });
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    let text = '';
    this.child.stdout?.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      if (text.startsWith('ready\n')) resolve();
      else if (text.startsWith('failed ') && text.includes('\n')) reject(failure(text));
    });
    this.child.once('error', reject);
    this.child.once('close', () =>
      reject(
        new ColoError(errorCodes.host, `node ${this.name} ended at its start: ${lastError(words)}`, {
          hint: `see ${logFile}`,
        }),
      ),
    );
    await promise;
  }
}

function failure(text: string): ColoError {
  const { code, message, hint } = JSON.parse(text.slice('failed '.length).split('\n')[0] ?? '{}') as {
    code: string;
    message: string;
    hint: string;
  };
  const known: ErrorCode = Object.values(errorCodes).find((value) => value === code) ?? errorCodes.host;
  return new ColoError(known, message, hint === '' ? {} : { hint });
}

/** The line of a crash that says what it was; Node ends its own report with its version. */
function lastError(words: string): string {
  const lines = words.trim().split('\n');
  return lines.find((line) => /^\w*Error/.test(line)) ?? lines.at(-1) ?? '';
}
