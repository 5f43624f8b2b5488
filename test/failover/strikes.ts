// Faults at named points of a checkpoint (node/fault-points.ts): one guest, two nodes, and at each point, one after the
// other, a node that is killed, stands still, or loses its QEMU. The clients are those of the beginning: every
// connection lives through all of it, every reply is exact, and one node speaks at a time.
//
//   killed        the node ends itself at the point, and its QEMU with it
//   the others    the node stops itself there; then it and its QEMU stay stopped (`stopped`: until they are killed,
//                 `woken`: until the other node has the VM), or its QEMU is killed and it goes on (`QEMU killed`)

import assert from 'node:assert/strict';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { FolderArbiter } from '../../src/arbiter/folder.ts';
import { delay, systemClock } from '../../src/base/clock.ts';
import { quantile } from '../../src/base/quantile.ts';
import { describeTurns, withoutLate } from '../../src/lan/turns.ts';
import { runDirectory } from '../../src/local/directories.ts';
import type { NodeProcess } from '../../src/local/node-process.ts';
import type { FaultPoint } from '../../src/node/fault-points.ts';
import {
  expectClients,
  expectOneVoice,
  type NodeName,
  nodeOf,
  protect,
  roles,
  type Stage,
  served,
  setStage,
} from './stage.ts';

/** Whose points they are: of a primary that copies or is about to pair, of either node of a pair, of who takes over. */
const places = {
  'round.sent': 'beginning',
  'pair.claimed': 'beginning',
  'capture.stopped': 'primary',
  'capture.done': 'primary',
  'send.begun': 'primary',
  'send.half': 'primary',
  'send.done': 'primary',
  'commit.received': 'primary',
  'release.done': 'primary',
  'compare.begun': 'primary',
  'stage.complete': 'secondary',
  'commit.sent': 'secondary',
  'apply.stopped': 'secondary',
  'apply.written': 'secondary',
  'apply.loaded': 'secondary',
  'apply.done': 'secondary',
  'takeover.claimed': 'takeover',
  'takeover.runnable': 'takeover',
  'takeover.announced': 'takeover',
} as const satisfies Record<FaultPoint, string>;

type Points<Place> = { [Point in FaultPoint]: (typeof places)[Point] extends Place ? Point : never }[FaultPoint];

/**
 * The points of these places; each test names the places that are its own, so that together they have all points there
 * are.
 */
export function pointsOf<Place extends (typeof places)[FaultPoint]>(...of: Place[]): Points<Place>[] {
  const wanted: readonly string[] = of;
  return (Object.keys(places) as FaultPoint[]).filter((point): point is Points<Place> =>
    wanted.includes(places[point]),
  );
}

export type CheckpointPoint = Points<'primary' | 'secondary'>;
export const strikeKinds = ['killed', 'stopped', 'stopped, woken', 'QEMU killed'] as const;
export type StrikeKind = (typeof strikeKinds)[number];

/** A point that is not reached within this time is asked for again: the nodes may have changed their roles. */
const reachMs = 15_000;
const deadlineMs = 180_000;

interface StruckAt {
  name: NodeName;
  other: NodeName;
  term: number;
  node: NodeProcess;
  signalQemu: (name: NodeJS.Signals) => void;
  at: number;
}

/** Lets a node of the protected VM end, or stand still, at the point; checkpoints lead there. */
async function strikeAt(stage: Stage, kind: StrikeKind, point: CheckpointPoint): Promise<StruckAt> {
  const arbiter = await FolderArbiter.open(join(runDirectory(stage.vm), 'arbiter'));
  for (const deadline = systemClock.now() + deadlineMs; systemClock.now() < deadline; ) {
    const now = await roles(stage);
    const name = now[places[point]];
    const node = nodeOf(stage, name);
    // It may be giving its QEMU up just now.
    const signalQemu = await node.holdQemu().catch(() => undefined);
    const status = (await stage.pair.statuses()).find((one) => one.node === now.primary);
    if (signalQemu === undefined || status?.term !== now.term || !status.protected) continue;
    stage.pair.arm(name, { point, epoch: status.epoch + 1, hold: kind !== 'killed' });
    const isReached = () => (kind === 'killed' ? !node.alive : node.isStopped());
    // Never in the first checkpoint of another pairing, which nobody could go on from.
    const isOver = async () => isReached() || (await arbiter.read(stage.vm))?.term !== now.term;
    await leadTo(stage, now.primary, isOver);
    // The other node may have the term before the end of this one is heard of here.
    while (!stage.pair.isArmed(name) && !isReached() && systemClock.now() < deadline) await delay(1);
    stage.pair.disarm(name);
    if (isReached()) {
      const other = name === now.primary ? now.secondary : now.primary;
      return { name, other, term: now.term, node, signalQemu, at: systemClock.now() };
    }
  }
  return assert.fail(`${point} is not reached`);
}

