// Deliberate defects of what a cluster does with its VMs. What they are: defect.ts.

import { Reconciler } from '../../src/cluster/placement.ts';
import type { Defect } from './defect.ts';

export const clusterDefects: readonly Defect[] = [
  {
    name: 'lost-vm-left-alone',
    mistake:
      'A node that lost the only copy with its QEMU, and lives, is not started again (a defect that the simulation ' +
      'found in the product).',
    seeds: 30,
    from: 22,
    finds: 'liveness',
    alone: true,
    changes: [
      {
        owner: Reconciler,
        method: 'revive',
        replace: (before) =>
          function (view, about) {
            const { child } = about as { child: object };
            return before.call(this, view, { ...(about as object), child: { ...child, lost: false } });
          },
      },
    ],
  },
];
