// Answers of monitoring in their shape, and health as the nodes of one machine's pair tell it.

import type { NodeStatus } from '../api/node-status.ts';

export interface PlainAnswer {
  status: number;
  type: string;
  text: string;
}

export function said(status: number, text: string): PlainAnswer {
  return { status, type: 'text/plain; charset=utf-8', text: `${text}\n` };
}

export function metricsAnswer(text: string): PlainAnswer {
  return { status: 200, type: 'text/plain; version=0.0.4; charset=utf-8', text };
}

/** The VM that a path asks about: /v1/vms/VM/protected. */
export function vmOfPath(path: string): string | undefined {
  return /^\/v1\/vms\/([^/]{1,64})\/protected$/.exec(path)?.[1];
}

/** What a pair without a service answers. */
export function healthAnswer(path: string, all: readonly NodeStatus[]): PlainAnswer | undefined {
  if (path === '/livez' || path === '/readyz') return said(200, 'ok');
  const vm = vmOfPath(path);
  if (vm === undefined) return undefined;
  const primary = all.find((one) => one.vm === vm && one.role === 'primary');
  if (primary === undefined)
    return all.some((one) => one.vm === vm) ? said(503, 'no primary') : said(404, `there is no VM ${vm}`);
  return primary.protected ? said(200, 'protected') : said(503, `${primary.reason ?? primary.state}: ${primary.why}`);
}
