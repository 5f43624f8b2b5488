// Faults of the network and of the arbiter, one after the other on one cluster of three hosts (network namespaces;
// needs root). The clients are those of the beginning: after all of it each has its one connection and every reply in
// order, and a capture at the ports of the bridges has heard one host at a time. The guest has two cards, each on a
// network of its own.

import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { buildGuest, type Guest } from '../../guest/build.ts';
import { readyLine } from '../../guest/recipe.ts';
import type { NodeStatus } from '../../src/api/node-status.ts';
import { delay, systemClock } from '../../src/base/clock.ts';
import { checkSpec } from '../../src/config/spec.ts';
import { uplinkSickMs } from '../../src/controller/limits.ts';
import type { Client } from '../../src/demo/clients/client.ts';
import { DatagramClient } from '../../src/demo/clients/datagrams.ts';
import { echoRules, LineClient, redisRules } from '../../src/demo/clients/lines.ts';
import { consoleSays } from '../../src/demo/console.ts';
import { runCommand } from '../../src/host/command.ts';
import { clusterPackages, ensurePackages, faultPackages } from '../../src/host/packages.ts';
import { type Loss, labName, labRefusal } from '../../src/lab/lab.ts';
import { LocalCluster } from '../../src/lab/vm-nodes.ts';
import { spawnChild } from '../../src/local/namespace.ts';

const refusal = await labRefusal();
const waitMs = 240_000;
/** Made of the guest's MAC, as its kernel does (EUI-64). */
const linkLocal = 'fe80::5054:ff:fe12:3456';
/** The address of the guest's second card, which is on a network of its own. */
const secondAddress = '10.0.3.15';
const linkLocalHex = 'fe80000000000000505400fffe123456';

