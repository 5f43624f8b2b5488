// The routes of the service's API. The server answers exactly these, and the OpenAPI document describes exactly these;
// beside them it answers what monitoring systems ask, in their form (colod/monitor.ts).

import { z } from 'zod';
import type { CertificateRole } from '../base/roles.ts';
import {
  clusterSchema,
  emptySchema,
  localSchema,
  logLinesSchema,
  logsSchema,
  runSchema,
  vmDetailSchema,
  vmLineSchema,
} from './cluster.ts';
import { doctorSchema, nodeFactsSchema } from './doctor.ts';
import { logLinesMax } from './limits.ts';
import { nodeStatusSchema } from './node-status.ts';

export interface Route {
  id: string;
  method: 'GET' | 'POST' | 'DELETE';
  /** With parameters in braces. */
  path: string;
  summary: string;
  /** What a caller must be, at least (base/roles.ts). */
  needs: CertificateRole;
  body?: z.ZodType;
  query?: z.ZodObject;
  answer: z.ZodType;
  /** text/event-stream instead of one answer: `answer` is what an event carries. */
  stream?: true;
}

const logQuery = z.strictObject({
  lines: z.coerce.number().int().min(1).max(logLinesMax).default(100),
  what: z.enum(['log', 'console']).default('log'),
});
export type LogQuery = z.output<typeof logQuery>;

export const routes = [
  {
    id: 'cluster',
    method: 'GET',
    path: '/v1/cluster',
    needs: 'viewer',
    answer: clusterSchema,
    summary: 'Nodes and VMs of the whole cluster.',
  },
  {
    id: 'events',
    method: 'GET',
    path: '/v1/events',
    needs: 'viewer',
    answer: clusterSchema,
    stream: true,
    summary: 'The same as /v1/cluster, again whenever something changed, as server-sent events named "cluster".',
  },
  {
    id: 'runVm',
    method: 'POST',
    path: '/v1/vms',
    needs: 'admin',
    body: runSchema,
    answer: vmLineSchema,
    summary: 'Runs a VM: a node boots it, and protects it by another one.',
  },
  {
    id: 'vm',
    method: 'GET',
    path: '/v1/vms/{vm}',
    needs: 'viewer',
    answer: vmDetailSchema,
    summary: 'One VM, with what each of its nodes says.',
  },
  {
    id: 'removeVm',
    method: 'DELETE',
    path: '/v1/vms/{vm}',
    needs: 'admin',
    answer: emptySchema,
    summary: 'Stops a VM on all nodes and forgets it. Its disks stay.',
  },
  {
    id: 'failover',
    method: 'POST',
    path: '/v1/vms/{vm}/failover',
    needs: 'operator',
    answer: emptySchema,
    summary: 'Planned failover: the secondary takes over now.',
  },
  {
    id: 'checkpoint',
    method: 'POST',
    path: '/v1/vms/{vm}/checkpoint',
    needs: 'operator',
    answer: nodeStatusSchema,
    summary: 'Takes a checkpoint, and answers when it is committed and applied.',
  },
  {
    id: 'logs',
    method: 'GET',
    path: '/v1/vms/{vm}/logs',
    needs: 'operator',
    query: logQuery,
    answer: logsSchema,
    summary: "The end of the VM's log, or of its serial console, on each of its nodes.",
  },
  {
    id: 'drain',
    method: 'POST',
    path: '/v1/nodes/{node}/drain',
    needs: 'operator',
    answer: emptySchema,
    summary: 'Moves everything away from a node: primaries by planned failover, then secondaries.',
  },
  {
    id: 'undrain',
    method: 'DELETE',
    path: '/v1/nodes/{node}/drain',
    needs: 'operator',
    answer: emptySchema,
    summary: 'The node may be used again.',
  },
  {
    id: 'doctor',
    method: 'GET',
    path: '/v1/doctor',
    needs: 'viewer',
    answer: doctorSchema,
    summary: 'What is missing in the cluster, or will be, and what differs between its hosts.',
  },
  {
    id: 'localFacts',
    method: 'GET',
    path: '/v1/local/facts',
    needs: 'node',
    answer: nodeFactsSchema,
    summary: 'What this node knows of itself and its host.',
  },
  {
    id: 'local',
    method: 'GET',
    path: '/v1/local',
    needs: 'node',
    answer: localSchema,
    summary: 'What this node runs.',
  },
  {
    id: 'localFailover',
    method: 'POST',
    path: '/v1/local/vms/{vm}/failover',
    needs: 'node',
    answer: emptySchema,
    summary: 'Planned failover of a VM whose primary is this node.',
  },
  {
    id: 'localCheckpoint',
    method: 'POST',
    path: '/v1/local/vms/{vm}/checkpoint',
    needs: 'node',
    answer: nodeStatusSchema,
    summary: 'A checkpoint of a VM whose primary is this node.',
  },
  {
    id: 'localLogs',
    method: 'GET',
    path: '/v1/local/vms/{vm}/logs',
    needs: 'node',
    query: logQuery,
    answer: logLinesSchema,
    summary: 'The end of a log of this node.',
  },
  {
    id: 'openapi',
    method: 'GET',
    path: '/openapi.json',
    needs: 'viewer',
    answer: z.looseObject({}),
    summary: 'This document.',
  },
] as const satisfies Route[];

export type RouteId = (typeof routes)[number]['id'];

export type Match =
  | { kind: 'route'; route: Route & { id: RouteId }; params: Record<string, string> }
  | { kind: 'method'; allowed: string[] }
  | { kind: 'none' };

/** The route of a request; its parameters are decoded and not checked. */
export function matchRoute(method: string, path: string): Match {
  const parts = path.split('/');
  const found = routes.flatMap((route) => {
    const params = paramsOf(route.path.split('/'), parts);
    return params === undefined ? [] : [{ route, params }];
  });
  const match = found.find((one) => one.route.method === method);
  if (match !== undefined) return { kind: 'route', ...match };
  return found.length === 0 ? { kind: 'none' } : { kind: 'method', allowed: found.map((one) => one.route.method) };
}

function paramsOf(template: string[], parts: string[]): Record<string, string> | undefined {
  if (template.length !== parts.length) return undefined;
  const params: Record<string, string> = {};
  for (const [index, word] of template.entries()) {
    const part = parts[index] ?? '';
    const name = /^\{(\w+)\}$/.exec(word)?.[1];
    if (name === undefined && word !== part) return undefined;
    if (name !== undefined) params[name] = decode(part);
  }
  return params;
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
