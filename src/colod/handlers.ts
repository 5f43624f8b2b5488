// What each route of the API does. Every node answers for the cluster: from the registry what it says there, and from
// the node that has it what only that one knows (over its API, with this node's certificate).

import { randomBytes } from 'node:crypto';
import { z } from 'zod';
import { emptySchema, logLinesSchema, runSchema } from '../api/cluster.ts';
import { callService, type ServiceRequest } from '../api/cluster-client.ts';
import { type Finding, nodeFactsSchema } from '../api/doctor.ts';
import { logBytesMax } from '../api/limits.ts';
import { type NodeStatus, nodeStatusSchema } from '../api/node-status.ts';
import { jsonSchema, openApiDocument } from '../api/openapi.ts';
import { Refusal } from '../api/refusal.ts';
import type { LogQuery } from '../api/routes.ts';
import { errorCodes, errorText } from '../base/errors.ts';
import { readIdentity } from '../base/identity.ts';
import { choose } from '../cluster/placement.ts';
import type { NodeInfo, VmRecord } from '../cluster/registry.ts';
import { specSchema } from '../config/spec.ts';
import { refuseOutside } from './allowed-files.ts';
import { clusterAnswer, copies, primaryOf, vmLine } from './answers.ts';
import type { Caller } from './authentication.ts';
import { specOf } from './child-config.ts';
import { judge, type Seen } from './cluster-doctor.ts';
import { filesFolders } from './config.ts';
import { checkpointTimeoutMs, failoverTimeoutMs, forwardTimeoutMs } from './limits.ts';
import { readNodeFacts } from './node-facts.ts';
import type { Call, Handlers } from './server.ts';
import type { Service } from './service.ts';
import { tailOfBoth } from './tail.ts';
import { addressesOf, refuseSecond, refuseTaken } from './taken.ts';

/** A primary needs its guest's RAM, and a bit for the processes. */
const spareBytes = 128 * 2 ** 20;

export function handlersOf(service: Service, refused: () => Record<string, number>): Handlers {
  const on = (vm: VmRecord, what: string, timeoutMs: number) => onPrimary(service, { vm, what, timeoutMs });
  return {
    cluster: async () => cluster(service),
    runVm: (call) => runVm(service, runSchema.parse(call.body), call.caller),
    vm: (call) => vmDetail(service, vmOf(service, call)),
    removeVm: (call) => removeVm(service, call),
    failover: async (call) => emptySchema.parse(await on(vmOf(service, call), 'failover', forwardTimeoutMs)),
    checkpoint: async (call) =>
      nodeStatusSchema.parse(await on(vmOf(service, call), 'checkpoint', checkpointTimeoutMs)),
    logs: (call) => logs(service, call),
    drain: async (call) => {
      await service.registry.drain(nodeOf(service, call.params['node'] ?? '').node);
      await service.refresh();
      return {};
    },
    undrain: async (call) => {
      const name = call.params['node'] ?? '';
      const revision = service.cluster.drains.get(name);
      // One that is off may still be drained.
      if (revision !== undefined) await service.registry.undrain(name, revision);
      else nodeOf(service, name);
      await service.refresh();
      return {};
    },
    doctor: async () => doctor(service),
    localFacts: () => readNodeFacts(service),
    local: async () => ({
      node: service.config.node,
      version: service.version,
      pid: process.pid,
      process: service.ownProcess(),
      refused: refused(),
      vms: service.children.statuses(),
    }),
    localFailover: async (call) => {
      await service.children.call(ownVm(service, call), {
        method: 'POST',
        path: '/failover',
        timeoutMs: failoverTimeoutMs,
      });
      return {};
    },
    localCheckpoint: (call) => {
      const options = { method: 'POST', path: '/checkpoint', timeoutMs: checkpointTimeoutMs } as const;
      return service.children.call(ownVm(service, call), options);
    },
    localLogs: async (call) => ({ lines: ownLog(service, ownVm(service, call), call.query as LogQuery) }),
    openapi: async () => openApiDocument({ version: service.version, spec: jsonSchema(specSchema, 'input') }),
  };
}

function cluster(service: Service) {
  const { cluster: view, registryProblem, config } = service;
  return clusterAnswer(view, { answeredBy: config.node, registryProblem });
}

