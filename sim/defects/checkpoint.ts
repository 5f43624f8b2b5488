// Deliberate defects of checkpoints: what is captured, sent, committed and loaded. What they are: defect.ts.

import { SecondaryRam as Replica } from '../../src/checkpoint/apply.ts';
import { checkpointTypes } from '../../src/checkpoint/message.ts';
import { Staging } from '../../src/checkpoint/stage.ts';
import { PrimaryPair } from '../../src/controller/primary-pair.ts';
import { encodeCount, messages } from '../../src/node/pairing/message.ts';
import type { GuestVm, PeerLink } from '../../src/node/platform.ts';
import { Checkpointer } from '../../src/node/primary/checkpoint/checkpointer.ts';
import { Applier } from '../../src/node/secondary/applier.ts';
import { SecondaryBulk } from '../../src/node/secondary/bulk.ts';
import { RunTracker } from '../../src/qemu/dirty/tracker.ts';
import type { Capture } from '../../src/qemu/vm.ts';
import { always, call, type Defect, nothing } from './defect.ts';

interface CheckpointerFields {
  inFlight: { captured: { epoch: number; capture: Capture } } | undefined;
  parts: { vm: GuestVm };
}

export const checkpointDefects: readonly Defect[] = [
  {
    name: 'commit-before-complete',
    mistake: 'The secondary acknowledges a checkpoint when it begins to arrive.',
    seeds: 20,
    from: 8,
    finds: 'output-commit',
    alone: true,
    changes: [
      {
        owner: SecondaryBulk,
        method: 'receive',
        replace: (before) =>
          function (type, payload) {
            const bytes = Buffer.from(payload as Uint8Array);
            if (type === checkpointTypes.begin && bytes[20] === 2) {
              const { links } = this['parts'] as unknown as { links: { packet: PeerLink } };
              links.packet.send(messages.committed, encodeCount(bytes.readUInt32BE(4)));
            }
            return before.call(this, type, payload);
          },
      },
    ],
  },
  {
    name: 'partial-checkpoint',
    mistake: 'Staging takes a checkpoint for complete although the last batch of pages is missing.',
    seeds: 20,
    finds: 'ram-epoch',
    alone: true,
    changes: [
      {
        owner: Staging,
        method: 'onEnd',
        replace: (before) =>
          function (receiving, payload) {
            const { stored, begin } = receiving as { stored: unknown[]; begin: { kind: string } };
            if (begin.kind === 'checkpoint') stored.pop();
            return before.call(this, receiving, payload);
          },
      },
    ],
  },
  {
    name: 'no-rollback',
    mistake: 'What the SVM wrote itself stays in its RAM when a checkpoint is applied.',
    seeds: 10,
    finds: 'ram-epoch',
    alone: true,
    changes: [{ owner: Replica, method: 'rollback', replace: always(0) }],
  },
  {
    name: 'no-restore-after-load',
    mistake: 'What loading the devices wrote to RAM stays there.',
    seeds: 10,
    finds: 'ram-epoch',
    alone: true,
    changes: [{ owner: Replica, method: 'restoreAfterLoad', replace: always(0) }],
  },
  {
    name: 'no-put-back',
    mistake: 'Pages of a checkpoint that failed are not sent with the next one.',
    seeds: 130,
    from: 101,
    finds: 'ram-epoch',
    changes: [{ owner: RunTracker, method: 'putBack', replace: nothing }],
  },
  {
    name: 'refusal-taken-for-commit',
    mistake: 'A refused checkpoint counts as committed.',
    seeds: 160,
    from: 150,
    finds: 'output-commit',
    alone: true,
    changes: [
      {
        owner: PrimaryPair,
        method: 'onCheckpoint',
        replace: (before) =>
          function (event) {
            const { kind, epoch } = event as { kind: string; epoch: number };
            return before.call(this, kind === 'refused' ? { kind: 'committed', epoch } : event);
          },
      },
    ],
  },
  {
    name: 'refused-round-ignored',
    mistake:
      'A refused round of the initial copy is only reported (a defect that the simulation found in the product).',
    seeds: 80,
    finds: 'ram-epoch',
    changes: [
      {
        owner: SecondaryBulk,
        method: 'receive',
        replace: (before) =>
          function (...args) {
            try {
              return before.apply(this, args);
            } catch {
              return undefined;
            }
          },
      },
    ],
  },
  {
    name: 'delta-on-a-refused-checkpoint',
    mistake: 'Pages are sent as differences of a checkpoint that the secondary has refused.',
    seeds: 130,
    from: 111,
    finds: 'ram-epoch',
    alone: true,
    changes: [
      {
        owner: Checkpointer,
        method: 'abort',
        replace: () =>
          function (epoch, now) {
            const { inFlight, parts } = this as unknown as CheckpointerFields;
            if (inFlight === undefined || inFlight.captured.epoch !== epoch) return;
            parts.vm.tracker.putBack(inFlight.captured.capture.runs);
            call(this, 'know', inFlight.captured.capture);
            call(this, 'undo', epoch, now);
          },
      },
    ],
  },
  {
    name: 'loaded-when-committed',
    mistake: 'The VM is called protected when its first checkpoint is committed, before the secondary has loaded it.',
    seeds: 25,
    finds: 'survivor',
    alone: true,
    needs: 'loads-fail',
    changes: [
      {
        owner: PrimaryPair,
        method: 'onCheckpoint',
        replace: (before) =>
          function (event) {
            const actions = before.call(this, event);
            const state = this['state'] as unknown as { kind: string; loaded: boolean };
            if ((event as { kind: string }).kind === 'committed' && state.kind === 'protected') state.loaded = true;
            return actions;
          },
      },
    ],
  },
  {
    name: 'states-not-tried',
    mistake: 'remus: after the first state of a pairing none is tried any more.',
    seeds: 910,
    from: 895,
    finds: 'survivor',
    alone: true,
    needs: 'loads-fail',
    changes: [
      {
        owner: Applier,
        method: 'tryLoad',
        replace: (before) =>
          function (deviceState) {
            return this['pending'] === undefined ? before.call(this, deviceState) : undefined;
          },
      },
    ],
  },
];
