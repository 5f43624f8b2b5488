// Once the owner of a term has spoken for the guest, no other node speaks for it until the term is another one.
//
// A node may still say what it was lent the right to say (heartbeat/lease.ts) while another one has claimed the term;
// but from the owner's first frame on there is one voice. What it was stopped with between its look and its write no
// program can take back: that may leave late, once (network/uplink.ts), and the other sentences must hold all the same.
//
// And whether they say anything or not: at no instant do both nodes have the right to, by the term or by a lease.

import type { SimNode } from '../host/node.ts';
import type { Checker } from '../world/checker.ts';
import type { World } from '../world/world.ts';

/**
 * Whether it would let a frame leave now. While paired its gate opens and shuts with the lease, when it is looked at.
 */
function maySpeak({ node, process }: SimNode): boolean {
  const primary = node?.primary;
  if (primary === undefined || process?.alive !== true) return false;
  const lease = primary.pairing?.lease;
  if (primary.pair.state.kind !== 'protected' || lease === undefined) return primary.gate.isOpen;
  return lease.valid(process.clock.now());
}

export const sentence =
  'Once the owner of a term has spoken for the guest, no other node speaks for it in that term; and at no instant do ' +
  'two have the right to.';

export function singleVoice(world: World): Checker {
  const checker = {
    name: 'single-voice',
    sentence,
  };
  let owner = '';
  let hasSpoken = false;
  const look = () => {
    const now = world.record?.owner ?? '';
    if (now !== owner) hasSpoken = false;
    owner = now;
  };
  return {
    ...checker,
    frameLeft: (node, _frame, late) => {
      look();
      if (late) return;
      if (node.name === owner) hasSpoken = true;
      else if (hasSpoken) {
        const what = `${node.name} speaks, though ${owner} owns term ${world.record?.term ?? 0} and has spoken in it`;
        world.violate(checker.name, checker.sentence, what);
      }
    },
    stepped: () => {
      if (world.nodes.filter(maySpeak).length < 2) return;
      const states = world.nodes.map(({ name, node }) => `${name} is ${node?.primary?.pair.state.kind}`);
      world.violate(checker.name, checker.sentence, `both nodes may speak: ${states.join(', ')}`);
    },
    termChanged: look,
  };
}