/** The VM that a request is about. */
function vmOf(service: Service, { params }: Call): VmRecord & { revision: number } {
  const found = service.cluster.vms.find((one) => one.vm === params['vm']);
  if (found !== undefined) return found;
  const names = service.cluster.vms.map((one) => one.vm);
  throw new Refusal(404, errorCodes.input, `this cluster has no VM named ${params['vm']}`, {
    hint: names.length === 0 ? 'it has none at all' : `it has ${names.join(', ')}`,
  });
}

function nodeOf(service: Service, name: string): NodeInfo {
  const found = service.cluster.nodes.find((one) => one.node === name);
  if (found !== undefined) return found;
  throw new Refusal(404, errorCodes.input, `this cluster has no living node named ${name}`, {
    hint: `it has ${service.cluster.nodes.map((one) => one.node).join(', ')}`,
  });
}

/** A child of this node; its name goes into a path, so it has to be one that is known. */
function ownVm(service: Service, { params }: Call): string {
  const vm = params['vm'] ?? '';
  if (service.children.view().has(vm)) return vm;
  throw new Refusal(404, errorCodes.input, `this node has no copy of ${vm}`);
}

async function runVm(service: Service, { spec, on, force }: z.output<typeof runSchema>, caller: Caller) {
  const vm = typeof spec['vm'] === 'string' ? spec['vm'] : '';
  const checked = specOf({ vm, spec });
  const confined = caller.kind !== 'local';
  if (confined) refuseOutside(checked, filesFolders(service.config));
  await service.refresh();
  if (service.registryProblem !== '')
    throw new Refusal(503, errorCodes.arbiter, `the registry does not answer: ${service.registryProblem}`);
  if (checked.disks.length > 0 && on === undefined)
    throw new Refusal(400, errorCodes.input, 'a VM with disks is booted where its images are', {
      hint: 'name that node: --on NODE',
    });
  const memoryBytes = checked.machine.memory;
  const home = on ?? choose(service.cluster, { memoryBytes: memoryBytes + spareBytes });
  if (home === undefined) throw new Refusal(503, errorCodes.host, 'no node has room for it, or all are being drained');
  nodeOf(service, home);
  const life = randomBytes(4).toString('hex');
  const record: VmRecord = { vm, life, home, spec, memoryBytes, protect: checked.protect.mode !== 'none', confined };
  refuseTaken(service.cluster, record, { force });
  if (!(await service.registry.createVm(record, service.cluster.removed.get(vm)?.revision)))
    throw new Refusal(409, errorCodes.input, `this cluster has a VM named ${vm} already`, {
      hint: 'give this one another name, or remove that one first (colo rm)',
    });
  await service.refresh();
  await giveWay(service, record);
  return vmLine(service.cluster, record);
}

/** When two calls at the same moment found an address free, the one that was second takes its VM back. */
async function giveWay(service: Service, record: VmRecord): Promise<void> {
  try {
    refuseSecond(service.cluster, record);
  } catch (error) {
    const made = service.cluster.vms.find((one) => one.vm === record.vm && one.life === record.life);
    if (made !== undefined) await take(service, made);
    throw error;
  }
}

async function removeVm(service: Service, call: Call) {
  await service.refresh();
  const vm = vmOf(service, call);
  if (!(await take(service, vm)))
    throw new Refusal(409, errorCodes.input, `${vm.vm} was changed meanwhile`, { hint: 'try it again' });
  await service.refresh();
  return {};
}

/**
 * Takes a VM out of the registry. Until they say that they do not, these nodes may run it: where it is, or is to be.
 */
function take(service: Service, vm: VmRecord & { revision: number }): Promise<boolean> {
  const found = service.cluster.placements.get(vm.vm);
  const placed = found?.life === vm.life ? found.nodes : [vm.home];
  const hosts = copies(service.cluster, vm).map(({ info }) => info.node);
  const left = { nodes: [...new Set([...placed, ...hosts])], addresses: addressesOf(vm) };
  return service.registry.removeVm(vm, { placement: found, ...left });
}

