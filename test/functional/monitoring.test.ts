// Metrics and health of a service, asked by a real Prometheus: its checker finds nothing, the alert rules of deploy/
// name metrics that are there, and a VM that is not protected raises its alert. The service is a whole one on a small
// cluster; its VM's process is one of this test, which answers as a node does.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { NodeStatus } from '../../src/api/node-status.ts';
import { reasonCodes } from '../../src/api/reasons.ts';
import { MemoryArbiter } from '../../src/arbiter/memory.ts';
import { delay, systemClock } from '../../src/base/clock.ts';
import { silentLog } from '../../src/base/log.ts';
import { processIdentity } from '../../src/base/processes.ts';
import { MemoryStore, newShared } from '../../src/cluster/memory-store.ts';
import { Registry } from '../../src/cluster/registry.ts';
import { childPaths } from '../../src/colod/child-config.ts';
import { checkServiceConfig } from '../../src/colod/config.ts';
import { Monitor } from '../../src/colod/monitor.ts';
import { openPlainDoor, type PlainDoor } from '../../src/colod/plain-door.ts';
import { Service } from '../../src/colod/service.ts';
import { createAuthority, issueCertificate } from '../../src/host/certificates.ts';
import { ensurePackages, monitoringTestPackages } from '../../src/host/packages.ts';
import { freePorts } from '../../src/lan/gateway.ts';
import { endChild, spawnChild } from '../../src/local/namespace.ts';

const rules = join(import.meta.dirname, '../../deploy/prometheus/colo.rules.yml');
const dashboards = join(import.meta.dirname, '../../deploy/grafana');
const life = '0123abcd';
const waitMs = 120_000;
const buckets = { buckets: [0, 0, 1, 1, 2, 2, 3, 3, 3, 3, 3, 3], sum: 0.05 };

/** As a primary says it, with everything that a status can hold. */
const status: NodeStatus = {
  ...{ vm: 'web', node: 'h1', pid: process.pid, qemuPid: 1, role: 'primary', state: 'protected', why: '', reason: '' },
  ...{ protected: true, mode: 'colo', term: 3, epoch: 7, nextTryInMs: null },
  host: { qemu: '7.2.22', accel: 'tcg', tracker: 'userfaultfd', cores: 2, ramBytes: 2 ** 28, vcpus: 1 },
  checkpoints: {
    ...{ count: 3, sentBytes: 1, dirtyBytes: 1, reasons: { interval: 2, divergence: 1 }, last: [] },
    ...{ pauseMs: { count: 1, p50: 1, p99: 1, max: 1 }, commitMs: { count: 1, p50: 1, p99: 1, max: 1 } },
    ...{ dirtyPages: { count: 1, p50: 1, p99: 1, max: 1 }, pauseSeconds: buckets, commitSeconds: buckets },
    ...{ dirtyBytesTotal: 4096, sentBytesTotal: 1000 },
  },
  released: { byMatch: 5, byCommit: 1, dates: 0, holdMs: { p50: 1, p99: 2 } },
  ...{ divergences: [], bypass: [], failover: null, verified: { equal: 3, different: 0 }, arbiter: null },
  traffic: { ingressFrames: 1, ingressBytes: 60, egressFrames: 1, egressBytes: 60 },
  proxy: {
    ...{ framesByMatch: 5, framesByCommit: 1, framesAlone: 0, heldFrames: 0, heldBytes: 0, connections: 2 },
    ...{ divergences: { payload: 1, options: 0 }, dropped: { stale: 0, gate: 0 } },
  },
  links: [{ kind: 'beat', local: '10.0.0.1:1', remote: '10.0.0.2:2' }],
  heartbeat: { suspectAfterMs: 400, largestGapMs: 12, wrongSuspicions: 0 },
  disks: { copying: null, backlogBytes: 0, writtenBytes: 1, skippedBytes: 0, journalBytes: 0, problem: '' },
  process: { losses: [], loop: { stalls: 1, longest: { ms: 120, cause: 'other', at: 1 }, newest: [] } },
};

const folder = mkdtempSync(join(tmpdir(), 'colo-monitoring-'));
const undo: (() => unknown)[] = [() => rmSync(folder, { recursive: true, force: true })];
let service: Service;
let door: PlainDoor;
let said = status;

