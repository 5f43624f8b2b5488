// What the service of a cluster (src/colod) says over its API, as schemas: the OpenAPI document, the server, the
// command line and the tests read the same ones.

import { z } from 'zod';
import { nodeStatusSchema, processSchema } from './node-status.ts';

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
      'protected: the loss of the primary would lose nothing. unprotected: it runs, and has no secondary yet. ' +
      'starting: no node runs it yet. down: it ran, and no node runs it now. ended: its guest shut down. ' +
      'removing: its nodes stop it.',
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
        'Use a name, or an address, of a VM that was removed, though a node has not said that it stopped it: ' +
        'only for nodes that are known to be off. Otherwise two guests may speak with one address.',
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
