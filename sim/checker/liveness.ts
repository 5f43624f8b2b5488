// When the faults stop, every client is answered again, and the VM is protected again, within a bounded time.

import type { Checker } from '../world/checker.ts';
import { recoverMs, recoverMsOf, type World } from '../world/world.ts';

const answersWanted = 2;

export const sentence =
  'When the faults stop, every client is answered and the VM is protected again ' + `within ${recoverMs / 1000} s.`;

export function liveness(world: World): Checker {
  const checker = {
    name: 'liveness',
    sentence,
  };
  const withinMs = recoverMsOf(world.plan);
  let healedAt: number | undefined;
  let before: number[] = [];
  let done = false;
  const unserved = () => world.clients.find(({ answered }, index) => answered < (before[index] ?? 0) + answersWanted);
  const isProtected = () => {
    const primary = world.nodes.find(({ node }) => node?.primary !== undefined);
    const state = primary?.node?.primary?.pair.state;
    const peer = primary?.other.node?.secondary?.pair.state.kind;
    // In any phase: with low limits, checkpoints may follow each other without a moment between them.
    return state?.kind === 'protected' && state.complete && peer === 'protected';
  };
  world.isDone = () => done;
  return {
    ...checker,
    healed: () => {
      healedAt = world.schedule.now;
      before = world.clients.map(({ answered }) => answered);
    },
    polled: () => {
      if (healedAt === undefined) return;
      const client = unserved();
      if (client === undefined && isProtected()) done = true;
      if (done || world.schedule.now - healedAt < withinMs) return;
      const states = world.nodes.map(({ name, node }) => {
        const state = node?.primary?.pair.state.kind ?? node?.secondary?.pair.state.kind ?? 'down';
        return `${name} is ${state}${node?.role.state.kind === 'ended' ? ' (ended)' : ''}`;
      });
      const what = client === undefined ? 'the VM is not protected' : `client ${client.id} is not answered`;
      world.violate(
        checker.name,
        checker.sentence,
        `${what} ${withinMs} ms after the last fault: ${states.join(', ')}`,
      );
    },
  };
}
