// Some plans lower limits of the proxies, so that their queues are really full. The product reads them from one object
// whenever it needs them, and that is changed for as long as a world runs. Nothing else of a limit can be lowered from
// outside; the plan's own `congestedBytes` is that of the links.

import { proxyLimits } from '../../src/proxy/limits.ts';
import type { Random } from './random.ts';

export type LowLimits = Partial<Record<keyof typeof proxyLimits, number>>;

/**
 * Frames and bytes of few exchanges. Left as they are: what the gate and the survivor keep, and the table of
 * connections, for at these limits streams are lost. At those below datagrams may be (checker/nothing-lost.ts), as on
 * any network.
 */
export function drawLowLimits(random: Random): LowLimits | undefined {
  if (!random.chance(0.15)) return undefined;
  const held = random.between(3000, 40_000);
  return {
    heldFramesMax: 2 + random.below(20),
    heldBytesMax: Math.round(held),
    heldBytesPerFlowMax: Math.round(held * random.between(0.3, 1)),
    heldBytesInCheckpointMax: Math.round(held * random.between(0.1, 1)),
    aheadBytesPerConnectionMax: Math.round(random.between(1000, 20_000)),
    aheadPiecesOutOfOrderMax: 1 + random.below(4),
    aheadBytesMax: Math.round(random.between(2000, 30_000)),
    datagramsAheadMax: 1 + random.below(4),
    idleFlowsMax: 1 + random.below(3),
    logItemsMax: 4 + random.below(60),
    logBytesMax: Math.round(random.between(2000, 60_000)),
  };
}

/** Lowers them; returns what puts them back. */
export function lower(limits: LowLimits | undefined): () => void {
  const before = { ...proxyLimits };
  Object.assign(proxyLimits, limits);
  return () => void Object.assign(proxyLimits, before);
}
