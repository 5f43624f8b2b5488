// The ports of a primary's proxy of which a benchmark looks at what leaves alone.

import type { PrimaryPorts } from '../src/proxy/primary.ts';

export function portsTo(toNetwork: (frame: Uint8Array) => void): PrimaryPorts {
  const nothing = () => undefined;
  return {
    toNetwork,
    ...{ progress: { taken: 0, settled: 0, lost: 0 }, unwritten: () => [] },
    toGuest: nothing,
    mirror: nothing,
    tolerate: nothing,
    announceIsn: nothing,
    confirm: nothing,
    wantCheckpoint: nothing,
    pauseGuest: nothing,
  };
}