before(async () => {
  await ensurePackages(monitoringTestPackages, { why: 'have metrics read by a real Prometheus' });
  await createAuthority(join(folder, 'ca'), 'own');
  const certificates = await issueCertificate(join(folder, 'ca'), { node: 'h1', addresses: ['127.0.0.1'] });
  const own = { node: 'h1', address: '127.0.0.1', certificates, arbiter: { folder: join(folder, 'cluster') } };
  const places = { runFolder: join(folder, 'run'), stateFolder: join(folder, 'state') };
  const config = checkServiceConfig({ ...own, ...places, socket: join(folder, 'colod.sock') }, 'the test');
  const paths = childPaths(config, 'web');
  mkdirSync(paths.folder, { recursive: true });
  writeFileSync(paths.config, JSON.stringify({ node: { life, listen: { host: '127.0.0.1', port: 7800 } } }));
  writeFileSync(paths.identity, processIdentity(process.pid) ?? '');
  const child = createServer((_, answer) => answer.end(JSON.stringify(said)));
  await new Promise<void>((resolve) => void child.listen(paths.api, resolve));
  undo.push(() => child.close());
  const registry = new Registry(new MemoryStore(newShared(), systemClock));
  await registry.createVm({
    ...{ vm: 'web', life, home: 'h1', memoryBytes: 2 ** 26, protect: true },
    spec: { vm: 'web', boot: { kernel: '/k' }, network: { mac: '52:54:00:00:00:01', address: '192.0.2.1' } },
  });
  await registry.place('web', { life, nodes: ['h1'], revision: 0 });
  const cluster = { arbiter: new MemoryArbiter(new Map()), registry };
  service = await Service.start(config, { clock: systemClock, log: silentLog, cluster });
  undo.push(() => service.stop());
  const monitor = new Monitor(service, () => ({ tls: 4, token: 1 }));
  door = await openPlainDoor({ host: '127.0.0.1', port: 0 }, (path) => monitor.answer(path));
  undo.push(() => door.close());
});

after(async () => {
  for (const step of undo.reverse()) await step();
});

async function ask(path: string): Promise<{ code: number; text: string }> {
  const answer = await fetch(`http://127.0.0.1:${door.port}${path}`);
  return { code: answer.status, text: await answer.text() };
}

async function until<T>(what: string, found: () => Promise<T | undefined>): Promise<T> {
  for (const deadline = systemClock.now() + waitMs; ; await delay(100)) {
    const value = await found();
    if (value !== undefined) return value;
    assert.ok(systemClock.now() < deadline, `never: ${what}`);
  }
}

const isSaid = (path: string, code: number) =>
  until(`${path} answers ${code}`, async () => {
    const answer = await ask(path);
    return answer.code === code ? answer.text : undefined;
  });

test('health is a status code: of the process, of the registry, and of the protection of a VM', async () => {
  assert.deepEqual(await ask('/livez'), { code: 200, text: 'ok\n' });
  await isSaid('/readyz', 200);
  assert.equal(await isSaid('/v1/vms/web/protected', 200), 'protected\n');
  said = { ...status, state: 'alone', protected: false, why: 'b was lost', reason: 'no-secondary' };
  assert.equal(await isSaid('/v1/vms/web/protected', 503), 'unprotected: alone: b was lost\n');
  assert.match((await ask('/metrics')).text, /^colo_vm_unprotected_reason\{vm="web",reason="no-secondary"\} 1$/m);
  said = status;
  await isSaid('/v1/vms/web/protected', 200);
  assert.deepEqual(await ask('/v1/vms/none/protected'), { code: 404, text: 'there is no VM none\n' });
  assert.equal((await ask('/v1/vms')).code, 404);
  const posted = await fetch(`http://127.0.0.1:${door.port}/metrics`, { method: 'POST' });
  assert.equal(posted.status, 404);
});

