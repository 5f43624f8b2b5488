// How the demo's clients reach the guest: from a host of their own on the guest's link, over IPv4 and IPv6 (host.ts),
// or, where this machine allows no network namespace, through QEMU's user network, whose forwarded ports are IPv4 only.
// What is left out then is said, not hidden.

import type { Clock } from '../../base/clock.ts';
import { errorText } from '../../base/errors.ts';
import { type Forward, freePorts } from '../../lan/gateway.ts';
import type { Client } from './client.ts';
import { type Served, startClient, type WantedClient } from './clients.ts';
import { ClientHost } from './host.ts';

export type EntranceKind = 'link' | 'gateway';

export interface Entrance {
  kind: EntranceKind;
  /** One line about it, for people. */
  text: string;
  /** Why IPv6 is not tried; undefined when it is. */
  ipv6Refusal: string | undefined;
  /** What the pair needs for it. */
  network: { gateway: boolean; forwards: Forward[] };
  clients: readonly WantedClient[];
  /**
   * Call it when the switch listens at `lanPath`, before any client starts. On the link, `pcap` is a file for all
   * frames.
   */
  join(lanPath: string, pcap?: string): Promise<void>;
  start(wanted: WantedClient): Promise<Client>;
  close(): Promise<void>;
}

export async function openEntrance(options: {
  clients?: EntranceKind | 'auto';
  served: Served;
  clock: Clock;
}): Promise<Entrance> {
  const { clients = 'auto', served, clock } = options;
  if (clients === 'gateway') return gatewayEntrance(served, clock, 'the gateway was asked for');
  let host: ClientHost;
  try {
    host = await ClientHost.open(clock);
  } catch (error) {
    if (clients === 'link') throw error;
    return gatewayEntrance(served, clock, `no network namespace with a TAP here: ${errorText(error)}`);
  }
  return linkEntrance(host, served);
}

function linkEntrance(host: ClientHost, served: Served): Entrance {
  const { ipv6Refusal } = host;
  const where = "clients stand in a network namespace of their own on the guest's link";
  return {
    kind: 'link',
    text: ipv6Refusal === undefined ? `${where}, IPv4 and IPv6` : `${where}; IPv6 is NOT tried: ${ipv6Refusal}`,
    ipv6Refusal,
    network: { gateway: false, forwards: [] },
    clients: served.link({ ipv6: ipv6Refusal === undefined }),
    join: (lanPath, pcap) => host.connect(lanPath, pcap),
    start: (wanted) => host.start(wanted),
    close: () => host.stop(),
  };
}

async function gatewayEntrance(served: Served, clock: Clock, why: string): Promise<Entrance> {
  const hostPorts = await freePorts(served.forwarded.length);
  const forwards = served.forwarded.map((one, index): Forward => ({ ...one, hostPort: hostPorts[index] ?? 0 }));
  return {
    kind: 'gateway',
    text: `clients come through QEMU's user network; IPv6 is NOT tried, its forwarded ports are IPv4 only (${why})`,
    ipv6Refusal: why,
    network: { gateway: true, forwards },
    clients: served.gateway(hostPorts),
    join: () => Promise.resolve(),
    start: (wanted) => startClient(wanted, clock),
    close: () => Promise.resolve(),
  };
}
