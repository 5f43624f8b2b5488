// The demo's clients by name: what a client is and where its guest stands, as data, so that a client can be started in
// this process or in another one (host.ts).

import type { Guest } from '../../../guest/build.ts';
import { guestAddress, guestIpv6 } from '../../../guest/recipe.ts';
import type { Clock } from '../../base/clock.ts';
import { CalledClient, type CalledRules } from './called.ts';
import type { Client } from './client.ts';
import { DatagramClient } from './datagrams.ts';
import { DownloadClient, type DownloadRules } from './download.ts';
import { echoRules, LineClient, numberedRules, redisRules, timesRules, uploadRules } from './lines.ts';

interface Place {
  name: string;
  host: string;
  port: number;
  paceMs: number;
}

export type PlacedClient = { kind: 'redis' | 'upload' | 'echo' | 'numbered' | 'times' | 'udp' } & Place;

export type WantedClient = ({ kind: 'download' } & DownloadRules) | PlacedClient | ({ kind: 'called' } & CalledRules);

/** Connects; an error when the guest does not answer. */
export function startClient(wanted: WantedClient, clock: Clock): Promise<Client> {
  switch (wanted.kind) {
    case 'download':
      return DownloadClient.start(wanted, clock);
    case 'redis':
      return LineClient.start({ ...redisRules(wanted.port, wanted.paceMs), ...wanted }, clock);
    case 'upload':
      return LineClient.start({ ...uploadRules(wanted.port), ...wanted }, clock);
    case 'echo':
      return LineClient.start({ ...echoRules(wanted.port, wanted.paceMs), ...wanted }, clock);
    case 'numbered':
      return LineClient.start({ ...numberedRules(wanted.port, wanted.paceMs), ...wanted }, clock);
    case 'times':
      return LineClient.start({ ...timesRules(wanted.port, wanted.paceMs), ...wanted }, clock);
    case 'udp':
      return DatagramClient.start(wanted, clock);
    case 'called':
      return CalledClient.start(wanted, clock);
  }
}

const loopback = '127.0.0.1';
/** Over IPv6 the demo shows that it works; how much it carries it shows over IPv4. */
const ipv6PaceMs = 40;

/** So that the two cores of a small host have something left for the other clients. */
const downloadBytesPerSecondMax = 16 << 20;

/** What a guest serves, as the clients that ask for it. */
export interface Served {
  /** Clients on the guest's own link. */
  link(has: { ipv6: boolean }): WantedClient[];
  /** What the gateway is to forward, and the clients of its ports, which come in the same order. */
  forwarded: readonly { protocol: 'tcp' | 'udp'; guestPort: number }[];
  gateway(hostPorts: readonly number[]): WantedClient[];
}

export function servedBy(guest: Guest): Served {
  const { http, redis, echoTcp, echoUdp, call } = guest.ports;
  const tcp = (guestPort: number) => ({ protocol: 'tcp' as const, guestPort });
  return {
    link: (has) => linkClients(guest, has),
    forwarded: [tcp(http), tcp(redis), tcp(echoTcp), { protocol: 'udp', guestPort: echoUdp }, tcp(call)],
    gateway: ([toHttp = 0, toRedis = 0, echo = 0, udp = 0, toCall = 0]) =>
      gatewayClients(guest, { http: toHttp, redis: toRedis, echo, udp, call: toCall }),
  };
}

/** Ports of 127.0.0.1 that lead to the guest's services. */
interface ForwardedPorts {
  http: number;
  redis: number;
  echo: number;
  udp: number;
  call: number;
}

/** Clients that reach the guest through the gateway: IPv4 only, and the guest calls the gateway's address. */
function gatewayClients(guest: Guest, ports: ForwardedPorts): WantedClient[] {
  const { downloadPath: path, downloadBytes: bytes, downloadSha256: sha256 } = guest.files;
  const host = loopback;
  return [
    { kind: 'download', host, port: ports.http, path, bytes, sha256 },
    { kind: 'redis', name: 'redis', host, port: ports.redis, paceMs: 10 },
    { kind: 'echo', name: 'echo', host, port: ports.echo, paceMs: 20 },
    { kind: 'udp', name: 'udp', host, port: ports.udp, paceMs: 20 },
    {
      ...{ kind: 'called', name: 'called', host, port: ports.call, paceMs: 20 },
      ...{ listen: loopback, address: guestAddress.gateway },
    },
  ];
}

/** Clients on the guest's own link. */
function linkClients(guest: Guest, has: { ipv6: boolean }): WantedClient[] {
  const { downloadPath: path, downloadBytes: bytes, downloadSha256: sha256 } = guest.files;
  const host = guestAddress.address;
  const { http, redis, echoTcp, echoUdp, call } = guest.ports;
  const overIpv4: WantedClient[] = [
    { kind: 'download', host, port: http, path, bytes, sha256, bytesPerSecondMax: downloadBytesPerSecondMax },
    { kind: 'redis', name: 'redis', host, port: redis, paceMs: 10 },
    { kind: 'echo', name: 'echo', host, port: echoTcp, paceMs: 20 },
    { kind: 'udp', name: 'udp', host, port: echoUdp, paceMs: 20 },
    {
      ...{ kind: 'called', name: 'called', host, port: call, paceMs: 20 },
      ...{ listen: '0.0.0.0', address: guestAddress.gateway },
    },
  ];
  if (!has.ipv6) return overIpv4;
  const at = { host: guestIpv6.address, paceMs: ipv6PaceMs };
  return [
    ...overIpv4,
    { kind: 'echo', name: 'echo6', port: echoTcp, ...at },
    { kind: 'udp', name: 'udp6', port: echoUdp, ...at },
    { kind: 'called', name: 'called6', port: call, ...at, listen: '::', address: guestIpv6.host },
  ];
}
