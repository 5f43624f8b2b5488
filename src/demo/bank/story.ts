// `colo demo --disk`: a database survives with its data. A guest with PostgreSQL and redis on a root disk is protected,
// clients write to it, its primary is killed at a random moment, and in the end
//
//   - every acknowledged transfer is in the database exactly once, every balance is right, amcheck finds nothing
//   - no client was disconnected, and no acknowledged increment of redis is lost or doubled
//   - the survivor's disk, after an orderly shutdown, is clean (e2fsck -n)
//   - a VM started from that disk alone says the same again: it is on the disk, not only in the survivor's memory
//
// With several failovers the same holds after each of them (rounds.ts).

import { diskTexts } from '../../../guest/disk/recipe.ts';
import type { NodeStatus } from '../../api/node-status.ts';
import { wallTime } from '../../base/clock.ts';
import { errorText } from '../../base/errors.ts';
import { seededRandom } from '../../base/random.ts';
import { formatSize } from '../../config/size.ts';
import { takeTemporaryFolder } from '../../local/temporary.ts';
import type { ClientReport } from '../clients/client.ts';
import { LineClient, redisRules } from '../clients/lines.ts';
import { LoginClient, openLogin } from '../clients/login.ts';
import { applyProblems, expectState, finish, theSurvivor, verified, watch } from '../demo.ts';
import { type FaultKind, faultTexts, injectInto, type Parts, partsOf } from '../faults.ts';
import { openBank, Teller } from './bank.ts';
import { restAndCheck, rounds } from './rounds.ts';
import {
  auditInto,
  type BankDemoOptions,
  bankSpec,
  checkFileSystem,
  closeStage,
  diskPath,
  haltGuest,
  loginPlace,
  openStage,
  rebootAndAudit,
  type Stage,
  untilProtected,
} from './stage.ts';

export interface BankReport {
  ok: boolean;
  mode: string;
  fault: FaultKind;
  failovers: number;
  seed: number;
  problems: string[];
  clients: ClientReport[];
  transfers: number;
  increments: number;
  faultAfterMs: number;
  copyMs: number;
  failover: { detectMs: number; takeoverMs: number; why: string } | null;
  checkpoints: NodeStatus['checkpoints'];
  disks: NodeStatus['disks'];
}

/** What a story adds to the report, and who has the guest in the end. */
interface Told {
  clients: ClientReport[];
  transfers: number;
  faultAfterMs: number;
  failover: BankReport['failover'];
  before: NodeStatus | undefined;
  holder: 'a' | 'b';
}

const tellersAtOnce = 2;
const answerTimeoutMs = 60_000;

export async function runBankDemo(options: BankDemoOptions): Promise<BankReport> {
  // Guests' disks are large: a folder of the system's, not the tmpfs where RAM lies.
  const { folder, release } = takeTemporaryFolder('colo-demo-disk-');
  try {
    return await onDisk(options, folder);
  } finally {
    release();
  }
}

async function onDisk(options: BankDemoOptions, folder: string): Promise<BankReport> {
  const { say, seed, mode, fault, failovers } = options;
  const stage = await openStage(options, await bankSpec(options, folder), folder);
  let told: Told;
  let copyMs: number;
  try {
    say('the guest runs from its disk: PostgreSQL and redis, every commit flushed');
    await openBank(stage.ports.postgres);
    await stage.pair.startSecondary();
    copyMs = await untilProtected(stage, 'the disk and the RAM are copied');
    say(`protected in ${mode} mode (${(copyMs / 1000).toFixed(1)} s), disk and all`);
    told = failovers > 1 ? await longStory(stage) : await story(stage);
    await haltGuest(stage, told.holder);
  } finally {
    await closeStage(stage);
  }
  const { clients, transfers, faultAfterMs, failover, before, holder } = told;
  const survivor = diskPath(stage, holder, stage.pair.owners.turns.length > 1);
  if (await checkFileSystem(stage, survivor)) say("e2fsck: the survivor's disk is clean");
  const { problems } = stage;
  if (options.reboot && problems.length === 0) await rebootAndAudit(stage, survivor);
  return {
    ...{ ok: problems.length === 0, mode, fault, failovers, seed, problems, clients, transfers, faultAfterMs, copyMs },
    ...{ increments: stage.increments, failover },
    checkpoints: before?.checkpoints ?? null,
    disks: before?.disks ?? null,
  };
}

