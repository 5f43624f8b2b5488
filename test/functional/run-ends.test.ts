// How `colo run` ends, and what it keeps alive while it runs: a guest that switches itself off, a VM that is lost, a
// gateway that dies; and what to do with the disks that a survivor has left.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { buildGuest } from '../../guest/build.ts';
import { readyLine } from '../../guest/recipe.ts';
import { nodeStatus } from '../../src/api/node-client.ts';
import { delay, systemClock } from '../../src/base/clock.ts';
import { ColoError } from '../../src/base/errors.ts';
import { checkSpec } from '../../src/config/spec.ts';
import { echoRules, LineClient } from '../../src/demo/clients/lines.ts';
import { consoleSays } from '../../src/demo/console.ts';
import { writeHeader } from '../../src/disk/header.ts';
import { type Image, refuseOwner } from '../../src/disk/recovery.ts';
import { overlayPath, replicaPath } from '../../src/disk/replica-files.ts';
import { bootId, Folder } from '../../src/disk/storage.ts';
import { freePorts, refuseBusyPorts } from '../../src/lan/gateway.ts';
import { runDirectory } from '../../src/local/directories.ts';
import { LocalPair } from '../../src/local/pair.ts';
import { createOverlay } from '../../src/qemu/overlay.ts';

const program = join(import.meta.dirname, '../../src/cli/main.ts');

function newFolder(context: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'colo-run-ends-'));
  context.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

/** `colo run` of the demo guest's kernel with another command line, and a forwarded port. */
async function startRun(context: TestContext, vm: string, cmdline: string) {
  const { kernel, initrd } = await buildGuest();
  const [hostPort = 0] = await freePorts(1);
  const spec = {
    ...{ vm, boot: { kernel, initrd, cmdline }, protect: { mode: 'none' } },
    network: { forwards: [{ host: hostPort, guest: 80 }] },
  };
  const path = join(newFolder(context), 'spec.json');
  writeFileSync(path, JSON.stringify(spec));
  const child = spawn(process.execPath, [program, 'run', path, '--json'], { stdio: ['ignore', 'pipe', 'pipe'] });
  context.after(() => void child.kill('SIGKILL'));
  let words = '';
  child.stderr.on('data', (chunk: Buffer) => {
    words += chunk.toString();
  });
  child.stdout.resume();
  const ended = new Promise<number | null>((resolve) => child.once('close', (code) => resolve(code)));
  return { child, hostPort, ended, words: () => words };
}

async function expectFree(vm: string, hostPort: number): Promise<void> {
  await refuseBusyPorts([{ protocol: 'tcp', hostPort }]);
  assert.ok(!existsSync(runDirectory(vm)), 'its name is free');
}

test('colo run ends when its guest switches itself off, says so, and frees its ports and its name', async (context) => {
  const run = await startRun(context, 'run-off', 'console=ttyS0 rdinit=/bin/busybox -- poweroff -f');
  assert.equal(await run.ended, 0, run.words());
  assert.match(run.words(), /the guest has switched itself off/);
  await expectFree('run-off', run.hostPort);
});

test('colo run ends with exit code 1 when its VM is lost, says why, and frees its ports and its name', async (context) => {
  const run = await startRun(context, 'run-lost', 'console=ttyS0 rdinit=/bin/busybox -- sleep 100000');
  const apiPath = join(runDirectory('run-lost'), 'a', 'api.sock');
  let pid = 0;
  while (pid === 0) {
    await delay(50);
    pid = (await nodeStatus(apiPath).catch(() => undefined))?.qemuPid ?? 0;
  }
  process.kill(pid, 'SIGKILL');
  assert.equal(await run.ended, 1, run.words());
  assert.match(run.words(), /the VM is lost: QEMU was killed \(SIGKILL\)/);
  await expectFree('run-lost', run.hostPort);
});

