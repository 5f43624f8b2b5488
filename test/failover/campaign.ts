// The campaign: one guest, two nodes, and fault after fault (campaign-faults.ts), each as soon as the VM is protected
// again, at random moments and half of them right into checkpoints. The clients are those of the beginning: every
// connection lives through all of it, every reply is exact, and one node speaks at a time. The table at the end goes
// to docs/reliability.md.
//
// Faults are dealt from a seed like cards: every kind once before any comes again. Each host of the pair has disks of
// its own (volume.ts), and a cable to the network (cable.ts).

import assert from 'node:assert/strict';
import { cpSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { delay, systemClock } from '../../src/base/clock.ts';
import { errorText } from '../../src/base/errors.ts';
import { quantile } from '../../src/base/quantile.ts';
import { seededRandom } from '../../src/base/random.ts';
import { applyProblems, verified } from '../../src/demo/demo.ts';
import { describeTurns, withoutLate } from '../../src/lan/turns.ts';
import { expectSoundGuest } from './bare-status.ts';
import { Cables } from './cable.ts';
import { type Fault, faults, type Tools } from './campaign-faults.ts';
import { expectClients, expectOneVoice, protect, roles, type Stage, served, setStage, voices } from './stage.ts';
import { HostDisks } from './volume.ts';
import { Wires } from './wire.ts';

export interface CampaignOptions {
  vm: string;
  mode: 'colo' | 'remus';
  guest: 'demo' | 'bare';
  accel: 'kvm' | 'tcg';
  count: number;
  seed: number;
  /** Keeps it to the kinds whose name contains one of these; all without. */
  only?: readonly string[];
}

interface Seen {
  fault: string;
  failed: boolean;
  intoCheckpoint: boolean;
  /** Undefined where the clients are other ones afterwards. */
  gapMs?: number;
  repairMs: number;
}

/** The disk that the guest of a campaign writes. */
const diskBytes = 8 << 20;

/** Every kind once, in an order of their own, then every kind once more. */
export function* deal<Kind>(kinds: readonly Kind[], random: () => number): Generator<Kind, never> {
  for (;;) {
    const left = [...kinds];
    while (left.length > 0) yield* left.splice(Math.floor(random() * left.length), 1);
  }
}

function hostDisks(tell: (line: string) => void): HostDisks | undefined {
  try {
    return new HostDisks();
  } catch (error) {
    tell(`faults of disks are left out: no file systems can be made here (${errorText(error)})`);
    return undefined;
  }
}

/** The stage with all that faults need; and what closes it, which keeps the nodes' logs in the VM's folder of logs. */
async function prepare(options: CampaignOptions, tell: (line: string) => void) {
  const { vm, mode, guest, accel } = options;
  const disks = hostDisks(tell);
  const wires = new Wires();
  const cables = new Cables();
  const close = async (stage?: Stage) => {
    for (const name of ['a', 'b'] as const)
      if (stage !== undefined && disks !== undefined) {
        await disks.of('log', name).thaw();
        cpSync(disks.of('log', name).folder, stage.pair.logDir, {
          recursive: true,
          filter: (path) => !/filler|lost\+found/.test(path),
        });
      }
    await stage?.close();
    await cables.close();
    wires.close();
    await disks?.close();
  };
  try {
    const image =
      disks === undefined || guest === 'demo' ? undefined : join(disks.of('replica', 'a').folder, 'image.raw');
    if (image !== undefined) {
      writeFileSync(image, '');
      truncateSync(image, diskBytes);
    }
    const stage = await setStage({
      ...{ vm, guest, protect: { mode, verify: true }, reachAt: wires.reachAt },
      machine: { accel, ...(guest === 'bare' ? { type: 'microvm' as const } : {}) },
      ...(image === undefined ? {} : { disks: [{ path: image, format: 'raw' as const }] }),
      ...(disks === undefined ? {} : { replicaFolder: disks.replicas }),
      placesAt: (node, lanPath) => ({
        lanPath: cables.lanPathOf(node, lanPath),
        ...(disks === undefined
          ? {}
          : { logDir: disks.of('log', node).folder, spillDir: disks.of('spill', node).folder }),
      }),
    });
    return { stage, wires, cables, disks, close: () => close(stage) };
  } catch (error) {
    await close();
    throw error;
  }
}

/** What must hold after every fault, whoever has the VM. */
async function expectNothingLost(stage: Stage, { guest }: CampaignOptions, hasDisk: boolean): Promise<void> {
  const owners = stage.pair.owners.turns;
  const told = `${owners.join(', ')} owned the VM, and it spoke: ${describeTurns(stage.pair.lan.spokenBy(stage.mac))}`;
  // An owner of a moment ago may not have spoken yet.
  assert.ok(voices(stage).length <= owners.length, told);
  assert.deepEqual(applyProblems(verified(await stage.pair.statuses())), []);
  if (guest === 'bare') await expectSoundGuest(stage, hasDisk);
}

/** One fault, until the VM is protected again and nothing of it is lost. */
async function tryFault(tools: Tools, fault: Fault): Promise<Omit<Seen, 'failed'>> {
  const { stage, random } = tools;
  const { primary } = await roles(stage);
  for (const client of stage.clients) client.takeGap();
  const intoCheckpoint = random() < 0.5;
  await fault.prelude?.(tools);
  if (intoCheckpoint) stage.checkpointAt(primary).catch(() => undefined);
  await delay(random() * (intoCheckpoint ? 20 : 500));
  // On a starved host a node may just have been suspected wrongly: what is not protected now is not to be struck.
  const struck = await roles(stage);
  const start = systemClock.now();
  await fault.strike(tools, struck);
  await served(stage, 5);
  const gapMs = Math.max(...stage.clients.map((client) => client.takeGap()));
  await roles(stage);
  const repairMs = systemClock.now() - start;
  return { fault: fault.name, intoCheckpoint, ...(fault.ofClients ? {} : { gapMs }), repairMs };
}

function table(seen: readonly Seen[]): string[] {
  const row = (name: string, own: readonly Seen[]) => {
    const of = (values: (number | undefined)[]) =>
      values.filter((value) => value !== undefined).sort((left, right) => left - right);
    const survived = own.filter((one) => !one.failed);
    const gaps = of(survived.map((one) => one.gapMs));
    const repairs = of(survived.map((one) => one.repairMs));
    const at = (values: number[], part: number) =>
      values.length === 0 ? '' : `${Math.round(quantile(values, part))} ms`;
    const into = own.filter((one) => one.intoCheckpoint).length;
    const counts = `${own.length} | ${into} | ${own.length - survived.length}`;
    return `| ${name} | ${counts} | ${at(gaps, 0.5)} | ${at(gaps, 0.99)} | ${at(repairs, 0.5)} |`;
  };
  return [
    '| fault | tried | into a checkpoint | failed | gap p50 | gap p99 | repaired p50 |',
    '|---|---|---|---|---|---|---|',
    ...faults.flatMap(({ name }) => {
      const own = seen.filter((one) => one.fault === name);
      return own.length === 0 ? [] : [row(name, own)];
    }),
    row('all', seen),
  ];
}

function expectVoices(context: TestContext, stage: Stage, stops: number): void {
  const { late } = withoutLate(stage.pair.lan.spokenBy(stage.mac));
  expectOneVoice(stage);
  assert.ok(late.length <= stops, `of ${stops} nodes that were stopped, late: ${describeTurns(late)}`);
  context.diagnostic(`late: ${late.length} times, ${late.reduce((sum, { frames }) => sum + frames, 0)} frames`);
}

/** `count` faults, chosen by `seed`; throws when anything is lost, and tells `context` what was tried. */
export async function campaign(context: TestContext, options: CampaignOptions): Promise<void> {
  const { mode, guest, accel, count, seed, only = [''] } = options;
  const tell = (line: string) => void process.stderr.write(`campaign: ${line}\n`);
  const { stage, close, ...parts } = await prepare(options, tell);
  const random = seededRandom(seed);
  const hasDisk = parts.disks !== undefined && guest === 'bare';
  const chosen = faults.filter(
    ({ name, ofDisks }) => only.some((words) => name.includes(words)) && (!ofDisks || hasDisk),
  );
  const tools: Tools = { stage, random, told: new Set(), ...parts };
  const seen: Seen[] = [];
  let stops = 0;
  let trying = 'the beginning';
  try {
    assert.ok(chosen.length > 0, `no fault is called ${only.join(' or ')}`);
    const dealt = deal(chosen, random);
    await protect(stage);
    for (let number = 1; number <= count; number += 1) {
      const fault = dealt.next().value;
      trying = `fault ${number}, ${fault.name}`;
      if (fault.stops) stops += 1;
      tools.told.clear();
      const done = await tryFault(tools, fault);
      await expectNothingLost(stage, options, hasDisk);
      seen.push({ ...done, failed: false });
      const gap = done.gapMs === undefined ? '' : `, gap ${Math.round(done.gapMs)} ms`;
      const words = `nothing lost${gap}, protected again after ${Math.round(done.repairMs)} ms`;
      const told = tools.told.size === 0 ? '' : ` (told: ${[...tools.told].join('; ').slice(0, 300)})`;
      tell(`${number} of ${count}: ${fault.name}: ${words}${told}`);
    }
    trying = 'the end';
    await expectClients(stage);
    expectVoices(context, stage, stops);
    trying = '';
  } catch (error) {
    const fault = faults.find(({ name }) => trying.endsWith(`, ${name}`));
    if (fault !== undefined) seen.push({ fault: fault.name, failed: true, intoCheckpoint: false, repairMs: 0 });
    const where = `seed ${seed}, ${mode}, ${guest} under ${accel}; logs: ${stage.pair.logDir}`;
    tell(`FAILED at ${trying}; ${where}: ${errorText(error)}`);
    throw error;
  } finally {
    for (const line of table(seen)) context.diagnostic(line);
    for (const client of stage.clients) context.diagnostic(`${client.name}: ${client.progress()}`);
    await close();
  }
}
