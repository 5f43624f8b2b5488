// At every instant at which a primary is protected, the secondary holds one complete state that it can run: after every
// event, and within it at every named point of the protocol and before every fault. And no copy is given up without
// need: as long as one is not struck by a fault, one can run. A primary that begins to doubt its secondary with a QEMU
// that is dead, or hangs, and gets the term without a sign of life from it, has taken it from a copy that could run.

import type { SimNode } from '../host/node.ts';
import type { SimProcess } from '../host/process.ts';
import type { SimVm } from '../host/vm.ts';
import type { Checker } from '../world/checker.ts';
import type { World } from '../world/world.ts';

export const sentence =
  'Whenever a primary that is protected is lost, the secondary holds a complete state that it can run; and ' +
  'while one copy ' +
  'of the guest is not struck by a fault, one can run.';

/**
 * A state is tried as often as the plan says, with the next checkpoint (`protect.tryLoad`); slow links and machines may
 * delay that one.
 */
const triedWithinMs = 2000;

export function survivor(world: World): Checker {
  const name = 'survivor';
  const complain = (what: string) => world.violate(name, sentence, what);

  const isProtected = ({ node, process, vm }: SimNode): boolean => {
    const state = node?.primary?.pair.state;
    const isRunning = process?.alive === true && vm?.alive === true && node !== undefined;
    if (!isRunning || state?.kind !== 'protected' || process === undefined) return false;
    return state.complete && node?.primary?.pairing?.lease?.valid(process.clock.now()) === true;
  };

  /** If `node` were lost now. */
  const judge = (node: SimNode, when: string): void => {
    const { other } = node;
    if (!isProtected(node) || other.vm === undefined || world.isStruck(other.vm) || !other.vm.alive) return;
    // Until its primary hears that its disk has failed: a loss in between is a second fault.
    if (world.isHindered(other.vm)) return;
    if (other.process?.alive !== true || world.heldBy(other) !== undefined) return;
    // It may have taken over already, or have lost the term to a primary that has not heard of it yet.
    if (world.record?.peer === null) return;
    const state = other.node?.secondary?.pair.state.kind ?? 'no secondary';
    complain(`${when}: ${node.name} is protected, and ${other.name} is ${state}`);
  };

  const judgeBoth = (when: string): void => {
    for (const node of world.nodes) judge(node, when);
  };

  /** A copy that nobody can load is none, and a primary that counts on it has to have found that out. */
  const judgeLoads = (node: SimNode): void => {
    const { other } = node;
    const { vm, loadsFailSince } = other;
    const state = node.node?.primary?.pair.state;
    if (loadsFailSince === undefined || vm === undefined || !isProtected(node) || node.vm?.answers !== true) return;
    if (state?.kind !== 'protected' || !state.loaded || other.process?.paused !== false) return;
    const isNew = vm.startedAt > loadsFailSince;
    const isOld = world.plan.protect.mode === 'remus' && world.schedule.now > loadsFailSince + triedWithinMs;
    if (isNew || isOld)
      complain(
        `${node.name} is protected by ${other.name}, where no state loads since ${loadsFailSince.toFixed(0)} ms`,
      );
  };

  /** Nodes in doubt about a secondary that may run, whose own QEMU has not been able to answer since that began. */
  const mute = new Set<SimProcess>();
  const doubting = new Set<SimProcess>();
  let takenByMute: number | undefined;

  const lookForDoubts = (): void => {
    for (const { node, process, vm } of world.nodes) {
      if (process === undefined) continue;
      const state = node?.primary?.pair.state;
      const isDoubting = state?.kind === 'suspecting' && state.peerMayRun;
      if (!isDoubting) doubting.delete(process);
      else if (!doubting.has(process)) {
        doubting.add(process);
        mute.add(process);
      }
      if (!isDoubting || vm?.answers === true) mute.delete(process);
    }
  };

  const noteWinner = (): void => {
    const { record } = world;
    if (record?.peer !== null) return;
    const winner = world.nodes.find(({ name: own }) => own === record.owner)?.process;
    if (winner !== undefined && mute.has(winner)) takenByMute = record.term;
  };

  const lookForTheUnhurt = (): void => {
    const { nobodySince, lastHolders, record } = world;
    if (nobodySince === undefined || world.schedule.now === nobodySince) return;
    // Who went on alone is the only copy from then on, even if it died while it asked for the term.
    const { owner, peer } = record ?? { owner: '', peer: null };
    const isTaken = record !== undefined && record.term === takenByMute;
    const counts = (vm: SimVm) => peer !== null || isTaken || vm.parts.name.startsWith(owner);
    // One whose disk has failed is given up by a node that cannot know yet that the other copy is dead: that is a
    // second fault.
    const unhurt = lastHolders.find((vm) => counts(vm) && !world.isStruck(vm) && !world.isHindered(vm));
    if (unhurt === undefined) return;
    complain(`nobody holds the guest any more, and no fault struck its copy on ${unhurt.parts.name}`);
  };

  return {
    name,
    sentence,
    aboutToStrike: (_node, what) => {
      lookForTheUnhurt();
      judgeBoth(`before ${what}`);
    },
    aboutToBoot: (node) => {
      const holder = world.nodes.find((one) => one !== node && world.heldBy(one) !== undefined);
      const { vm } = holder ?? {};
      if (holder === undefined || vm === undefined || world.isStruck(vm) || world.isHindered(vm)) return;
      complain(`${node.name} boots the guest anew, and ${holder.name} holds it`);
    },
    reached: (_node, point) => judgeBoth(`at ${point}`),
    stepped: () => {
      lookForDoubts();
      judgeBoth('now');
      for (const node of world.nodes) judgeLoads(node);
    },
    termChanged: noteWinner,
    polled: lookForTheUnhurt,
  };
}
