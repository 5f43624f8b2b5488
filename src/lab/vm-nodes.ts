// A VM on several hosts, which are network namespaces of this machine (lab.ts): each has its own address, a colod with
// the certificate of that host, a member of the cluster's etcd, and its guest's network card on its bridge through a
// TAP.
//
// This process stands in the clients' namespace while the cluster lives: its ordinary sockets are those of a client
// that reaches the guest over the bridge. Unix sockets know no namespaces, so the nodes' APIs stay in reach.

import { readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { NodeStatus } from '../api/node-status.ts';
import { type Clock, delay } from '../base/clock.ts';
import { enterNetwork } from '../base/descriptors.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import { makeFolder } from '../base/make-folder.ts';
import { type Spec, writtenDisks } from '../config/spec.ts';
import type { WantedRole } from '../controller/role.ts';
import { createAuthority, issueCertificate } from '../host/certificates.ts';
import { withoutLate } from '../lan/turns.ts';
import { logDirectory, releaseRunDirectory, removeLogs } from '../local/directories.ts';
import { type BootFiles, machineOf } from '../local/machine.ts';
import { namespacePath } from '../local/namespace.ts';
import { NodeProcess } from '../local/node-process.ts';
import { replicaDirectory } from '../local/pair.ts';
import { askNodes, untilNodes } from '../local/statuses.ts';
import { BridgeCapture } from './bridge-capture.ts';
import type { EtcdMember } from './etcd.ts';
import { hostAddress, type Lab, portName } from './lab.ts';
import { hostNamed, type LabHost, makeLab, membersFrom, startMember } from './lab-hosts.ts';
import { leaderTimeoutMs } from './limits.ts';

export interface ClusterOptions {
  spec: Spec;
  boot: BootFiles;
  hosts: number;
  clock: Clock;
  logLevel?: string;
}

/** What runs on one host. */
interface Host extends LabHost {
  etcd: EtcdMember;
  node: NodeProcess | undefined;
}

const linkPort = 7700;

export class LocalCluster {
  readonly logDir: string;
  readonly clock: Clock;
  readonly lab: Lab;
  private readonly options: ClusterOptions;
  readonly directory: string;
  private readonly hosts: Host[] = [];
  private readonly undo: (() => Promise<unknown> | void)[] = [];
  /** One for each network, in the order of the guest's cards. */
  private readonly captures: BridgeCapture[] = [];

  private constructor(options: ClusterOptions, parts: { directory: string; lab: Lab }) {
    this.options = options;
    this.clock = options.clock;
    this.logDir = logDirectory(options.spec.vm);
    this.directory = parts.directory;
    this.lab = parts.lab;
    this.undo.push(
      () => releaseRunDirectory(parts.directory),
      () => parts.lab.remove(),
    );
  }

  /** Makes the hosts and starts the VM on the first; protected when `startCandidates` has been called. */
  static async start(options: ClusterOptions): Promise<LocalCluster> {
    const { spec, hosts } = options;
    const cluster = new LocalCluster(options, await makeLab(spec.vm, hosts, 1 + spec.cards.length));
    try {
      await cluster.build(cluster.lab.hosts);
      return cluster;
    } catch (error) {
      await cluster.stop();
      throw error;
    }
  }

  /** The other hosts offer themselves as the secondary; the primary finds one. */
  async startCandidates(): Promise<void> {
    await Promise.all(this.hosts.slice(1).map((host) => this.startNode(host, 'secondary')));
  }

  log(host: string): string {
    return join(this.logDir, `${host}.log`);
  }

  serialLog(host: string): string {
    return join(this.logDir, `${host}.serial`);
  }

  node(host: string): NodeProcess {
    const { node } = this.host(host);
    if (node === undefined) throw new ColoError(errorCodes.input, `no node runs on ${host}`);
    return node;
  }

  /** Where its links are had: HOST:PORT. */
  linkOf(host: string): string {
    return `${hostAddress(this.host(host).index)}:${linkPort}`;
  }

  statuses(): Promise<NodeStatus[]> {
    return askNodes(this.hosts.flatMap((host) => (host.node === undefined ? [] : [host.node])));
  }

  until(what: string, timeoutMs: number, holds: (statuses: NodeStatus[]) => boolean): Promise<NodeStatus[]> {
    return untilNodes(() => this.statuses(), { what, timeoutMs, holds }, this);
  }

  /** The hosts from whose ports of the bridge a card of the guest was heard, one entry for each turn of speaking. */
  voices(card = 0): string[] {
    return withoutLate(this.captures[card]?.turns ?? []).turns.map((turn) => this.lab.hosts[turn.port] ?? '');
  }

  /** What was announced to everybody for the guest, by host; addresses in hex. */
  announced(): { host: string; address: string }[] {
    const heard = this.captures.flatMap((capture) => capture.announcements);
    return heard.map(({ port, address }) => ({ host: this.lab.hosts[port] ?? '', address }));
  }

  /** Stops all processes of a host at once; what is returned wakes them. */
  async stopHost(name: string): Promise<() => void> {
    const { node, etcd } = this.host(name);
    const signalQemu = await node?.holdQemu();
    const signal = (what: 'SIGSTOP' | 'SIGCONT') => {
      etcd.signal(what);
      node?.signal(what);
      signalQemu?.(what);
    };
    signal('SIGSTOP');
    return () => signal('SIGCONT');
  }

  /** Kills a host's node and its QEMU, and nothing else of it. */
  async killNode(name: string): Promise<void> {
    const { node } = this.host(name);
    const signalQemu = await node?.holdQemu();
    node?.signal('SIGKILL');
    signalQemu?.('SIGKILL');
    await node?.exited;
  }

  /** The node is started again, and finds out what it is. */
  async restartNode(name: string): Promise<void> {
    await this.startNode(this.host(name), 'auto');
  }

  async killEtcd(name: string): Promise<void> {
    await this.host(name).etcd.stop();
  }

  restartEtcd(name: string): void {
    const host = this.host(name);
    host.etcd = startMember(this, host);
  }

  /** The host whose member leads etcd. On a starved host there may be none for a moment. */
  async etcdLeader(): Promise<string> {
    for (const deadline = this.clock.now() + leaderTimeoutMs; this.clock.now() < deadline; await delay(100))
      for (const host of this.hosts) if (await host.etcd.leads()) return host.name;
    throw new ColoError(errorCodes.arbiter, 'no member of etcd leads');
  }

  /** Kills all processes of a host at once: its node, its QEMU, its member of etcd. */
  async killHost(name: string): Promise<void> {
    const host = this.host(name);
    const signalQemu = await host.node?.holdQemu().catch(() => undefined);
    host.node?.signal('SIGKILL');
    host.etcd.signal('SIGKILL');
    signalQemu?.('SIGKILL');
    await host.node?.exited;
    await host.etcd.stop();
  }

  /** The host boots again: its etcd goes on with its data, its node finds out what it is. */
  async restartHost(name: string): Promise<void> {
    const host = this.host(name);
    host.etcd = startMember(this, host);
    await this.startNode(host, 'auto');
  }

  async setLink(name: string, connected: boolean): Promise<void> {
    await this.lab.setLink(name, connected);
  }

  /** Ends everything this started, and removes everything it made. */
  async stop(): Promise<void> {
    await Promise.all(this.hosts.flatMap((host) => (host.node === undefined ? [] : [host.node.stop()])));
    for (const step of this.undo.splice(0).reverse()) await step();
  }

  private async build(names: readonly string[]): Promise<void> {
    const { lab, logDir, directory } = this;
    makeFolder(logDir, 0o700);
    const authority = join(directory, 'ca');
    await createAuthority(authority, this.options.spec.vm);
    const leave = enterNetwork(namespacePath(lab.clientNamespace));
    this.undo.push(leave);
    for (const [index, name] of names.entries()) {
      removeLogs(logDir, name);
      rmSync(join(logDir, `${name}.etcd.log`), { force: true });
      const identityFolder = await issueCertificate(authority, { node: name, addresses: [hostAddress(index)] });
      const place = { name, index, identityFolder };
      const host: Host = { ...place, etcd: startMember(this, place), node: undefined };
      this.hosts.push(host);
      this.undo.push(() => host.etcd.stop());
    }
    await Promise.all(this.hosts.map((host) => host.etcd.ready()));
    this.undo.push(() => this.captures.forEach((capture) => capture.close()));
    for (const [network, { mac }] of [this.options.spec.network, ...this.options.spec.cards].entries()) {
      const ports = names.map((name) => portName(name, network));
      const listening = { mac, now: () => this.clock.now() };
      this.captures.push(await BridgeCapture.start(namespacePath(lab.labNamespace), ports, listening));
    }
    const [first] = this.hosts;
    if (first !== undefined) await this.startNode(first, 'primary');
  }

  private async startNode(host: Host, role: WantedRole): Promise<void> {
    const node = NodeProcess.spawn(this.nodeOptions(host, role), this.lab.namespace(host.name));
    host.node = node;
    await node.ready;
  }

  private nodeOptions(host: Host, role: WantedRole) {
    const { spec, boot, logLevel } = this.options;
    const { name, index, identityFolder } = host;
    const own = join(this.directory, name);
    const runDir = join(own, 'vm');
    makeFolder(runDir, 0o700);
    const address = (at: number) => ({ host: hostAddress(at), port: linkPort });
    const hosts = this.lab.hosts.map((node, at) => ({ node, address: address(at) }));
    return {
      apiPath: join(own, 'api.sock'),
      logFile: join(this.logDir, `${name}.log`),
      logLevel: logLevel ?? 'debug',
      node: {
        vm: spec.vm,
        node: name,
        role,
        peers: hosts.filter((other) => other.node !== name),
        listen: address(index),
        machine: machineOf(spec, boot, this.serialLog(name)),
        protect: spec.protect,
        guest: { mac: spec.network.mac, address: spec.network.address },
        runDir,
        spillDir: tmpdir(),
        disks: writtenDisks(spec),
        ...(spec.machine.variables === undefined ? {} : { variables: spec.machine.variables }),
        replicaDir: replicaDirectory(spec, name),
        uplink: uplinkOn('br0'),
        cards: spec.cards.map(({ mac, address, bridge }) => ({ mac, address, uplink: uplinkOn(bridge) })),
        arbiter: {
          kind: 'etcd' as const,
          endpoints: membersFrom(this.lab, index),
        },
        identityFolder,
        qemuPath: undefined,
        armedBy: undefined,
      },
    };
  }

  private host(name: string): Host {
    return hostNamed(this.hosts, name);
  }
}

function uplinkOn(bridge: string) {
  return { kind: 'tap' as const, name: 'colo%d', bridge };
}

/** The network namespace that this thread stands in, for tests that it was left again. */
export function currentNetwork(): string {
  return readlinkSync('/proc/thread-self/ns/net');
}
