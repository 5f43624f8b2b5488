// The user-space switch with real sockets: who gets a frame for an address that lives behind a port, has moved, or is
// gone.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { connectForFrames } from '../netdev/endpoint.ts';
import type { FrameSocket } from '../netdev/frame-socket.ts';
import { addressAgeMs, addressesMax } from './limits.ts';
import { Switch } from './switch.ts';

const guest = '52:54:00:12:34:56';
const client = '52:54:00:00:00:01';
const everybody = 'ff:ff:ff:ff:ff:ff';

function frame(to: string, from: string, mark: number): Uint8Array {
  const address = (text: string) => text.split(':').map((part) => Number.parseInt(part, 16));
  return Uint8Array.from([...address(to), ...address(from), 0x88, 0xb5, mark, ...new Uint8Array(45)]);
}

/** Ports of a fresh switch; each notes the marks of the frames it got. */
async function lan(
  work: (
    ports: { socket: FrameSocket; got: number[]; marked(mark: number): Promise<void> }[],
    lan: Switch,
  ) => Promise<void>,
  now = () => 0,
) {
  const directory = mkdtempSync(join(tmpdir(), 'colo-lan-'));
  const path = join(directory, 'lan.sock');
  const network = new Switch(now);
  await network.listen(path);
  const ports = [];
  for (let index = 0; index < 3; index += 1) {
    const got: number[] = [];
    const waiting = new Map<number, () => void>();
    const take = (bytes: Uint8Array) => {
      got.push(bytes[14] ?? 0);
      waiting.get(bytes[14] ?? 0)?.();
    };
    const connected = network.nextPort();
    const socket = await connectForFrames(path, { frame: take, closed: () => undefined });
    await connected;
    const marked = (mark: number) =>
      got.includes(mark) ? Promise.resolve() : new Promise<void>((resolve) => void waiting.set(mark, resolve));
    ports.push({ socket, got, marked });
  }
  try {
    await work(ports, network);
  } finally {
    for (const port of ports) port.socket.close();
    await network.close();
    rmSync(directory, { recursive: true });
  }
}

test('a known address is reached through its port alone; an announcement moves it', async () => {
  await lan(async ([gateway, a, b], network) => {
    assert.ok(gateway && a && b);
    a.socket.send(frame(everybody, guest, 1));
    await Promise.all([gateway.marked(1), b.marked(1)]);
    gateway.socket.send(frame(guest, client, 2));
    await a.marked(2);
    b.socket.send(frame(everybody, guest, 3));
    await gateway.marked(3);
    gateway.socket.send(frame(guest, client, 4));
    await b.marked(4);
    assert.deepEqual(b.got, [1, 4], 'the unicast frame before the announcement went to the other port');
    assert.deepEqual(a.got, [2, 3]);
    assert.equal(network.spokenBy(guest).length, 2, 'two turns of speaking');
  });
});

test('when a port closes, frames for what lived behind it are flooded, so that a survivor gets them', async () => {
  await lan(async ([gateway, a, b]) => {
    assert.ok(gateway && a && b);
    a.socket.send(frame(everybody, guest, 1));
    await Promise.all([gateway.marked(1), b.marked(1)]);
    a.socket.close();
    // The switch learns of the close by itself; until then frames go to the dead port and are lost, as on any network.
    for (let mark = 2; mark < 200 && b.got.length < 2; mark += 1) {
      gateway.socket.send(frame(guest, client, mark));
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    await b.marked(b.got[1] ?? 2);
    assert.ok(b.got.length >= 2);
  });
});

test('who makes up addresses pushes out the silent ones, and an address that was silent for long is flooded for', async () => {
  let now = 0;
  await lan(
    async ([gateway, a, b]) => {
      assert.ok(gateway && a && b);
      const madeUp = (index: number) => `06:00:00:00:${(index >> 8).toString(16)}:${(index & 255).toString(16)}`;
      gateway.socket.send(frame(everybody, client, 1));
      await Promise.all([a.marked(1), b.marked(1)]);
      for (let index = 0; index < 2 * addressesMax; index += 1) {
        b.socket.send(frame(guest, madeUp(index), 99));
        if (index % 512 !== 0) continue;
        now += 2000;
        gateway.socket.send(frame(everybody, client, 2));
        a.socket.send(frame(client, guest, 3 + (index >> 9)));
        await gateway.marked(3 + (index >> 9));
      }
      assert.ok(!b.got.some((mark) => mark >= 3 && mark < 99), 'frames for the client went to its own port alone');
      now += addressAgeMs;
      a.socket.send(frame(client, guest, 60));
      await Promise.all([gateway.marked(60), b.marked(60)]);
    },
    () => now,
  );
});
