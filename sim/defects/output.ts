// Deliberate defects of what leaves: release, comparison, connections. What they are: defect.ts.

import { read16, replace16 } from '../../src/packet/checksum.ts';
import { FrameView } from '../../src/packet/frame-view.ts';
import { tcpFlag } from '../../src/packet/tcp.ts';
import { DatagramComparer } from '../../src/proxy/compare/datagram.ts';
import { edgeOf, shiftOf, TcpClamp } from '../../src/proxy/compare/tcp/clamp.ts';
import { TcpComparer } from '../../src/proxy/compare/tcp/comparer.ts';
import type { TcpStream } from '../../src/proxy/compare/tcp/stream.ts';
import { ConnectionTable } from '../../src/proxy/connections/connection-table.ts';
import type { SegmentParts } from '../../src/proxy/frames/rewrite.ts';
import { Gate } from '../../src/proxy/output/gate.ts';
import { PrimaryProxy } from '../../src/proxy/primary.ts';
import { SecondaryProxy } from '../../src/proxy/secondary.ts';
import { always, call, type Defect, type Self } from './defect.ts';

const frameView = new FrameView();

export const outputDefects: readonly Defect[] = [
  {
    name: 'release-on-capture',
    mistake: 'Held frames leave when the checkpoint is captured, not when it is committed.',
    seeds: 40,
    finds: 'output-commit',
    changes: [
      {
        owner: PrimaryProxy,
        method: 'capture',
        replace: (before) =>
          function (...args) {
            const result = before.apply(this, args);
            for (const one of call(this, 'inOrder') as { leave(): void }[]) one.leave();
            return result;
          },
      },
    ],
  },
  {
    name: 'no-ack-clamp',
    mistake: "The primary's acknowledgements and windows leave as they are.",
    seeds: 40,
    finds: 'output-commit',
    alone: true,
    changes: [
      {
        owner: TcpClamp,
        method: 'clamp',
        replace: () =>
          function (_stream, parts) {
            const { ack, window, timestamp } = parts as { ack: number; window: number; timestamp: number };
            Object.assign(this['out'] as unknown as object, {
              ack,
              window,
              timestamp,
              edge: (ack + (window << 2)) >>> 0,
            });
          },
      },
    ],
  },
  {
    name: 'no-window-clamp',
    mistake: 'The primary opens its window as far as its own guest does; acknowledgements are held back.',
    seeds: 20,
    finds: 'output-commit',
    alone: true,
    changes: [
      {
        owner: TcpClamp,
        method: 'clamp',
        replace: (before) =>
          function (stream, segment) {
            before.call(this, stream, segment);
            const parts = segment as SegmentParts;
            const out = this['out'] as unknown as { ack: number; window: number; edge: number };
            const shift = shiftOf(stream as TcpStream, parts.flags);
            out.window = Math.min(((edgeOf(parts, shift) - out.ack) >>> 0) >>> shift, 0xffff);
            out.edge = (out.ack + (out.window << shift)) >>> 0;
          },
      },
    ],
  },
  {
    name: 'rst-not-compared',
    mistake: 'A reset leaves although the SVM has not said it.',
    seeds: 40,
    finds: 'output-commit',
    alone: true,
    changes: [
      {
        owner: TcpComparer,
        method: 'tryReset',
        replace: () =>
          function (stream, head) {
            return call(this, 'finishHead', stream, head);
          },
      },
    ],
  },
  {
    name: 'no-resend',
    mistake: 'What the SVM has said and the primary has not released is not said at a takeover.',
    seeds: 40,
    finds: 'nothing-lost',
    alone: true,
    changes: [
      {
        owner: SecondaryProxy,
        method: 'takeover',
        replace: (before) =>
          function (...args) {
            return { ...(before.apply(this, args) as object), resend: [] };
          },
      },
    ],
  },
  {
    name: 'table-does-not-travel',
    mistake: 'The connection table is not adopted with a checkpoint.',
    seeds: 20,
    finds: 'liveness',
    alone: true,
    changes: [{ owner: ConnectionTable, method: 'adopt', replace: always(true) }],
  },
  {
    name: 'stale-answers-compared',
    mistake: 'Answers of the SVM from before a checkpoint are compared as if they were of the new epoch.',
    seeds: 30,
    finds: 'output-commit',
    alone: true,
    changes: [
      {
        owner: PrimaryProxy,
        method: 'fromSecondary',
        replace: (before) =>
          function (_epoch, ...rest) {
            return before.call(this, this['epoch'], ...rest);
          },
      },
    ],
  },
  {
    name: 'no-line-at-capture',
    mistake: 'What the PVM says after a capture is compared with the SVM of the old epoch.',
    seeds: 60,
    finds: 'output-commit',
    alone: true,
    changes: [
      {
        owner: PrimaryProxy,
        method: 'wait',
        replace: (before) =>
          function (queue, view, now, order) {
            const options = this['options'] as unknown as { mode: string };
            if (options.mode === 'remus' || queue !== this['next']) return before.call(this, queue, view, now, order);
            return call(this, 'take', view, call(this, 'translate', view, now), now, order);
          },
      },
    ],
  },
  {
    name: 'payload-not-compared',
    mistake: 'Bytes count as equal when there are as many of them.',
    seeds: 20,
    from: 4,
    finds: 'output-commit',
    alone: true,
    changes: [
      {
        owner: TcpComparer,
        method: 'divergePayload',
        replace: () =>
          function (stream, head) {
            return call(this, 'finishHead', stream, head);
          },
      },
    ],
  },
  {
    name: 'datagrams-not-compared',
    mistake: 'Datagrams leave at once.',
    seeds: 40,
    finds: 'output-commit',
    alone: true,
    changes: [
      {
        owner: DatagramComparer,
        method: 'matchAhead',
        replace: () => (_flow, held) => void Object.assign(held as object, { isMatched: true }),
      },
    ],
  },
  {
    name: 'fin-not-compared',
    mistake: 'The end of a stream leaves although the SVM has not ended it.',
    seeds: 40,
    finds: 'output-commit',
    alone: true,
    changes: [{ owner: TcpComparer, method: 'finAgrees', replace: always(true) }],
  },
  {
    name: 'held-frames-stay-behind',
    mistake: 'Frames that wait for a commit do not travel with their checkpoint.',
    seeds: 30,
    finds: 'nothing-lost',
    alone: true,
    changes: [{ owner: PrimaryProxy, method: 'encodeHeld', replace: always(new Uint8Array(0)) }],
  },
  {
    name: 'old-offset-kept',
    mistake: 'A new connection on an old 5-tuple keeps the offset of the old one.',
    seeds: 115,
    from: 105,
    finds: 'liveness',
    alone: true,
    changes: [
      {
        owner: SecondaryProxy,
        method: 'pair',
        replace: (before) =>
          function (connection) {
            const known = connection as { delta: number };
            const { delta } = known;
            before.call(this, connection);
            if (delta === 0 || known.delta === delta) return;
            known.delta = delta;
            call(this['table'] as unknown as Self, 'store', connection);
          },
      },
      {
        owner: ConnectionTable,
        method: 'restart',
        replace: (before) =>
          function (connection) {
            const { delta } = connection as { delta: number };
            before.call(this, connection);
            Object.assign(connection as object, { delta });
          },
      },
    ],
  },
  {
    name: 'takeover-resets',
    mistake: 'A takeover resets the connections that it finds, for their clients to begin anew.',
    seeds: 30,
    from: 24,
    finds: 'connection',
    alone: true,
    changes: [
      {
        owner: SecondaryProxy,
        method: 'takeover',
        replace: (before) =>
          function (...args) {
            const end = before.apply(this, args) as { resend: Uint8Array[] };
            for (const frame of end.resend) {
              const { kind, payloadBytes, isSyn, isFin, transportAt } = frameView.parse(frame);
              if (kind !== 'tcp' || payloadBytes > 0 || isSyn || isFin) continue;
              const flagsAt = transportAt + 12;
              replace16(frame, transportAt + 16, flagsAt, read16(frame, flagsAt) | tcpFlag.rst);
            }
            return end;
          },
      },
    ],
  },
  {
    name: 'place-given-back-twice',
    mistake: 'A frame that leaves gives the room that it took back twice.',
    seeds: 10,
    finds: 'bounds',
    alone: true,
    changes: [
      {
        owner: PrimaryProxy,
        method: 'heldChanged',
        replace: (before) =>
          function (frames, bytes) {
            const isGiven = (frames as number) < 0;
            before.call(this, frames, isGiven ? 2 * (bytes as number) : bytes);
          },
      },
    ],
  },
  {
    name: 'syn-options-not-compared',
    mistake: 'A SYN leaves when the SVM has said one, whatever the two negotiate.',
    seeds: 40,
    finds: 'output-commit',
    alone: true,
    changes: [
      {
        owner: TcpComparer,
        method: 'trySyn',
        replace: (before) =>
          function (stream, head) {
            const { sSyn } = stream as { sSyn: unknown };
            return sSyn === undefined ? before.call(this, stream, head) : call(this, 'finishHead', stream, head);
          },
      },
    ],
  },
  {
    name: 'timestamps-not-clamped',
    mistake: "The primary's timestamps leave as they are.",
    seeds: 40,
    finds: 'output-commit',
    alone: true,
    changes: [
      {
        owner: TcpClamp,
        method: 'clampTime',
        replace: () =>
          function (_stream, parts) {
            return (parts as { timestamp: number }).timestamp;
          },
      },
    ],
  },
  {
    name: 'said-again-as-another',
    mistake: 'What is said again is not what has left: the segment is put together from other bytes.',
    seeds: 40,
    finds: 'output-commit',
    changes: [
      {
        owner: TcpComparer,
        method: 'leaveAgain',
        replace: (before) =>
          function (stream, parts, held) {
            const { frame, payloadAt, payloadBytes } = parts as {
              frame: Buffer;
              payloadAt: number;
              payloadBytes: number;
            };
            if (payloadBytes > 0) frame[payloadAt] = (frame[payloadAt] ?? 0) ^ 1;
            return before.call(this, stream, parts, held);
          },
      },
    ],
  },
  {
    name: 'pings-and-arp-not-compared',
    mistake: 'What is neither TCP nor UDP leaves at once.',
    seeds: 40,
    finds: 'output-commit',
    alone: true,
    changes: [
      {
        owner: DatagramComparer,
        method: 'matchAhead',
        replace: (before) =>
          function (flow, held) {
            const { kind } = flow as { kind: string };
            if (kind === 'udp') return before.call(this, flow, held);
            return void Object.assign(held as object, { isMatched: true });
          },
      },
    ],
  },
  {
    name: 'handed-over-twice',
    mistake: 'What is no TCP is handed to the uplink by two who each believe that it is theirs to say.',
    seeds: 20,
    finds: 'once',
    alone: true,
    changes: [
      {
        owner: Gate,
        method: 'pass',
        replace: (before) =>
          function (frame, id) {
            const again = Buffer.from(frame as Uint8Array);
            before.call(this, frame, id);
            if (this['open'] === (true as unknown) && frameView.parse(again).kind !== 'tcp')
              before.call(this, again, undefined);
          },
      },
    ],
  },
  {
    name: 'tcp-not-resent',
    mistake: 'At a takeover only datagrams are said again; TCP repeats itself.',
    seeds: 60,
    finds: 'nothing-lost',
    alone: true,
    changes: [
      {
        owner: SecondaryProxy,
        method: 'takeover',
        replace: (before) =>
          function (...args) {
            const end = before.apply(this, args) as { resend: Uint8Array[] };
            return { ...end, resend: end.resend.filter((frame) => frameView.parse(frame).kind !== 'tcp') };
          },
      },
    ],
  },
];
