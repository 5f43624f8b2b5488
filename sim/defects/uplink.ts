// Deliberate defects of a node's way to the network: src/netdev/frame-socket.ts. What they are: defect.ts.

import { FrameSocket } from '../../src/netdev/frame-socket.ts';
import type { Defect } from './defect.ts';

interface Parts {
  handlers: { maySend: (() => boolean) | undefined };
  socket: { write(bytes: Buffer, done: () => void): void };
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
    seeds: 40,
    finds: 'single-voice',
    alone: true,
    changes: [
      {
        owner: FrameSocket,
        method: 'flushIfAllowed',
        replace: () =>
          function () {
            const { handlers, socket } = this as unknown as Parts;
            if (handlers.maySend?.() === true) {
              const { out, outBytes } = this as unknown as { out: Buffer; outBytes: number };
              socket.write(Buffer.from(out.subarray(0, outBytes)), () => undefined);
            }
            Object.assign(this, { outBytes: 0 });
          },
      },
    ],
  },
];
