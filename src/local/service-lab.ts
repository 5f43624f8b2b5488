// A cluster of services on this machine: network namespaces (lab.ts) as hosts, each with a colod of its own, a member of
// the cluster's etcd, and certificates that `colo init` and `colo join` would make. For tests, and to try a cluster.
//
// Nodes' children outlive their colod, as they should; so what a run that was killed has left is looked for by its files
// before the next one of that name begins, and ended.

import type { ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync, openSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { stringify } from 'yaml';
import type { Cluster } from '../api/cluster.ts';
import { callService, type Question, type Target } from '../api/service-client.ts';
import { type Clock, delay } from '../base/clock.ts';
import { enterNetwork } from '../base/descriptors.ts';
import { ColoError, errorCodes, errorText } from '../base/errors.ts';
import { readIdentity } from '../base/identity.ts';
import { livingOwner } from '../base/owner-file.ts';
import { createAuthority, issueCertificate } from '../host/certificates.ts';
import { BridgeCapture } from './bridge-capture.ts';
import { logDirectory, releaseRunDirectory, runDirectory, takeRunDirectory } from './directories.ts';
import { EtcdMember } from './etcd.ts';
import { hostAddress, Lab } from './lab.ts';
import { endChild, namespacePath, spawnChild } from './namespace.ts';

interface Host {
  name: string;
  index: number;
  identityFolder: string;
  runFolder: string;
  configPath: string;
  etcd: EtcdMember;
  colod: ChildProcess | undefined;
}

export interface ServiceLabOptions {
  /** Of this cluster, among others on this machine. */
  name: string;
  hosts: number;
  /** The guest whose voice is listened for at the bridge. */
  mac: string;
  clock: Clock;
}

const program = fileURLToPath(new URL('../cli/main.ts', import.meta.url));
const apiPort = 7700;
const etcdPorts = { client: 2379, peer: 2380 };

export class ServiceLab {
  readonly lab: Lab;
  readonly logDir: string;
  /** The folder of the cluster's authority. */
  readonly authority: string;
  private readonly options: ServiceLabOptions;
  private readonly directory: string;
  private readonly hosts: Host[] = [];
  private readonly undo: (() => Promise<unknown> | void)[] = [];
  private capture: BridgeCapture | undefined;

  private constructor(options: ServiceLabOptions, { directory, lab }: { directory: string; lab: Lab }) {
    this.options = options;
    this.directory = directory;
    this.lab = lab;
    this.logDir = logDirectory(options.name);
    this.authority = join(directory, 'ca');
    this.undo.push(
      () => releaseRunDirectory(directory),
      () => lab.remove(),
    );
  }

  /** All hosts with their colod; this process stands in the clients' namespace until `stop`. */
  static async start(options: ServiceLabOptions): Promise<ServiceLab> {
    await endLeftOvers(runDirectory(options.name));
    const directory = takeRunDirectory(options.name);
    const names = Array.from({ length: options.hosts }, (_, index) => `h${index + 1}`);
    const lab = await Lab.make(names).catch((error: unknown) => {
      releaseRunDirectory(directory);
      throw error;
    });
    const cluster = new ServiceLab(options, { directory, lab });
    try {
      await cluster.build(names);
      return cluster;
    } catch (error) {
      await cluster.stop();
      throw error;
    }
  }

  /** The socket of a host's colod. */
  socket(name: string): string {
    return join(this.host(name).runFolder, 'colod.sock');
  }

  /** A host's colod over the network, as one with the certificate in `identityFolder`. */
  secure(name: string, identityFolder?: string): Target {
    const { index } = this.host(name);
    const identity = readIdentity(identityFolder ?? this.host(name).identityFolder);
    return { host: hostAddress(index), port: apiPort, ca: identity.ca, as: identity };
  }

  ask(name: string, question: Question): Promise<unknown> {
    return callService({ socketPath: this.socket(name) }, question);
  }

  async cluster(name: string): Promise<Cluster> {
    return (await this.ask(name, { method: 'GET', path: '/v1/cluster' })) as Cluster;
  }

  /** Waits until what the host says of the cluster holds; an error that says what it said last when it does not in time. */
  async until(
    name: string,
    { what, timeoutMs, holds }: { what: string; timeoutMs: number; holds: (all: Cluster) => boolean },
  ): Promise<Cluster> {
    const deadline = this.options.clock.now() + timeoutMs;
    let last = 'nothing';
    for (;;) {
      try {
        const all = await this.cluster(name);
        if (holds(all)) return all;
        last = JSON.stringify({ vms: all.vms, nodes: all.nodes.map((one) => `${one.node} ${one.state} ${one.vms}`) });
      } catch (error) {
        last = errorText(error);
      }
      if (this.options.clock.now() > deadline)
        throw new ColoError(errorCodes.timeout, `${what}: not within ${timeoutMs / 1000} s; ${name} says ${last}`, {
          hint: `see ${this.logDir}`,
        });
      await delay(100);
    }
  }

  /** Process ids of a host's children, by VM. */
  children(name: string): Map<string, number> {
    return childrenBelow(this.host(name).runFolder);
  }

  voices(): string[] {
    return (this.capture?.turns ?? []).map((turn) => this.lab.hosts[turn.port] ?? '');
  }

  console(name: string, vm: string): string {
    return join(this.stateFolder(name), 'vms', vm, 'console');
  }

  startColod(name: string): void {
    const host = this.host(name);
    const log = openSync(join(this.logDir, `${name}.colod.log`), 'a', 0o600);
    const args = ['--disable-warning=ExperimentalWarning', program, 'colod', '--config', host.configPath];
    host.colod = spawnChild(process.execPath, args, {
      stdio: ['ignore', log, log],
      namespace: this.lab.namespace(name),
    });
  }

  /** Ends a host's colod alone; its VMs go on. */
  async endColod(name: string, signal: NodeJS.Signals): Promise<void> {
    const { colod } = this.host(name);
    if (colod !== undefined) await endChild(colod, signal);
  }

  /** All processes of a host at once. */
  async killHost(name: string): Promise<void> {
    const host = this.host(name);
    host.colod?.kill('SIGKILL');
    host.etcd.signal('SIGKILL');
    endChildren(host.runFolder);
    await this.endColod(name, 'SIGKILL');
    await host.etcd.stop();
  }

  /** The host boots again. */
  restartHost(name: string): void {
    const host = this.host(name);
    rmSync(host.runFolder, { recursive: true, force: true });
    host.etcd = this.startEtcd(host);
    this.startColod(name);
  }

  async stop(): Promise<void> {
    for (const host of this.hosts) if (host.colod !== undefined) await endChild(host.colod, 'SIGKILL');
    for (const host of this.hosts) endChildren(host.runFolder);
    for (const host of this.hosts) while (childrenBelow(host.runFolder).size > 0) await delay(20);
    for (const step of this.undo.splice(0).reverse()) await step();
  }

  private async build(names: string[]): Promise<void> {
    const { lab, logDir } = this;
    rmSync(logDir, { recursive: true, force: true });
    mkdirSync(logDir, { recursive: true, mode: 0o700 });
    await createAuthority(this.authority, this.options.name);
    this.undo.push(enterNetwork(namespacePath(lab.clientNamespace)));
    for (const [index, name] of names.entries()) {
      const identityFolder = await issueCertificate(this.authority, { node: name, addresses: [hostAddress(index)] });
      const runFolder = join(this.directory, name);
      const place = { name, index, identityFolder, runFolder, configPath: join(logDir, `${name}.yaml`) };
      writeFileSync(place.configPath, stringify(this.configOf(place)));
      const host: Host = { ...place, etcd: this.startEtcd(place), colod: undefined };
      this.hosts.push(host);
      this.undo.push(() => host.etcd.stop());
    }
    await Promise.all(this.hosts.map((host) => host.etcd.ready()));
    const { mac, clock } = this.options;
    this.capture = await BridgeCapture.start(namespacePath(lab.labNamespace), names, { mac, now: () => clock.now() });
    this.undo.push(() => this.capture?.close());
    for (const name of names) this.startColod(name);
  }

  private configOf({ name, index, identityFolder, runFolder }: Omit<Host, 'etcd' | 'colod'>) {
    const others = this.lab.hosts.map((_, at) => at).filter((at) => at !== index);
    return {
      node: name,
      address: hostAddress(index),
      api: { port: apiPort, tokens: join(this.logDir, 'tokens') },
      certificates: identityFolder,
      // The own host's member first: it is the one that a cut cable does not take away.
      arbiter: { etcd: [index, ...others].map((at) => `https://${hostAddress(at)}:${etcdPorts.client}`) },
      bridge: 'br0',
      runFolder,
      stateFolder: this.stateFolder(name),
      socket: join(runFolder, 'colod.sock'),
      logLevel: 'debug',
    };
  }

  private stateFolder(name: string): string {
    return join(this.logDir, `${name}.state`);
  }

  private startEtcd(host: Pick<Host, 'name' | 'index' | 'identityFolder'>): EtcdMember {
    const peerUrl = (index: number) => `https://${hostAddress(index)}:${etcdPorts.peer}`;
    return EtcdMember.spawn({
      ...{ name: host.name, host: hostAddress(host.index), clientPort: etcdPorts.client, peerPort: etcdPorts.peer },
      cluster: this.lab.hosts.map((name, index) => ({ name, peerUrl: peerUrl(index) })),
      dataDir: join(this.directory, `${host.name}.etcd`),
      logFile: join(this.logDir, `${host.name}.etcd.log`),
      identityFolder: host.identityFolder,
      namespace: this.lab.namespace(host.name),
    });
  }

  private host(name: string): Host {
    const host = this.hosts.find((one) => one.name === name);
    if (host === undefined) throw new ColoError(errorCodes.input, `there is no host ${name}`);
    return host;
  }
}

function childrenBelow(runFolder: string): Map<string, number> {
  const root = join(runFolder, 'vms');
  const found = new Map<string, number>();
  for (const vm of existsSync(root) ? readdirSync(root) : []) {
    const pid = livingOwner(join(root, vm, 'identity'));
    if (pid !== undefined) found.set(vm, pid);
  }
  return found;
}

function endChildren(runFolder: string): void {
  for (const pid of childrenBelow(runFolder).values()) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It has just ended.
    }
  }
}

/** Children of a run of this name that was killed; their colods died with it. */
async function endLeftOvers(directory: string): Promise<void> {
  if (!existsSync(directory) || livingOwner(join(directory, 'owner')) !== undefined) return;
  for (const host of readdirSync(directory)) {
    endChildren(join(directory, host));
    while (childrenBelow(join(directory, host)).size > 0) await delay(20);
  }
}
