// A node that is never started, for targets that ask its API: it answers as such.

import { MemoryArbiter } from '../../src/arbiter/memory.ts';
import { systemClock } from '../../src/base/clock.ts';
import type { Served } from '../../src/child/server.ts';
import type { NodeContext } from '../../src/node/context.ts';
import { ColoNode } from '../../src/node/node.ts';

function idleNode(): ColoNode {
  const config = {
    ...{ vm: 'vm', node: 'a', role: 'auto', peers: [], protect: { mode: 'colo' } },
    machine: { nics: [], accel: 'tcg', ramBytes: 2 ** 26, vcpus: 1 },
    guest: { mac: '52:54:00:12:34:56', address: '10.0.2.15' },
  };
  // The node is never started, so of its surroundings only these are ever looked at.
  const context = { config, clock: systemClock, arbiter: new MemoryArbiter(new Map()) } as unknown as NodeContext;
  return new ColoNode(context);
}

/** As the node's API serves it. */
export function servedIdle(): Served {
  const process = () => ({ losses: [], loop: { stalls: 0, longest: null, newest: [] } });
  return { node: idleNode(), stop: () => undefined, process };
}
