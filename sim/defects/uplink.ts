// Deliberate defects of a node's way to the network: src/netdev/frame-socket.ts. What they are: defect.ts.

import { FrameSocket, type Kernel } from '../../src/netdev/frame-socket.ts';
import { call, type Defect } from './defect.ts';

interface Parts {
  handlers: { maySend: (() => boolean) | undefined };
}

interface Waiting {
  kernel: Kernel;
  out: Buffer;
  outFrom: number;
  outEnd: number;
}

export const uplinkDefects: readonly Defect[] = [
  {
    name: 'look-at-release-only',
    mistake: 'Whether the node may speak is asked when it releases a frame, and not when it writes it.',
    seeds: 40,
    finds: 'single-voice',
    alone: true,
    changes: [
      {
        owner: FrameSocket,
        method: 'flushIfAllowed',
        replace: (before) =>
          function () {
            const { handlers } = this as unknown as Parts;
            const { maySend } = handlers;
            handlers.maySend = () => true;
            before.call(this);
            handlers.maySend = maySend;
          },
      },
    ],
  },
  {
    name: 'queue-left-to-node',
    mistake: 'What the kernel does not take at once is left to Node, all of it, and written whenever there is room.',
    seeds: 130,
    from: 111,
    finds: 'single-voice',
    alone: true,
    changes: [
      {
        owner: FrameSocket,
        method: 'waitForRoom',
        replace: () =>
          function () {
            const { kernel, out, outFrom, outEnd } = this as unknown as Waiting;
            const rest = Buffer.from(out.subarray(outFrom, outEnd));
            call(this, 'written', outEnd);
            kernel.later(() => kernel.write(0, rest, 0, rest.length));
          },
      },
    ],
  },
];
