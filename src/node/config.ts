// What a node is told when it starts: the VM, its peers, and where everything of it lies.

import type { Address } from '../channel/link.ts';
import type { Protect } from '../config/spec.ts';
import type { WantedRole } from '../controller/role.ts';
import type { BypassRule } from '../proxy/bypass.ts';
import type { MachineSpec } from '../qemu/machine.ts';

export interface Peer {
  node: string;
  address: Address;
}

/** One disk of the guest. */
export interface DiskConfig {
  /** The image on the node that starts the VM. A secondary has its replica instead. */
  path: string;
  format: 'raw' | 'qcow2';
  /**
   * When a write of the guest is done: with its own host's disk, or only with the secondary's as well (docs/disks.md).
   */
  flush: 'local' | 'replicated';
}

/** A port of the switch of this machine, or a TAP that becomes a port of a bridge of this host. */
export type UplinkConfig = { kind: 'switch'; path: string } | { kind: 'tap'; name: string; bridge: string };

/** A folder that both nodes see, or the members of an etcd. */
export type ArbiterConfig =
  | { kind: 'folder'; folder: string }
  | { kind: 'etcd'; endpoints: readonly string[]; prefix?: string };

export interface CardConfig {
  mac: string;
  address?: string | undefined;
  uplink: UplinkConfig;
}

export interface NodeConfig {
  vm: string;
  /**
   * One run of a VM of a cluster (cluster/registry.ts): part of the name by which the arbiter and the peers know it, so
   * that nothing of an older run has anything to do with this one. None for a VM of one machine.
   */
  life?: string;
  node: string;
  /** Which role the node begins with; roles change at failover (controller/role.ts). */
  role: WantedRole;
  /** The nodes that can be the secondary of this one, in the order in which they are asked; may change at any time. */
  peers: readonly Peer[];
  listen: Address;
  machine: MachineSpec;
  protect: Protect;
  guest: { mac: string; address: string };
  /** Further network cards of the guest; each has an uplink of its own. */
  cards?: readonly CardConfig[];
  /** Traffic that is not compared, and where pcap files go. */
  network?: { bypass: readonly BypassRule[]; pcapDir: string | undefined };
  /** Run directory of the VM on this node, on tmpfs. */
  runDir: string;
  /** Folder on a disk, for checkpoints that do not fit into the memory set aside for staging. */
  spillDir: string;
  /** The guest's disks in their order; none when left out. */
  disks?: DiskConfig[];
  /** The file of the firmware's variables on the node that starts the VM; beside the first disk when left out. */
  variables?: string;
  /** Folder of this node's replica of the disks, on a real disk. Needed when there are disks. */
  replicaDir?: string;
  uplink: UplinkConfig;
  arbiter: ArbiterConfig;
  /** Folder with this node's certificates (base/identity.ts); needed for whatever goes over a network. */
  identityFolder: string | undefined;
  qemuPath: string | undefined;
  /** For tests: where a file may appear that says where the node is to end or stand still: a `Strike` as JSON. */
  armedBy: string | undefined;
}

/** The name of the VM to the arbiter and on links. */
export function recordName({ vm, life }: Pick<NodeConfig, 'vm' | 'life'>): string {
  return life === undefined ? vm : `${vm}_${life}`;
}
