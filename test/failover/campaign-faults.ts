// The faults of the campaign: each is done to a VM that is protected, and undone, as far as it is not the nodes' own
// business. When it returns, the VM is to be protected again by itself (campaign.ts looks).
//
// A fault that lasts a while lasts until every client has got so many replies in spite of it. Where clients cannot be
// served, it lasts until a node has gone on without the other one.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createConnection } from 'node:net';
import type { NodeStatus } from '../../src/api/node-status.ts';
import { command } from './bare-status.ts';
import type { Cables } from './cable.ts';
import { slowDown } from './slow.ts';
import {
  expectClients,
  type Held,
  hold,
  type NodeName,
  nodeOf,
  over,
  type Roles,
  roles,
  type Stage,
  served,
} from './stage.ts';
import type { DiskKind, HostDisks } from './volume.ts';
import type { Wires } from './wire.ts';

export interface Tools {
  stage: Stage;
  wires: Wires;
  cables: Cables;
  /** Undefined where file systems cannot be made: faults of disks are left out then. */
  disks: HostDisks | undefined;
  random: () => number;
  /** What the nodes said of the fault of now, for the line that tells of it. */
  told: Set<string>;
}

export interface Fault {
  name: string;
  /** It is one of a host's disks. */
  ofDisks?: true;
  /** Nodes stand still meanwhile, and may say what they had in hand when they wake. */
  stops?: true;
  /** The clients of before have finished. */
  ofClients?: true;
  /** What comes before it. */
  prelude?: (tools: Tools) => Promise<void>;
  strike: (tools: Tools, now: Roles) => Promise<void>;
}

type Role = 'primary' | 'secondary';

const whileReplies = 30;
/** For what would be seen at once. */
const fewReplies = 5;
const deadlineMs = 180_000;
const signals = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const;

const otherOf = (name: NodeName): NodeName => (name === 'a' ? 'b' : 'a');

function pick<Item>(random: () => number, items: readonly Item[]): Item {
  return items[Math.floor(random() * items.length)] ?? assert.fail();
}

/** The other node has the VM: it took over from a primary, or goes on without a secondary. */
async function lost({ stage }: Tools, { name, term }: Held): Promise<void> {
  const other = otherOf(name);
  await stage.pair.until(`${other} is the primary alone`, deadlineMs, (all) =>
    all.some((one) => one.node === other && one.role === 'primary' && one.term > term),
  );
}

async function ended({ stage }: Tools, name: NodeName): Promise<void> {
  const node = nodeOf(stage, name);
  await stage.pair.until(`${name} has ended`, deadlineMs, () => !node.alive);
  await node.exited;
}

function killed(role: Role, what: 'node' | 'colod' | 'QEMU'): Fault {
  return {
    name: `${role} ${what} killed`,
    strike: async (tools) => {
      const held = await hold(tools.stage, role);
      const { name, node, signalQemu } = held;
      if (what !== 'QEMU') node.signal('SIGKILL');
      if (what !== 'colod') signalQemu('SIGKILL');
      node.signal('SIGCONT');
      await lost(tools, held);
      if (what === 'QEMU') return;
      await node.exited;
      await tools.stage.pair.restart(name);
    },
  };
}

function stopped(role: Role): Fault {
  return {
    name: `${role} node stopped, woken when the other one has the VM`,
    stops: true,
    strike: async (tools) => {
      const held = await hold(tools.stage, role);
      held.signalQemu('SIGSTOP');
      await lost(tools, held);
      held.signalQemu('SIGCONT');
      held.node.signal('SIGCONT');
    },
  };
}

function hangs(role: Role): Fault {
  return {
    name: `${role} QEMU hangs`,
    strike: async (tools) => {
      const held = await hold(tools.stage, role);
      held.signalQemu('SIGSTOP');
      held.node.signal('SIGCONT');
      await lost(tools, held);
    },
  };
}

