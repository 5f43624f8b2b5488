// A protected VM on this one machine: a switch with a gateway to this machine's sockets, and two nodes as two colod
// processes. `colo run` and `colo demo` are this with something around it.
//
//   ordinary sockets ── gateway (QEMU, user network) ── switch ─┬─ colod a (primary) ── QEMU
//                                                              └─ colod b (secondary) ─ QEMU

import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { NodeStatus } from '../api/node-status.ts';
import type { Clock } from '../base/clock.ts';
import { makeFolder } from '../base/make-folder.ts';
import { type Spec, writtenDisks } from '../config/spec.ts';
import type { WantedRole } from '../controller/role.ts';
import { type Forward, Gateway } from '../lan/gateway.ts';
import { Switch } from '../lan/switch.ts';
import type { Strike } from '../node/fault-points.ts';
import { logDirectory, releaseRunDirectory, removeLogs, takeRunDirectory } from './directories.ts';
import { type BootFiles, machineOf } from './machine.ts';
import { NodeProcess } from './node-process.ts';
import { Owners } from './owners.ts';
import { refuseWithoutRoom, roomHere } from './room.ts';
import { askNodes, untilNodes } from './statuses.ts';

/** Where a node of a local pair keeps its replica of the VM's disks. */
export function replicaDirectory(spec: Spec, node: string): string {
  return join(spec.replicaFolder ?? join(logDirectory(spec.vm), 'disks'), node);
}

/** Where a node keeps its log and console, where it spills, and where it reaches the network. */
export interface NodePlaces {
  logDir: string;
  spillDir: string;
  lanPath: string;
}

export interface PairOptions {
  spec: Spec;
  boot: BootFiles;
  forwards: Forward[];
  /** False: no gateway to this machine's sockets; whoever talks to the guest is a port of the switch. */
  gateway?: boolean;
  clock: Clock;
  /** The gateway ended, and why, or '': it stands again. */
  gatewayChanged?: (problem: string) => void;
  /** Gives up a start that is under way, with its reason. */
  signal?: AbortSignal;
  logLevel?: string;
  qemuPath?: string;
  /** For tests: another QEMU on one of the nodes. */
  qemuAt?: (node: 'a' | 'b') => string | undefined;
  /** For tests: nodes can be armed (`arm`). */
  armable?: boolean;
  /** For tests: where the other node reaches `node`, which listens at `path`. */
  reachAt?: (node: 'a' | 'b', path: string) => string;
  /** For tests: places of one node that are not those of both. `lanPath` is where the switch is. */
  placesAt?: (node: 'a' | 'b', lanPath: string) => Partial<NodePlaces>;
}

export class LocalPair {
  a: NodeProcess;
  /** The secondary's node, once started. */
  b: NodeProcess | undefined;
  readonly lan: Switch;
  readonly owners: Owners;
  readonly logDir: string;
  private readonly gateway: Gateway | undefined;
  private readonly directory: string;
  readonly clock: Clock;
  private readonly options: PairOptions;

  private constructor(parts: {
    options: PairOptions;
    a: NodeProcess;
    lan: Switch;
    owners: Owners;
    gateway: Gateway | undefined;
    directory: string;
    logDir: string;
  }) {
    this.options = parts.options;
    this.a = parts.a;
    this.lan = parts.lan;
    this.gateway = parts.gateway;
    this.directory = parts.directory;
    this.logDir = parts.logDir;
    this.owners = parts.owners;
    this.clock = parts.options.clock;
  }

  static async start(options: PairOptions): Promise<LocalPair> {
    const { spec, clock } = options;
    refuseWithoutRoom(spec, roomHere());
    const directory = takeRunDirectory(spec.vm);
    const undo: (() => Promise<unknown> | void)[] = [() => releaseRunDirectory(directory)];
    try {
      const logDir = logDirectory(spec.vm);
      makeFolder(logDir, 0o700);
      for (const name of ['a', 'b']) removeLogs(logDir, name);
      mkdirSync(join(directory, 'arbiter'), { mode: 0o700 });
      const owners = new Owners(join(directory, 'arbiter'));
      undo.push(() => owners.close());
      const lan = new Switch(() => clock.now());
      undo.push(() => lan.close());
      const lanPath = join(directory, 'lan.sock');
      await lan.listen(lanPath);
      const gateway = options.gateway === false ? undefined : await startGateway(options, lan, lanPath);
      undo.push(() => gateway?.stop());
      const a = NodeProcess.spawn(nodeOptions(options, { name: 'a', role: 'primary', directory, logDir }));
      undo.push(() => a.kill());
      await readyOrGivenUp(a, options.signal);
      return new LocalPair({ options, a, lan, owners, gateway, directory, logDir });
    } catch (error) {
      for (const step of undo.reverse()) await step();
      throw error;
    }
  }

  /** Starts the other node; the primary finds it and protects the VM, which runs on meanwhile. */
  async startSecondary(): Promise<void> {
    const { directory, logDir } = this;
    this.b = NodeProcess.spawn(nodeOptions(this.options, { name: 'b', role: 'secondary', directory, logDir }));
    await readyOrGivenUp(this.b, this.options.signal);
  }

  /** Starts a dead node again, as an operator or systemd would: it finds out by itself what to be. */
  async restart(name: 'a' | 'b'): Promise<void> {
    const { directory, logDir } = this;
    this.disarm(name);
    const node = NodeProcess.spawn(nodeOptions(this.options, { name, role: 'auto', directory, logDir }));
    this[name] = node;
    await readyOrGivenUp(node, this.options.signal);
  }

