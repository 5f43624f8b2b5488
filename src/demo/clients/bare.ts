// The bare guest's clients: a download of known bytes, bytes that come back, numbered lines on two connections, lines
// that are answered with the time (which the two copies never agree on, so each costs a checkpoint), and datagrams.

import { barePorts, knownSha256 } from '../../../guest/bare/guest.ts';
import { guestAddress } from '../../../guest/recipe.ts';
import type { Served, WantedClient } from './clients.ts';

/** What is downloaded over and over: small, because the host makes these bytes too, to know their sum. */
const downloadBytes = 4 << 20;
/** Both copies and all nodes share the host's cores, and this guest never rests. */
const usualBytesPerSecondMax = 2 << 20;
const timesPaceMs = 500;

interface Ports {
  http: number;
  echo: number;
  numbered: number;
  times: number;
  udp: number;
}

/** `downloadBytesPerSecondMax` Infinity: as fast as it goes. */
export function servedByBare(downloadBytesPerSecondMax = usualBytesPerSecondMax): Served {
  const { http, echoTcp, numberedTcp, timesTcp, echoUdp } = barePorts;
  const tcp = (guestPort: number) => ({ protocol: 'tcp' as const, guestPort });
  return {
    link: () => {
      const ports = { http, echo: echoTcp, numbered: numberedTcp, times: timesTcp, udp: echoUdp };
      return bareClients(guestAddress.address, ports, downloadBytesPerSecondMax);
    },
    forwarded: [tcp(http), tcp(echoTcp), tcp(numberedTcp), tcp(timesTcp), { protocol: 'udp', guestPort: echoUdp }],
    gateway: ([toHttp = 0, echo = 0, numbered = 0, times = 0, udp = 0]) =>
      bareClients('127.0.0.1', { http: toHttp, echo, numbered, times, udp }, downloadBytesPerSecondMax),
  };
}

function bareClients(host: string, ports: Ports, bytesPerSecondMax: number): WantedClient[] {
  return [
    {
      ...{ kind: 'download', host, port: ports.http, path: `/${downloadBytes}`, bytes: downloadBytes },
      ...{ sha256: knownSha256(downloadBytes) },
      ...(bytesPerSecondMax === Infinity ? {} : { bytesPerSecondMax }),
    },
    { kind: 'echo', name: 'echo', host, port: ports.echo, paceMs: 20 },
    { kind: 'numbered', name: 'numbered', host, port: ports.numbered, paceMs: 20 },
    { kind: 'numbered', name: 'numbered2', host, port: ports.numbered, paceMs: 30 },
    { kind: 'times', name: 'times', host, port: ports.times, paceMs: timesPaceMs },
    { kind: 'udp', name: 'udp', host, port: ports.udp, paceMs: 20 },
  ];
}
