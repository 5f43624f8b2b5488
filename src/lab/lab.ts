// Several hosts on one machine: network namespaces, joined by a bridge that stands in one of its own.
//
//   namespace h1            namespace h2            namespace h3            namespace client
//   ┌─────────────────┐     ┌─────────────────┐     ┌─────────────────┐     ┌──────────────┐
//   │ TAP ─ br0 ─ net0│     │ TAP ─ br0 ─ net0│     │ TAP ─ br0 ─ net0│     │     net0     │
//   └─────────────┼───┘     └─────────────┼───┘     └─────────────┼───┘     └───────┼──────┘
//                 └ h1                    └ h2                    └ h3              └ client
//   namespace lab: br0, whose ports these are
//
// With further networks (br1, net1, ...) the hosts and the clients are joined by a bridge for each; the ports of the
// second one are called h1.1, h2.1 and so on.
//
// Needs root. Everything has the run's process id in its name; what a run that was killed left behind is removed by the
// next one. Processes of a dead run are gone by themselves (local/namespace.ts), and devices go with their namespace.

import { readdirSync } from 'node:fs';
import { ColoError, errorCodes } from '../base/errors.ts';
import { isMarkOfDead, ownMark } from '../base/processes.ts';
import { runCommand, tryCommand } from '../host/command.ts';

const prefix = 'colo-';
export const labName = 'lab';
const clientName = 'client';
/** The clients' on each network, outside what a guest of ours may have. */
const clientAddress = (network: number) => `10.0.${2 + network}.2`;
const prefixBits = 24;

/** Address of the host with this index, from 0, on the first network. */
export function hostAddress(index: number): string {
  return `10.0.2.${251 + index}`;
}

/** The port of a host, or of the clients, at the bridge of a network. */
export function portName(name: string, network: number): string {
  return network === 0 ? name : `${name}.${network}`;
}

/** A rule of nftables for packets that get lost. */
export interface Loss {
  hook: 'input' | 'output' | 'forward';
  match: string;
}

export class Lab {
  readonly hosts: readonly string[];
  private readonly run: string;
  private readonly networks: number;
  private losses = 0;

  private constructor(run: string, hosts: readonly string[], networks: number) {
    this.run = run;
    this.hosts = hosts;
    this.networks = networks;
  }

  /** Makes the namespaces and joins them; `hosts` are names such as h1, used for ports of the bridge too. */
  static async make(hosts: readonly string[], networks = 1): Promise<Lab> {
    if (process.getuid?.() !== 0)
      throw new ColoError(errorCodes.host, 'several hosts on one machine need root: they are network namespaces', {
        hint: 'run it with sudo',
      });
    await sweep();
    const lab = new Lab(ownMark(), hosts, networks);
    try {
      await lab.build();
      return lab;
    } catch (error) {
      await lab.remove();
      throw error;
    }
  }

  /** The namespace of a host; `lab` and `client` are the bridge's and the clients'. */
  namespace(host: string): string {
    return `${prefix}${this.run}-${host}`;
  }

  get labNamespace(): string {
    return this.namespace(labName);
  }

  get clientNamespace(): string {
    return this.namespace(clientName);
  }

  /** Pulls the host's cables, or puts them back: those of all networks, or of one. */
  async setLink(host: string, connected: boolean, only?: number): Promise<void> {
    const all = Array.from({ length: this.networks }, (_, network) => network);
    for (const network of only === undefined ? all : [only])
      await ip(this.labNamespace, ['link', 'set', portName(host, network), connected ? 'up' : 'down']);
  }

  /** Loses, from now on, what the rules say (nftables, of a chain at `hook` of `family`). Resolves to what ends it. */
  async lose(name: string, at: { family: 'inet' | 'bridge'; rules: Loss[] }): Promise<() => Promise<void>> {
    const table = `${at.family} colo${(this.losses += 1)}`;
    const hooks = [...new Set(at.rules.map((rule) => rule.hook))];
    const commands = [
      `add table ${table}`,
      ...hooks.map((hook) => `add chain ${table} ${hook} { type filter hook ${hook} priority 0 ; }`),
      ...at.rules.map(({ hook, match }) => `add rule ${table} ${hook} ${match} drop`),
    ];
    const nft = (text: string) => runCommand('ip', ['netns', 'exec', this.namespace(name), 'nft', text]);
    await nft(commands.join('; '));
    return async () => {
      await nft(`delete table ${table}`);
    };
  }

