// The proxy between real stacks: the demo's guest under the demo's clients, protected, recorded by network.pcap. What was
// released is judged from the files alone.

import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { buildGuest } from '../../guest/build.ts';
import { readyLine } from '../../guest/recipe.ts';
import { systemClock } from '../../src/base/clock.ts';
import { checkSpec } from '../../src/config/spec.ts';
import { consoleSays } from '../../src/demo/console.ts';
import { DownloadClient } from '../../src/demo/download.ts';
import { echoRules, LineClient } from '../../src/demo/lines.ts';
import { freePorts } from '../../src/lan/gateway.ts';
import { LocalPair } from '../../src/local/pair.ts';
import { FrameView } from '../../src/packet/frame-view.ts';
import { pcapHeader } from '../../src/packet/pcap.ts';
import { distance } from '../../src/packet/sequence.ts';
import { assertValid } from '../../src/proxy/testbed.ts';

/** The frames of a leg, as far as its two files hold them. */
function framesOfLeg(folder: string, leg: string): Uint8Array[] {
  const paths = ['.old.pcap', '.pcap'].map((ending) => join(folder, `proxy-pcap-a-${leg}${ending}`));
  return paths.filter((path) => existsSync(path)).flatMap((path) => framesOf(path));
}

function framesOf(path: string): Uint8Array[] {
  const bytes = readFileSync(path);
  const frames: Uint8Array[] = [];
  for (let at = pcapHeader.length; at + 16 <= bytes.length; ) {
    const length = bytes.readUInt32LE(at + 8);
    frames.push(bytes.subarray(at + 16, at + 16 + length));
    at += 16 + length;
  }
  return frames;
}

/** A connection as the released leg shows it. */
interface Seen {
  ack: number;
  time: number | undefined;
}

test('what real stacks are sent is valid, and acknowledgements and timestamps never go back', {
  timeout: 240_000,
}, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'colo-pcap-'));
  const guest = await buildGuest({ onProgress: () => undefined });
  const [http = 0, echo = 0] = await freePorts(2);
  const forwards = [
    { protocol: 'tcp' as const, hostPort: http, guestPort: guest.ports.http },
    { protocol: 'tcp' as const, hostPort: echo, guestPort: guest.ports.echoTcp },
  ];
  const spec = checkSpec({ vm: 'proxy-pcap', boot: { guest: 'demo' }, network: { pcap: folder } }, 'test');
  const boot = { kernel: guest.kernel, initrd: guest.initrd, cmdline: guest.cmdline };
  const pair = await LocalPair.start({ spec, boot, clock: systemClock, forwards });
  try {
    await consoleSays(pair.a, { text: readyLine, path: `${pair.logDir}/a.serial`, timeoutMs: 120_000 });
    await pair.startSecondary();
    await pair.until('protected', 120_000, (all) => all.some((one) => one.role === 'primary' && one.protected));
    const { downloadPath: path, downloadBytes, downloadSha256: sha256 } = guest.files;
    const download = await DownloadClient.start({ port: http, path, bytes: downloadBytes, sha256 }, systemClock);
    const line = await LineClient.start(echoRules(echo), systemClock);
    // A starved host may lose the protection for a moment: what is judged is what was compared.
    await pair.until('compared', 120_000, (all) => all.some((one) => (one.released?.byMatch ?? 0) > 500));
    const reports = [await line.finish(60_000), await download.finish(60_000)];
    for (const report of reports) assert.ok(report.ok, `${report.name}: ${report.detail}`);
    await pair.stop();
    judge(folder);
  } finally {
    await pair.stop();
    rmSync(folder, { recursive: true });
  }
});

function judge(folder: string): void {
  const released = framesOfLeg(folder, 'released');
  const secondary = framesOfLeg(folder, 'secondary');
  assert.ok(released.length > 100 && secondary.length > 100);
  const connections = new Map<string, Seen>();
  for (const frame of released) {
    assertValid(frame);
    const view = new FrameView().parse(frame);
    if (view.kind !== 'tcp' || view.isReset || !view.hasAck) continue;
    follow(connections, view);
  }
  assert.ok(connections.size > 0);
}

function follow(connections: Map<string, Seen>, view: FrameView): void {
  const name = `${view.key.b0} ${view.key.ports}`;
  const time = view.timestampsAt === 0 ? undefined : view.timestamp;
  const before = view.isSyn ? undefined : connections.get(name);
  connections.set(name, { ack: view.ack, time });
  if (before === undefined) return;
  assert.ok(distance(view.ack, before.ack) >= 0, `the acknowledgement of ${name} goes back`);
  if (before.time !== undefined && time !== undefined) assert.ok(distance(time, before.time) >= 0, 'TSval goes back');
}