describe('faults of the network', refusal === undefined ? {} : { skip: refusal }, () => {
  let guest: Guest;
  let cluster: LocalCluster;
  const clients: Client[] = [];
  /** Hosts that may have spoken for the guest, in turn. */
  const turns = ['h1'];

  before(async () => {
    await ensurePackages([...clusterPackages, ...faultPackages], { why: 'lose packets between hosts' });
    guest = await buildGuest();
    const cards = [{ mac: '52:54:00:12:34:57', address: secondAddress, bridge: 'br1', mtu: 1400 }];
    const spec = checkSpec({ vm: 'network', boot: { guest: 'demo' }, cards, protect: { mode: 'colo' } }, 'the test');
    const boot = { kernel: guest.kernel, initrd: guest.initrd, cmdline: guest.cmdline };
    cluster = await LocalCluster.start({ spec, boot, hosts: 3, clock: systemClock });
    const path = cluster.serialLog('h1');
    await consoleSays(cluster.node('h1'), { text: readyLine, path, timeoutMs: waitMs });
    await cluster.startCandidates();
    const host = spec.network.address;
    clients.push(await LineClient.start({ ...redisRules(guest.ports.redis), host }, systemClock));
    clients.push(await LineClient.start({ ...echoRules(guest.ports.echoTcp), host }, systemClock));
    clients.push(await DatagramClient.start({ host, port: guest.ports.echoUdp }, systemClock));
    clients.push(await LineClient.start({ ...echoRules(guest.ports.echoTcp), host: secondAddress }, systemClock));
  });

  after(async () => {
    for (const client of clients) client.abort();
    await cluster?.stop();
  });

  /** Waits until the VM is protected, and tells by whom and at which term. */
  async function roles(): Promise<{ primary: string; secondary: string; term: number }> {
    const by = (all: NodeStatus[], role: string) => all.find((one) => one.role === role && one.protected);
    const all = await cluster.until('protected', waitMs, (seen) =>
      ['primary', 'secondary'].every((role) => by(seen, role) !== undefined),
    );
    const primary = by(all, 'primary');
    assert.ok(primary !== undefined);
    // A starved host may have been suspected wrongly, and another one gone on.
    if (primary.node !== turns.at(-1)) turns.push(primary.node);
    return { primary: primary.node, secondary: by(all, 'secondary')?.node ?? '', term: primary.term };
  }

  /** Every client gets replies now. */
  async function served(): Promise<void> {
    const before = clients.map((client) => Number.parseInt(client.progress(), 10));
    await cluster.until('serving', waitMs, () =>
      clients.every((client, index) => Number.parseInt(client.progress(), 10) >= (before[index] ?? 0) + 10),
    );
  }

  /** Does it, and waits until the arbiter has decided who goes on, and that one serves. Resolves to who it is. */
  async function strike(
    act: (primary: string, secondary: string) => Promise<() => Promise<unknown> | void>,
  ): Promise<{ before: string; heir: string; now: string }> {
    await roles();
    await served();
    const { primary, secondary, term } = await roles();
    const undo = await act(primary, secondary);
    const decided = await cluster.until('decided', waitMs, (all) =>
      all.some((one) => one.role === 'primary' && one.term > term),
    );
    const now = decided.find((one) => one.role === 'primary' && one.term > term)?.node ?? '';
    if (now !== primary) turns.push(now);
    await served();
    await undo();
    await roles();
    return { before: primary, heir: secondary, now };
  }

  /** The port of a host's bridge that is its node's TAP. */
  async function tapOf(host: string, bridge: string): Promise<string> {
    const ports = await runCommand('ip', ['-n', cluster.lab.namespace(host), '-o', 'link', 'show', 'master', bridge]);
    return /\d+: (colo\d+)/.exec(ports)?.[1] ?? assert.fail(ports);
  }

  const losing = (name: string, family: 'inet' | 'bridge', rules: Loss[]) => cluster.lab.lose(name, { family, rules });

  /** Rules that lose the given links of a host, in both directions. */
  async function lossOf(host: string, kinds: string[]): Promise<Loss[]> {
    const linksOf = (all: NodeStatus[]) =>
      all.find((one) => one.node === host)?.links?.filter((link) => kinds.includes(link.kind)) ?? [];
    const all = await cluster.until('linked', waitMs, (seen) => linksOf(seen).length === kinds.length);
    const links = linksOf(all);
    const port = (end: string) => end.slice(end.lastIndexOf(':') + 1);
    return links.flatMap(({ local, remote }) => [
      { hook: 'output' as const, match: `tcp sport ${port(local)} tcp dport ${port(remote)}` },
      { hook: 'input' as const, match: `tcp sport ${port(remote)} tcp dport ${port(local)}` },
    ]);
  }

  test('strangers that knock at the ports of links as fast as they can cost neither the lease nor the protection', async () => {
    const { primary, secondary, term } = await roles();
    const stranger = cluster.lab.hosts.find((name) => name !== primary && name !== secondary) ?? assert.fail();
    const knocks = 4000;
    // A primary dials, and does not listen.
    const places = [cluster.linkOf(secondary)];
    const program = join(import.meta.dirname, 'knock.ts');
    const child = spawnChild(process.execPath, [program, String(knocks), ...places], {
      ...{ stdio: ['ignore', 'pipe', 'inherit'], namespace: cluster.lab.namespace(stranger) },
    });
    let said = '';
    child.stdout?.on('data', (bytes: Buffer) => {
      said += bytes.toString();
    });
    await Promise.all([once(child, 'close'), served()]);
    assert.equal(said, `${knocks}\n`);
    await served();
    const now = await roles();
    // A host that is starved of its processor may be suspected wrongly, and says so: that is not the strangers' doing.
    const isStarved = (await cluster.statuses()).some((one) =>
      /hardly ran/.test(one.process?.loop.longest?.cause ?? ''),
    );
    if (!isStarved) assert.equal(now.term, term);
    const refusals = readFileSync(cluster.log(secondary), 'utf8').match(/"msg":"connections were refused"/g) ?? [];
    assert.ok(refusals.length > 0 && refusals.length <= 4, `${refusals.length} lines`);
  });

  test('what the primary sends is lost: the secondary takes over and announces all addresses of the guest', async () => {
    await roles();
    const socket = createSocket('udp6');
    const known = async () => {
      socket.send('who are you?', 9, `${linkLocal}%net0`, () => undefined);
      const space = cluster.lab.clientNamespace;
      return (await runCommand('ip', ['-n', space, 'neigh', 'show', linkLocal, 'dev', 'net0'])).includes('52:54');
    };
    try {
      for (const deadline = systemClock.now() + waitMs; !(await known()); await delay(50))
        assert.ok(systemClock.now() < deadline, 'the guest did not say where its IPv6 address is');
    } finally {
      socket.close();
    }
    const { heir, now } = await strike((primary) =>
      losing(labName, 'bridge', [{ hook: 'forward', match: `iifname "${primary}"` }]),
    );
    assert.equal(now, heir);
    const timesOf = (address: string) =>
      cluster.announced().filter((one) => one.host === heir && one.address === address).length;
    for (const address of ['0a00020f', '0a00030f', linkLocalHex])
      await cluster.until(`${address} announced four times`, waitMs, () => timesOf(address) >= 4);
  });

  test('a card has told the guest its MTU', async () => {
    const filter = ['dst', secondAddress];
    const sockets = await runCommand('ip', ['netns', 'exec', cluster.lab.clientNamespace, 'ss', '-tin', ...filter]);
    // Without headers of 40 bytes, and 12 of timestamps.
    assert.match(sockets, /\bmss:1348\b/);
  });

  test('what is sent to the primary is lost: the secondary takes over', async () => {
    const { heir, now } = await strike((primary) =>
      losing(labName, 'bridge', [{ hook: 'forward', match: `oifname "${primary}"` }]),
    );
    assert.equal(now, heir);
  });

  test('the beats alone are lost: one of both goes on', async () => {
    await strike(async (primary) => losing(primary, 'inet', await lossOf(primary, ['beat'])));
  });

  test('the packets and the state alone are lost, while the beats go on: one of both goes on', async () => {
    await strike(async (primary) => losing(primary, 'inet', await lossOf(primary, ['packet', 'bulk'])));
  });

  test('a host that is stopped and wakes after the takeover says nothing more', async () => {
    const { before: sleeper, heir, now } = await strike(async (primary) => cluster.stopHost(primary));
    assert.equal(now, heir);
    await cluster.until(`${sleeper} a candidate`, waitMs, (all) =>
      all.some((one) => one.node === sleeper && one.role === 'secondary'),
    );
  });

  test("the leader of etcd dies together with the primary's node", async () => {
    const { heir, now } = await strike(async (primary) => {
      const leader = await cluster.etcdLeader();
      await Promise.all([cluster.killEtcd(leader), cluster.killNode(primary)]);
      return async () => {
        cluster.restartEtcd(leader);
        await cluster.restartNode(primary);
      };
    });
    assert.equal(now, heir);
  });

  test("half of what is said to the arbiter is lost while the primary's node dies", async () => {
    const match = 'tcp dport 2379 numgen random mod 2 < 1';
    const { heir, now } = await strike(async (primary, secondary) => {
      const heal = await losing(secondary, 'inet', [{ hook: 'output', match }]);
      await cluster.killNode(primary);
      return async () => {
        await heal();
        await cluster.restartNode(primary);
      };
    });
    assert.equal(now, heir);
  });

  test('without a majority of etcd a protected VM runs on; when its secondary dies, nobody goes on before it is back', async () => {
    const { primary, secondary, term } = await roles();
    const third = cluster.lab.hosts.find((host) => host !== primary && host !== secondary) ?? '';
    await Promise.all([cluster.killEtcd(secondary), cluster.killEtcd(third)]);
    await cluster.until(
      'the loss is said',
      waitMs,
      (all) => all.length === 3 && all.every((one) => one.arbiter !== null),
    );
    await served();
    await cluster.killNode(secondary);
    const doubting = await cluster.until('in doubt', waitMs, (all) =>
      all.some((one) => one.node === primary && one.state === 'suspecting'),
    );
    assert.deepEqual(
      doubting.filter((one) => one.role === 'primary').map(({ node, term }) => ({ node, term })),
      [{ node: primary, term }],
    );
    cluster.restartEtcd(secondary);
    const decided = await cluster.until('decided', waitMs, (all) =>
      all.some((one) => one.role === 'primary' && one.term > term),
    );
    assert.equal(decided.find((one) => one.role === 'primary')?.node, primary);
    await served();
    cluster.restartEtcd(third);
    await cluster.restartNode(secondary);
    await roles();
    await cluster.until(
      'its return is said',
      waitMs,
      (all) => all.length === 3 && all.every((one) => one.arbiter === null),
    );
  });

  test("the cable of one of the guest's networks is pulled on the primary's host: the secondary takes over", async () => {
    const { heir, now } = await strike(async (primary) => {
      await cluster.lab.setLink(primary, false, 1);
      return () => cluster.lab.setLink(primary, true, 1);
    });
    assert.equal(now, heir);
  });

  test("a bridge of the primary's host is made anew: its TAP becomes a port of it again, and nobody takes over", async () => {
    const { primary, term } = await roles();
    const space = cluster.lab.namespace(primary);
    const device = await tapOf(primary, 'br1');
    await runCommand('ip', ['-n', space, 'link', 'set', device, 'nomaster', 'down']);
    await served();
    assert.equal((await roles()).term, term);
  });

  test('the cables of that network are pulled on both hosts: the VM stays where it is, and both say so', async () => {
    const { primary, secondary, term } = await roles();
    const problemsOf = (all: NodeStatus[], node: string) =>
      all.find((one) => one.node === node)?.problems?.join() ?? '';
    await cluster.lab.setLink(secondary, false, 1);
    await cluster.until('the secondary is known to be cut off', waitMs, (all) =>
      /would not be reached through the secondary: card 1/.test(problemsOf(all, primary)),
    );
    await cluster.lab.setLink(primary, false, 1);
    const sick = /not reached through this node: card 1: no port of the bridge br1 has a link/;
    await cluster.until('both say so', waitMs, (all) =>
      [primary, secondary].every((node) => sick.test(problemsOf(all, node))),
    );
    // Time enough to hand over, were the secondary well.
    const end = systemClock.now() + 3 * uplinkSickMs;
    await cluster.until('time has passed', waitMs, () => systemClock.now() > end);
    await cluster.lab.setLink(primary, true, 1);
    await cluster.lab.setLink(secondary, true, 1);
    await served();
    const after = await roles();
    assert.deepEqual([after.primary, after.term], [primary, term]);
    await cluster.until('all is well', waitMs, (all) => all.every(({ problems = [] }) => problems.length === 0));
  });

  test('no client has lost a connection or a reply, and one host spoke at a time', async () => {
    for (const report of await Promise.all(clients.map((client) => client.finish(120_000))))
      assert.equal(report.ok, true, `${report.name}: ${report.detail}`);
    for (const card of [0, 1]) assert.deepEqual(cluster.voices(card), turns, `card ${card}`);
  });
});
