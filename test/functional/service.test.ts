// One colod with a registry in a folder, and the command line as an operator uses it. No machine is started: the VM
// here cannot be, which is a case of its own. What three of them do with real machines is
// test/failover/service.test.ts.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, before, test } from 'node:test';
import type { Cluster, VmLine } from '../../src/api/cluster.ts';
import { FolderStore } from '../../src/cluster/folder-store.ts';
import { Registry } from '../../src/cluster/registry.ts';
import { createAuthority, issueCertificate } from '../../src/host/certificates.ts';
import { clusterPackages, ensurePackages } from '../../src/host/packages.ts';
import { freePorts } from '../../src/lan/gateway.ts';

const program = resolve(import.meta.dirname, '../../src/cli/main.ts');
const folder = mkdtempSync(join(tmpdir(), 'colo-colod-'));
const at = (name: string) => join(folder, name);
const socket = at('colod.sock');
let colod: ChildProcess;
let port = 0;

interface Said {
  code: number;
  out: string;
  error: string;
}

function start(args: string[]): ChildProcess {
  return spawn(process.execPath, ['--disable-warning=ExperimentalWarning', program, ...args]);
}

async function colo(...args: string[]): Promise<Said> {
  const child = start(args);
  const said = { code: 0, out: '', error: '' };
  child.stdout?.on('data', (bytes: Buffer) => {
    said.out += bytes.toString();
  });
  child.stderr?.on('data', (bytes: Buffer) => {
    said.error += bytes.toString();
  });
  said.code = await new Promise<number>((done) => void child.once('close', (code) => done(code ?? -1)));
  return said;
}

async function until(holds: () => Promise<boolean>, what: string): Promise<void> {
  const deadline = performance.now() + 180_000;
  while (!(await holds())) assert.ok(performance.now() < deadline, what);
}

function startColod(): void {
  colod = start(['colod', '--config', at('colod.yaml')]);
  colod.stderr?.resume();
}

async function endColod(): Promise<void> {
  const ended = new Promise<void>((done) => void colod.once('close', () => done()));
  if (colod.exitCode === null && colod.signalCode === null) colod.kill('SIGTERM');
  else return;
  await ended;
}

async function vms(): Promise<VmLine[]> {
  const { out, error } = await colo('ps', '--json', '--at', socket);
  assert.notEqual(out, '', error);
  return JSON.parse(out) as VmLine[];
}

/**
 * None while it does not answer yet: a colod that has just begun has made its socket, and may stand still before it
 * listens.
 */
const vmsIfAny = () => vms().catch((): VmLine[] => []);

before(async () => {
  await ensurePackages(clusterPackages, { why: 'test the service' });
  await createAuthority(at('ca'), 'test');
  await issueCertificate(at('ca'), { node: 'h1', addresses: ['127.0.0.1'] });
  [port = 0] = await freePorts(1);
  const lines = [
    ...['node: h1', 'address: 127.0.0.1', `api: { port: ${port}, tokens: ${at('tokens')} }`, `socket: ${socket}`],
    ...[`certificates: ${at('ca/h1')}`, `arbiter: { folder: ${at('cluster')} }`],
    ...[`runFolder: ${at('run')}`, `stateFolder: ${at('state')}`, 'bridge: colo-none'],
  ];
  writeFileSync(at('colod.yaml'), `${lines.join('\n')}\n`);
  writeFileSync(at('vm.yaml'), 'vm: web\nboot: { kernel: nowhere/vmlinuz }\n');
  startColod();
  await until(
    async () => existsSync(socket) && (await colo('nodes', '--json', '--at', socket)).out.includes('"h1"'),
    'h1',
  );
});
after(async () => {
  await endColod();
  rmSync(folder, { recursive: true, force: true });
});

test('a configuration is checked without starting anything: good, wrong, and a certificate of another node', async () => {
  assert.deepEqual(await colo('colod', '--check', '--config', at('colod.yaml')), {
    ...{ code: 0, out: `${at('colod.yaml')}: good, for node h1\n`, error: '' },
  });
  writeFileSync(
    at('wrong.yaml'),
    `node: h2\naddress: 127.0.0.1\ncertificates: ${at('ca/h1')}\narbiter: { folder: /a }\n`,
  );
  const wrong = await colo('colod', '--check', '--config', at('wrong.yaml'));
  assert.equal(wrong.code, 2);
  assert.match(wrong.error, /h2 is not h1, whose certificate/);
});