async function vmDetail(service: Service, vm: VmRecord) {
  const nodes: NodeStatus[] = [];
  const silent: string[] = [];
  await Promise.all(
    copies(service.cluster, vm).map(async ({ info }) => {
      const all = await localStatuses(service, info).catch(() => undefined);
      const status = all?.find((one) => one.vm === vm.vm);
      if (status === undefined) silent.push(info.node);
      else nodes.push(status);
    }),
  );
  nodes.sort((one, other) => (one.node < other.node ? -1 : 1));
  return { vm: vmLine(service.cluster, vm), nodes, silent };
}

async function localStatuses(service: Service, info: NodeInfo): Promise<NodeStatus[]> {
  if (info.node === service.config.node) return service.children.statuses();
  const answer = await forward(service, info, { method: 'GET', path: '/v1/local' });
  return z.object({ vms: z.array(nodeStatusSchema) }).parse(answer).vms;
}

async function onPrimary(
  service: Service,
  { vm, what, timeoutMs }: { vm: VmRecord; what: string; timeoutMs: number },
): Promise<unknown> {
  const primary = primaryOf(service.cluster, vm);
  if (primary === undefined)
    throw new Refusal(503, errorCodes.host, `no node says that it is the primary of ${vm.vm}`, {
      hint: 'see `colo ps`',
    });
  if (primary.node === service.config.node)
    return service.children.call(vm.vm, { method: 'POST', path: `/${what}`, timeoutMs });
  return forward(service, primary, { method: 'POST', path: `/v1/local/vms/${vm.vm}/${what}`, timeoutMs });
}

async function logs(service: Service, call: Call) {
  const vm = vmOf(service, call);
  const query = call.query as LogQuery;
  const nodes: { node: string; lines: string[] }[] = [];
  const silent: string[] = [];
  await Promise.all(
    copies(service.cluster, vm).map(async ({ info: { node }, info }) => {
      if (node === service.config.node) nodes.push({ node, lines: ownLog(service, vm.vm, query) });
      else
        await forward(service, info, {
          method: 'GET',
          path: `/v1/local/vms/${vm.vm}/logs?lines=${query.lines}&what=${query.what}`,
        }).then(
          (answer) => nodes.push({ node, lines: logLinesSchema.parse(answer).lines }),
          () => silent.push(node),
        );
    }),
  );
  nodes.sort((one, other) => (one.node < other.node ? -1 : 1));
  return { nodes, silent };
}

function forward(service: Service, { node, address, apiPort }: NodeInfo, request: ServiceRequest): Promise<unknown> {
  const identity = readIdentity(service.config.certificates);
  return callService(
    { host: address, port: apiPort, ca: identity.ca, node, as: identity },
    { timeoutMs: forwardTimeoutMs, ...request },
  );
}

/** Every node that is there is asked for its facts; this one judges them. */
async function doctor(service: Service) {
  const self = service.config.node;
  const seen = await Promise.all(
    service.cluster.nodes.map(async (info): Promise<Seen> => {
      const isSelf = info.node === self;
      const askedMs = Date.now();
      const asked = isSelf
        ? readNodeFacts(service)
        : forward(service, info, { method: 'GET', path: '/v1/local/facts' });
      const rest = { node: info.node, isSelf, askedMs };
      return asked.then(
        (facts) => ({ ...rest, facts: nodeFactsSchema.parse(facts), why: '', answeredMs: Date.now() }),
        (error: unknown) => ({ ...rest, facts: undefined, why: errorText(error), answeredMs: Date.now() }),
      );
    }),
  );
  const { registryProblem } = service;
  const registry: Finding =
    registryProblem === ''
      ? { node: '', what: 'registry', state: 'ok', detail: 'it is read and written' }
      : {
          node: '',
          what: 'registry',
          state: 'missing',
          detail: registryProblem,
          todo: 'see etcd: nothing is moved until it answers',
        };
  return { answeredBy: self, findings: [registry, ...judge(seen)] };
}

/** The last lines of a log of this node; none when there is no such file yet. */
function ownLog(service: Service, vm: string, { lines, what }: LogQuery): string[] {
  const paths = service.children.paths(vm);
  const text = tailOfBoth(what === 'log' ? paths.log : paths.console, logBytesMax);
  const all = text.split(/\r?\n/);
  if (all.at(-1) === '') all.pop();
  return all.slice(-lines);
}
