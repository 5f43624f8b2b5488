// Whether a VM may have the name and the addresses that its spec gives it, pure: two guests with one address on one
// bridge would take each other's frames. A VM that was removed counts for as long as a node may still run it
// (cluster/registry.ts).

import { Refusal } from '../api/refusal.ts';
import { errorCodes } from '../base/errors.ts';
import type { ClusterView, Removed, VmRecord } from '../cluster/registry.ts';
import { specOf } from './child-config.ts';

type Asked = Pick<VmRecord, 'vm' | 'spec'>;

/** `force`: an operator says that the nodes that may still run a removed VM are off. */
export function refuseTaken(view: ClusterView, asked: Asked, { force }: { force: boolean }): void {
  const own = new Set(addressesOf(asked));
  for (const other of view.vms) {
    const taken = other.vm === asked.vm ? undefined : addressesOf(other).find((one) => own.has(one));
    if (taken !== undefined) throw clash(`${other.vm} has the address ${taken} already`);
  }
  if (force) return;
  for (const left of view.removed.values()) {
    const taken = left.vm === asked.vm ? left.vm : left.addresses.find((one) => own.has(one));
    if (taken === undefined || left.nodes.length === 0) continue;
    const what = taken === left.vm ? left.vm : `${left.vm}, which has the address ${taken},`;
    throw new Refusal(409, errorCodes.input, `${what} was removed, and is still on ${whereItIs(view, left)}`, {
      hint: 'wait until it is gone; of a node that does not answer: make sure that it is off, then use --force',
    });
  }
}

/** For a VM that has just been created: another one took one of its addresses at the same moment, and was first. */
export function refuseSecond(view: ClusterView, asked: VmRecord): void {
  const own = new Set(addressesOf(asked));
  const created = view.vms.find((one) => one.vm === asked.vm && one.life === asked.life)?.revision ?? 0;
  for (const other of view.vms) {
    const isFirst = other.vm !== asked.vm && other.revision < created;
    if (isFirst && addressesOf(other).some((one) => own.has(one)))
      throw clash(`${other.vm} has got one of its addresses at the same moment`);
  }
}

/** Ethernet and IP addresses of a VM. Those that the spec names, when this node cannot check it (another version's). */
export function addressesOf(record: Asked): string[] {
  const { network, cards } = readable(record);
  const all: unknown[] = [network, ...(Array.isArray(cards) ? cards : [])];
  return all.flatMap((card) => {
    const { mac, address } = typeof card === 'object' && card !== null ? (card as Record<string, unknown>) : {};
    return [mac, address].filter((one) => typeof one === 'string');
  });
}

function readable(record: Asked): { network?: unknown; cards?: unknown } {
  try {
    return specOf(record);
  } catch {
    return record.spec;
  }
}

function whereItIs({ nodes }: ClusterView, left: Removed): string {
  return left.nodes
    .map((name) => (nodes.some(({ node }) => node === name) ? name : `${name} (which does not answer)`))
    .join(' and ');
}

function clash(text: string): Refusal {
  return new Refusal(409, errorCodes.input, text, { hint: 'give this VM others: network.mac and network.address' });
}