/** Asks for checkpoints until the point is reached, or for reachMs. The one it is reached in is never answered. */
async function leadTo(stage: Stage, primary: NodeName, isOver: () => Promise<boolean>): Promise<void> {
  let asked = false;
  for (const until = systemClock.now() + reachMs; !(await isOver()) && systemClock.now() < until; await delay(1)) {
    if (asked) continue;
    asked = true;
    const answered = () => {
      asked = false;
    };
    stage.checkpointAt(primary).then(answered, () => void delay(20).then(answered));
  }
}

/**
 * The other node has the VM, clients are served, the VM is protected again; resolves to the longest gap of a client.
 */
async function recover(stage: Stage, kind: StrikeKind, struck: StruckAt): Promise<number> {
  const { name, other, term, node, signalQemu } = struck;
  if (kind.startsWith('stopped')) signalQemu('SIGSTOP');
  if (kind === 'QEMU killed') {
    signalQemu('SIGKILL');
    node.signal('SIGCONT');
  }
  await stage.pair.until(`${other} is the primary alone`, 120_000, (all) =>
    all.some((one) => one.node === other && one.role === 'primary' && one.term > term),
  );
  if (kind === 'stopped, woken') {
    signalQemu('SIGCONT');
    node.signal('SIGCONT');
  }
  await served(stage, 5);
  const gapMs = Math.max(...stage.clients.map((client) => client.takeGap()));
  if (kind === 'killed' || kind === 'stopped') {
    node.signal('SIGKILL');
    await node.exited;
    signalQemu('SIGKILL');
    await stage.pair.restart(name);
  }
  await roles(stage);
  return gapMs;
}

interface Seen {
  kind: StrikeKind;
  point: CheckpointPoint;
  failed: boolean;
  gapMs: number;
}

function table(seen: readonly Seen[]): string[] {
  const cell = (own: readonly Seen[]) => {
    const gaps = own.flatMap(({ failed, gapMs }) => (failed ? [] : [gapMs])).sort((left, right) => left - right);
    const at = (part: number) => Math.round(quantile(gaps, part));
    const failed = own.filter((one) => one.failed).length;
    return own.length === 0 ? '' : `${own.length}, ${failed}, ${at(0.5)} / ${at(0.99)} ms`;
  };
  const row = (name: string, own: readonly Seen[]) =>
    `| ${name} | ${strikeKinds.map((kind) => cell(own.filter((one) => one.kind === kind))).join(' | ')} |`;
  return [
    `| tried, failed, gap p50 / p99 | ${strikeKinds.join(' | ')} |`,
    `|---|${strikeKinds.map(() => '---|').join('')}`,
    ...pointsOf('primary', 'secondary').map((point) =>
      row(
        `${places[point]}, \`${point}\``,
        seen.filter((one) => one.point === point),
      ),
    ),
    row('all', seen),
  ];
}

/** Each of the faults in turn; throws when anything is lost, and tells `context` what was tried. */
export async function strikes(
  context: TestContext,
  options: { vm: string; mode: 'colo' | 'remus'; faults: readonly (readonly [StrikeKind, CheckpointPoint])[] },
): Promise<void> {
  const { vm, mode, faults } = options;
  const stage = await setStage({ vm, protect: { mode, verify: true } });
  const seen: Seen[] = [];
  let trying: Omit<Seen, 'gapMs' | 'failed'> | undefined;
  try {
    await protect(stage);
    for (const [kind, point] of faults) {
      trying = { kind, point };
      await roles(stage);
      await served(stage, 5);
      for (const client of stage.clients) client.takeGap();
      const gapMs = await recover(stage, kind, await strikeAt(stage, kind, point));
      seen.push({ kind, point, failed: false, gapMs });
      trying = undefined;
    }
    await expectClients(stage);
    expectOneVoice(stage);
    const { late } = withoutLate(stage.pair.lan.spokenBy(stage.mac));
    const stops = seen.filter(({ kind }) => kind === 'stopped, woken').length;
    assert.ok(late.length <= stops, `of ${stops} nodes that were stopped and woken, late: ${describeTurns(late)}`);
  } finally {
    if (trying !== undefined) seen.push({ ...trying, failed: true, gapMs: 0 });
    for (const line of table(seen)) context.diagnostic(line);
    for (const client of stage.clients) context.diagnostic(`${client.name}: ${client.progress()}`);
    for (const node of stage.pair.nodes) node.signal('SIGCONT');
    await stage.close();
  }
}
