// `colo run SPEC`: starts the VM of a spec on this machine, protects it, and shows it until Ctrl-C, or until its guest
// switches itself off.

import { existsSync } from 'node:fs';
import { buildBareGuest } from '../../guest/bare/build.ts';
import { buildGuest } from '../../guest/build.ts';
import { exposeNodes } from '../api/metrics.ts';
import type { NodeStatus } from '../api/node-status.ts';
import { delay, systemClock } from '../base/clock.ts';
import { healthAnswer, metricsAnswer } from '../colod/monitor-answers.ts';
import { openPlainDoor, type PlainDoor } from '../colod/plain-door.ts';
import { checkLocal, readSpec, type Spec, writtenDisks } from '../config/spec.ts';
import { bareDemoGuest } from '../demo/guest.ts';
import { readHeader } from '../disk/header.ts';
import { refuseOwner } from '../disk/recovery.ts';
import { Folder } from '../disk/storage.ts';
import { checkImage } from '../host/disk-image.ts';
import { ensurePackages, guestPackages, runtimePackages } from '../host/packages.ts';
import { type Forward, refuseBusyPorts } from '../lan/gateway.ts';
import { ensureFirmware } from '../local/firmware.ts';
import { addedWords, type BootFiles } from '../local/machine.ts';
import { LocalPair, replicaDirectory } from '../local/pair.ts';
import { Interrupted, interruptSignal } from './interrupt.ts';
import { LiveBlock, statusBlock, statusLine } from './view.ts';

export interface RunOptions {
  json: boolean;
  logLevel: string;
  /** The port of 127.0.0.1 where metrics and health are had. */
  monitor?: number | undefined;
}

/** Runs until Ctrl-C. */
export async function run(path: string, options: RunOptions): Promise<number> {
  const clock = systemClock;
  const live = new LiveBlock(() => clock.now());
  const say = (line: string) => {
    if (!options.json) live.say(`- ${line}`);
  };
  const spec = await readSpec(path);
  checkLocal(spec, path);
  const forwards = spec.network.forwards.map(
    (one): Forward => ({ protocol: one.protocol, hostPort: one.host, guestPort: one.guest }),
  );
  await refuseBusyPorts(forwards);
  await ensurePackages([...runtimePackages, ...guestPackages], { why: 'run a VM', onProgress: say });
  await ensureFirmware(spec.machine, say);
  const written = writtenDisks(spec);
  for (const disk of spec.disks) await checkImage(disk.path, disk.format, written.includes(disk));
  for (const node of ['a', 'b']) refuseOwner(replicaDirectory(spec, node), undefined, written);
  const boot = await bootFiles(spec, say);
  const interrupt = interruptSignal();
  const gatewayChanged = (problem: string) => {
    const text = problem === '' ? 'the gateway stands again, with the same forwards' : problem;
    if (options.json) process.stderr.write(`${text}\n`);
    else live.say(`- ${text}`);
  };
  const pair = await LocalPair.start({
    ...{ spec, boot, forwards, clock, signal: interrupt, gatewayChanged },
    logLevel: options.logLevel,
  });
  let door: PlainDoor | undefined;
  try {
    if (options.monitor !== undefined) door = await openMonitor(options.monitor, () => pair.statuses());
    for (const forward of forwards)
      say(`127.0.0.1:${forward.hostPort} reaches the guest's ${forward.protocol} port ${forward.guestPort}`);
    if (spec.protect.mode !== 'none') await pair.startSecondary();
    if ('kernel' in spec.boot) sayAdded(spec, boot, say);
    say(`logs and consoles are in ${pair.logDir}; Ctrl-C ends the VM`);
    return await untilOver(pair, live, options.json, interrupt);
  } finally {
    await door?.close();
    await pair.stop();
    for (const node of ['a', 'b']) {
      const folder = replicaDirectory(spec, node);
      if (readHeader(new Folder(folder))?.state === 'owner')
        say(`node ${node} ran the VM last: its newest disks are in ${folder}`);
    }
  }
}

/** Both nodes are this machine's, so the label `node` tells their series apart. */
function openMonitor(port: number, statuses: () => Promise<NodeStatus[]>): Promise<PlainDoor> {
  return openPlainDoor({ host: '127.0.0.1', port }, async (path) => {
    const all = await statuses();
    return path === '/metrics' ? metricsAnswer(await exposeNodes(all)) : healthAnswer(path, all);
  });
}

/** Until Ctrl-C, or until the VM is over: then nobody would want its ports and its name to be held any longer. */
async function untilOver(pair: LocalPair, live: LiveBlock, json: boolean, interrupt: AbortSignal): Promise<number> {
  while (!interrupt.aborted && pair.nodes.some((node) => node.alive)) {
    await repair(pair, live, json);
    const statuses = await pair.statuses();
    if (json) process.stdout.write(`${JSON.stringify(statuses)}\n`);
    else live.show(statusBlock(statuses, live.rates), statusLine(statuses));
    const over = vmOver(statuses);
    if (over !== undefined) return sayOver(over);
    await delay(json ? 1000 : 250);
  }
  if (interrupt.aborted && !(interrupt.reason instanceof Interrupted)) throw interrupt.reason;
  return 0;
}

function vmOver(statuses: NodeStatus[]): { why: string; byGuest: boolean } | undefined {
  if (statuses.some(({ role }) => role === 'primary')) return undefined;
  return statuses.map(({ over }) => over).find((over) => over !== null && over !== undefined) ?? undefined;
}

function sayOver({ why, byGuest }: { why: string; byGuest: boolean }): number {
  process.stderr.write(byGuest ? 'the guest has switched itself off\n' : `the VM is lost: ${why}\n`);
  return byGuest ? 0 : 1;
}

/** A node whose process died is started again; it finds its role by itself, and the VM is protected again. */
async function repair(pair: LocalPair, live: LiveBlock, json: boolean): Promise<void> {
  const dead = pair.nodes.filter((node) => !node.alive);
  if (dead.length === 0 || dead.length === pair.nodes.length) return;
  for (const node of dead) {
    if (!json) live.say(`- node ${node.name} died; it is started again`);
    await pair.restart(node.name === 'a' ? 'a' : 'b');
  }
}

/** The command line is the operator's: what is added to it is said. */
function sayAdded(spec: Spec, boot: BootFiles, say: (line: string) => void): void {
  const words = addedWords(spec, boot);
  if (words.length > 0) say(`the kernel is also told ${words.join(' ')} (boot.clockRate: false leaves it out)`);
}

async function bootFiles(spec: Spec, say: (line: string) => void): Promise<BootFiles> {
  if ('from' in spec.boot) return { kernel: undefined, initrd: undefined, cmdline: '' };
  if ('kernel' in spec.boot) return { ...spec.boot, initrd: spec.boot.initrd };
  if (spec.boot.guest === 'bare') return bareDemoGuest(await buildBareGuest()).boot;
  const guest = await buildGuest({ onProgress: say });
  if (!existsSync(guest.kernel)) throw new Error(`bug: the guest's kernel ${guest.kernel} is gone`);
  return { kernel: guest.kernel, initrd: guest.initrd, cmdline: guest.cmdline };
}
