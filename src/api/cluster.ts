// What the service of a cluster (src/colod) says over its API, as schemas: the OpenAPI document, the server, the
// command line and the tests read the same ones.

import { z } from 'zod';
import type { NodeStatus, ProcessStatus } from './node-status.ts';
import { type ReasonCode, reasonCodes } from './reasons.ts';

export const nodeLineSchema = z.object({
  node: z.string(),
  address: z.string().meta({ description: 'Where other nodes and the API reach it.' }),
  state: z.enum(['ready', 'draining', 'drained']),
  vms: z.int().meta({ description: 'VMs that it runs a copy of.' }),
  primaries: z.int(),
  cores: z.number(),
  memoryBytes: z.number(),
  memoryFreeBytes: z.number(),
  version: z.string(),
  refused: z.int().meta({ description: 'Calls of its API that were refused since it started.' }),
});
export type NodeLine = z.output<typeof nodeLineSchema>;

export const vmLineSchema = z.object({
  vm: z.string(),
  state: z.enum(['protected', 'unprotected', 'starting', 'down', 'ended', 'removing']).meta({
    description:
      'protected: the loss of the primary would lose nothing. unprotected: it runs, and has no secondary ' +
      'yet. starting: no ' +
      'node runs it yet. down: it ran, and no node runs it now. ended: its guest shut down. removing: its ' +
      'nodes stop it.',
  }),
  why: z.string(),
  primary: z.string().nullable(),
  secondary: z.string().nullable(),
  nodes: z.array(z.string()).meta({ description: 'Where it is placed, the primary first.' }),
  term: z.int(),
  address: z.string().meta({ description: "The guest's." }),
});
export type VmLine = z.output<typeof vmLineSchema>;

export const clusterSchema = z.object({
  answeredBy: z.string(),
  registry: z.object({
    reached: z.boolean().meta({ description: 'False: what follows is what the registry said last.' }),
    problems: z.array(z.string()),
  }),
  nodes: z.array(nodeLineSchema),
  vms: z.array(vmLineSchema),
});
export type Cluster = z.output<typeof clusterSchema>;

const percentiles = z.object({ p50: z.number(), p99: z.number(), max: z.number() });

const histogram = z
  .object({ buckets: z.array(z.number()), sum: z.number() })
  .meta({ description: 'Since this role began, in seconds; for metrics.' });

const diskStatus = z.object({
  copying: z.object({ what: z.enum(['copy', 'fold']), doneBytes: z.number(), totalBytes: z.number() }).nullable(),
  backlogBytes: z.number(),
  writtenBytes: z.number(),
  skippedBytes: z.number(),
  journalBytes: z.number(),
  problem: z.string(),
});

const stall = z.object({
  ms: z.number(),
  cause: z.string(),
  at: z.number().meta({ description: 'In milliseconds since 1970.' }),
});

export const processSchema = z.object({
  losses: z
    .array(z.object({ path: z.string(), pieces: z.int(), bytes: z.int(), problem: z.string() }))
    .meta({ description: 'Logs, consoles and recordings of which something is lost, or that cannot be written now.' }),
  loop: z
    .object({ stalls: z.int(), longest: stall.nullable(), newest: z.array(stall) })
    .meta({ description: 'Stalls of its event loop of 100 ms and more, and what ran meanwhile.' }),
}) satisfies z.ZodType<ProcessStatus>;

export const nodeStatusSchema = z.looseObject({
  vm: z.string(),
  node: z.string(),
  pid: z.int(),
  qemuPid: z.int().nullable(),
  role: z.enum(['primary', 'secondary', 'fenced', 'stopped']),
  state: z.string(),
  why: z.string().meta({
    description:
      'Of a primary that is not protected: what ended its last secondary, and what the nodes that it asks answer.',
  }),
  reason: z
    .enum(Object.keys(reasonCodes) as [ReasonCode, ...ReasonCode[]])
    .optional()
    .meta({ description: 'Why a primary is not protected, in one of few words.' }),
  nextTryInMs: z.number().nullish().meta({
    description: 'In how long it looks for a secondary again; null while it does so all the time, or has one.',
  }),
  protected: z.boolean(),
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
  checkpoints: z
    .object({
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
      last: z.array(
        z.object({
          epoch: z.int(),
          reason: z.string(),
          why: z.string(),
          pauseMs: z.number(),
          commitMs: z.number(),
          dirtyPages: z.number(),
          sentBytes: z.number(),
          heldFrames: z.number(),
        }),
      ),
    })
    .nullable(),
  released: z
    .object({
      byMatch: z.number(),
      byCommit: z.number(),
      dates: z.number(),
      holdMs: z.object({ p50: z.number(), p99: z.number() }),
    })
    .nullable(),
  divergences: z.array(
    z.object({
      epoch: z.int(),
      kind: z.string(),
      connection: z.string(),
      offset: z.number(),
      primary: z.string(),
      secondary: z.string(),
    }),
  ),
  bypass: z.array(z.object({ rule: z.string(), frames: z.number(), bytes: z.number() })),
  traffic: z.object({
    ingressFrames: z.number(),
    ingressBytes: z.number(),
    egressFrames: z.number(),
    egressBytes: z.number(),
  }),
  proxy: z.record(z.string(), z.unknown()),
  failover: z.object({ why: z.string(), detectedAt: z.number(), doneAt: z.number() }).nullable(),
  verified: z.object({ equal: z.int(), different: z.int() }).nullish().meta({
    description: 'With protect.verify: checkpoints that this node applied and compared with the capture.',
  }),
  process: processSchema.optional(),
  disks: diskStatus.nullish(),
}) satisfies z.ZodType<NodeStatus>;

export const vmDetailSchema = z.object({
  vm: vmLineSchema,
  nodes: z.array(nodeStatusSchema).meta({ description: 'What each node that runs a copy says of itself.' }),
  silent: z.array(z.string()).meta({ description: 'Nodes that run a copy and did not answer.' }),
});
export type VmDetail = z.output<typeof vmDetailSchema>;

export const runSchema = z.strictObject({
  spec: z.record(z.string(), z.unknown()).meta({ description: 'As in a spec file (docs/operating.md).' }),
  on: z.string().optional().meta({ description: 'The node that boots it; chosen when left out.' }),
  force: z
    .boolean()
    .default(false)
    .meta({
      description:
        'Use a name, or an address, of a VM that was removed, though a node has not said that it stopped ' +
        'it: only for nodes that ' +
        'are known to be off. Otherwise two guests may speak with one address.',
    }),
});

export const logsSchema = z.object({
  nodes: z.array(z.object({ node: z.string(), lines: z.array(z.string()) })),
  silent: z.array(z.string()),
});
export type Logs = z.output<typeof logsSchema>;

export const logLinesSchema = z.object({ lines: z.array(z.string()) });

/** What one node says of itself, to other nodes and to who looks after it. */
export const localSchema = z.object({
  node: z.string(),
  version: z.string(),
  pid: z.int(),
  refused: z.record(z.string(), z.int()).meta({ description: 'Refused calls by reason.' }),
  process: processSchema,
  vms: z.array(nodeStatusSchema),
});

export const emptySchema = z.object({});

export const errorSchema = z.object({
  error: z.object({ code: z.string(), message: z.string(), hint: z.string().optional() }),
});
