// What a replica is, in a small file beside it: which committed epoch, or what it is on the way to.
//
//   syncing ──first checkpoint──► applying(1) ──► epoch(1) ──► applying(2) ──► epoch(2) ... ──takeover──► owner
//
//   syncing    a copy is under way: it is no state that ever was; with a lineage it differs from what it was at
//              `position` only in blocks that were written since, which the primary knows (notes.ts)
//   epoch      exactly the primary's disks at that checkpoint
//   applying   between two epochs; with the named segments replayed it is the later one
//   owner      the VM ran on from it here: the newest truth, together with its overlay
//
// It is replaced whole, by a rename, so it is always one of them. What was written without being flushed survives the
// end of our process, not the end of the host: then (another boot) it is `unsure` unless it was written durably.

import { createHash } from 'node:crypto';
import { z } from 'zod';
import { parseJson } from '../base/json.ts';
import type { Storage } from './storage.ts';

const headerSchema = z.strictObject({
  version: z.literal(1),
  /** The VM and, on a cluster, which of its lives: terms of two lives are not comparable. */
  vm: z.string(),
  sizes: z.array(z.number().int().positive()),
  state: z.enum(['syncing', 'epoch', 'applying', 'owner']),
  epoch: z.number().int().min(0),
  /** owner: the arbiter's term under which this node took over; only a later one may overwrite it. */
  term: z.number().int().min(0),
  /** applying: the newest segment to replay. */
  through: z.number().int().min(0),
  durable: z.boolean(),
  boot: z.string(),
  /** Which primary's records (message.ts), and up to which of them; '' where nobody can say what changed since. */
  lineage: z.string().default(''),
  position: z.number().int().min(0).default(0),
});

export type ReplicaHeader = z.output<typeof headerSchema>;

export const headerName = 'replica.json';

export function encodeHeader(header: ReplicaHeader): string {
  const text = JSON.stringify(header);
  return `${text}\n${checksum(text)}\n`;
}

/** The header in a file's text; undefined when it is damaged or of another version. */
export function parseHeader(text: string): ReplicaHeader | undefined {
  const [body = '', sum = ''] = text.split('\n');
  if (checksum(body) !== sum) return undefined;
  const parsed = headerSchema.safeParse(parseJson(body));
  return parsed.success ? parsed.data : undefined;
}

function checksum(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}

/**
 * Whether there is a header that nobody can read: it may be that of the VM's newest disks. One without any text is
 * none: a host that ended had its name on the disk and not its contents, and an owner's is flushed.
 */
export function isHeaderDamaged(storage: Storage): boolean {
  const text = storage.readText(headerName)?.replaceAll('\0', '').trim();
  return text !== undefined && text !== '' && parseHeader(text) === undefined;
}

/** The folder's header; undefined when there is none, or none that can be read. */
export function readHeader(storage: Storage): ReplicaHeader | undefined {
  const text = storage.readText(headerName);
  return text === undefined ? undefined : parseHeader(text);
}

export function writeHeader(storage: Storage, header: ReplicaHeader, flush: boolean): Promise<void> {
  return storage.replaceText(headerName, encodeHeader(header), flush);
}
