// The process in the clients' namespace (host.ts). It ends when its starter is gone; Ctrl-C is its starter's to
// handle, who wants to end in order.

import { openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { guestAddress, guestIpv6 } from '../../../guest/recipe.ts';
import { delay, systemClock, wallTime } from '../../base/clock.ts';
import { ColoError, errorCodes, errorText } from '../../base/errors.ts';
import { openLog } from '../../base/log.ts';
import { connectForFrames } from '../../netdev/endpoint.ts';
import type { FrameSocket } from '../../netdev/frame-socket.ts';
import { addIpv4Address, addIpv6Address } from '../../netdev/interface.ts';
import { TapUplink } from '../../netdev/tap.ts';
import { pcapHeader, pcapRecord } from '../../packet/pcap.ts';
import type { Client } from './client.ts';
import { startClient } from './clients.ts';
import type { Answer, Order } from './host-message.ts';

const progressMs = 100;
const addressTries = 250;
const addressPollMs = 20;
const device = 'net0';
const tentative = 0x40;

const clock = systemClock;
const clients: (Client | undefined)[] = [];
let lan: FrameSocket | undefined;
let pcap: number | undefined;

function say(answer: Answer): void {
  process.send?.(answer, undefined, {}, () => undefined);
}

async function main(): Promise<void> {
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, () => undefined);
  process.on('disconnect', () => process.exit(0));
  // Nobody had listened yet.
  if (!process.connected) process.exit(0);
  withoutIpv6Questions();
  const handlers = { frame: toLan, closed: () => process.exit(1) };
  const tap = await TapUplink.open({ name: device, bridge: undefined, log: openLog({ level: 'silent' }) }, handlers);
  addIpv4Address(device, ipv4Bytes(guestAddress.gateway), guestAddress.prefixBits);
  const ipv6Refusal = await takeIpv6Address();
  process.on('message', (order: Order) => {
    obey(order, tap).catch((error: unknown) => say({ is: 'failed', why: errorText(error) }));
  });
  clock.every(progressMs, () => {
    const all = clients.map((one) => ({ text: one?.progress() ?? '', gapMs: one?.takeGap() ?? 0 }));
    say({ is: 'progress', all });
  });
  say({ is: 'namespace-ready', ipv6Refusal });
}

async function obey(order: Order, tap: TapUplink): Promise<void> {
  switch (order.do) {
    case 'connect':
      if (order.pcap !== undefined) {
        pcap = openSync(order.pcap, 'w', 0o600);
        writeSync(pcap, pcapHeader);
      }
      lan = await connectForFrames(order.path, { frame: (frame) => toClients(frame, tap), closed: () => undefined });
      return say({ is: 'connected' });
    case 'start':
      clients[order.index] = await startClient(order.wanted, clock);
      return say({ is: 'started', index: order.index });
    case 'mark':
      return clients[order.index]?.markFault();
    case 'abort':
      return clients[order.index]?.abort();
    case 'finish': {
      const report = await clients[order.index]?.finish(order.deadlineMs);
      if (report !== undefined) say({ is: 'finished', index: order.index, report });
    }
  }
}

function toLan(frame: Uint8Array): void {
  record(frame);
  lan?.send(frame);
}

function toClients(frame: Uint8Array, tap: TapUplink): void {
  record(frame);
  tap.send(frame);
}

function record(frame: Uint8Array): void {
  if (pcap !== undefined) writeSync(pcap, pcapRecord(frame, wallTime(clock.now())));
}

/** Nobody else is on this link: its addresses need no question whether they are taken. */
function withoutIpv6Questions(): void {
  try {
    for (const setting of ['accept_dad', 'router_solicitations', 'accept_ra'])
      writeFileSync(`/proc/sys/net/ipv6/conf/default/${setting}`, '0');
  } catch {
    // Where /proc is read-only the address is usable a second later.
  }
}

/** Undefined when the address can be used; otherwise why not. */
async function takeIpv6Address(): Promise<string | undefined> {
  try {
    addIpv6Address(device, ipv6Bytes(guestIpv6.host), guestIpv6.prefixBits);
    for (let index = 0; index < addressTries; index += 1) {
      if (isUsable(guestIpv6.host)) return undefined;
      await delay(addressPollMs);
    }
    throw new ColoError(errorCodes.timeout, 'the address does not become usable');
  } catch (error) {
    return `this kernel gives the namespace no IPv6 address (${errorText(error)})`;
  }
}

function isUsable(address: string): boolean {
  const wanted = Buffer.from(ipv6Bytes(address)).toString('hex');
  const line = readFileSync('/proc/self/net/if_inet6', 'latin1')
    .split('\n')
    .find((each) => each.startsWith(wanted));
  const [, , , , flags = '40'] = (line ?? '').split(/\s+/);
  return (Number.parseInt(flags, 16) & tentative) === 0;
}

function ipv4Bytes(text: string): Uint8Array {
  return Uint8Array.from(text.split('.').map(Number));
}

function ipv6Bytes(text: string): Uint8Array {
  const [left = '', right = ''] = text.split('::');
  const words = (part: string) => (part === '' ? [] : part.split(':').map((word) => Number.parseInt(word, 16)));
  const [first, last] = [words(left), words(right)];
  const all = [...first, ...Array.from({ length: 8 - first.length - last.length }, () => 0), ...last];
  return Uint8Array.from(all.flatMap((word) => [word >> 8, word & 0xff]));
}

try {
  await main();
} catch (error) {
  process.stderr.write(`${errorText(error)}\n`);
  process.exit(1);
}
