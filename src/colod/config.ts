// The configuration of colod on one host: YAML, checked whole, one clear line per mistake.

import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { join } from 'node:path';
import { parseDocument } from 'yaml';
import { z } from 'zod';
import { ColoError, errorCodes } from '../base/errors.ts';
import { readIdentity } from '../base/identity.ts';

const path = z.string().regex(/^\//, { error: 'an absolute path' });
const port = z.int({ error: 'a port number from 1 to 65535' }).min(1).max(65535);
const endpoint = z.string().regex(/^https?:\/\/[^/]+:\d+$/, { error: 'a client URL such as https://10.0.0.1:2379' });

const arbiterSchema = z.union(
  [
    z.strictObject({
      etcd: z.array(endpoint).min(1).max(9),
      prefix: z
        .string()
        .regex(/^\/[\w/-]+$/)
        .default('/colo'),
    }),
    z.strictObject({ folder: path }),
  ],
  { error: 'either "etcd: [https://HOST:2379, ...]", or "folder: /PATH" for nodes on one machine' },
);

export const serviceSchema = z.strictObject({
  node: z
    .string({ error: "the name in this node's certificate" })
    .regex(/^[a-zA-Z0-9][a-zA-Z0-9_-]{0,62}$/, { error: 'a name of letters, digits, "-" and "_"' }),
  /** Other nodes reach this one here: the API, and the links of its VMs. */
  address: z
    .string({ error: 'the IP address at which other nodes reach this one' })
    .refine((text) => isIP(text) !== 0, {
      error: 'an IP address',
    }),
  api: z
    .strictObject({
      port: port.default(7700),
      /** A file of tokens: NAME:SHA256, one a line. */
      tokens: path.optional(),
    })
    .prefault({}),
  /** Metrics and health over plain HTTP, for whoever reaches it; none unless it is named. */
  monitoring: z
    .strictObject({
      address: z.string().refine((text) => isIP(text) !== 0, { error: 'an IP address' }),
      port: port.default(9177),
    })
    .optional(),
  /** Ports for the links of VMs, one each. */
  linkPorts: z
    .strictObject({ from: port, to: port })
    .refine(({ from, to }) => to >= from, { error: '"to" is at least "from"' })
    .default({ from: 7800, to: 7899 }),
  /** The folder that `colo join` made. */
  certificates: path,
  arbiter: arbiterSchema,
  /** The guests' cards become ports of it. */
  bridge: z
    .string()
    .regex(/^[\w.-]{1,15}$/, { error: 'the name of a bridge of this host' })
    .default('br0'),
  /** On a tmpfs: guests' RAM lies here. */
  runFolder: path.default('/dev/shm/colod'),
  /** Logs, replicas of disks. */
  stateFolder: path.default('/var/lib/colo'),
  /**
   * Below these a spec that came over the network may name files of this host: images in the state folder by default.
   */
  files: z.array(path).max(16).optional(),
  /** Who may open it, may do everything. */
  socket: path.default('/run/colo/colod.sock'),
  logLevel: z.enum(['error', 'warn', 'info', 'debug', 'trace']).default('info'),
  /** QEMU's seccomp filter. */
  sandbox: z.boolean().default(true),
});

export type ServiceConfig = z.output<typeof serviceSchema>;

/** Below these a spec that came over the network may name files of this host. */
export function filesFolders({ files, stateFolder }: ServiceConfig): string[] {
  return files ?? [join(stateFolder, 'images')];
}

/** Checks a parsed document; every mistake becomes a line of one error of code `input`. */
export function checkServiceConfig(document: unknown, source: string): ServiceConfig {
  const result = serviceSchema.safeParse(document);
  if (result.success) return result.data;
  const lines = result.error.issues.map((issue) => `${issue.path.map(String).join('.') || '(top)'}: ${issue.message}`);
  throw new ColoError(errorCodes.input, `${source}: ${lines.join('\n  ')}`, {
    hint: 'deploy/colod.yaml names every key; docs/operating.md explains them',
  });
}

/** Reads and checks the file, and that this node's certificates are there and are its own. */
export async function readServiceConfig(file: string): Promise<ServiceConfig> {
  const text = await readFile(file, 'utf8').catch((cause: unknown) => {
    throw new ColoError(errorCodes.input, `cannot read ${file}`, {
      cause,
      hint: 'deploy/colod.yaml is one to start from',
    });
  });
  const document = parseDocument(text, { prettyErrors: true });
  const [problem] = document.errors;
  if (problem !== undefined) throw new ColoError(errorCodes.input, `${file}: ${problem.message.split('\n')[0] ?? ''}`);
  const config = checkServiceConfig(document.toJS(), file);
  refuseCertificate(config, file);
  return config;
}

/** A node whose certificate is another's, or is over, would be refused by everybody, far from here. */
function refuseCertificate({ node, certificates }: ServiceConfig, file: string): void {
  const certificate = new X509Certificate(readIdentity(certificates).certificate);
  const name = /^CN=(.*)$/m.exec(certificate.subject)?.[1];
  if (name !== node)
    throw new ColoError(
      errorCodes.input,
      `${file}: node: ${node} is not ${name}, whose certificate is in ${certificates}`,
      {
        hint: 'make one for this node: colo join FOLDER NODE --address IP',
      },
    );
  if (new Date(certificate.validTo).getTime() < Date.now())
    throw new ColoError(
      errorCodes.input,
      `${file}: the certificate in ${certificates} is over since ${certificate.validTo}`,
      {
        hint: 'make a new one: colo join FOLDER NODE --address IP',
      },
    );
}
