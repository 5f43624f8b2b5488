// Deliberate defects of the pair: terms, leases, what a node does with its part in the VM. What they are: defect.ts.

import { PrimaryPair } from '../../src/controller/primary-pair.ts';
import { SecondaryPair } from '../../src/controller/secondary-pair.ts';
import { Lease } from '../../src/heartbeat/lease.ts';
import { ColoNode } from '../../src/node/node.ts';
import { PairLinks } from '../../src/node/pairing/links.ts';
import { SpeechGate } from '../../src/node/primary/speech-gate.ts';
import { SecondaryNode } from '../../src/node/secondary/secondary.ts';
import { Terms } from '../../src/node/terms.ts';
import { VmWatch } from '../../src/node/vm-watch.ts';
import { GuestAddresses } from '../../src/proxy/guest-addresses.ts';
import { always, call, type Defect, nothing } from './defect.ts';

/** Those that have taken over once. */
const tookOver = new WeakSet<object>();

/** Those that have claimed since they were last asked to, and not only read. */
const claimed = new WeakSet<object>();

export const pairDefects: readonly Defect[] = [
  {
    name: 'ignore-term',
    mistake: 'A node goes on alone whatever the arbiter says.',
    seeds: 30,
    finds: 'single-voice',
    changes: [
      {
        owner: Terms,
        method: 'claimAlone',
        replace: (before) =>
          async function (...args) {
            await before.apply(this, args);
            return 'won';
          },
      },
    ],
  },
  {
    name: 'error-is-won',
    mistake: 'A claim that the arbiter did not answer counts as won.',
    seeds: 20,
    finds: 'single-voice',
    changes: [
      {
        owner: SecondaryPair,
        method: 'onAloneClaimed',
        replace: (before) =>
          function (outcome) {
            return before.call(this, outcome === 'error' ? 'won' : outcome);
          },
      },
      {
        owner: PrimaryPair,
        method: 'onAloneClaimed',
        replace: (before) =>
          function (outcome) {
            return before.call(this, outcome === 'error' ? 'won' : outcome);
          },
      },
    ],
  },
  {
    name: 'no-lease',
    mistake: 'The primary does not ask whether it may still speak.',
    seeds: 20,
    finds: 'single-voice',
    alone: true,
    changes: [{ owner: Lease, method: 'valid', replace: always(true) }],
  },
  {
    name: 'lease-not-asked-for-guest-frames',
    mistake: 'The lease is looked at by the clock alone (a defect that the simulation found in the product).',
    seeds: 20,
    finds: 'single-voice',
    alone: true,
    changes: [{ owner: SpeechGate, method: 'checkLease', replace: nothing }],
  },
  {
    name: 'reset-is-a-death',
    mistake:
      'A connection that is reset counts as word that the primary is gone (a defect that the simulation found in ' +
      'the product).',
    seeds: 70,
    from: 55,
    finds: 'single-voice',
    alone: true,
    needs: 'abort-link',
    changes: [
      {
        owner: PairLinks,
        method: 'lose',
        replace: (before) =>
          function (why) {
            return before.call(this, why, true);
          },
      },
    ],
  },
  {
    name: 'keeps-echoing',
    mistake: 'A secondary that asks for the term goes on to echo the beats of its primary.',
    seeds: 75,
    from: 60,
    finds: 'single-voice',
    alone: true,
    changes: [
      {
        owner: SecondaryNode,
        method: 'perform',
        replace: (before) =>
          function (action) {
            return (action as { kind: string }).kind === 'withhold' ? undefined : before.call(this, action);
          },
      },
    ],
  },
  {
    name: 'no-announcement',
    mistake: "The guest's address is not announced after a takeover.",
    seeds: 20,
    finds: 'nothing-lost',
    alone: true,
    changes: [{ owner: ColoNode, method: 'announce', replace: nothing }],
  },
  {
    name: 'stop-without-the-term',
    mistake: "An operator's stop only tells the secondary, which may not hear it (a defect of the product, once).",
    seeds: 110,
    from: 96,
    finds: 'stopped',
    alone: true,
    changes: [
      {
        owner: ColoNode,
        method: 'endTerm',
        replace: () =>
          async function (primary) {
            (primary as { sayEnd(): void }).sayEnd();
            call(this, 'post', { kind: 'stop', why: 'stopped by the operator' });
          },
      },
    ],
  },
  {
    name: 'gives-up-without-an-answer',
    mistake: 'A secondary that the arbiter does not answer gives its copy up, as if it had lost the term.',
    seeds: 40,
    finds: 'survivor',
    alone: true,
    changes: [
      {
        owner: SecondaryPair,
        method: 'onAloneClaimed',
        replace: (before) =>
          function (outcome) {
            return before.call(this, outcome === 'error' ? 'lost' : outcome);
          },
      },
    ],
  },
  {
    name: 'claims-without-a-sign-of-life',
    mistake: 'A primary asks for the term without asking its own QEMU for a sign of life.',
    seeds: 275,
    from: 260,
    finds: 'survivor',
    alone: true,
    changes: [{ owner: VmWatch, method: 'signOfLife', replace: always(Promise.resolve('lives')) }],
  },
  {
    name: 'failures-of-a-dead-qemu-count',
    mistake:
      'What a dead QEMU fails to do counts as checkpoints that the secondary cannot be given (a defect of ' +
      'the product, once).',
    // Behind the first seed in which a claim without a sign of life is enough to lose the VM.
    seeds: 195,
    from: 188,
    finds: 'survivor',
    alone: true,
    needs: 'kill-vm-unheard',
    changes: [
      { owner: VmWatch, method: 'endHeard', replace: always(Promise.resolve()) },
      // Either rule alone keeps the VM from being lost.
      { owner: VmWatch, method: 'signOfLife', replace: always(Promise.resolve('lives')) },
    ],
  },
  {
    name: 'protected-too-early',
    mistake: 'The primary counts as protected from the term of the pair on, before the secondary has a checkpoint.',
    seeds: 10,
    finds: 'survivor',
    alone: true,
    changes: [
      {
        owner: PrimaryPair,
        method: 'onPairClaimed',
        replace: (before) =>
          function (...args) {
            const actions = before.apply(this, args);
            const state = this['state'] as unknown as { kind: string; complete: boolean };
            if (state.kind === 'protected') state.complete = true;
            return actions;
          },
      },
    ],
  },
  {
    name: 'own-claim-taken-for-anothers',
    mistake:
      'A claim that was not answered and was done all the same is taken for that of another when the record is read.',
    seeds: 450,
    from: 421,
    finds: 'survivor',
    alone: true,
    needs: 'arbiter-member',
    changes: [
      {
        owner: Terms,
        method: 'claim',
        replace: (before) =>
          function (...args) {
            claimed.add(this);
            return before.apply(this, args);
          },
      },
      {
        owner: Terms,
        method: 'claimAlone',
        replace: (before) =>
          async function (...args) {
            claimed.delete(this);
            const outcome = await before.apply(this, args);
            return outcome === 'won' && !claimed.has(this) ? 'lost' : outcome;
          },
      },
    ],
  },
  {
    name: 'wanted-during-an-apply-forgotten',
    mistake:
      'A checkpoint that is wanted while one is applied is not taken (a defect that the simulation found in ' +
      'the product).',
    seeds: 860,
    from: 850,
    finds: 'liveness',
    alone: true,
    changes: [
      {
        owner: PrimaryPair,
        method: 'onWant',
        replace: (before) =>
          function (reason) {
            const { phase } = this['state'] as unknown as { phase?: string };
            return phase === 'applying' ? [] : before.call(this, reason);
          },
      },
    ],
  },
  {
    name: 'claim-throws',
    mistake: 'An arbiter that does not answer makes a claim throw, which nobody expects.',
    seeds: 40,
    finds: 'no-crash',
    changes: [
      {
        owner: Terms,
        method: 'claimAlone',
        replace: (before) =>
          async function (...args) {
            const outcome = await before.apply(this, args);
            if (outcome === 'error') throw new Error('the arbiter did not answer');
            return outcome;
          },
      },
    ],
  },
  {
    name: 'second-takeover-mute',
    mistake: 'A node that takes over for the second time says nothing of what its guest has said meanwhile.',
    seeds: 120,
    from: 101,
    finds: 'nothing-lost',
    alone: true,
    changes: [
      {
        owner: ColoNode,
        method: 'carryOn',
        replace: (before) =>
          function () {
            const { inheritance } = this as unknown as { inheritance: { resend: Uint8Array[] } | undefined };
            if (inheritance !== undefined && tookOver.has(this)) inheritance.resend = [];
            tookOver.add(this);
            return before.call(this);
          },
      },
    ],
  },
  {
    name: 'addresses-in-the-receive-buffer',
    mistake:
      "The guest's addresses stay where the link received them, and are something else later (a defect that " +
      'the simulation found in the product).',
    seeds: 40,
    finds: 'connection',
    alone: true,
    changes: [
      {
        owner: GuestAddresses,
        method: 'accept',
        replace: (before) =>
          function (list, now) {
            const isList = before.call(this, list, now);
            const bytes = list as Buffer;
            for (const { claim } of (
              this['known'] as unknown as Map<string, { claim: { address: Uint8Array } }>
            ).values())
              claim.address = bytes.subarray(bytes.indexOf(claim.address)).subarray(0, claim.address.length);
            return isList;
          },
      },
    ],
  },
];