  /** The next time that the node reaches this point it ends, or stands still. For pairs that are armable. */
  arm(name: 'a' | 'b', strike: Strike): void {
    const path = armedPath(this.directory, name);
    writeFileSync(`${path}.new`, JSON.stringify(strike));
    renameSync(`${path}.new`, path);
  }

  /** Whether what it is armed with is still to come: a node takes it away before it strikes. */
  isArmed(name: 'a' | 'b'): boolean {
    return existsSync(armedPath(this.directory, name));
  }

  disarm(name: 'a' | 'b'): void {
    rmSync(armedPath(this.directory, name), { force: true });
  }

  /** The gateway's process now; undefined without one. */
  get gatewayPid(): number | undefined {
    return this.gateway?.pid;
  }

  /** Where a port of the switch is had. */
  get lanPath(): string {
    return join(this.directory, 'lan.sock');
  }

  /** Where the console of a node's guest is kept. */
  serialLog(name: 'a' | 'b'): string {
    const { options, directory, logDir } = this;
    return serialLogIn(placesOf(options, { name, directory, logDir }).logDir, name);
  }

  get nodes(): NodeProcess[] {
    return this.b === undefined ? [this.a] : [this.a, this.b];
  }

  /** Statuses of the nodes that answer. */
  statuses(): Promise<NodeStatus[]> {
    return askNodes(this.nodes);
  }

  /** The node that is primary now, as far as anybody says so. */
  async primary(): Promise<NodeStatus | undefined> {
    return (await this.statuses()).find((status) => status.role === 'primary');
  }

  /** Waits until `holds` for the statuses; an error that says what was seen last when it does not in time. */
  until(what: string, timeoutMs: number, holds: (statuses: NodeStatus[]) => boolean): Promise<NodeStatus[]> {
    return untilNodes(() => this.statuses(), { what, timeoutMs, holds }, this);
  }

  /** Ends everything this started. */
  async stop(): Promise<void> {
    await this.a.stop();
    await this.b?.stop();
    await this.gateway?.stop();
    await this.lan.close();
    this.owners.close();
    releaseRunDirectory(this.directory);
  }
}

function armedPath(directory: string, name: 'a' | 'b'): string {
  return join(directory, name, 'armed');
}

/** A node that never gets ready shall not keep an operator from giving up. */
async function readyOrGivenUp(node: NodeProcess, signal: AbortSignal | undefined): Promise<void> {
  const givenUp = Promise.withResolvers<never>();
  const giveUp = () => givenUp.reject(signal?.reason);
  signal?.addEventListener('abort', giveUp);
  try {
    signal?.throwIfAborted();
    await Promise.race([node.ready, givenUp.promise]);
  } finally {
    signal?.removeEventListener('abort', giveUp);
  }
}

async function startGateway(options: PairOptions, lan: Switch, switchPath: string): Promise<Gateway> {
  const { spec, forwards, qemuPath } = options;
  return Gateway.start({
    ...{ switchPath, forwards, guestAddress: spec.network.address, connected: () => lan.nextPort() },
    ...(qemuPath === undefined ? {} : { qemuPath }),
    ...(options.gatewayChanged === undefined ? {} : { changed: options.gatewayChanged }),
  });
}

function serialLogIn(logDir: string, name: string): string {
  return join(logDir, `${name}.serial`);
}

function placesOf(options: PairOptions, at: { name: 'a' | 'b'; directory: string; logDir: string }): NodePlaces {
  const lanPath = join(at.directory, 'lan.sock');
  return { logDir: at.logDir, spillDir: tmpdir(), lanPath, ...options.placesAt?.(at.name, lanPath) };
}

function nodeOptions(
  options: PairOptions,
  at: { name: 'a' | 'b'; role: WantedRole; directory: string; logDir: string },
) {
  const { spec, boot } = options;
  const { name, directory } = at;
  const own = join(directory, name);
  const other = name === 'a' ? 'b' : 'a';
  const otherPath = join(directory, other, 'link.sock');
  const places = placesOf(options, at);
  const uplink = { kind: 'switch' as const, path: places.lanPath };
  const runDir = join(own, 'vm');
  makeFolder(runDir, 0o700);
  return {
    apiPath: join(own, 'api.sock'),
    logFile: join(places.logDir, `${name}.log`),
    logLevel: options.logLevel ?? 'debug',
    node: {
      vm: spec.vm,
      node: name,
      role: at.role,
      peers: [{ node: other, address: { path: options.reachAt?.(other, otherPath) ?? otherPath } }],
      listen: { path: join(own, 'link.sock') },
      machine: machineOf(spec, boot, serialLogIn(places.logDir, name)),
      protect: spec.protect,
      guest: { mac: spec.network.mac, address: spec.network.address },
      network: { bypass: spec.network.bypass, pcapDir: spec.network.pcap },
      runDir,
      spillDir: places.spillDir,
      disks: writtenDisks(spec),
      ...(spec.machine.variables === undefined ? {} : { variables: spec.machine.variables }),
      replicaDir: replicaDirectory(spec, name),
      uplink,
      cards: spec.cards.map(({ mac, address }) => ({ mac, address, uplink })),
      arbiter: { kind: 'folder' as const, folder: join(directory, 'arbiter') },
      identityFolder: undefined,
      qemuPath: options.qemuAt?.(name) ?? options.qemuPath,
      armedBy: options.armable === true ? armedPath(directory, name) : undefined,
    },
  };
}
