// Once the owner of a term has spoken for the guest, no other node speaks for it until the term is another one.
//
// A node may still say what it was lent the right to say (heartbeat/lease.ts) while another one has claimed the term; but
// from the owner's first frame on there is one voice. What it was stopped with between its look and its write no program
// can take back: that may leave late, once (uplink.ts), and the other sentences must hold all the same.

import type { Checker } from '../checker.ts';
import type { World } from '../world.ts';

export function singleVoice(world: World): Checker {
  const checker = {
    name: 'single-voice',
    sentence: 'Once the owner of a term has spoken for the guest, no other node speaks for it in that term.',
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
    termChanged: look,
  };
}
