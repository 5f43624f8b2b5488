// The children of the service: one process per VM (src/child/main.ts). They outlive the service, which finds them again
// by their files; the service outlives them, and says how they ended.
//
//   RUN/vms/VM/config.json   what it was told
//              identity      process id and start time, while it lives
//              api.sock      its API
//              vm/           guest RAM and sockets
//
// A child is never killed for being slow: it may be the only one that has the VM. It is killed when it was told to stop
// and does not.

import { spawn } from 'node:child_process';
import { closeSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { callNode, nodeStatus } from '../api/node-client.ts';
import type { NodeStatus } from '../api/node-status.ts';
import { type Clock, delay } from '../base/clock.ts';
import { nodeEnvironment } from '../base/environment.ts';
import { ColoError, errorCodes, errorText } from '../base/errors.ts';
import { parseJson } from '../base/json.ts';
import type { Log } from '../base/log.ts';
import { makeFolder } from '../base/make-folder.ts';
import { livingOwner } from '../base/owner-file.ts';
import type { DaemonConfig } from '../child/config.ts';
import type { Child } from '../cluster/placement.ts';
import type { Hosted, VmRecord } from '../cluster/registry.ts';
import type { WantedRole } from '../controller/role.ts';
import { type ChildPaths, childConfig, childPaths } from './child-config.ts';
import type { ServiceConfig } from './config.ts';
import {
  childrenMax,
  lastWordsBytesMax,
  oldLogsMax,
  soundMs,
  statusTimeoutMs,
  stopTimeoutMs,
  whyCharactersMax,
} from './limits.ts';
import { removeOldLogs } from './old-logs.ts';
import { tail } from './tail.ts';

const program = fileURLToPath(new URL('../child/main.ts', import.meta.url));

interface Held {
  vm: string;
  life: string;
  port: number;
  paths: ChildPaths;
  /** undefined before the first answer, and of a dead one. */
  status: NodeStatus | undefined;
  /** What is done with it now; nothing else is until then. */
  busy: 'starting' | 'stopping' | undefined;
  /** Its process has been started by us, and has not said yet who it is. */
  spawned: boolean;
  /** It is dead, and was counted as such. */
  ended: boolean;
  startedAt: number;
  failures: number;
  why: string;
  stateSince: number;
  /** The peers that it was told last, as text. */
  peers: string;
}

/** What the service asks of them. */
export type HeldChildren = Pick<Children, keyof Children>;

export class Children {
  private readonly config: ServiceConfig;
  private readonly clock: Clock;
  private readonly log: Log;
  private readonly held = new Map<string, Held>();

  constructor(config: ServiceConfig, { clock, log }: { clock: Clock; log: Log }) {
    this.config = config;
    this.clock = clock;
    this.log = log;
  }

  /** Takes over the children that an earlier process of the service has left. */
  adopt(): void {
    const root = join(this.config.runFolder, 'vms');
    makeFolder(root, 0o700);
    for (const vm of readdirSync(root)) {
      const paths = childPaths(this.config, vm);
      const known = readConfig(paths.config);
      if (known === undefined) {
        this.log.warn({ vm }, 'a folder of a child without its configuration is left alone');
        continue;
      }
      const pid = livingOwner(paths.identity);
      const { life = '', listen } = known.node;
      const port = 'port' in listen ? listen.port : 0;
      const ended = pid === undefined;
      this.held.set(vm, {
        ...this.fresh({ vm, life, port, paths }),
        ...{ ended, failures: ended ? 1 : 0, why: ended ? (lastWords(paths.output) ?? '') : '' },
      });
      this.log.info({ vm, life, pid }, ended ? 'a child died while the service was away' : 'child adopted');
    }
  }

  private forgetOldLogs(): void {
    void removeOldLogs(join(this.config.stateFolder, 'vms'), new Set(this.held.keys()), oldLogsMax).then(
      (vms) => vms.length > 0 && this.log.info({ vms }, 'the oldest logs of VMs that have left are removed'),
      (error: unknown) => this.log.warn({ error: errorText(error) }, 'old logs cannot be removed'),
    );
  }

  /** Asks every child how it is. */
  async look(): Promise<void> {
    await Promise.all([...this.held.values()].map((one) => this.lookAt(one)));
  }

  /** As the reconciler sees them. */
  view(): ReadonlyMap<string, Child> {
    return new Map([...this.held.values()].map((one) => [one.vm, { ...this.hosted(one), stateSince: one.stateSince }]));
  }

  statuses(): NodeStatus[] {
    return [...this.held.values()].flatMap(({ status }) => (status === undefined ? [] : [status]));
  }

  paths(vm: string): ChildPaths {
    return childPaths(this.config, vm);
  }

  /** True while something is being done with it. */
  isBusy(vm: string): boolean {
    return this.held.get(vm)?.busy !== undefined;
  }

  async start(record: VmRecord, role: WantedRole): Promise<void> {
    const { vm, life } = record;
    const before = this.held.get(vm);
    const paths = childPaths(this.config, vm);
    const one: Held = {
      ...this.fresh({ vm, life, port: before?.port ?? 0, paths }),
      failures: before?.life === life ? before.failures : 0,
      busy: 'starting',
    };
    this.held.set(vm, one);
    try {
      if (this.held.size > childrenMax)
        throw new ColoError(errorCodes.host, `this node has ${childrenMax} VMs already`);
      if (one.port === 0) one.port = this.freePort();
      const config = await childConfig(this.config, { record, role, port: one.port });
      this.spawn(one, config);
      this.log.info({ vm, life, role, port: one.port }, 'child started');
    } catch (error) {
      this.failed(one, errorText(error));
    } finally {
      one.busy = undefined;
    }
  }

  /** `forget`: nothing of it is kept. Otherwise it counts as one that failed, to be started again later. */
  async stop(vm: string, { why, forget }: { why: string; forget: boolean }): Promise<void> {
    const one = this.held.get(vm);
    if (one === undefined || one.busy !== undefined) return;
    one.busy = 'stopping';
    this.log.info({ vm, why }, 'child is stopped');
    try {
      await this.end(one);
      if (forget) {
        this.held.delete(vm);
        rmSync(one.paths.folder, { recursive: true, force: true });
        this.forgetOldLogs();
      } else this.failed(one, why);
    } finally {
      one.busy = undefined;
    }
  }

  /**
   * Stops it if it agrees: it alone knows whether it has the VM, or is about to. It is not killed for not answering.
   */
  async leave(vm: string, options: { why: string; forget: boolean }): Promise<void> {
    const one = this.held.get(vm);
    if (one === undefined || one.busy !== undefined) return;
    one.busy = 'stopping';
    try {
      if (this.isAlive(one)) await this.call(vm, { method: 'POST', path: '/leave' });
    } finally {
      one.busy = undefined;
    }
    await this.stop(vm, options);
  }

  async setPeers(vm: string, peers: { node: string; host: string; port: number }[]): Promise<void> {
    const one = this.held.get(vm);
    const text = JSON.stringify(peers);
    if (one?.status === undefined || one.busy !== undefined || one.peers === text) return;
    await this.call(vm, { method: 'PUT', path: '/peers', body: peers });
    one.peers = text;
  }

  call(
    vm: string,
    options: { method: 'GET' | 'POST' | 'PUT'; path: string; body?: unknown; timeoutMs?: number },
  ): Promise<unknown> {
    return callNode({ socketPath: childPaths(this.config, vm).api, ...options });
  }

  private fresh(part: { vm: string; life: string; port: number; paths: ChildPaths }): Held {
    const now = this.clock.now();
    const nothing = {
      status: undefined,
      busy: undefined,
      spawned: false,
      ended: false,
      failures: 0,
      why: '',
      peers: '',
    };
    return { ...part, ...nothing, startedAt: now, stateSince: now };
  }

  private spawn(one: Held, config: DaemonConfig): void {
    const { paths } = one;
    for (const folder of [paths.folder, paths.logs]) makeFolder(folder, 0o700);
    writeFileSync(paths.config, JSON.stringify(config), { mode: 0o600 });
    const output = openSync(paths.output, 'w', 0o600);
    // A session of its own: what ends the service does not end it.
    const child = spawn(
      process.execPath,
      ['--disable-warning=ExperimentalWarning', program, '--config', paths.config],
      {
        stdio: ['ignore', output, output],
        detached: true,
        env: nodeEnvironment(),
      },
    );
    closeSync(output);
    one.spawned = true;
    child.once('error', (error) => this.failed(one, errorText(error)));
    child.once('exit', (code, signal) => {
      one.spawned = false;
      if (one.busy !== 'stopping')
        one.why = lastWords(paths.output) ?? `ended (${signal ?? `code ${code}`}); see ${paths.log}`;
    });
    child.unref();
  }

  private async lookAt(one: Held): Promise<void> {
    const before = stateOf(one.status);
    if (livingOwner(one.paths.identity) === undefined) {
      if (!one.spawned && one.busy === undefined && !one.ended) this.died(one);
      return;
    }
    try {
      one.status = await nodeStatus(one.paths.api, statusTimeoutMs);
      one.why = '';
      if (this.clock.now() - one.startedAt > soundMs && one.status.role !== 'stopped') one.failures = 0;
    } catch (error) {
      // It is starting, or starved: what it said last stands.
      this.log.debug({ vm: one.vm, error: errorText(error) }, 'a child does not answer');
    }
    if (stateOf(one.status) !== before) one.stateSince = this.clock.now();
  }

  private died(one: Held): void {
    this.failed(one, one.why === '' ? `ended; see ${one.paths.log}` : one.why);
  }

  private failed(one: Held, why: string): void {
    one.status = undefined;
    one.spawned = false;
    one.ended = true;
    one.failures += 1;
    one.why = why;
    one.peers = '';
    one.stateSince = this.clock.now();
    this.log.error({ vm: one.vm, why, failures: one.failures }, 'a child ended');
  }

  private hosted(one: Held): Hosted {
    const { vm, life, port, failures, status } = one;
    const short = (text: string) => text.slice(0, whyCharactersMax);
    const lives = status !== undefined || one.busy !== undefined || this.isAlive(one);
    const rest = { vm, life, port, failures };
    if (status === undefined)
      return { ...rest, role: lives ? 'starting' : 'dead', state: '', why: short(one.why), protected: false, term: 0 };
    const { role, state, why, term, over } = status;
    const lost = role === 'stopped' && over?.byGuest === false;
    return { ...rest, role, state, why: short(why), protected: status.protected, term, ...(lost ? { lost } : {}) };
  }

  private isAlive(one: Held): boolean {
    return one.spawned || livingOwner(one.paths.identity) !== undefined;
  }

  /** Asks it to end, and kills it when it does not. */
  private async end(one: Held): Promise<void> {
    const deadline = this.clock.now() + stopTimeoutMs;
    let asked = false;
    while (this.isAlive(one)) {
      const pid = livingOwner(one.paths.identity);
      if (!asked && pid !== undefined)
        asked = await this.call(one.vm, { method: 'POST', path: '/stop' }).then(
          () => true,
          () => false,
        );
      if (this.clock.now() > deadline && pid !== undefined) kill(pid);
      if (this.clock.now() > deadline + stopTimeoutMs) throw new ColoError(errorCodes.host, `${one.vm} does not end`);
      await delay(50, this.clock);
    }
  }

  private freePort(): number {
    const { from, to } = this.config.linkPorts;
    const used = new Set([...this.held.values()].map((one) => one.port));
    for (let port = from; port <= to; port += 1) if (!used.has(port)) return port;
    throw new ColoError(errorCodes.host, `no link port is free from ${from} to ${to}`, {
      hint: 'give this node more in its configuration: linkPorts',
    });
  }
}

function stateOf(status: NodeStatus | undefined): string {
  return status === undefined ? '' : `${status.role} ${status.state}`;
}

const failedWord = 'failed ';

/** Why a child did not start, as it said at its end (child/main.ts). */
function lastWords(outputPath: string): string | undefined {
  const line = tail(outputPath, lastWordsBytesMax).trimEnd().split('\n').at(-1) ?? '';
  if (!line.startsWith(failedWord)) return undefined;
  const parsed = failureSchema.safeParse(parseJson(line.slice(failedWord.length)));
  if (!parsed.success) return undefined;
  const { message, hint } = parsed.data;
  return hint === '' ? message : `${message} (${hint})`;
}

const failureSchema = z.object({ message: z.string(), hint: z.string() });

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has just ended.
  }
}

function readConfig(path: string): DaemonConfig | undefined {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as DaemonConfig;
  } catch {
    return undefined;
  }
}
