// The demo guest, really booted: on every machine type it comes up, serves the bytes that the host computes, and its
// services answer. Slow (a boot takes 3 to 4 s under emulation), so one boot carries several promises.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { after, before, describe, test } from 'node:test';
import { downloadSha256, smallSha256 } from '../../guest/big-file.ts';
import { buildGuest, type Guest } from '../../guest/build.ts';
import { guestAddress, readyLine } from '../../guest/recipe.ts';
import { systemClock } from '../../src/base/clock.ts';
import { checkSpec } from '../../src/config/spec.ts';
import { CalledClient } from '../../src/demo/clients/called.ts';
import { addedWords } from '../../src/local/machine.ts';

const bootMsMax = 300_000;

const machines = [
  { machine: 'q35', ramMebibytes: 256, device: 'virtio-net-pci,romfile=', big: 64 },
  { machine: 'pc', ramMebibytes: 128, device: 'virtio-net-pci,romfile=', big: 16 },
  { machine: 'microvm', ramMebibytes: 256, device: 'virtio-net-device', big: 64 },
] as const;

interface Ports {
  http: number;
  redis: number;
  echo: number;
  dirty: number;
  call: number;
}

async function freePorts(): Promise<Ports> {
  const servers = await Promise.all(
    [1, 2, 3, 4, 5].map(async () => {
      const server = createServer().listen(0, '127.0.0.1');
      await once(server, 'listening');
      return server;
    }),
  );
  const numbers = servers.map((server) => {
    const address = server.address();
    return address !== null && typeof address === 'object' ? address.port : 0;
  });
  for (const server of servers) server.close();
  const [http = 0, redis = 0, echo = 0, dirty = 0, call = 0] = numbers;
  return { http, redis, echo, dirty, call };
}

function userNetwork(ports: Ports): string {
  const forward = (kind: string, host: number, guest: number): string =>
    `hostfwd=${kind}:127.0.0.1:${host}-${guestAddress.address}:${guest}`;
  return [
    'user,id=n0',
    forward('tcp', ports.http, 80),
    forward('tcp', ports.redis, 6379),
    forward('tcp', ports.echo, 7),
    forward('udp', ports.echo, 7),
    forward('tcp', ports.dirty, 9),
    forward('tcp', ports.call, 11),
  ].join(',');
}

function start(guest: Guest, machine: (typeof machines)[number], ports: Ports): ChildProcess {
  const network = ['-netdev', userNetwork(ports), '-device', `${machine.device},netdev=n0`];
  const spec = checkSpec({ vm: 'guest', boot: { guest: 'demo' } }, 'test');
  const cmdline = [guest.cmdline, ...addedWords(spec, guest)].join(' ');
  const kernel = ['-kernel', guest.kernel, '-initrd', guest.initrd, '-append', cmdline];
  const host = ['-accel', 'tcg', '-nodefaults', '-display', 'none', '-no-reboot', '-serial', 'stdio'];
  const size = ['-M', machine.machine, '-m', String(machine.ramMebibytes)];
  return spawn('qemu-system-x86_64', [...size, ...host, ...kernel, ...network], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
}

async function untilReady(qemu: ChildProcess): Promise<string[]> {
  assert(qemu.stdout !== null);
  const lines: string[] = [];
  for await (const line of createInterface({ input: qemu.stdout })) {
    lines.push(line);
    if (line.includes(readyLine)) return lines;
  }
  throw new Error(`QEMU ended before the guest was ready; the console said:\n${lines.join('\n')}`);
}

/** Sends `text` on a new connection and returns what comes back, `length` bytes. */
async function exchange(port: number, text: string, length: number): Promise<string> {
  const socket: Socket = connect(port, '127.0.0.1');
  try {
    socket.write(text);
    let answer = '';
    for await (const data of socket) {
      answer += String(data);
      if (answer.length >= length) break;
    }
    return answer;
  } finally {
    socket.destroy();
  }
}

async function sha256Of(url: string): Promise<string> {
  const hash = createHash('sha256');
  const response = await fetch(url);
  assert.equal(response.status, 200);
  assert(response.body !== null);
  for await (const part of response.body) hash.update(part);
  return hash.digest('hex');
}

/** Sends numbered datagrams one after the other from one socket; returns the answers. */
async function echoDatagrams(port: number, count: number): Promise<string[]> {
  const socket = createSocket('udp4');
  const answers: string[] = [];
  try {
    for (let number = 0; number < count; number++) {
      const answer = once(socket, 'message', { signal: AbortSignal.timeout(60_000) });
      socket.send(`datagram ${number}`, port, '127.0.0.1');
      answers.push(String((await answer)[0]));
    }
  } finally {
    socket.close();
  }
  return answers;
}

for (const machine of machines) {
  describe(`the demo guest on ${machine.machine} with ${machine.ramMebibytes} MiB`, { timeout: 600_000 }, () => {
    let ports: Ports;
    let qemu: ChildProcess | undefined;

    before(
      async () => {
        const guest = await buildGuest();
        ports = await freePorts();
        qemu = start(guest, machine, ports);
        const lines = await untilReady(qemu);
        assert.deepEqual(
          lines.filter((line) => line.includes('colo-guest:')),
          [],
        );
      },
      { timeout: bootMsMax },
    );

    after(async () => {
      if (qemu === undefined || qemu.exitCode !== null) return;
      const ended = once(qemu, 'exit');
      qemu.kill('SIGKILL');
      await ended;
    });

    test('/big is byte for byte what the host computes', async () => {
      assert.equal(await sha256Of(`http://127.0.0.1:${ports.http}/big`), downloadSha256(machine.big));
    });

    test('/small is byte for byte what the host computes, also at a limited rate', async () => {
      assert.equal(await sha256Of(`http://127.0.0.1:${ports.http}/small?rate=2m`), smallSha256());
    });

    test('redis counts', async () => {
      assert.equal(await exchange(ports.redis, 'INCR a\r\nINCR a\r\n', 8), ':1\r\n:2\r\n');
    });

    test('the session service echoes lines of several connections', async () => {
      const lines = Array.from({ length: 200 }, (_, number) => `line ${number}\n`).join('');
      const answers = await Promise.all([1, 2, 3].map(() => exchange(ports.echo, lines, lines.length)));
      assert.deepEqual(answers, [lines, lines, lines]);
    });

    test('UDP echo answers hundreds of datagrams of one peer', async () => {
      const answers = await echoDatagrams(ports.echo, 300);
      assert.deepEqual(
        answers,
        answers.map((_, number) => `datagram ${number}`),
      );
      assert.equal(answers.length, 300);
    });

    test('the guest calls where it is told to, and goes on as long as it is answered with its own words', async () => {
      const place = { host: '127.0.0.1', port: ports.call, listen: '127.0.0.1', address: guestAddress.gateway };
      const client = await CalledClient.start({ name: 'called', paceMs: 1, ...place }, systemClock);
      const report = await client.finish(60_000);
      assert.ok(report.ok && report.received > 1, report.detail);
      assert.match(await exchange(ports.call, 'call nobody 7\n', 8), /^refused: say call/);
      assert.match(await exchange(ports.call, `call ${guestAddress.gateway} 70000\n`, 8), /^refused: say call/);
    });

    test('the page dirtier accepts a rate and refuses nonsense', async () => {
      assert.match(await exchange(ports.dirty, 'dirty 1000 50\n', 30), /^dirtying 1000 pages every 50 ms\n$/);
      assert.match(await exchange(ports.dirty, 'dirty everything\n', 30), /^refused: /);
    });
  });
}
