// What a node says of itself: the body of GET /status, and all that the command line knows of a VM. One schema: the
// types are made from it, the service passes on what it says, and the OpenAPI document shows it.

import { z } from 'zod';
import type { HistogramCounts } from '../base/histogram.ts';
import { type ReasonCode, reasonCodes } from './reasons.ts';

const percentiles = z.object({ count: z.int(), p50: z.number(), p99: z.number(), max: z.number() });
export type Percentiles = z.output<typeof percentiles>;

const checkpointLine = z.object({
  epoch: z.int(),
  reason: z.string(),
  why: z.string().meta({ description: 'Connection, stream offset and bytes of a divergence, where there was one.' }),
  pauseMs: z.number(),
  commitMs: z.number(),
  dirtyPages: z.number(),
  sentBytes: z.number(),
  heldFrames: z.number(),
});
export type CheckpointLine = z.output<typeof checkpointLine>;

const bytesOf = (side: string) => `Up to 16 bytes of the ${side} around the difference, in hex.`;

const divergenceLine = z.object({
  epoch: z.int(),
  time: z.number().meta({ description: "By the node's own clock, in milliseconds: only differences mean something." }),
  kind: z.string(),
  connection: z.string(),
  offset: z.number(),
  primary: z.string().meta({ description: bytesOf('primary') }),
  secondary: z.string().meta({ description: bytesOf('secondary') }),
});
export type DivergenceLine = z.output<typeof divergenceLine>;

const bypassLine = z
  .object({ rule: z.string(), frames: z.number(), bytes: z.number() })
  .meta({ description: 'A rule of `network.bypass`, and what left uncompared by it.' });
export type BypassLine = z.output<typeof bypassLine>;

const stallLine = z.object({
  ms: z.number(),
  cause: z.string().meta({ description: 'What ran meanwhile.' }),
  at: z.number().meta({ description: 'In milliseconds since 1970.' }),
});
export type StallLine = z.output<typeof stallLine>;

export const processSchema = z
  .object({
    losses: z.array(z.object({ path: z.string(), pieces: z.int(), bytes: z.int(), problem: z.string() })).meta({
      description: 'Logs, consoles and recordings of which something is lost, or that cannot be written now.',
    }),
    loop: z.object({ stalls: z.int(), longest: stallLine.nullable(), newest: z.array(stallLine) }).meta({
      description:
        'The event loop, which carries beats, frames and calls: its stalls of 100 ms and more since the start.',
    }),
  })
  .meta({ description: 'A process of a node: what it could not write, and what held it up.' });
export type ProcessStatus = z.output<typeof processSchema>;

const histogram = z
  .object({ buckets: z.array(z.number()), sum: z.number() })
  .meta({ description: 'Since this role began, in seconds; for metrics.' }) satisfies z.ZodType<HistogramCounts>;

const checkpoints = z.object({
  count: z.int(),
  pauseMs: percentiles,
  commitMs: percentiles,
  dirtyPages: percentiles,
  sentBytes: z.number(),
  dirtyBytes: z.number(),
  reasons: z.record(z.string(), z.number()),
  pauseSeconds: histogram.optional(),
  commitSeconds: histogram.optional(),
  dirtyBytesTotal: z.number().optional(),
  sentBytesTotal: z.number().optional(),
  last: z.array(checkpointLine),
});

const released = z.object({
  byMatch: z.number(),
  byCommit: z.number(),
  dates: z.number().meta({
    description: "Times in headers that left as the primary's though the secondary said another second.",
  }),
  holdMs: z.object({ p50: z.number(), p99: z.number() }),
});

const disks = z.object({
  copying: z
    .object({ what: z.enum(['copy', 'fold']), doneBytes: z.number(), totalBytes: z.number() })
    .nullable()
    .meta({ description: 'The disks are copied to a new secondary, or overlays into the disks after a takeover.' }),
  backlogBytes: z.number().meta({
    description: 'Written on the primary and not yet held by the secondary; at the limit the guest waits.',
  }),
  writtenBytes: z.number(),
  skippedBytes: z.number().meta({ description: 'Not copied to this secondary, because it had them from before.' }),
  journalBytes: z.number().meta({ description: 'On the secondary, waiting for their checkpoint.' }),
  problem: z.string().meta({
    description:
      "What last ended the protection of the disks, or what the guest's own disk has run into; '' if nothing.",
  }),
});