/** As systemd ends a host: every process of it is sent the signal at once. */
function hostShutDown(role: Role): Fault {
  return {
    name: `${role} host shut down`,
    strike: async (tools) => {
      const held = await hold(tools.stage, role);
      held.node.signal('SIGTERM');
      held.signalQemu('SIGTERM');
      held.node.signal('SIGCONT');
      await lost(tools, held);
      await ended(tools, held.name);
      await tools.stage.pair.restart(held.name);
    },
  };
}

/** Whoever of both nodes has the VM then goes when the network is there again and it has handed the VM over. */
const shutDownWithoutNetwork: Fault = {
  name: 'primary host shut down, its network down already',
  strike: async (tools) => {
    const { stage, wires, cables } = tools;
    const held = await hold(stage, 'primary');
    wires.stall();
    await cables.pull(held.name);
    held.node.signal('SIGTERM');
    held.signalQemu('SIGTERM');
    held.node.signal('SIGCONT');
    await over(stage, held.term);
    wires.flow();
    await cables.plug(held.name);
    await ended(tools, held.name);
    await stage.pair.restart(held.name);
  },
};

/** One copy goes on; the node that has it goes when the other one is back and has taken the VM. */
const bothShutDown: Fault = {
  name: 'both hosts shut down at once',
  strike: async (tools) => {
    const { stage } = tools;
    const held = await hold(stage, 'primary');
    const other = nodeOf(stage, otherOf(held.name));
    const signalOther = await other.holdQemu();
    for (const signal of [held.signalQemu, signalOther]) signal('SIGTERM');
    for (const node of [held.node, other]) node.signal('SIGTERM');
    held.node.signal('SIGCONT');
    await stage.pair.until('one of both has ended', deadlineMs, () => !held.node.alive || !other.alive);
    const first = held.node.alive ? otherOf(held.name) : held.name;
    await ended(tools, first);
    await stage.pair.restart(first);
    await ended(tools, otherOf(first));
    await stage.pair.restart(otherOf(first));
  },
};

function nodeSignalled(role: Role): Fault {
  return {
    name: `${role} node told to end (SIGTERM, SIGINT or SIGHUP)`,
    strike: async (tools) => {
      const held = await hold(tools.stage, role);
      held.node.signal(pick(tools.random, signals));
      held.node.signal('SIGCONT');
      await lost(tools, held);
      await ended(tools, held.name);
      await tools.stage.pair.restart(held.name);
    },
  };
}

/** It is its node's to be told. */
function qemuSignalled(role: Role): Fault {
  return {
    name: `${role} QEMU told to end (SIGTERM, SIGINT or SIGHUP)`,
    strike: async ({ stage, random }) => {
      const held = await hold(stage, role);
      held.signalQemu(pick(random, signals));
      held.node.signal('SIGCONT');
      await served(stage, fewReplies);
      assert.ok(existsSync(`/proc/${held.qemuPid}`), `the QEMU of ${held.name} has ended of a signal`);
      await served(stage, whileReplies);
    },
  };
}

/** Its clients' connections are its own: they finish before, and others call when it stands again. */
const gatewaySignalled: Fault = {
  name: 'gateway told to end (SIGTERM, SIGINT or SIGHUP)',
  ofClients: true,
  strike: async ({ stage, random }) => {
    await expectClients(stage);
    const before = stage.pair.gatewayPid ?? assert.fail('there is no gateway');
    process.kill(before, pick(random, signals));
    await stage.pair.until('the gateway is another one', deadlineMs, () => stage.pair.gatewayPid !== before);
    await stage.callAgain();
  },
};

function linkFault(name: string, act: (tools: Tools, now: Roles) => Promise<void> | void): Fault {
  return {
    name,
    strike: async (tools, now) => {
      await act(tools, now);
      await over(tools.stage, now.term);
      tools.wires.damage(0);
      tools.wires.flow();
    },
  };
}

async function damageByte({ stage, wires, random }: Tools, now: Roles): Promise<void> {
  const before = wires.damaged;
  wires.damage(random() < 0.5 ? 1 : 2000);
  stage.checkpointAt(now.primary).catch(() => undefined);
  await stage.pair.until('a byte was damaged', deadlineMs, () => wires.damaged > before);
}