  /** Removes the namespaces with everything in them. */
  async remove(): Promise<void> {
    for (const name of [...this.hosts, clientName, labName])
      await tryCommand('ip', ['netns', 'delete', this.namespace(name)]);
  }

  private async build(): Promise<void> {
    for (const name of [labName, clientName, ...this.hosts]) {
      await runCommand('ip', ['netns', 'add', this.namespace(name)]);
      await ip(this.namespace(name), ['link', 'set', 'lo', 'up']);
    }
    for (let network = 0; network < this.networks; network += 1) await this.buildNetwork(network);
  }

  private async buildNetwork(network: number): Promise<void> {
    const bridge = `br${network}`;
    await addBridge(this.labNamespace, bridge);
    for (const [index, host] of this.hosts.entries()) {
      await this.cable(host, network);
      const space = this.namespace(host);
      await addBridge(space, bridge);
      // A bridge takes the lowest address of its ports unless it has its own: it must not change when a TAP comes.
      const mac = `02:00:00:00:${network.toString(16).padStart(2, '0')}:${(index + 1).toString(16).padStart(2, '0')}`;
      await ip(space, ['link', 'set', bridge, 'address', mac]);
      await ip(space, ['link', 'set', `net${network}`, 'master', bridge]);
      if (network === 0) await ip(space, ['address', 'add', `${hostAddress(index)}/${prefixBits}`, 'dev', bridge]);
    }
    await this.cable(clientName, network);
    const client = ['address', 'add', `${clientAddress(network)}/${prefixBits}`, 'dev', `net${network}`];
    await ip(this.clientNamespace, client);
  }

  private async cable(name: string, network: number): Promise<void> {
    const space = this.namespace(name);
    const near = `net${network}`;
    const far = portName(name, network);
    const peer = ['peer', 'name', far, 'netns', this.labNamespace];
    await runCommand('ip', ['link', 'add', near, 'netns', space, 'type', 'veth', ...peer]);
    await ip(this.labNamespace, ['link', 'set', far, 'master', `br${network}`, 'up']);
    await ip(space, ['link', 'set', near, 'up']);
  }
}

async function addBridge(space: string, name: string): Promise<void> {
  // No spanning tree and no snooping: a port forwards from its first moment on.
  const options = ['stp_state', '0', 'forward_delay', '0', 'mcast_snooping', '0'];
  await ip(space, ['link', 'add', name, 'type', 'bridge', ...options]);
  await ip(space, ['link', 'set', name, 'up']);
}

async function ip(space: string, args: string[]): Promise<void> {
  await runCommand('ip', ['-n', space, ...args]);
}

/** Removes the namespaces of runs that are dead. */
async function sweep(): Promise<void> {
  for (const name of namespaces()) {
    const [, mark = ''] = /^colo-([\d.]+)-/.exec(name) ?? [];
    if (isMarkOfDead(mark)) await tryCommand('ip', ['netns', 'delete', name]);
  }
}

function namespaces(): string[] {
  try {
    return readdirSync('/run/netns').filter((name) => name.startsWith(prefix));
  } catch {
    return [];
  }
}

/** Why there can be no lab here; undefined when there can. */
export async function labRefusal(): Promise<string | undefined> {
  if (process.getuid?.() !== 0) return 'network namespaces need root';
  // Named as those of a lab are: when this process is killed here, the next lab removes it.
  const probe = `${prefix}${ownMark()}-probe`;
  const made = await tryCommand('ip', ['netns', 'add', probe]);
  if (made.code !== 0) return `network namespaces cannot be made here: ${made.failure ?? made.stderr.trim()}`;
  const bridge = await tryCommand('ip', ['-n', probe, 'link', 'add', 'br0', 'type', 'bridge']);
  await tryCommand('ip', ['netns', 'delete', probe]);
  return bridge.code === 0 ? undefined : `bridges cannot be made here: ${bridge.stderr.trim()}`;
}
