// What a monitoring system asks a node: metrics and health. On the API's doors, and on a plain one where the
// configuration names it, for a network that is trusted to read.
//
//    /metrics                     Prometheus' text, of this node and its own VMs
//    /livez                       200 while this process answers
//    /readyz                      200 when the registry answers, so that VMs can be placed; else 503 and why
//    /v1/vms/VM/protected         200 when the loss of its primary would lose nothing; 503 and why not; 404 for no such
//                                 VM

import { X509Certificate } from 'node:crypto';
import { collectDefaultMetrics, Registry } from 'prom-client';
import { expose, type Family, vmFamilies } from '../api/metrics.ts';
import type { ProcessStatus } from '../api/node-status.ts';
import { readIdentity } from '../base/identity.ts';
import { vmLine } from './answers.ts';
import { metricsAnswer, type PlainAnswer, said, vmOfPath } from './monitor-answers.ts';
import type { Service } from './service.ts';

/** Paths that say nothing of a VM: whoever reaches the port may ask. */
export const openPaths: ReadonlySet<string> = new Set(['/livez', '/readyz']);

export class Monitor {
  private readonly service: Service;
  private readonly refused: () => Record<string, number>;
  private readonly own = new Registry();

  constructor(service: Service, refused: () => Record<string, number>) {
    this.service = service;
    this.refused = refused;
    collectDefaultMetrics({ register: this.own });
  }

  /** The answer at this path; undefined where there is none. */
  async answer(path: string): Promise<PlainAnswer | undefined> {
    if (path === '/livez') return said(200, 'ok');
    if (path === '/readyz') return this.ready();
    if (path === '/metrics') return metricsAnswer(await this.metrics());
    const vm = vmOfPath(path);
    return vm === undefined ? undefined : this.protection(vm);
  }

  private ready(): PlainAnswer {
    const { registryProblem } = this.service;
    return registryProblem === '' ? said(200, 'ok') : said(503, `the registry does not answer: ${registryProblem}`);
  }

  private protection(name: string): PlainAnswer {
    const { cluster } = this.service;
    const vm = cluster.vms.find((one) => one.vm === name);
    if (vm === undefined) return said(404, `there is no VM ${name}`);
    const { state, why } = vmLine(cluster, vm);
    return state === 'protected' ? said(200, state) : said(503, why === '' ? state : `${state}: ${why}`);
  }

  private async metrics(): Promise<string> {
    const statuses = this.service.children.statuses();
    const text = await expose([...this.nodeFamilies(), ...vmFamilies(statuses)]);
    return `${text}${await this.own.metrics()}`;
  }

  private nodeFamilies(): Family[] {
    const { service } = this;
    const { memoryBytes, memoryFreeBytes } = service.info();
    const children = [...service.children.view().values()];
    const one = (name: string, help: string, value: number): Family => gauge(name, help, [{ labels: {}, value }]);
    return [
      gauge('colo_build_info', 'The version that runs; always 1.', [
        { labels: { version: service.version }, value: 1 },
      ]),
      one('colo_registry_up', 'Whether the registry answers.', Number(service.registryProblem === '')),
      one('colo_node_memory_bytes', 'Memory of this host.', memoryBytes),
      one('colo_node_memory_available_bytes', 'What a guest could have of it.', memoryFreeBytes),
      gauge('colo_node_state', 'Whether it may be used: 1 for its state.', this.states()),
      gauge(
        'colo_child_failures',
        'How often the process of a VM has ended since it was sound.',
        children.map(({ vm, failures }) => ({ labels: { vm }, value: failures })),
      ),
      {
        ...gauge('colo_api_refused_total', 'Calls that were refused, by why.', this.refusals()),
        kind: 'counter',
      },
      ...this.certificate(),
      ...serviceFamilies(service.ownProcess()),
    ];
  }

  private states(): Family['samples'] {
    const { cluster, config } = this.service;
    const isDrained = cluster.drains.has(config.node);
    return ['ready', 'draining'].map((state) => ({
      ...{ labels: { state }, value: Number(isDrained === (state === 'draining')) },
    }));
  }

  private refusals(): Family['samples'] {
    return Object.entries(this.refused()).map(([reason, value]) => ({ labels: { reason }, value }));
  }

  private certificate(): Family[] {
    try {
      const { validTo } = new X509Certificate(readIdentity(this.service.config.certificates).certificate);
      const value = new Date(validTo).getTime() / 1000;
      const samples = [{ labels: { certificate: 'node' }, value }];
      return [gauge('colo_certificate_expiry_timestamp_seconds', 'When it is over.', samples)];
    } catch {
      // It is being replaced: the next time.
      return [];
    }
  }
}

function serviceFamilies({ losses, loop }: ProcessStatus): Family[] {
  const lost = losses.reduce((sum, { pieces }) => sum + pieces, 0);
  return [
    {
      ...gauge('colo_service_loop_stalls_total', 'Stalls of colod.', [{ labels: {}, value: loop.stalls }]),
      kind: 'counter',
    },
    {
      ...gauge('colo_service_lost_log_lines_total', 'Lost lines of colod.', [{ labels: {}, value: lost }]),
      kind: 'counter',
    },
  ];
}

function gauge(name: string, help: string, samples: Family['samples']): Family {
  return { name, kind: 'gauge', help, samples };
}