const slowSecondary: Fault = {
  name: 'secondary ten times slower for a while',
  stops: true,
  strike: async ({ stage }, { secondary }) => {
    const node = nodeOf(stage, secondary);
    const slowed = [await node.findQemu(), node.pid].map((pid) => slowDown(pid, { runMs: 2, stopMs: 18 }));
    await served(stage, whileReplies);
    for (const faster of slowed) faster();
  },
};

function withoutMemory(role: Role): Fault {
  return {
    name: `${role} colod without memory for a while`,
    strike: async ({ stage }, now) => {
      const name = now[role];
      const node = nodeOf(stage, name);
      const limit = (bytes: string) => spawnSync('prlimit', ['--pid', String(node.pid), `--as=${bytes}:`]).status;
      assert.equal(limit('1000000'), 0);
      await served(stage, whileReplies);
      limit('unlimited');
      // It may be dying of it still.
      const answers = stage.pair.until(`${name} answers`, deadlineMs, (all) => all.some((one) => one.node === name));
      const isDead = await Promise.race([node.exited.then(() => true), answers.then(() => false)]);
      if (isDead) await stage.pair.restart(name);
      await answers;
    },
  };
}

async function storm({ stage }: Tools): Promise<void> {
  const { port, question, answersIn } = stage.storm;
  const socket = createConnection({ port, host: '127.0.0.1' }).on('error', () => undefined);
  const asking = setInterval(() => socket.write(question), 15);
  let answers = 0;
  socket.on('data', (chunk: Buffer) => {
    answers += answersIn(String(chunk));
  });
  try {
    await stage.pair.until('the guest answers in the storm', deadlineMs, () => answers >= 60);
  } finally {
    clearInterval(asking);
    socket.destroy();
  }
  await roles(stage);
}

/** No disk may end a node: those that were alive before are alive. */
async function withDisk(
  tools: Tools,
  names: readonly NodeName[],
  kinds: readonly DiskKind[],
  what: 'full' | 'hangs',
  body: () => Promise<unknown>,
) {
  const { stage, disks = assert.fail('there are no disks') } = tools;
  const volumes = names.flatMap((name) => kinds.map((kind) => disks.of(kind, name)));
  const nodes = [...stage.pair.nodes];
  try {
    for (const volume of volumes) await (what === 'full' ? volume.fill() : volume.freeze());
    await body();
    // Whatever hangs, no node stands still: its event loop carries beats, frames and calls.
    const all = await stage.pair.until('both nodes answer', deadlineMs, (seen) => seen.length === nodes.length);
    for (const status of all) for (const words of wordsOf(status)) tools.told.add(words);
  } finally {
    for (const volume of volumes) await (what === 'full' ? volume.empty() : volume.thaw());
  }
  for (const node of nodes) assert.ok(node.alive, `node ${node.name} has ended of its disk`);
}

/** What a node says that is wrong with its disks. */
function wordsOf({ node, disks, problems = [], process: own }: NodeStatus): string[] {
  const losses = (own?.losses ?? []).map(({ path, problem }) => `${path.slice(-8)}: ${problem}`);
  return [disks?.problem ?? '', ...problems, ...losses].filter((text) => text !== '').map((text) => `${node}: ${text}`);
}

const nodesOf = (who: Role | 'both', now: Roles): NodeName[] =>
  who === 'both' ? [now.primary, now.secondary] : [now[who]];

/** It costs lines, and nobody waits for it. */
function logDisk(who: Role | 'both', what: 'full' | 'hangs'): Fault {
  return {
    name: `disk of logs and consoles ${what}: ${who}`,
    ofDisks: true,
    strike: (tools, now) => withDisk(tools, nodesOf(who, now), ['log'], what, () => served(tools.stage, whileReplies)),
  };
}

