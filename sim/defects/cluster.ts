// Deliberate defects of what a cluster does with its VMs: how nodes are asked to leave, and what is booted anew. What they are: defect.ts.

import { Reconciler } from '../../src/cluster/placement.ts';
import { ColoNode } from '../../src/node/node.ts';
import { always, call, type Defect } from './defect.ts';

export const clusterDefects: readonly Defect[] = [
  {
    name: 'leaves-whatever-it-has',
    mistake: 'A node that is asked to leave goes, also when its copy may be the last one.',
    seeds: 2000,
    finds: 'survivor',
    alone: true,
    changes: [
      {
        owner: ColoNode,
        method: 'leave',
        replace: () =>
          function () {
            call(this, 'post', { kind: 'stop', why: 'it is placed on other nodes' });
          },
      },
    ],
  },
  {
    name: 'boots-without-asking',
    mistake: 'The owner of a pair that comes back boots the VM anew without asking its peer, which may have it.',
    seeds: 2000,
    finds: 'survivor',
    alone: true,
    changes: [{ owner: ColoNode, method: 'isPeerFree', replace: always(Promise.resolve(true)) }],
  },
  {
    name: 'no-other-secondary',
    mistake: 'A VM whose secondary cannot be had is not given another one.',
    seeds: 2000,
    finds: 'liveness',
    alone: true,
    changes: [
      {
        owner: Reconciler,
        method: 'secondary',
        replace: (before) =>
          function (view, about) {
            return (about as { held?: string }).held ?? before.call(this, view, about);
          },
      },
    ],
  },
];
