// The bare guest, really booted, on every machine type and under every accelerator that runs it here: its services
// answer exactly, also over a network that loses frames, and it finds nothing wrong with its memory and its disk.

import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { after, type TestContext, test } from 'node:test';
import { barePorts, knownSha256 } from '../../guest/bare/guest.ts';
import { systemClock } from '../../src/base/clock.ts';
import { seededRandom } from '../../src/base/random.ts';
import { BareVm, type BareVmOptions } from '../../src/demo/bare-vm.ts';
import { DownloadClient } from '../../src/demo/clients/download.ts';
import { freePorts, Gateway } from '../../src/lan/gateway.ts';
import { Switch } from '../../src/lan/switch.ts';
import { kvmRefusal } from '../kvm/kvm.ts';

const root = mkdtempSync('/dev/shm/colo-bare-test-');
after(() => rmSync(root, { recursive: true, force: true }));
const newDir = () => mkdtempSync(join(root, 'vm-'));

const machines = ['pc', 'q35', 'microvm'] as const;
const accelerators = ['kvm', 'tcg'] as const;
const refusal = { kvm: await kvmRefusal(), tcg: false } as const;
const downloadBytes = 1 << 20;

interface Served extends BareVm {
  ports: { echo: number; numbered: number; times: number; http: number };
}

/** A guest that runs, with this machine's sockets at its services. */
async function serve(context: TestContext, options: Omit<BareVmOptions, 'dir'>, lossy = false): Promise<Served> {
  const dir = newDir();
  const guest = await BareVm.start({ ...options, dir });
  context.after(() => guest.close());
  const lan = new Switch(() => systemClock.now());
  const switchPath = join(dir, 'lan.sock');
  await lan.listen(switchPath);
  context.after(() => lan.close());
  const [echo = 0, numbered = 0, times = 0, http = 0] = await freePorts(4);
  const { echoTcp, numberedTcp, timesTcp, http: web, echoUdp, numberedUdp } = barePorts;
  const tcp = (hostPort: number, guestPort: number) => ({ protocol: 'tcp' as const, hostPort, guestPort });
  const udp = (hostPort: number, guestPort: number) => ({ protocol: 'udp' as const, hostPort, guestPort });
  const forwards = [tcp(echo, echoTcp), tcp(numbered, numberedTcp), tcp(times, timesTcp), tcp(http, web)];
  const gateway = await Gateway.start({
    ...{ switchPath, guestAddress: '10.0.2.15', connected: () => lan.nextPort() },
    forwards: [...forwards, udp(echo, echoUdp), udp(numbered, numberedUdp)],
  });
  context.after(() => gateway.stop());
  const random = seededRandom(7);
  await guest.ready();
  await guest.card.join(switchPath, lossy ? () => random() < 0.05 : undefined);
  return Object.assign(guest, { ports: { echo, numbered, times, http } });
}

/** Sends lines and returns what comes back until there are as many. */
async function lines(port: number, said: readonly string[]): Promise<string[]> {
  const socket = connect(port, '127.0.0.1');
  socket.setTimeout(120_000, () => socket.destroy(new Error('the guest fell silent')));
  let text = '';
  try {
    for (const line of said) socket.write(`${line}\n`);
    for await (const chunk of socket) {
      text += String(chunk);
      if (text.split('\n').length > said.length) break;
    }
  } finally {
    socket.destroy();
  }
  return text.split('\n').slice(0, -1);
}

async function datagram(port: number, text: string): Promise<string> {
  const socket = createSocket('udp4');
  try {
    const answer = once(socket, 'message', { signal: AbortSignal.timeout(60_000) });
    socket.send(text, port, '127.0.0.1');
    return String((await answer)[0]);
  } finally {
    socket.close();
  }
}

async function download(port: number): Promise<void> {
  const rules = { port, path: `/${downloadBytes}`, bytes: downloadBytes, sha256: knownSha256(downloadBytes) };
  const client = await DownloadClient.start(rules, systemClock);
  const report = await client.finish(120_000);
  assert.ok(report.ok, report.detail);
}

const said = Array.from({ length: 300 }, (_, index) => `line ${index} ${'x'.repeat(index % 90)}`);

