// The first message of each side: who speaks, for which VM, which of the three links of a pairing this is, and the
// window of protocol versions it understands. JSON, because it is read once per connection and by people in a trace;
// bounded and checked against a schema, because whoever reaches the port can send it.

import { z } from 'zod';
import { parseJson } from '../base/json.ts';
import type { Refusal } from './frame.ts';

/** Versions of the messages inside the frames that this build understands, oldest and newest. */
export const protocolVersions = { min: 2, max: 2 } as const;

/** Beats, packets and bulk state each have a connection, so that none waits behind another. */
export const linkKinds = ['beat', 'packet', 'bulk'] as const;
export type LinkKind = (typeof linkKinds)[number];

export interface Hello {
  /** The protected VM. */
  vm: string;
  /** The node that speaks. */
  node: string;
  kind: LinkKind;
  /** The newest term this node knows for the VM; 0 when it knows none. */
  term: number;
  /** One id for the three links of one pairing. */
  session: string;
}

const name = z.string().min(1).max(64);

const helloSchema = z.object({
  versions: z.object({ min: z.int().min(1).max(65535), max: z.int().min(1).max(65535) }),
  vm: name,
  node: name,
  kind: z.enum(linkKinds),
  term: z.int().min(0).max(Number.MAX_SAFE_INTEGER),
  session: name,
});

const refuseSchema = z.object({ reason: z.string().max(500) });

export function encodeHello(hello: Hello): Uint8Array {
  return Buffer.from(JSON.stringify({ versions: protocolVersions, ...hello }));
}

export function encodeRefuse(reason: string): Uint8Array {
  return Buffer.from(JSON.stringify({ reason: reason.slice(0, 500) }));
}

/** The peer's hello, or why it is not accepted. */
export function parseHello(payload: Buffer): Hello | Refusal {
  const parsed = helloSchema.safeParse(parseJson(payload.toString('utf8')));
  if (!parsed.success) return { kind: 'hello', text: `is no hello (${firstIssue(parsed.error)})` };
  const { versions, ...hello } = parsed.data;
  if (versions.min <= protocolVersions.max && versions.max >= protocolVersions.min) return hello;
  const theirs = `${versions.min} to ${versions.max}`;
  const ours = `${protocolVersions.min} to ${protocolVersions.max}`;
  return { kind: 'version', text: `speaks protocol versions ${theirs}, this node ${ours}` };
}

/** The reason in a peer's refusal, made safe to print. */
export function parseRefuse(payload: Buffer): string {
  const parsed = refuseSchema.safeParse(parseJson(payload.toString('utf8')));
  if (!parsed.success) return 'it gave no readable reason';
  return parsed.data.reason.replaceAll(/[^\x20-\x7e]/g, '?');
}

function firstIssue(error: z.ZodError): string {
  const issue = error.issues[0];
  return issue === undefined ? 'unreadable' : `${issue.path.join('.') || 'document'}: ${issue.message}`;
}
