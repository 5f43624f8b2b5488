// What is no TCP leaves as often as it was said, and no oftener: whoever is told twice may do twice. A takeover may say
// again what the lost primary had said, for nobody knows what of it has left.

import type { SimNode } from '../host/node.ts';
import type { SimVm } from '../host/vm.ts';
import type { Checker } from '../world/checker.ts';
import { DatagramNames } from '../world/datagrams.ts';
import type { World } from '../world/world.ts';

export const sentence = 'What is no TCP leaves no oftener than it was said, but once more at each takeover.';

export function once(world: World): Checker {
  const name = 'once';
  const saidNames = new WeakMap<SimVm, DatagramNames>();
  const leftNames = new WeakMap<SimNode, DatagramNames>();
  /** Said by machines that speak for the guest; by those that were loaded, since then, and do not speak yet. */
  const said = new Map<string, number>();
  const waiting = new WeakMap<SimVm, Map<string, number>>();
  const speaking = new WeakSet<SimVm>();
  const left = new Map<string, number>();
  let owner: string | undefined;
  let takeovers = 0;
  const namesOf = <T extends object>(map: WeakMap<T, DatagramNames>, of: T): DatagramNames => {
    const names = map.get(of) ?? new DatagramNames();
    map.set(of, names);
    return names;
  };
  /** A machine that takes over has said what it said since it was loaded. */
  const look = () => {
    for (const { node, vm } of world.nodes) {
      if (vm === undefined || node?.primary === undefined || speaking.has(vm)) continue;
      speaking.add(vm);
      for (const [what, count] of waiting.get(vm) ?? []) said.set(what, (said.get(what) ?? 0) + count);
    }
  };
  return {
    name,
    sentence,
    termChanged: () => {
      if (owner !== undefined && world.record?.owner !== owner) takeovers += 1;
      owner = world.record?.owner;
    },
    guestSaid: (vm, frame) => {
      const what = namesOf(saidNames, vm).nameOf(frame);
      if (what === undefined) return;
      look();
      const into = speaking.has(vm) ? said : waiting.get(vm);
      into?.set(what, (into.get(what) ?? 0) + 1);
    },
    resumedFrom: (vm) => void waiting.set(vm, new Map()),
    // Not what is handed to an uplink whose kernel is full: nobody has heard that, and the survivor says all of it.
    // What a stopped node leaves late is the write of one moment, which nobody can take back.
    frameLeft: (node, frame, late) => {
      if (late) return;
      look();
      const what = namesOf(leftNames, node).nameOf(frame);
      if (what === undefined) return;
      const count = (left.get(what) ?? 0) + 1;
      left.set(what, count);
      const times = said.get(what) ?? 0;
      if (count <= times + takeovers) return;
      const kind = what.split(' ', 1)[0];
      world.violate(name, sentence, `${node.name}: ${kind} leaves for the ${count}. time, and was said ${times} times`);
    },
  };
}