async function expectServices({ ports }: Served): Promise<void> {
  const [echoed, numbered, again] = await Promise.all([
    lines(ports.echo, said),
    lines(ports.numbered, said),
    lines(ports.numbered, said),
    download(ports.http),
    download(ports.http),
  ]);
  assert.deepEqual(echoed, said);
  const expected = said.map((line, index) => `${index + 1} ${line}`);
  assert.deepEqual(numbered, expected);
  assert.deepEqual(again, expected);
  const times = (await lines(ports.times, ['a', 'b', 'c'])).map(BigInt);
  assert.ok(times.length === 3 && times.every((time, index) => index === 0 || time >= (times[index - 1] ?? 0n)));
}

for (const accel of accelerators)
  for (const machine of machines)
    test(`${machine}, ${accel}: the bare guest serves, keeps its pages and sectors, and reads its clocks`, {
      skip: refusal[accel],
    }, async (context) => {
      const dir = newDir();
      const path = join(dir, 'disk');
      writeFileSync(path, '');
      truncateSync(path, 4 << 20);
      const disks = [{ kind: 'image' as const, path, format: 'raw' as const }];
      const guest = await serve(context, { machine, accel, pages: 1000, periodMs: 0.5, disks });
      await expectServices(guest);
      const { ports, control, card } = guest;
      assert.equal(await datagram(ports.echo, 'hello'), 'hello');
      assert.equal(await datagram(ports.numbered, 'hello'), '1 hello');
      assert.equal(await datagram(ports.numbered, 'hello'), '2 hello');
      const isn = control.get('isn');
      assert.deepEqual(await lines(ports.echo, ['again']), ['again']);
      assert.notEqual(control.get('isn'), isn);
      await guest.clocks();
      const clocks = await card.ask('clocks');
      const hasAll = machine === 'microvm' ? [] : (['pm_timer', 'hpet'] as const);
      for (const name of ['tsc', 'lapic', 'ticks_per_ms', ...hasAll] as const)
        assert.ok((clocks.get(name) ?? 0n) > 0n, `${name} is ${clocks.get(name)}`);
      assert.equal(accel === 'kvm', control.get('kvmclock_ns') > 0n);
      // More than once round the pool, and round the sectors.
      await guest.until('every page was written twice', () => control.number('writes') > 2.5 * 16_384);
      await guest.until('every sector was written twice', () => control.number('disk_writes') > 2.5 * 128);
      assert.ok(control.number('disk_flushes') > 0);
      assert.ok(((await card.ask('status')).get('writes') ?? 0n) > 0n);
      assert.ok(((await card.ask('read')).get('ticks') ?? 0n) > 0n);
      assert.equal((await card.ask('write 1000')).get('pages'), 1000n);
      assert.equal(control.errors, 0);
      assert.equal(control.number('frames_bad'), 0);
      await guest.until('no connection is left', () => control.number('tcp_open') === 0);
    });

test('the bare guest sends again what a network loses', async (context) => {
  const guest = await serve(context, { machine: 'microvm', accel: refusal.kvm === false ? 'kvm' : 'tcg' }, true);
  await expectServices(guest);
  assert.ok(guest.control.number('tcp_resent') > 0);
  assert.equal(guest.control.number('tcp_given_up'), 0);
});

test('the bare guest notices a page and a sector that are not what it wrote', async (context) => {
  const dir = newDir();
  const path = join(dir, 'disk');
  writeFileSync(path, '');
  truncateSync(path, 4 << 20);
  const disks = [{ kind: 'image' as const, path, format: 'raw' as const }];
  const guest = await BareVm.start({ machine: 'microvm', accel: 'tcg', pages: 100, periodMs: 1, disks, dir });
  context.after(() => guest.close());
  const { control, vm } = guest;
  await guest.ready();
  await guest.until('every sector was written', () => control.number('disk_writes') > 128);
  vm.ram.writeBigUInt64LE(12_345n, 0x2000000 + 77 * 4096);
  writeFileSync(path, Buffer.alloc(128 * 512, 7), { flag: 'r+' });
  await guest.until('it saw the page', () => control.number('page_errors') > 0);
  await guest.until('it saw the sectors', () => control.number('disk_errors') > 0);
});