/** Tellers and the redis client begin. */
export async function startClients(stage: Stage): Promise<void> {
  const { ports, options, tellers } = stage;
  const { clock, seed } = options;
  stage.clients = [];
  for (let count = 0; count < tellersAtOnce; count += 1) {
    const teller = await Teller.start(ports.postgres, { number: tellers.length, seed, paceMs: 10 }, clock);
    tellers.push(teller);
    stage.clients.push(teller);
  }
  stage.clients.push(await LineClient.start(redisRules(ports.redis, 50, stage.increments), clock));
  if (options.login === true) stage.clients.push(await LoginClient.start(loginPlace(stage), clock));
}

/** The clients end, and what they saw is noted; returns their reports. */
async function finishClients(stage: Stage): Promise<ClientReport[]> {
  const reports = await finish(stage);
  stage.problems.push(...applyProblems(verified(await stage.pair.statuses())));
  stage.problems.push(...reports.filter((report) => !report.ok).map((report) => `${report.name}: ${report.detail}`));
  stage.increments += reports.find((report) => report.name === 'redis')?.received ?? 0;
  return reports;
}

async function story(stage: Stage): Promise<Told> {
  const { options, pair, problems } = stage;
  const { clock, say, fault, seed } = options;
  await startClients(stage);
  // The kill comes at a random moment of the middle half.
  const faultAfterMs = options.seconds * 1000 * (0.25 + seededRandom(seed)() * 0.5);
  await watch(stage, faultAfterMs, `clients write; in ${(faultAfterMs / 1000).toFixed(1)} s: ${fault}`);
  // A starved host may just have suspected its peer wrongly: the story is about a VM that is protected.
  const isProtected = (one: NodeStatus) => one.role === 'primary' && one.protected;
  const before = await expectState(stage, problems, 'protected', (all) => all.find(isProtected));
  for (const client of stage.clients) client.markFault();
  say(faultTexts[fault]);
  const parts = partsOf(fault, before?.node);
  const injected = await injectInto(pair[parts.victim], fault, () => wallTime(clock.now()));
  const after = await theSurvivor(stage, problems, parts);
  await watch(stage, options.seconds * 1000 - faultAfterMs, 'the survivor serves');
  injected.wake();
  say('waiting for the clients to finish, then the database is asked for everything');
  const clients = await finishClients(stage);
  const transfers = await auditInto(stage, stage.ports);
  if (options.login === true) await logIn(stage);
  if (fault === 'secondary-kill') await protectAgain(stage, parts);
  const happened = after?.failover ?? null;
  return {
    ...{ clients, transfers, faultAfterMs, before, holder: parts.survivor },
    failover:
      happened === null
        ? null
        : {
            detectMs: happened.detectedAt - injected.at,
            takeoverMs: happened.doneAt - happened.detectedAt,
            why: happened.why,
          },
  };
}

/** The survivor lets somebody in who was never there before, with the keys that its disk has. */
async function logIn(stage: Stage): Promise<void> {
  try {
    const page = await openLogin(loginPlace(stage), 'cat /var/www/index.html');
    if (page !== diskTexts['var/www/index.html']) stage.problems.push(`over SSH a file of the disk reads "${page}"`);
  } catch (error) {
    stage.problems.push(errorText(error));
  }
}

/** The secondary that was lost comes back with its replica: what it has already is not copied again. */
async function protectAgain(stage: Stage, { victim, survivor }: Parts): Promise<void> {
  const { pair, problems, options } = stage;
  await pair.restart(victim);
  const copyMs = await untilProtected(stage, `node ${victim} is back: what changed is copied`);
  // Not in one look: it may answer late.
  const all = await pair.until(`heard from ${survivor}`, answerTimeoutMs, (seen) =>
    seen.some((one) => one.node === survivor),
  );
  const { disks } = all.find((one) => one.node === survivor) ?? {};
  const skipped = disks?.skippedBytes ?? 0;
  options.say(`protected again (${(copyMs / 1000).toFixed(1)} s): ${formatSize(skipped)} were not copied again`);
  if (skipped === 0) problems.push('the whole disk was copied again, though the secondary had a replica of it');
  await restAndCheck(stage, { index: 0, hasFailedOver: pair.owners.turns.length > 1 });
}

async function longStory(stage: Stage): Promise<Told> {
  const told = await rounds(stage, { start: () => startClients(stage), finish: () => finishClients(stage) });
  return { ...told, faultAfterMs: 0, failover: null };
}
