// What this node knows of itself and its host, each thing tried and within a bound: for `colo doctor --cluster`.

import { X509Certificate } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { z } from 'zod';
import type { NodeFacts } from '../api/doctor.ts';
import { errorText } from '../base/errors.ts';
import { readIdentity } from '../base/identity.ts';
import { EtcdClient } from '../etcd/client.ts';
import { tryCommand } from '../host/command.ts';
import type { ServiceConfig } from './config.ts';
import { factTimeoutMs } from './limits.ts';
import type { Service } from './service.ts';

const dayMs = 86_400_000;

export async function readNodeFacts(service: Service): Promise<NodeFacts> {
  const { config, version } = service;
  const [qemu, arbiter, members] = await Promise.all([qemuVersion(), arbiterOf(service), membersOf(config)]);
  const identity = readIdentity(config.certificates);
  return {
    ...{ node: config.node, version, qemu, arbiter, members },
    bridges: bridgesOf(service).map(bridge),
    certificateDays: daysLeft(identity.certificate),
    authorityDays: daysLeft(identity.ca),
    // Last: whoever asks compares it with the moment of the answer.
    clockMs: Date.now(),
  };
}

async function qemuVersion(): Promise<string> {
  const { stdout } = await tryCommand('qemu-system-x86_64', ['--version'], { timeoutMs: factTimeoutMs });
  return /version (\d+\.\d+[.\d]*)/.exec(stdout)?.[1] ?? '';
}

/** That of the configuration, and those that specs name. */
function bridgesOf({ config, cluster }: Service): string[] {
  const cards = cluster.vms.flatMap(({ spec }) => (Array.isArray(spec['cards']) ? (spec['cards'] as unknown[]) : []));
  const named = cards.flatMap((card) => {
    const name: unknown = typeof card === 'object' && card !== null ? Reflect.get(card, 'bridge') : undefined;
    return typeof name === 'string' && /^[\w.-]{1,15}$/.test(name) ? [name] : [];
  });
  return [...new Set([config.bridge, ...named])];
}

function bridge(name: string): NodeFacts['bridges'][number] {
  const folder = `/sys/class/net/${name}`;
  if (!existsSync(`${folder}/bridge`)) return { name, mtu: null, isUp: false };
  const read = (file: string) => readFileSync(`${folder}/${file}`, 'utf8').trim();
  return { name, mtu: Number(read('mtu')), isUp: (Number(read('flags')) & 1) === 1 };
}

async function arbiterOf(service: Service): Promise<NodeFacts['arbiter']> {
  const start = performance.now();
  try {
    await service.probeArbiter();
    return { ms: performance.now() - start, why: '' };
  } catch (error) {
    return { ms: null, why: errorText(error) };
  }
}

const statusSchema = z.object({ version: z.string(), dbSize: z.string().regex(/^\d{1,15}$/) });

/** Each member by itself, from here: a cluster that answers may have lost one already. */
function membersOf({ arbiter, certificates }: ServiceConfig): Promise<NodeFacts['members']> {
  if ('folder' in arbiter) return Promise.resolve([]);
  return Promise.all(
    arbiter.etcd.map(async (url) => {
      const client = new EtcdClient({
        ...{ endpoints: [url], askTimeoutMs: factTimeoutMs },
        ...(url.startsWith('https:') ? { identity: readIdentity(certificates) } : {}),
      });
      const start = performance.now();
      try {
        const { version, dbSize } = await client.ask('/v3/maintenance/status', {}, statusSchema);
        return { url, ms: performance.now() - start, version, dbBytes: Number(dbSize), why: '' };
      } catch (error) {
        return { url, ms: null, version: '', dbBytes: 0, why: errorText(error) };
      } finally {
        await client.close();
      }
    }),
  );
}

function daysLeft(pem: string): number {
  return Math.floor((new Date(new X509Certificate(pem).validTo).getTime() - Date.now()) / dayMs);
}
