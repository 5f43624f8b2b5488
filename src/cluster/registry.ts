// What the nodes of a cluster know of each other, as typed entries of a store (store.ts):
//
//   nodes/NAME        announced by NAME's colod while it lives: where it is, what room it has, what runs on it
//   drains/NAME       an operator wants NAME empty
//   vms/VM            what is to run: the spec as it was given, the node that boots it, and its life; or that it was
//                     removed
//   placements/VM     the nodes that run it, the one that is (or is to be) the primary first
//
// A life is one run of a VM, from `colo run` to `colo rm`: a VM that is run again under its name is another one to the
// arbiter and to the nodes, so nothing of an older life can be taken over. But it may still speak: its primary stops
// when its colod sees the removal, and that may be cut off. So what is left of a removed VM names the nodes that may
// run it and its addresses, and its name and addresses are not used again before each of them has struck itself off.
//
// Entries that cannot be read (another version's, damaged) are left out and named in `problems`, never guessed at. So
// that one is missing means nothing: a VM is removed by an entry that says so, and a registry that lost everything
// stops none.

import { z } from 'zod';
import { ColoError, errorCodes } from '../base/errors.ts';
import { parseJson } from '../base/json.ts';
import { entryBytes, folderEntriesMax, listingBytesMax } from './limits.ts';
import type { Entry, Store } from './store.ts';

const name = z.string().regex(/^[a-zA-Z0-9][a-zA-Z0-9_-]{0,62}$/);

const hostedSchema = z.object({
  vm: name,
  life: z.string(),
  role: z.enum(['primary', 'secondary', 'fenced', 'stopped', 'starting', 'dead']),
  state: z.string(),
  why: z.string(),
  protected: z.boolean(),
  term: z.number(),
  /** Where its links are accepted on this node. */
  port: z.number().int(),
  /** Ends of its process in a row, without a longer time of running between them. */
  failures: z.number().int(),
  /** The VM ended here with the only copy of it, and not because its guest wanted so. */
  lost: z.boolean().optional(),
});

const nodeSchema = z.object({
  node: name,
  address: z.string(),
  apiPort: z.number().int(),
  cores: z.number(),
  memoryBytes: z.number(),
  memoryFreeBytes: z.number(),
  version: z.string(),
  /** Calls of its API that were refused since it started. */
  refused: z.number(),
  hosted: z.array(hostedSchema),
});

const vmSchema = z.object({
  vm: name,
  life: z.string().regex(/^[a-f0-9]{8}$/),
  home: name,
  /** As the operator gave it; every node checks it again (config/spec.ts). */
  spec: z.record(z.string(), z.unknown()),
  memoryBytes: z.number(),
  /** mode none: one node, no protection. */
  protect: z.boolean(),
  /** Its spec came over the network: it may name files below each node's allowed folders only. */
  confined: z.boolean().optional(),
});

/** What is left of a VM, until every node that may have run it has said that it does not. */
const removedSchema = z.object({
  vm: name,
  life: z.string(),
  removed: z.literal(true),
  /** The nodes that have not said so yet. */
  nodes: z.array(name),
  /** The guest's, Ethernet and IP: it may speak with them for as long. */
  addresses: z.array(z.string()),
});

const placementSchema = z.object({ life: z.string(), nodes: z.array(name).min(1).max(2) });
const drainSchema = z.object({});

/** A VM as one node runs it. */
export type Hosted = z.output<typeof hostedSchema>;
export type NodeInfo = z.output<typeof nodeSchema>;
export type VmRecord = z.output<typeof vmSchema>;

export type Removed = Omit<z.output<typeof removedSchema>, 'removed'> & { revision: number };

export interface Placement {
  life: string;
  nodes: readonly string[];
  revision: number;
}

export interface ClusterView {
  nodes: NodeInfo[];
  drains: ReadonlyMap<string, number>;
  vms: (VmRecord & { revision: number })[];
  removed: ReadonlyMap<string, Removed>;
  placements: ReadonlyMap<string, Placement>;
  problems: string[];
}

export class Registry {
  private readonly store: Store;
  /** As the last listing showed it. */
  private isFull = false;

  constructor(store: Store) {
    this.store = store;
  }

