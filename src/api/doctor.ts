// What a node says of itself and its host for `colo doctor --cluster`, and what comes of comparing all nodes, as
// schemas.

import { z } from 'zod';

const memberSchema = z.object({
  url: z.string(),
  /** null: it did not answer, and `why` says what came instead. */
  ms: z.number().nullable(),
  version: z.string(),
  dbBytes: z.number(),
  why: z.string(),
});

export const nodeFactsSchema = z.object({
  node: z.string(),
  /** Its clock, in milliseconds since 1970. */
  clockMs: z.number(),
  version: z.string(),
  qemu: z.string().meta({ description: "'' when QEMU does not run there." }),
  bridges: z.array(z.object({ name: z.string(), mtu: z.number().nullable(), isUp: z.boolean() })),
  certificateDays: z.number(),
  authorityDays: z.number(),
  arbiter: z.object({ ms: z.number().nullable(), why: z.string() }),
  members: z.array(memberSchema),
});
export type NodeFacts = z.output<typeof nodeFactsSchema>;

export const findingSchema = z.object({
  node: z.string().meta({ description: "'' of what is about the whole cluster." }),
  what: z.string(),
  state: z.enum(['ok', 'limited', 'missing']),
  detail: z.string(),
  todo: z.string().optional(),
});
export type Finding = z.output<typeof findingSchema>;

export const doctorSchema = z.object({ answeredBy: z.string(), findings: z.array(findingSchema) });