const fields = {
  vm: z.string(),
  node: z.string(),
  pid: z.int(),
  qemuPid: z.int().nullable().meta({ description: 'The process of the VM on this node; null while there is none.' }),
  role: z.enum(['primary', 'secondary', 'fenced', 'stopped']),
  state: z.string().meta({ description: "The state of this node's half of the pair." }),
  why: z.string().meta({
    description:
      'Why that state came to be, where there is a reason. Of a primary that is not protected: what ended its last ' +
      'secondary, and what the nodes that it asks answer.',
  }),
  reason: z
    .enum(Object.keys(reasonCodes) as [ReasonCode, ...ReasonCode[]])
    .optional()
    .meta({ description: "Why a primary is not protected, in one of few words; '' where there is nothing to say." }),
  nextTryInMs: z.number().nullish().meta({
    description: 'In how long it looks for a secondary again; null while it does so all the time, or has one.',
  }),
  protected: z.boolean().meta({ description: "True only when the loss of this VM's primary would lose nothing." }),
  mode: z.enum(['colo', 'remus', 'none']),
  term: z.int(),
  epoch: z.int(),
  host: z.object({
    qemu: z.string(),
    accel: z.string(),
    tracker: z.string(),
    cores: z.number(),
    ramBytes: z.number(),
    vcpus: z.number(),
  }),
  checkpoints: checkpoints.nullable(),
  released: released.nullable(),
  divergences: z.array(divergenceLine),
  bypass: z.array(bypassLine),
  traffic: z.object({
    ingressFrames: z.number(),
    ingressBytes: z.number(),
    egressFrames: z.number(),
    egressBytes: z.number(),
  }),
  proxy: z.record(z.string(), z.unknown()),
  failover: z.object({ why: z.string(), detectedAt: z.number(), doneAt: z.number() }).nullable().meta({
    description: 'The last change of who runs the VM: moments in milliseconds since 1970.',
  }),
  verified: z.object({ equal: z.int(), different: z.int() }).nullish().meta({
    description: 'With protect.verify: checkpoints that this node applied and compared with the capture.',
  }),
  arbiter: z.object({ why: z.string(), forMs: z.number() }).nullish().meta({
    description:
      'Why the arbiter does not answer, and for how long; null while it does. Without it nobody can take over.',
  }),
  over: z
    .object({ why: z.string(), byGuest: z.boolean() })
    .nullish()
    .meta({
      description:
        'The VM has ended on this node and is not to be run by another: why, and whether its guest wanted it; null ' +
        'while it has not.',
    }),
  problems: z.array(z.string()).optional().meta({
    description: 'What is wrong on this node and costs itself alone, as a recording that cannot be written.',
  }),
  links: z
    .array(z.object({ kind: z.string(), local: z.string(), remote: z.string() }))
    .optional()
    .meta({
      description: 'The connections to the peer, where there is one, so that they can be told apart on the network.',
    }),
  heartbeat: z
    .object({
      suspectAfterMs: z.number().meta({ description: 'How much silence of the peer raises a suspicion now.' }),
      largestGapMs: z.number().meta({ description: 'The largest gap between beats of the last minute.' }),
      wrongSuspicions: z.int().meta({
        description: 'Suspicions for silence of a peer that was there all the time, since this node started.',
      }),
    })
    .optional(),
  process: processSchema.optional(),
  disks: disks.nullish().meta({ description: 'Null for a VM without disks.' }),
};

export type NodeStatus = z.output<z.ZodObject<typeof fields>>;

/** Passes on fields that it does not know: a node may be of a newer version than the service that asks it. */
export const nodeStatusSchema = z.looseObject(fields);
