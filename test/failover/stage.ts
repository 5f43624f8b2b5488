// The stage of the failover tests: a real pair with the demo guest, and clients that check every reply. Each test names
// its own VM, so that a run that a person has started is not disturbed.

import { downloadSha256 } from '../../guest/big-file.ts';
import { buildGuest } from '../../guest/build.ts';
import { readyLine } from '../../guest/recipe.ts';
import { callNode } from '../../src/api/client.ts';
import type { NodeStatus } from '../../src/api/status.ts';
import { systemClock } from '../../src/base/clock.ts';
import { checkSpec, type SpecInput } from '../../src/config/spec.ts';
import type { Client, ClientReport } from '../../src/demo/client.ts';
import { consoleSays } from '../../src/demo/console.ts';
import { DatagramClient } from '../../src/demo/datagrams.ts';
import { DownloadClient } from '../../src/demo/download.ts';
import { echoRules, LineClient, redisRules } from '../../src/demo/lines.ts';
import { RegisterClient } from '../../src/demo/register.ts';
import { freePorts } from '../../src/lan/gateway.ts';
import { withoutLate } from '../../src/lan/turns.ts';
import { LocalPair, type PairOptions } from '../../src/local/pair.ts';

export interface Stage {
  pair: LocalPair;
  mac: string;
  /** Of this machine: where the guest's services are. */
  ports: { redis: number; echo: number; dirty: number };
  clients: Client[];
  /** Takes a checkpoint and waits for it; rejects when the primary is gone. */
  checkpoint(): Promise<unknown>;
  checkpointAt(node: 'a' | 'b'): Promise<unknown>;
  /** Ends the clients; every one must have seen exactly what it had to see. */
  finish(): Promise<ClientReport[]>;
  close(): Promise<void>;
}

/** The file that is downloaded over and over, and how fast: a load beside the others, not instead of them. */
const bigMebibytes = 4;
const downloadBytesPerSecondMax = 2 << 20;
/** What counts as a reply in a download. */
const downloadReplyBytes = 16 << 10;
const bootTimeoutMs = 120_000;
const protectTimeoutMs = 120_000;

export async function setStage(options: {
  vm: string;
  protect?: SpecInput['protect'];
  machine?: SpecInput['machine'];
  dieAt?: PairOptions['dieAt'];
  reachAt?: PairOptions['reachAt'];
}): Promise<Stage> {
  const guest = await buildGuest();
  const [redis = 0, echo = 0, udp = 0, dirty = 0, http = 0] = await freePorts(5);
  const spec = checkSpec(
    {
      vm: options.vm,
      boot: { guest: 'demo' },
      machine: options.machine ?? {},
      protect: { verify: true, ...options.protect },
    },
    'the test',
  );
  const pair = await LocalPair.start({
    spec,
    boot: { kernel: guest.kernel, initrd: guest.initrd, cmdline: `${guest.cmdline} colo.big=${bigMebibytes}` },
    clock: systemClock,
    forwards: [
      { protocol: 'tcp', hostPort: redis, guestPort: guest.ports.redis },
      { protocol: 'tcp', hostPort: echo, guestPort: guest.ports.echoTcp },
      { protocol: 'udp', hostPort: udp, guestPort: guest.ports.echoUdp },
      { protocol: 'tcp', hostPort: dirty, guestPort: guest.ports.dirty },
      { protocol: 'tcp', hostPort: http, guestPort: guest.ports.http },
    ],
    ...(options.dieAt === undefined ? {} : { dieAt: options.dieAt }),
    ...(options.reachAt === undefined ? {} : { reachAt: options.reachAt }),
  });
  const clients: Client[] = [];
  const checkpointAt = (node: 'a' | 'b') =>
    callNode({ socketPath: pair[node]?.apiPath ?? '', method: 'POST', path: '/checkpoint', timeoutMs: 30_000 });
  const close = async () => {
    for (const client of clients) client.abort();
    await pair.stop();
  };
  try {
    await consoleSays(pair.a, { text: readyLine, path: `${pair.logDir}/a.serial`, timeoutMs: bootTimeoutMs });
    clients.push(await LineClient.start(redisRules(redis), systemClock));
    clients.push(await LineClient.start(echoRules(echo), systemClock));
    clients.push(await RegisterClient.start(redis, systemClock));
    clients.push(await DatagramClient.start({ port: udp }, systemClock));
    clients.push(
      await DownloadClient.start(
        {
          ...{ port: http, path: guest.files.downloadPath, bytes: bigMebibytes << 20 },
          ...{ sha256: downloadSha256(bigMebibytes), bytesPerSecondMax: downloadBytesPerSecondMax },
        },
        systemClock,
      ),
    );
    return {
      pair,
      mac: spec.network.mac,
      ports: { redis, echo, dirty },
      clients,
      checkpoint: () => checkpointAt('a'),
      checkpointAt,
      finish: () => Promise.all(clients.map((client) => client.finish(60_000))),
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Starts the secondary and waits until the VM is protected. */
export async function protect(stage: Stage): Promise<void> {
  await stage.pair.startSecondary();
  await stage.pair.until('protected', protectTimeoutMs, (all) =>
    all.some((one) => one.role === 'primary' && one.protected),
  );
}

/** Waits until every client has got so many further replies. */
export async function served(stage: Stage, replies: number): Promise<void> {
  const repliesOf = (client: Client) =>
    client instanceof DownloadClient
      ? Math.floor(client.bytes / downloadReplyBytes)
      : Number.parseInt(client.progress(), 10);
  const before = stage.clients.map(repliesOf);
  await stage.pair.until('serving', 60_000, () =>
    stage.clients.every((client, index) => repliesOf(client) >= (before[index] ?? 0) + replies),
  );
}

/** Waits until `node` is the primary after a change of who runs the VM. */
export function survives(stage: Stage, node: 'a' | 'b'): Promise<NodeStatus[]> {
  return stage.pair.until(`taken over by ${node}`, 60_000, (all) =>
    all.some((one) => one.node === node && one.role === 'primary' && one.failover !== null),
  );
}

/** The ports of the switch from which the guest's address spoke, one entry for each turn; what left late is none. */
export function voices(stage: Stage): number[] {
  return withoutLate(stage.pair.lan.spokenBy(stage.mac)).turns.map(({ port }) => port);
}