test('tables for people, JSON for programs, over the socket, with a certificate and with a token', async () => {
  const table = await colo('nodes', '--at', socket);
  assert.match(table.out, /^node +address +state[^]*h1 +127\.0\.0\.1 +ready/);
  const place = `https://127.0.0.1:${port}`;
  const json = await colo('nodes', '--json', '--at', place, '--identity', at('ca/h1'));
  assert.equal((JSON.parse(json.out) as Cluster['nodes'])[0]?.node, 'h1');
  const token = await colo('token', at('tokens'), 'anna', '--role', 'admin');
  assert.equal(token.code, 0);
  writeFileSync(at('token'), token.out, { mode: 0o600 });
  const asked = await colo('ps', '--json', '--at', place, '--token-file', at('token'), '--ca', at('ca/ca.pem'));
  assert.deepEqual(JSON.parse(asked.out), []);
  const nobody = await colo('ps', '--at', place);
  assert.equal(nobody.code, 2);
  assert.match(nobody.error, /has to know who asks/);
});

test('a spec over the network names files below the allowed folders only, as the node that opens them sees them', async () => {
  const place = ['--at', `https://127.0.0.1:${port}`, '--token-file', at('token'), '--ca', at('ca/ca.pem')];
  const outside = await colo('run', at('vm.yaml'), ...place, '--no-wait');
  assert.equal(outside.code, 2);
  assert.match(outside.error, /boot\.kernel: .*nowhere\/vmlinuz is none that a spec of the network may name/);
  assert.deepEqual(await vms(), []);
  mkdirSync(at('state/images'));
  symlinkSync(at('ca/ca.key'), at('state/images/key'));
  writeFileSync(at('link.yaml'), `vm: link\nboot: { kernel: ${at('state/images/key')} }\n`);
  assert.equal((await colo('run', at('link.yaml'), ...place, '--no-wait')).code, 0);
  await until(async () => {
    const [line] = await vmsIfAny();
    return line?.state === 'down' && /state\/images\/key is none that a spec of the network may name/.test(line.why);
  }, 'the node that is to open it refuses');
  assert.equal((await colo('rm', 'link', ...place)).out, 'link is gone\n');
  const viewer = await colo('token', at('tokens'), 'vera');
  writeFileSync(at('viewer'), viewer.out, { mode: 0o600 });
  const asViewer = ['--at', `https://127.0.0.1:${port}`, '--token-file', at('viewer'), '--ca', at('ca/ca.pem')];
  assert.equal((await colo('ps', ...asViewer)).code, 0);
  const refused = await colo('drain', 'h1', ...asViewer);
  assert.equal(refused.code, 2);
  assert.match(refused.error, /drain needs the role operator, and vera has viewer/);
});

test('colo doctor --cluster says of every node what is missing, and of the cluster', async () => {
  const said = await colo('doctor', '--cluster', '--at', socket);
  assert.equal(said.code, 1);
  assert.match(
    said.out,
    /^missing +h1: bridge colo-none +there is no such bridge\n +-> ip link add colo-none type bridge$/m,
  );
  assert.match(said.out, /^ok +h1: arbiter +takes claims/m);
  assert.match(said.out, /^ok +h1: certificate +good for 82\d days$/m);
  assert.match(said.out, /^missing +nodes +1 of 1 answer$/m);
  const place = ['--at', `https://127.0.0.1:${port}`, '--token-file', at('viewer'), '--ca', at('ca/ca.pem')];
  const findings = JSON.parse((await colo('doctor', '--json', ...place)).out) as { what: string }[];
  assert.ok(
    findings.some(({ what }) => what === 'registry'),
    'a viewer may ask',
  );
});

test('live updates: the state at once, until it is interrupted', async () => {
  const child = start(['ps', '--watch', '--json', '--at', socket]);
  const line = await new Promise<string>(
    (done) => void child.stdout?.once('data', (bytes: Buffer) => done(String(bytes))),
  );
  assert.deepEqual(JSON.parse(line), []);
  child.kill('SIGINT');
  assert.equal(await new Promise((done) => void child.once('close', (code) => done(code))), 0);
});

