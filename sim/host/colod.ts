// The service of one host of three: the product's own Service, with its Reconciler and Registry, over simulated
// children. A child is the process of a SimNode; the service may end and come back, and finds the child again.
//
//   Service (src/colod) ─► SimChildren ─► SimNode.start, stop, leave, setPeers, failover
//           └──────────► Registry ─► SimStore (etcd)

import type { NodeStatus } from '../../src/api/node-status.ts';
import { type Clock, delay } from '../../src/base/clock.ts';
import { ColoError, errorCodes, errorText } from '../../src/base/errors.ts';
import type { Log } from '../../src/base/log.ts';
import type { Child } from '../../src/cluster/placement.ts';
import { type Hosted, Registry, type VmRecord } from '../../src/cluster/registry.ts';
import type { HeldChildren } from '../../src/colod/children.ts';
import { type ServiceConfig, serviceSchema } from '../../src/colod/config.ts';
import { soundMs, statusTimeoutMs, stopTimeoutMs } from '../../src/colod/limits.ts';
import { Service } from '../../src/colod/service.ts';
import type { WantedRole } from '../../src/controller/role.ts';
import type { Peer } from '../../src/node/config.ts';
import type { Random } from '../world/random.ts';
import { SimArbiter } from './arbiter.ts';
import type { SimNode } from './node.ts';
import { SimProcess } from './process.ts';
import { SimStore } from './store.ts';

const GiB = 2 ** 30;
/** From the service's question to the child, and back. */
const callMs = 0.5;
const spawnMs = 80;

export class SimColod {
  readonly host: SimNode;
  process: SimProcess | undefined;
  private readonly random: Random;
  private starts = 0;

  constructor(host: SimNode) {
    this.host = host;
    this.random = host.world.random.fork(`colod ${host.name}`);
  }

  start(): void {
    const { host, random } = this;
    const { world, name } = host;
    this.starts += 1;
    const process = new SimProcess(`${name}-colod${this.starts}`, world.schedule, {
      rate: 1 + (random.next() - 0.5) * 0.001,
      origin: random.between(0, 1e6),
    });
    this.process = process;
    const reach = world.reach[name];
    const asking = { members: world.members, reach, random: random.fork(`etcd ${this.starts}`) };
    const store = new SimStore(process, world.registry, { asking, refuses: () => world.registryRefuses });
    const changed = () => world.termChanged();
    const arbiter = new SimArbiter(process, world, { ...asking, changed });
    const cluster = {
      ...{ arbiter, registry: new Registry(store), children: new SimChildren(host, process) },
      memory: () => ({ memoryBytes: 8 * GiB, memoryFreeBytes: 4 * GiB }),
    };
    host.say('colod starts');
    process.run(() => {
      const parts = { clock: process.clock, log: this.newLog(process), cluster };
      Service.start(configOf(name), parts).catch((error: unknown) => world.crashed(host, error));
    });
  }

  /** It alone: its children live on. It is started again soon. */
  kill(againMs: number): void {
    const { process, host } = this;
    if (process?.alive !== true) return;
    host.say('colod is killed');
    process.kill();
    host.world.schedule.after(againMs, () => {
      if (this.process === process && !host.isDown) this.start();
    });
  }

  /** With its host. */
  end(): void {
    this.process?.kill();
  }

  private newLog(process: SimProcess): Log {
    const line = (fields: unknown, text: unknown) => {
      if (process.alive) this.host.say(`colod ${String(text)} ${JSON.stringify(fields)}`);
    };
    const nothing = () => undefined;
    return { error: line, warn: line, info: line, debug: nothing, trace: nothing } as unknown as Log;
  }
}

function configOf(node: string): ServiceConfig {
  return serviceSchema.parse({ node, address: '127.0.0.1', certificates: '/', arbiter: { folder: '/' } });
}

/** What one service knows of a child: as `Held` of src/colod/children.ts. */
interface Held {
  vm: string;
  life: string;
  status: NodeStatus | undefined;
  busy: 'starting' | 'stopping' | undefined;
  ended: boolean;
  startedAt: number;
  failures: number;
  why: string;
  stateSince: number;
  peers: string;
}

type Call = (host: SimNode) => unknown;

/** One VM has one child on a host at most. */
class SimChildren implements HeldChildren {
  private readonly host: SimNode;
  private readonly process: SimProcess;
  private readonly clock: Clock;
  private held: Held | undefined = undefined;

  constructor(host: SimNode, process: SimProcess) {
    this.host = host;
    this.process = process;
    this.clock = process.clock;
  }

  adopt(): void {
    const { child } = this.host;
    if (child === undefined) return;
    const ended = !this.host.isUp;
    this.held = { ...this.fresh(child.vm, child.life), ended, failures: ended ? 1 : 0 };
  }

  async look(): Promise<void> {
    const one = this.held;
    if (one === undefined) return;
    const before = stateOf(one.status);
    if (!this.host.isUp) {
      if (one.busy === undefined && !one.ended) this.failed(one, 'ended');
      return;
    }
    try {
      one.status = (await this.ask(({ node }) => node?.status(), statusTimeoutMs)) as NodeStatus;
      one.why = '';
      if (this.clock.now() - one.startedAt > soundMs && one.status.role !== 'stopped') one.failures = 0;
    } catch {
      // What it said last stands.
    }
    if (stateOf(one.status) !== before) one.stateSince = this.clock.now();
  }

