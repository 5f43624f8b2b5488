// The guest runs on while its state travels: the link that carries it stands still, in the middle of the first copy and
// in the middle of a checkpoint, and the guest is asked all the while. Packets and beats have links of their own and
// flow.
//
//    during the first copy   its answers come: it is alone, nothing is held
//    during a checkpoint     its answers are held, one for each that it gives, and come when the checkpoint is complete

import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { mkdtempSync, rmSync } from 'node:fs';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { buildGuest } from '../../guest/build.ts';
import { readyLine } from '../../guest/recipe.ts';
import { callNode } from '../../src/api/node-client.ts';
import type { NodeStatus } from '../../src/api/node-status.ts';
import { delay, systemClock } from '../../src/base/clock.ts';
import { checkSpec } from '../../src/config/spec.ts';
import { consoleSays } from '../../src/demo/console.ts';
import { freePorts } from '../../src/lan/gateway.ts';
import { LocalPair } from '../../src/local/pair.ts';

const timeoutMs = 120_000;
const answersWanted = 20;
const askEveryMs = 20;

/** Relays of the links to both nodes, of which the one that carries state can stand still. */
class BulkWires {
  /** Something waits on a link for state that stands still. */
  waiting = false;
  private stalled = false;
  private readonly servers: Server[] = [];
  private readonly bulk = new Set<{ from: Socket; to: Socket; waits: Buffer[] }>();
  private readonly sockets = new Set<Socket>();
  private readonly folder = mkdtempSync(join(tmpdir(), 'colo-progress-'));

  reachAt = (node: 'a' | 'b', path: string): string => {
    const own = join(this.folder, `${node}${this.servers.length}.sock`);
    this.servers.push(createServer((near) => this.join(near, createConnection(path))).listen(own));
    return own;
  };

  stall(): void {
    this.stalled = true;
    this.waiting = false;
  }

  flow(): void {
    this.stalled = false;
    this.waiting = false;
    for (const { from, to, waits } of this.bulk) {
      for (const chunk of waits.splice(0)) to.write(chunk);
      from.resume();
    }
  }

  close(): void {
    for (const socket of this.sockets) socket.destroy();
    for (const server of this.servers) server.close();
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** The one who connects says first what the link is for: the hello is JSON (channel/hello.ts). */
  private join(near: Socket, far: Socket): void {
    for (const socket of [near, far]) {
      this.sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => {
        near.destroy();
        far.destroy();
      });
    }
    far.on('data', (chunk: Buffer) => near.write(chunk));
    const own = { from: near, to: far, waits: [] as Buffer[] };
    near.once('data', (hello: Buffer) => {
      far.write(hello);
      const isBulk = hello.includes('"kind":"bulk"');
      if (isBulk) this.bulk.add(own);
      near.on('data', (chunk: Buffer) => {
        if (isBulk && this.stalled) {
          own.waits.push(chunk);
          near.pause();
          this.waiting = true;
        } else far.write(chunk);
      });
    });
  }
}

/** Asks the guest's echo all the time, and counts what it answers. */
class Asker {
  readonly answers = new Set<number>();
  private asked = 0;
  private readonly socket = createSocket('udp4');
  private readonly stop: () => void;

  constructor(port: number) {
    this.socket.on('message', (text) => this.answers.add(Number(text.toString())));
    this.stop = systemClock.every(askEveryMs, () => this.socket.send(String(this.asked++), port, '127.0.0.1'));
  }

  close(): void {
    this.stop();
    this.socket.close();
  }
}

interface Stage {
  pair: LocalPair;
  wires: BulkWires;
  asker: Asker;
}

async function onStage(vm: string, act: (stage: Stage) => Promise<void>): Promise<void> {
  const guest = await buildGuest();
  const [port = 0] = await freePorts(1);
  const wires = new BulkWires();
  const pair = await LocalPair.start({
    spec: checkSpec({ vm, boot: { guest: 'demo' } }, 'the test'),
    boot: { kernel: guest.kernel, initrd: guest.initrd, cmdline: guest.cmdline },
    clock: systemClock,
    forwards: [{ protocol: 'udp', hostPort: port, guestPort: guest.ports.echoUdp }],
    reachAt: wires.reachAt,
  });
  const asker = new Asker(port);
  try {
    await consoleSays(pair.a, { text: readyLine, path: `${pair.logDir}/a.serial`, timeoutMs });
    await act({ pair, wires, asker });
  } finally {
    asker.close();
    await pair.stop();
    wires.close();
  }
}

const primaryOf = (all: NodeStatus[]) => all.find((one) => one.role === 'primary');
const completeAt = (all: NodeStatus[]) => primaryOf(all)?.checkpoints?.count ?? 0;
const heldBy = (all: NodeStatus[]) => Number(primaryOf(all)?.proxy['heldFrames'] ?? 0);

/** One attempt; false when a starved host has lost the protection meanwhile, which says nothing of the guest. */
async function runsOnDuringCheckpoint({ pair, wires, asker }: Stage): Promise<boolean> {
  const isProtected = (all: NodeStatus[]) => primaryOf(all)?.protected === true;
  const before = primaryOf(await pair.until('protected', timeoutMs, isProtected)) ?? assert.fail();
  const isOver = (all: NodeStatus[]) => all.some((one) => one.term > before.term);
  wires.stall();
  try {
    const socketPath = pair[before.node === 'a' ? 'a' : 'b']?.apiPath ?? '';
    // When one is on its way already, that one stands still; else the next comes at the longest epoch at the latest.
    callNode({ socketPath, method: 'POST', path: '/checkpoint', timeoutMs }).catch(() => undefined);
    if (isOver(await pair.until('sending', timeoutMs, (all) => wires.waiting || isOver(all)))) return false;
    // Every answer from here on is one to a question in an epoch whose beginning has not arrived.
    const from = await pair.until('heard', timeoutMs, (all) => primaryOf(all) !== undefined);
    const answered = asker.answers.size;
    const enough = (all: NodeStatus[]) => heldBy(all) >= heldBy(from) + answersWanted;
    const later = await pair.until('answering', timeoutMs, (all) => enough(all) || isOver(all));
    if (isOver(from) || isOver(later)) return false;
    assert.equal(
      completeAt(later),
      completeAt(from),
      'a checkpoint was complete although its beginning had not arrived',
    );
    wires.flow();
    const complete = (all: NodeStatus[]) => completeAt(all) > completeAt(from) || isOver(all);
    if (isOver(await pair.until('complete', timeoutMs, complete))) return false;
    await pair.until('answered', timeoutMs, () => asker.answers.size >= answered + answersWanted);
    return true;
  } finally {
    wires.flow();
  }
}

test('the guest runs on while a checkpoint travels, and while protection begins, however long the link stands still', async () => {
  await onStage('progress', async (stage) => {
    const { pair, wires, asker } = stage;
    wires.stall();
    await pair.startSecondary();
    await pair.until('copying', timeoutMs, () => wires.waiting);
    const answered = asker.answers.size;
    await pair.until('answering', timeoutMs, () => asker.answers.size >= answered + answersWanted);
    const alone = await pair.until('heard', timeoutMs, (all) => primaryOf(all) !== undefined);
    assert.equal(primaryOf(alone)?.protected, false, 'nothing of the copy has arrived');
    wires.flow();
    const deadline = systemClock.now() + 2 * timeoutMs;
    while (!(await runsOnDuringCheckpoint(stage))) {
      assert.ok(systemClock.now() < deadline, 'the VM does not stay protected');
      await delay(askEveryMs);
    }
  });
});
