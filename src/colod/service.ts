// The service of one host: looks at its children and at the registry, asks the reconciler (cluster/placement.ts) what
// is to be done, and does it. Round after round, from nothing but what it sees: so it may end and come back at any
// time.
//
//   children, registry, arbiter ──► view ──► Reconciler.plan ──► children, registry
//
// It ends without ending its children. A node that is to have none is drained first.

import { EventEmitter } from 'node:events';
import { readFileSync, statfsSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import type { ProcessStatus } from '../api/node-status.ts';
import type { Arbiter, TermRecord } from '../arbiter/arbiter.ts';
import { EtcdArbiter } from '../arbiter/etcd.ts';
import { FolderArbiter } from '../arbiter/folder.ts';
import { type Clock, delay } from '../base/clock.ts';
import { ColoError, errorCodes, errorText } from '../base/errors.ts';
import { readIdentity } from '../base/identity.ts';
import type { Log } from '../base/log.ts';
import { makeFolder } from '../base/make-folder.ts';
import { EtcdStore } from '../cluster/etcd-store.ts';
import { FolderStore } from '../cluster/folder-store.ts';
import { type PlacementAction, Reconciler } from '../cluster/placement.ts';
import { type ClusterView, type NodeInfo, Registry } from '../cluster/registry.ts';
import { recordName } from '../node/config.ts';
import { Children, type HeldChildren } from './children.ts';
import type { ServiceConfig } from './config.ts';
import { announceEveryMs, failoverTimeoutMs, membershipMs, roundMs } from './limits.ts';

const nothing: ClusterView = {
  ...{ nodes: [], vms: [], problems: [] },
  ...{ drains: new Map(), removed: new Map(), placements: new Map() },
};

/** What the nodes of a cluster have in common. */
interface Shared {
  arbiter: Arbiter;
  registry: Registry;
}

/** What a service stands on. The simulation has one of its own (sim/host/colod.ts). */
interface Ground extends Shared {
  children: HeldChildren;
  memory: () => { memoryBytes: number; memoryFreeBytes: number };
}

export class Service {
  readonly config: ServiceConfig;
  readonly version: string;
  readonly registry: Registry;
  readonly children: HeldChildren;
  readonly log: Log;
  readonly clock: Clock;
  /** Emits `changed` when the view may have changed. */
  readonly events = new EventEmitter().setMaxListeners(0);
  /** Calls that the API refused, for the announcement. */
  refusedCalls: () => number = () => 0;
  /** What this process could not write, and what held it up. */
  ownProcess: () => ProcessStatus = () => ({ losses: [], loop: { stalls: 0, longest: null, newest: [] } });
  /** What the registry said last. */
  cluster: ClusterView = nothing;
  /** Why the registry could not be read, or took no announcement; '' when it could and did. */
  private readonly problems = { read: 'it was not asked yet', announce: '' };
  private readonly arbiter: Arbiter;
  private readonly memory: Ground['memory'];
  private readonly reconciler: Reconciler;
  private readonly stopping = new AbortController();
  private loop: Promise<void> = Promise.resolve();
  /** VMs, and their peers, about which something is being done. */
  private readonly underWay = new Set<string>();
  /** Readings of the registry that were begun; `newestRead` is the one that `cluster` is from. */
  private reads = 0;
  private newestRead = 0;
  private announced = { text: '', at: Number.NEGATIVE_INFINITY };

  private constructor(config: ServiceConfig, parts: Ground & { clock: Clock; log: Log }) {
    this.config = config;
    this.version = ownVersion();
    this.arbiter = parts.arbiter;
    this.registry = parts.registry;
    this.clock = parts.clock;
    this.log = parts.log;
    this.children = parts.children;
    this.memory = parts.memory;
    this.reconciler = new Reconciler(config.node);
  }

  /** `cluster`: what it stands on, in place of what its configuration names and its host has. */
  static async start(
    config: ServiceConfig,
    parts: { clock: Clock; log: Log; cluster?: Shared & Partial<Ground> },
  ): Promise<Service> {
    const { cluster } = parts;
    if (cluster?.children === undefined) makeFolder(config.stateFolder, 0o700);
    const own = { children: new Children(config, parts), memory };
    const service = new Service(config, { ...parts, ...own, ...(cluster ?? (await openCluster(config))) });
    service.children.adopt();
    service.loop = service.run();
    return service;
  }

  /** Ends the service; its children go on. */
  async stop(): Promise<void> {
    this.stopping.abort();
    await this.loop;
    await this.registry.close();
    await this.arbiter.close();
  }

  /** Looks at everything anew, so that an answer says what an operator has just done. */
  async refresh(): Promise<void> {
    await this.readRegistry();
  }

  /** Why the registry did not answer, or takes nothing; '' when all is well. */
  get registryProblem(): string {
    return this.problems.read === '' ? this.problems.announce : this.problems.read;
  }

  /** Rejects when no VM could be taken over now. */
  probeArbiter(): Promise<void> {
    return this.arbiter.probe('probe');
  }

  /** What this node says of itself to the others. */
  info(): NodeInfo {
    const { node, address, api } = this.config;
    return {
      ...{ node, address, apiPort: api.port, cores: cpus().length, version: this.version },
      ...this.memory(),
      refused: this.refusedCalls(),
      hosted: [...this.children.view().values()],
    };
  }

  private async run(): Promise<void> {
    const stopped = new Promise<void>((resolve) => {
      this.stopping.signal.addEventListener('abort', () => resolve(), { once: true });
    });
    while (!this.stopping.signal.aborted) {
      try {
        await this.round();
      } catch (error) {
        this.log.error({ error: errorText(error) }, 'a round failed');
      }
      await Promise.race([delay(roundMs, this.clock), stopped]);
    }
  }

  private async round(): Promise<void> {
    await this.children.look();
    await this.announce();
    await this.readRegistry();
    const view = {
      cluster: this.cluster,
      fresh: this.registryProblem === '',
      children: this.children.view(),
      records: await this.records(),
    };
    for (const action of this.reconciler.plan(view, this.clock.now())) this.perform(action);
  }

  private async announce(): Promise<void> {
    const info = this.info();
    const text = JSON.stringify({ ...info, refused: 0 });
    const now = this.clock.now();
    if (text === this.announced.text && now - this.announced.at < announceEveryMs) return;
    try {
      await this.registry.announce(info, membershipMs);
      this.announced = { text, at: now };
      this.registrySaid('announce', '');
    } catch (error) {
      this.registrySaid('announce', errorText(error));
    }
  }

  private async readRegistry(): Promise<void> {
    this.reads += 1;
    const read = this.reads;
    try {
      const cluster = await this.registry.read();
      // What was asked for later is newer: nothing is done twice from what was seen before.
      if (read < this.newestRead) return;
      this.newestRead = read;
      this.cluster = cluster;
      this.registrySaid('read', '');
    } catch (error) {
      this.registrySaid('read', errorText(error));
    }
    this.events.emit('changed');
  }

  /** One that is read and takes no entry (a full etcd) is lost as well: the problem ends when both go well. */
  private registrySaid(what: 'read' | 'announce', problem: string): void {
    const before = this.registryProblem;
    this.problems[what] = problem;
    const now = this.registryProblem;
    if (before !== '' && now === '') this.log.info('the registry answers');
    if (before === '' && now !== '')
      this.log.error({ error: now }, 'the registry does not answer: VMs go on, and nothing is moved');
  }

  /** The arbiter's word on VMs of this node that nobody says to run. */
  private async records(): Promise<Map<string, TermRecord>> {
    const records = new Map<string, TermRecord>();
    for (const { vm, life, role, state } of this.children.view().values()) {
      if (role !== 'secondary' || state !== 'idle') continue;
      const record = await this.arbiter.read(recordName({ vm, life })).catch(() => undefined);
      if (record !== undefined) records.set(vm, record);
    }
    return records;
  }

  /** Starts what may take a while, and goes on: a VM with something under way is left alone until it is done. */
  private perform(action: PlacementAction): void {
    const { log } = this;
    const key = action.kind === 'setPeers' ? `peers of ${action.vm}` : action.vm;
    if (this.children.isBusy(action.vm) || this.underWay.has(key)) return;
    this.underWay.add(key);
    if (action.kind !== 'setPeers') log.info({ action }, 'to be done');
    this.act(action)
      .catch((error: unknown) => {
        log.warn({ vm: action.vm, action: action.kind, error: errorText(error) }, 'it was not done');
      })
      .finally(() => this.underWay.delete(key));
  }

  private async act(action: PlacementAction): Promise<void> {
    const { children, registry } = this;
    const record = this.cluster.vms.find((one) => one.vm === action.vm);
    switch (action.kind) {
      case 'place':
        await registry.place(action.vm, action.placement);
        return;
      case 'start':
        if (record !== undefined) await children.start(record, await this.roleOf(record, action.as));
        return;
      case 'bootAnew':
        await children.leave(action.vm, { why: action.why, forget: false });
        // Not `primary`: what the registry says of the peer may be old, so the child asks it first
        // (controller/role.ts).
        if (record !== undefined) await children.start(record, 'auto');
        return;
      case 'stop':
        await children.stop(action.vm, { why: action.why, forget: true });
        return;
      case 'strike': {
        const left = this.cluster.removed.get(action.vm);
        if (left !== undefined) await registry.strike(left, this.config.node);
        return;
      }
      case 'leave':
        await children.leave(action.vm, { why: action.why, forget: true });
        return;
      case 'restart':
        await children.leave(action.vm, { why: action.why, forget: false });
        return;
      case 'setPeers':
        await children.setPeers(action.vm, action.peers);
        return;
      case 'failover':
        await children.call(action.vm, { method: 'POST', path: '/failover', timeoutMs: failoverTimeoutMs });
        return;
    }
  }

  /**
   * A VM that the arbiter knows has run: then its record says what this node is. A new one is booted by its home alone,
   * which looks at the registry anew where that has just begun to answer: as a secondary it would wait for nobody.
   */
  private async roleOf(
    record: { vm: string; life: string },
    as: 'first' | 'known' | 'secondary',
  ): Promise<'auto' | 'secondary'> {
    if (as !== 'known') return as === 'first' ? 'auto' : 'secondary';
    const known = await this.arbiter.read(recordName(record));
    if (known !== undefined) return 'auto';
    const home = this.cluster.placements.get(record.vm)?.nodes[0];
    if (this.registryProblem === '' && home !== this.config.node) return 'secondary';
    throw new ColoError(errorCodes.arbiter, `neither the arbiter nor the registry says who runs ${record.vm}`);
  }
}

async function openCluster(config: ServiceConfig): Promise<Shared> {
  const { arbiter } = config;
  if ('folder' in arbiter) {
    const terms = join(arbiter.folder, 'terms');
    makeFolder(terms, 0o700);
    const store = new FolderStore(join(arbiter.folder, 'registry'), Date.now);
    return { arbiter: await FolderArbiter.open(terms), registry: new Registry(store) };
  }
  const secure = arbiter.etcd.some((url) => url.startsWith('https:'));
  const options = {
    ...{ endpoints: arbiter.etcd, prefix: arbiter.prefix },
    ...(secure ? { identity: () => readIdentity(config.certificates) } : {}),
  };
  return { arbiter: new EtcdArbiter(options), registry: new Registry(new EtcdStore(options)) };
}

/** Free memory is told in steps: it changes always, and nobody is to be told of every page. */
const memoryStepBytes = 64 * 2 ** 20;

/** What a guest can have: the smaller of free memory and of what the tmpfs of the guests' RAM has left. */
function memory(): { memoryBytes: number; memoryFreeBytes: number } {
  const text = readFileSync('/proc/meminfo', 'utf8');
  const of = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(text)?.[1] ?? 0) * 1024;
  const shm = statfsSync('/dev/shm');
  const free = shm.blocks === 0 ? Number.POSITIVE_INFINITY : shm.bavail * shm.bsize;
  const memoryFreeBytes = Math.floor(Math.min(of('MemAvailable'), free) / memoryStepBytes) * memoryStepBytes;
  return { memoryBytes: of('MemTotal'), memoryFreeBytes };
}

function ownVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  const { version } = JSON.parse(text) as { version: string };
  return version;
}