test('a VM that cannot start is down and says why, is tried again, outlives a restart of colod as a record, and is removed', async () => {
  const run = await colo('run', at('vm.yaml'), '--at', socket, '--no-wait');
  assert.equal(run.code, 0, run.error);
  // It is tried again and again: what is said of it is looked at in one answer.
  const isDown = async () => {
    const [line] = await vmsIfAny();
    return line?.state === 'down' && /^h1: .*nowhere\/vmlinuz is not on this node$/.test(line.why);
  };
  await until(isDown, 'down, and why');
  const again = await colo('run', at('vm.yaml'), '--at', socket, '--no-wait');
  assert.equal(again.code, 2);
  assert.match(again.error, /has a VM named web already/);
  const failover = await colo('failover', 'web', '--at', socket);
  assert.notEqual(failover.code, 0);
  assert.match(failover.error, /no node says that it is the primary of web/);
  await endColod();
  assert.equal(existsSync(socket), false);
  startColod();
  await until(async () => existsSync(socket) && (await isDown()), 'down again');
  assert.equal((await colo('rm', 'web', '--at', socket)).out, 'web is gone\n');
  assert.deepEqual(await vms(), []);
  const anew = await colo('run', at('vm.yaml'), '--at', socket, '--no-wait');
  assert.equal(anew.code, 0, 'its name may be used again');
  await colo('rm', 'web', '--at', socket);
});

test('a VM whose node does not answer is removed; its name is taken until an operator says that the node is off', async () => {
  const registry = new Registry(new FolderStore(at('cluster/registry'), Date.now));
  const record = { vm: 'web', life: '0123abcd', home: 'h9', spec: {}, memoryBytes: 1, protect: true };
  await registry.createVm(record);
  await registry.place('web', { life: record.life, nodes: ['h9'], revision: 0 });
  const rm = await colo('rm', 'web', '--at', socket);
  assert.match(rm.out, /^web is removed; h9 may still run it, and stops it when it is back/);
  assert.deepEqual([(await vms())[0]?.state, (await vms())[0]?.nodes], ['removing', ['h9']]);
  const refused = await colo('run', at('vm.yaml'), '--at', socket, '--no-wait');
  assert.equal(refused.code, 2);
  assert.match(refused.error, /web was removed, and is still on h9 \(which does not answer\)/);
  assert.equal((await colo('run', at('vm.yaml'), '--at', socket, '--no-wait', '--force')).code, 0);
  assert.equal((await colo('rm', 'web', '--at', socket)).out, 'web is gone\n');
  assert.deepEqual(await vms(), []);
});

test('a child process that ends says why in the table of VMs; one address cannot be had twice', async () => {
  writeFileSync(at('vmlinuz'), '');
  const network = 'network: { mac: "52:54:00:00:00:01", address: 192.0.2.1 }';
  writeFileSync(at('bare.yaml'), `vm: bare\nboot: { kernel: vmlinuz }\n${network}\nprotect: { mode: none }\n`);
  writeFileSync(at('twin.yaml'), `vm: twin\nboot: { kernel: vmlinuz }\n${network}\n`);
  assert.equal((await colo('run', at('bare.yaml'), '--at', socket, '--no-wait')).code, 0);
  // Its node has no such bridge, or may make no device: it ends before any machine is started.
  await until(async () => {
    const [line] = await vmsIfAny();
    return line?.state === 'down' && /^h1: the (bridge|device) /.test(line.why);
  }, 'the child said why it ended');
  const twin = await colo('run', at('twin.yaml'), '--at', socket, '--no-wait');
  assert.equal(twin.code, 2);
  assert.match(twin.error, /bare has the address 52:54:00:00:00:01 already/);
  assert.equal((await colo('rm', 'bare', '--at', socket)).out, 'bare is gone\n');
});

test('draining a node, and names that are none', async () => {
  assert.equal((await colo('drain', 'h1', '--at', socket)).out, 'h1 is empty\n');
  const refused = await colo('run', at('vm.yaml'), '--at', socket, '--no-wait');
  assert.match(refused.error, /no node has room for it, or all are being drained/);
  assert.equal((await colo('undrain', 'h1', '--at', socket)).code, 0);
  for (const args of [
    ['drain', 'h9'],
    ['undrain', 'h9'],
    ['logs', 'nobody'],
    ['rm', 'nobody'],
    ['status', 'nobody'],
  ]) {
    const said = await colo(...args, '--at', socket);
    assert.equal(said.code, 2, args.join(' '));
    assert.match(said.error, /this cluster has no/);
  }
});