test("Prometheus' checker finds nothing wrong with the metrics, and the rules are sound", async () => {
  const { text } = await ask('/metrics');
  for (const name of ['colo_vm_protected', 'colo_checkpoint_pause_seconds_bucket', 'process_cpu_seconds_total'])
    assert.match(text, new RegExp(`^${name}[{ ]`, 'm'));
  // Its linter says what it does not like on standard output, and fails.
  const ours = text.replaceAll(/^(# (HELP|TYPE) )?(nodejs|process)_.*\n/gm, '');
  assert.equal(execFileSync('promtool', ['check', 'metrics'], { input: ours, encoding: 'utf8' }), '');
  assert.match(execFileSync('promtool', ['check', 'rules', rules], { encoding: 'utf8' }), /SUCCESS: \d+ rules found/);
});

test('every alert has a section that says what to do, every reason a row, and every metric of ours is in the table', async () => {
  const document = readFileSync(join(import.meta.dirname, '../../docs/monitoring.md'), 'utf8');
  const text = readFileSync(rules, 'utf8');
  for (const [, alert = ''] of text.matchAll(/alert: (\w+)/g)) {
    assert.match(document, new RegExp(`^### ${alert}$`, 'm'));
    assert.ok(text.includes(`runbook: docs/monitoring.md#${alert.toLowerCase()}`), alert);
  }
  for (const code of Object.keys(reasonCodes).filter((one) => one !== ''))
    assert.ok(document.includes(`| \`${code}\` |`), code);
  const named = [...document.matchAll(/`(colo_[^`]*)`/g)].flatMap(([, text = '']) => expand(text));
  for (const [, name = ''] of (await ask('/metrics')).text.matchAll(/^# TYPE (colo_\w+)/gm))
    assert.ok(named.includes(name), name);
});

/** `a_{b,c}_d`: a_b_d and a_c_d. */
function expand(text: string): string[] {
  const match = /^(.*?)\{([^}]*)\}(.*)$/.exec(text);
  if (match === null) return [text];
  const [, before = '', middle = '', rest = ''] = match;
  return middle.split(',').flatMap((one) => expand(`${before}${one}${rest}`));
}

/** Metrics of ours that a text names. */
function namesIn(text: string): Set<string> {
  return new Set(text.match(/\bcolo_[a-z_]+/g) ?? []);
}

/**
 * What Prometheus answers to a query; undefined while it does not, or does not understand it. A real one, that reads
 * our door and our rules.
 */
async function prometheus(): Promise<(query: string) => Promise<unknown[] | undefined>> {
  const [port = 0] = await freePorts(1);
  const config = join(folder, 'prometheus.yml');
  const target = `static_configs: [{ targets: ['127.0.0.1:${door.port}'] }]`;
  const every = 'global: { scrape_interval: 1s, evaluation_interval: 1s }';
  writeFileSync(config, `${every}\nrule_files: ['${rules}']\nscrape_configs:\n  - job_name: colo\n    ${target}\n`);
  const at = ['--config.file', config, '--storage.tsdb.path', join(folder, 'tsdb')];
  const child = spawnChild('prometheus', [...at, '--web.listen-address', `127.0.0.1:${port}`, '--log.level=error'], {
    stdio: 'ignore',
  });
  undo.push(() => endChild(child));
  return async (query) => {
    const url = `http://127.0.0.1:${port}/api/v1/query?query=${encodeURIComponent(query)}`;
    const answer = await fetch(url).catch(() => undefined);
    if (answer?.ok !== true) return undefined;
    const { data } = (await answer.json()) as { data: { result: unknown[] } };
    return data.result;
  };
}

test('every metric that a rule or a panel names is there, and a VM that is not protected raises its alert', async () => {
  const query = await prometheus();
  const names = namesIn(readFileSync(rules, 'utf8'));
  assert.ok(names.size >= 10);
  // Panels show our metrics alone, each with a query that Prometheus understands.
  for (const file of readdirSync(dashboards)) {
    const { panels } = JSON.parse(readFileSync(join(dashboards, file), 'utf8')) as {
      panels: { targets: { expr: string }[] }[];
    };
    for (const { expr } of panels.flatMap(({ targets }) => targets)) {
      for (const name of namesIn(expr)) names.add(name);
      await until(`Prometheus understands ${expr}`, async () => ((await query(expr)) === undefined ? undefined : true));
    }
  }
  for (const name of names)
    await until(`Prometheus has ${name}`, async () => ((await query(name))?.length ? true : undefined));
  const alert = 'ALERTS{alertname="ColoVmNotProtected",vm="web"}';
  assert.deepEqual(await query(alert), []);
  said = { ...status, state: 'alone', protected: false, why: 'b was lost', reason: 'no-secondary' };
  await until('the alert', async () => ((await query(alert))?.length ? true : undefined));
  said = status;
});