test('a gateway that dies is started again with the same forwards, and it is said', async (context) => {
  const guest = await buildGuest();
  const [echo = 0] = await freePorts(1);
  const said: string[] = [];
  const pair = await LocalPair.start({
    spec: checkSpec({ vm: 'run-gateway', boot: { guest: 'demo' }, protect: { mode: 'none' } }, 'the test'),
    boot: { kernel: guest.kernel, initrd: guest.initrd, cmdline: guest.cmdline },
    clock: systemClock,
    forwards: [{ protocol: 'tcp', hostPort: echo, guestPort: guest.ports.echoTcp }],
    gatewayChanged: (problem) => void said.push(problem),
  });
  context.after(() => pair.stop());
  await consoleSays(pair.a, { text: readyLine, path: `${pair.logDir}/a.serial`, timeoutMs: 180_000 });
  for (const [index, signal] of (['SIGKILL', 'SIGTERM'] as const).entries()) {
    process.kill(pair.gatewayPid ?? assert.fail(), signal);
    while (said.filter((text) => text === '').length <= index) await delay(20);
    const client = await LineClient.start(echoRules(echo), systemClock);
    while (Number.parseInt(client.progress(), 10) < 20) await delay(20);
    await client.finish(60_000);
  }
  assert.match(said[0] ?? '', /the gateway ended \(SIGKILL\): its forwards are closed/);
});

const mebibyte = 1024 * 1024;

/** A survivor's folder: each disk is a replica with a pattern, and an overlay with another one behind it, or none. */
async function survivorOf(folder: string, overlays: readonly boolean[]): Promise<string> {
  const replicas = join(folder, "the survivor's");
  mkdirSync(replicas);
  for (const [disk, hasOverlay] of overlays.entries()) {
    writeFileSync(replicaPath(replicas, disk), Buffer.alloc(mebibyte, 0x30 + disk));
    if (!hasOverlay) continue;
    await createOverlay(overlayPath(replicas, disk), replicaPath(replicas, disk));
    execFileSync('qemu-io', ['-f', 'qcow2', '-c', `write -P ${0x60 + disk} 64k 64k`, overlayPath(replicas, disk)]);
  }
  const sizes = overlays.map(() => mebibyte);
  const none = { through: 0, durable: false, lineage: '', position: 0 };
  const header = { version: 1 as const, vm: 'web', sizes, state: 'owner' as const, epoch: 7, term: 2, boot: bootId() };
  await writeHeader(new Folder(replicas), { ...header, ...none }, false);
  return replicas;
}

function hintOf(folder: string, images: readonly Image[]): string {
  try {
    refuseOwner(folder, undefined, images);
  } catch (error) {
    assert.ok(error instanceof ColoError);
    return error.hint ?? '';
  }
  return assert.fail('nothing is refused');
}

test('what the hint says brings back every disk of a survivor, raw and qcow2, with an overlay and without', async (context) => {
  const folder = newFolder(context);
  const overlays = [true, false, true];
  const replicas = await survivorOf(folder, overlays);
  const images: Image[] = [
    { path: join(folder, 'first disk.img'), format: 'raw' },
    { path: join(folder, 'second.qcow2'), format: 'qcow2' },
    { path: join(folder, 'third.qcow2'), format: 'qcow2' },
  ];
  for (const { path, format } of images) execFileSync('qemu-img', ['create', '-q', '-f', format, path, '1M']);
  const commands = /^bring back every one of them first: (.*)\nthen remove the folder: (.*)$/.exec(
    hintOf(replicas, images),
  );
  execFileSync('sh', ['-ec', commands?.[1] ?? 'false']);
  for (const [disk, { path, format }] of images.entries()) {
    const expected = Buffer.alloc(mebibyte, 0x30 + disk);
    if (overlays[disk]) expected.fill(0x60 + disk, 65536, 131072);
    writeFileSync(join(folder, 'expected'), expected);
    execFileSync('qemu-img', ['compare', '-f', format, '-F', 'raw', path, join(folder, 'expected')]);
  }
  execFileSync('sh', ['-ec', commands?.[2] ?? 'false']);
  refuseOwner(replicas, undefined, images);
  assert.ok(!existsSync(replicas));
});
