// Everything of a node that waits somewhere, with its limit: for the bounds checker. Much of it is private, so a field
// that has got another name is an error here, and not a queue that nobody looks at any more.

import { queueBytesMax } from '../../src/channel/limits.ts';
import { stagedBytesMax } from '../../src/checkpoint/limits.ts';
import { journalMemoryBytesMax, recordBytesMax, windowBytes } from '../../src/disk/limits.ts';

import { frameBytesMax, sendQueueBytesMax } from '../../src/netdev/limits.ts';
import { earlyFramesMax, ingressHeldFramesMax } from '../../src/node/limits.ts';
import { guestAddressesMax, proxyLimits } from '../../src/proxy/limits.ts';
import type { SimNode } from '../host/node.ts';

export interface Queue {
  what: string;
  size: number;
  max: number;
}

/** The value of a field behind a path of private ones; undefined where one on the way is undefined. */
function look(from: object | undefined, ...path: string[]): unknown {
  let value: unknown = from;
  for (const name of path) {
    if (value === undefined) return undefined;
    if (typeof value !== 'object' || value === null || !(name in value))
      throw new Error(`bug: the product has no ${path.join('.')} any more`);
    value = Reflect.get(value, name);
  }
  return value;
}

const numberAt = (from: object | undefined, ...path: string[]) => (look(from, ...path) as number | undefined) ?? 0;

/** One frame may be taken beyond a limit that was not reached before it. */
const oneFrame = frameBytesMax;

export function queuesOf(node: SimNode): Queue[] {
  return [...proxies(node), ...frames(node), ...checkpoints(node), ...links(node)];
}

function proxies({ node }: SimNode): Queue[] {
  const primary = node?.primary?.proxy.counters;
  const secondary = node?.secondary?.proxy?.counters;
  const limits = proxyLimits;
  const { heldOverrunFactor: factor } = limits;
  const queues: Queue[] = [];
  const add = (what: string, size: number, max: number) => void queues.push({ what, size, max });
  if (primary !== undefined) {
    add('frames are held', primary.heldFrames, limits.heldFramesMax * factor + 1);
    add('bytes are held', primary.heldBytes, limits.heldBytesMax * factor);
    add('bytes of the SVM are ahead', primary.aheadBytes, limits.aheadBytesMax + limits.aheadBytesPerConnectionMax);
    add('bytes are at the gate', primary.gatedBytes, limits.gatedBytesMax * 2 + oneFrame);
    add('connections are known', primary.connections, limits.connectionsMax);
  }
  if (secondary !== undefined) {
    add('items are in the log', secondary.logItems, limits.logItemsMax);
    add('bytes are in the log', secondary.logBytes, limits.logBytesMax);
    add('frames are unconfirmed', secondary.unconfirmedFrames, limits.unconfirmedFramesMax);
    add('bytes are unconfirmed', secondary.unconfirmedBytes, limits.unconfirmedBytesMax);
    add('connections are known', secondary.connections, limits.connectionsMax);
  }
  return queues;
}

/** Frames of the network on their way in, and those that the kernel does not take. */
function frames({ name, node, world }: SimNode): Queue[] {
  const uplink = world.network.uplinks.get(name);
  const waiting = numberAt(uplink, 'outEnd') - numberAt(uplink, 'outFrom');
  return [
    {
      what: 'frames wait for a capture',
      size: numberAt(node?.primary?.ingress, 'held', 'length'),
      max: ingressHeldFramesMax,
    },
    {
      what: 'frames are remembered',
      size: numberAt(node?.primary?.ingress, 'recent', 'length'),
      max: ingressHeldFramesMax,
    },
    { what: 'early frames are kept', size: numberAt(node?.secondary, 'early', 'length'), max: earlyFramesMax },
    { what: 'bytes wait for the kernel', size: waiting, max: sendQueueBytesMax + oneFrame },
    { what: 'addresses are known', size: node?.addresses.count ?? 0, max: guestAddressesMax },
  ];
}

function checkpoints({ node }: SimNode): Queue[] {
  const applier = node?.secondary?.applier;
  const replica = look(applier?.disks, 'replica') as object | undefined;
  return [
    { what: 'bytes are staged', size: numberAt(applier, 'staging', 'heldBytes'), max: stagedBytesMax },
    {
      what: "bytes of the journal's are in memory",
      size: numberAt(replica, 'journal', 'memoryBytes'),
      max: journalMemoryBytesMax,
    },
    // A write that is let through begins below the window's end.
    {
      what: 'bytes are not held by the secondary',
      size: node?.primary?.disks?.status.backlogBytes ?? 0,
      max: windowBytes + recordBytesMax,
    },
  ];
}

function links(node: SimNode): Queue[] {
  return node.liveLinks.map(({ kind, waitingBytes }) => ({
    what: `bytes wait on the ${kind} link`,
    size: waitingBytes,
    max: queueBytesMax,
  }));
}