  /** Everything, as one moment saw it. */
  async read(): Promise<ClusterView> {
    const nodes: NodeInfo[] = [];
    const vms: ClusterView['vms'] = [];
    const removed = new Map<string, Removed>();
    const drains = new Map<string, number>();
    const placements = new Map<string, Placement>();
    const problems: string[] = [];
    const entries = await this.store.list();
    this.isFull = isNearlyFull(entries);
    for (const { key, value, revision } of entries) {
      const [kind, id = ''] = key.split('/');
      const parse = <T>(schema: z.ZodType<T>): T | undefined => {
        const parsed = schema.safeParse(parseJson(value));
        if (!parsed.success) problems.push(`the entry ${key} is damaged, or of another version`);
        return parsed.data;
      };
      if (kind === 'nodes') push(nodes, parse(nodeSchema));
      else if (kind === 'vms') {
        const entry = addTo(parse(z.union([removedSchema, vmSchema])), revision);
        if (entry !== undefined && 'removed' in entry) removed.set(id, entry);
        else push(vms, entry);
      } else if (kind === 'drains' && parse(drainSchema) !== undefined) drains.set(id, revision);
      else if (kind === 'placements') {
        const placement = addTo(parse(placementSchema), revision);
        if (placement !== undefined) placements.set(id, placement);
      }
    }
    const byName = (one: { vm?: string; node?: string }) => one.vm ?? one.node ?? '';
    const sorted = <T extends { vm?: string; node?: string }>(all: T[]) =>
      all.sort((one, other) => (byName(one) < byName(other) ? -1 : 1));
    return { nodes: sorted(nodes), drains, vms: sorted(vms), removed, placements, problems };
  }

  announce(info: NodeInfo, ttlMs: number): Promise<void> {
    return this.store.announce(`nodes/${info.node}`, JSON.stringify(info), ttlMs);
  }

  /** A node that leaves for good. */
  withdraw(node: string): Promise<void> {
    return this.store.withdraw(`nodes/${node}`);
  }

  /** `revision`: that of what is left of an earlier one of this name. False when there is a VM of this name. */
  createVm(record: VmRecord, revision = 0): Promise<boolean> {
    if (this.isFull)
      throw new ColoError(errorCodes.host, 'the registry is nearly full: it takes no further VM', {
        hint: 'remove VMs that nobody needs (colo ps), or run this one on another cluster',
      });
    return this.store.change(`vms/${record.vm}`, revision, JSON.stringify(record));
  }

  /**
   * False when it was changed or removed meanwhile. Its nodes stop it when they see that. What is left of it names
   * those that may run it (`nodes`), until each of them has said that it does not (`strike`).
   */
  async removeVm(
    { vm, life, revision }: Pick<VmRecord, 'vm' | 'life'> & { revision: number },
    {
      placement,
      ...left
    }: { placement: Placement | undefined; nodes: readonly string[]; addresses: readonly string[] },
  ): Promise<boolean> {
    const value = JSON.stringify({ vm, life, removed: true, ...left });
    if (!(await this.store.change(`vms/${vm}`, revision, value))) return false;
    // One that is left behind is of an older life, and counts as none.
    if (placement !== undefined) await this.store.change(`placements/${vm}`, placement.revision, null);
    return true;
  }

  /** This node has nothing of the removed VM. After the last one nothing is left of it. False: try it again. */
  strike({ revision, ...left }: Removed, node: string): Promise<boolean> {
    const nodes = left.nodes.filter((one) => one !== node);
    const value = nodes.length === 0 ? null : JSON.stringify({ ...left, removed: true, nodes });
    return this.store.change(`vms/${left.vm}`, revision, value);
  }

  /** False when somebody else placed it meanwhile. */
  place(vm: string, placement: Placement): Promise<boolean> {
    const { revision, life, nodes } = placement;
    return this.store.change(`placements/${vm}`, revision, JSON.stringify({ life, nodes }));
  }

  async drain(node: string): Promise<void> {
    // One that is there already is as good.
    await this.store.change(`drains/${node}`, 0, '{}');
  }

  async undrain(node: string, revision: number): Promise<void> {
    await this.store.change(`drains/${node}`, revision, null);
  }

  close(): Promise<void> {
    return this.store.close();
  }
}

/** Half of what can be listed: what is more must not keep anybody from managing what is there. */
function isNearlyFull(entries: readonly Entry[]): boolean {
  // etcd sends values in base64.
  const bytes = entries.reduce((sum, { value }) => sum + entryBytes + (value.length * 4) / 3, 0);
  return entries.length >= folderEntriesMax / 2 || bytes >= listingBytesMax / 2;
}

function push<T>(list: T[], item: T | undefined): void {
  if (item !== undefined) list.push(item);
}

function addTo<T extends object>(value: T | undefined, revision: number): (T & { revision: number }) | undefined {
  return value === undefined ? undefined : { ...value, revision };
}