  view(): ReadonlyMap<string, Child> {
    const one = this.held;
    return new Map(one === undefined ? [] : [[one.vm, { ...this.hosted(one), stateSince: one.stateSince }]]);
  }

  statuses(): NodeStatus[] {
    return this.held?.status === undefined ? [] : [this.held.status];
  }

  paths(): never {
    throw new Error('bug: nothing of a simulated child lies in a file');
  }

  isBusy(): boolean {
    return this.held?.busy !== undefined;
  }

  async start(record: VmRecord, role: WantedRole): Promise<void> {
    const { vm, life } = record;
    const failures = this.held?.life === life ? this.held.failures : 0;
    const one: Held = { ...this.fresh(vm, life), failures, busy: 'starting' };
    this.held = one;
    await delay(spawnMs, this.clock);
    // Its own identity file keeps a second one from starting (child/identity-file.ts).
    if (!this.host.isUp) this.host.startChild({ vm, life }, role);
    one.busy = undefined;
  }

  async stop(_vm: string, { why, forget }: { why: string; forget: boolean }): Promise<void> {
    const one = this.held;
    if (one === undefined || one.busy !== undefined) return;
    one.busy = 'stopping';
    await this.end();
    if (forget) {
      this.held = undefined;
      this.host.child = undefined;
    } else this.failed(one, why);
    one.busy = undefined;
  }

  async leave(vm: string, options: { why: string; forget: boolean }): Promise<void> {
    const one = this.held;
    if (one === undefined || one.busy !== undefined) return;
    one.busy = 'stopping';
    try {
      if (this.host.isUp) await this.ask(({ node }) => node?.leave(), statusTimeoutMs);
    } finally {
      one.busy = undefined;
    }
    await this.stop(vm, options);
  }

  async setPeers(_vm: string, peers: { node: string; host: string; port: number }[]): Promise<void> {
    const one = this.held;
    const text = JSON.stringify(peers);
    if (one?.status === undefined || one.busy !== undefined || one.peers === text) return;
    const told: Peer[] = peers.map(({ node }) => ({ node, address: { path: node } }));
    await this.ask(({ node }) => node?.setPeers(told), statusTimeoutMs);
    one.peers = text;
  }

  /** The service makes this call of its API alone. */
  call(_vm: string, { path, timeoutMs = statusTimeoutMs }: { path: string; timeoutMs?: number }): Promise<unknown> {
    if (path !== '/failover') throw new Error(`bug: a simulated child has no ${path}`);
    return this.ask(({ node }) => node?.failover(), timeoutMs);
  }

  private fresh(vm: string, life: string): Held {
    const now = this.clock.now();
    const nothing = { status: undefined, busy: undefined, ended: false, failures: 0, why: '', peers: '' };
    return { vm, life, ...nothing, startedAt: now, stateSince: now };
  }

  private hosted({ vm, life, failures, status, busy, why }: Held): Hosted {
    const rest = { vm, life, port: 1, failures };
    const lives = status !== undefined || busy !== undefined || this.host.isUp;
    if (status === undefined)
      return { ...rest, role: lives ? 'starting' : 'dead', state: '', why, protected: false, term: 0 };
    const { role, state, term, over } = status;
    const lost = role === 'stopped' && over?.byGuest === false;
    return { ...rest, role, state, why: status.why, protected: status.protected, term, lost };
  }

  private failed(one: Held, why: string): void {
    Object.assign(one, { status: undefined, ended: true, failures: one.failures + 1, why, peers: '' });
    one.stateSince = this.clock.now();
  }

  /** Asks it to end, and kills it when it does not. */
  private async end(): Promise<void> {
    const { host } = this;
    const child = host.process;
    if (!host.isUp) return;
    await this.ask(({ node }) => node?.stop(), stopTimeoutMs).catch(() => undefined);
    if (host.process === child) host.kill('process');
  }

  /** A call of the child's API, on its own loop of events. */
  private ask(what: Call, timeoutMs: number): Promise<unknown> {
    const { host, process, clock } = this;
    const { schedule } = process;
    const child = host.process;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const late = () => reject(new ColoError(errorCodes.host, 'the child does not answer (simulated)'));
    const cancel = clock.after(timeoutMs, late);
    const answer = (done: () => void) =>
      void schedule.after(callMs, () =>
        process.run(() => {
          cancel();
          done();
        }),
      );
    const asked = async () => what(host);
    schedule.after(callMs, () =>
      child?.run(() => {
        asked().then(
          (value) => answer(() => resolve(value)),
          (error: unknown) => answer(() => reject(new ColoError(errorCodes.host, errorText(error)))),
        );
      }),
    );
    return promise;
  }
}

function stateOf(status: NodeStatus | undefined): string {
  return status === undefined ? '' : `${status.role} ${status.state}`;
}
