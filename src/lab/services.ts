// A cluster of services on this machine: network namespaces (lab.ts) as hosts, each with a colod of its own, a member
// of the cluster's etcd, and certificates that `colo init` and `colo join` would make. For tests, and to try a cluster.
//
// Nodes' children outlive their colod, as they should; so what a run that was killed has left is looked for by its
// files before the next one of that name begins, and ended.

import type { ChildProcess } from 'node:child_process';
import { existsSync, openSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { stringify } from 'yaml';
import type { Cluster } from '../api/cluster.ts';
import { callService, type ServiceRequest, type Target } from '../api/cluster-client.ts';
import { type Clock, delay } from '../base/clock.ts';
import { enterNetwork } from '../base/descriptors.ts';
import { ColoError, errorCodes, errorText } from '../base/errors.ts';
import { readIdentity } from '../base/identity.ts';
import { makeFolder } from '../base/make-folder.ts';
import { livingOwner } from '../base/owner-file.ts';
import { createAuthority, issueCertificate } from '../host/certificates.ts';
import { withoutLate } from '../lan/turns.ts';
import { logDirectory, releaseRunDirectory, runDirectory } from '../local/directories.ts';
import { endChild, namespacePath, spawnChild } from '../local/namespace.ts';
import { BridgeCapture } from './bridge-capture.ts';
import type { EtcdMember } from './etcd.ts';
import { hostAddress, type Lab } from './lab.ts';
import { hostNamed, type LabHost, makeLab, membersFrom, startMember } from './lab-hosts.ts';

interface Host extends LabHost {
  runFolder: string;
  configPath: string;
  etcd: EtcdMember;
  colod: ChildProcess | undefined;
}

export interface ServiceLabOptions {
  /** The cluster's name, among others on this machine. */
  name: string;
  hosts: number;
  /** The guest whose voice is listened for at the bridge. */
  mac: string;
  clock: Clock;
}

const program = fileURLToPath(new URL('../cli/main.ts', import.meta.url));
const apiPort = 7700;

export class ServiceLab {
  readonly lab: Lab;
  readonly logDir: string;
  /** The folder of the cluster's authority. */
  readonly authority: string;
  private readonly options: ServiceLabOptions;
  readonly directory: string;
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
    const cluster = new ServiceLab(options, await makeLab(options.name, options.hosts));
    try {
      await cluster.build(cluster.lab.hosts);
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

  ask(name: string, request: ServiceRequest): Promise<unknown> {
    return callService({ socketPath: this.socket(name) }, request);
  }

  async cluster(name: string): Promise<Cluster> {
    return (await this.ask(name, { method: 'GET', path: '/v1/cluster' })) as Cluster;
  }

  /**
   * Waits until what the host says of the cluster holds; an error that says what it said last when it does not in time.
   */
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
    return withoutLate(this.capture?.turns ?? []).turns.map((turn) => this.lab.hosts[turn.port] ?? '');
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
    host.etcd = startMember(this, host);
    this.startColod(name);
  }

  async stop(): Promise<void> {
    for (const host of this.hosts) if (host.colod !== undefined) await endChild(host.colod, 'SIGKILL');
    for (const host of this.hosts) endChildren(host.runFolder);
    for (const host of this.hosts) while (childrenBelow(host.runFolder).size > 0) await delay(20);
    for (const step of this.undo.splice(0).reverse()) await step();
  }

  private async build(names: readonly string[]): Promise<void> {
    const { lab, logDir } = this;
    rmSync(logDir, { recursive: true, force: true });
    makeFolder(logDir, 0o700);
    await createAuthority(this.authority, this.options.name);
    this.undo.push(enterNetwork(namespacePath(lab.clientNamespace)));
    for (const [index, name] of names.entries()) {
      const identityFolder = await issueCertificate(this.authority, { node: name, addresses: [hostAddress(index)] });
      const runFolder = join(this.directory, name);
      const place = { name, index, identityFolder, runFolder, configPath: join(logDir, `${name}.yaml`) };
      writeFileSync(place.configPath, stringify(this.configOf(place)));
      const host: Host = { ...place, etcd: startMember(this, place), colod: undefined };
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
    return {
      node: name,
      address: hostAddress(index),
      api: { port: apiPort, tokens: join(this.logDir, 'tokens') },
      certificates: identityFolder,
      arbiter: { etcd: membersFrom(this.lab, index) },
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

  private host(name: string): Host {
    return hostNamed(this.hosts, name);
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