/** What the guest writes does not reach the disk, or its copy: sooner or later one node goes on without the other. */
function guestDisk(role: Role, what: 'full' | 'hangs'): Fault {
  return {
    name: `disk of the VM's ${role === 'primary' ? 'image' : 'replica'} ${what}: ${role}`,
    ofDisks: true,
    strike: (tools, now) =>
      withDisk(tools, [now[role]], ['replica'], what, () =>
        what === 'full' ? served(tools.stage, whileReplies) : over(tools.stage, now.term),
      ),
  };
}

/** 64 MiB: more than staging keeps in memory (checkpoint/limits.ts), where no checkpoint comes in between. */
const spilledPages = 16_384;
const spillTriesMax = 20;

/** The guest writes more at once than staging keeps in memory, until the secondary is given up for its disk. */
function spillDisk(what: 'full' | 'hangs'): Fault {
  return {
    name: `disk to spill to ${what}, and a checkpoint too large for memory`,
    ofDisks: true,
    strike: (tools, now) =>
      withDisk(tools, [now.secondary], ['spill'], what, async () => {
        const { stage } = tools;
        const isOver = (all: NodeStatus[]) => all.some((one) => one.role === 'primary' && one.term > now.term);
        for (let tries = 0; tries < spillTriesMax; tries += 1) {
          await command(stage, `write ${spilledPages}`);
          if (isOver(await stage.pair.statuses())) return;
        }
        tools.told.add('every checkpoint fitted in memory: nothing was spilled');
      }),
  };
}

function allDisks(role: Role, what: 'full' | 'hangs'): Fault {
  return {
    name: `all disks of a host ${what === 'hangs' ? 'hang' : what}: ${role}`,
    ofDisks: true,
    strike: (tools, now) =>
      withDisk(tools, [now[role]], ['log', 'replica', 'spill'], what, () =>
        what === 'full' ? served(tools.stage, whileReplies) : over(tools.stage, now.term),
      ),
  };
}

/**
 * The one of the primary costs a handover, the one of the secondary nothing; without both the VM stays and nobody is
 * served.
 */
function uplinkGone(who: Role | 'both'): Fault {
  return {
    name: `uplink gone: ${who}`,
    strike: async ({ stage, cables }, now) => {
      const names = nodesOf(who, now);
      const sick = (all: NodeStatus[]) =>
        names.every((name) => all.some((one) => one.node === name && /not reached/.test((one.problems ?? []).join())));
      try {
        for (const name of names) await cables.pull(name);
        if (who === 'primary') await over(stage, now.term);
        else if (who === 'secondary') await served(stage, whileReplies);
        await stage.pair.until('told that the network is not reached', deadlineMs, sick);
      } finally {
        for (const name of names) await cables.plug(name);
      }
    },
  };
}

const both: readonly Role[] = ['primary', 'secondary'];

export const faults: readonly Fault[] = [
  ...both.flatMap((role) => [
    ...[killed(role, 'node'), stopped(role), killed(role, 'QEMU'), hangs(role), killed(role, 'colod')],
  ]),
  linkFault('links stalled until one node is alone', ({ wires }) => wires.stall()),
  linkFault('links cut', ({ wires }) => wires.cut()),
  linkFault('a byte of a link damaged', damageByte),
  slowSecondary,
  { ...killed('primary', 'node'), name: 'storm of divergence, then primary node killed', prelude: storm },
  ...both.map(withoutMemory),
  ...both.map(hostShutDown),
  shutDownWithoutNetwork,
  bothShutDown,
  ...both.map(nodeSignalled),
  ...both.map(qemuSignalled),
  gatewaySignalled,
  ...([...both, 'both'] as const).flatMap((who) => [logDisk(who, 'full'), logDisk(who, 'hangs')]),
  ...both.flatMap((role) => [guestDisk(role, 'full'), guestDisk(role, 'hangs')]),
  spillDisk('full'),
  spillDisk('hangs'),
  ...both.flatMap((role) => [allDisks(role, 'full'), allDisks(role, 'hangs')]),
  ...([...both, 'both'] as const).map(uplinkGone),
];
