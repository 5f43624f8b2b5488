// The bank through many failovers, in one guest: the primary's node is killed at a random moment, comes back as the
// secondary, the VM is protected again while the clients go on; then everything is checked, and again.
//
// After each kill, with the clients done:
//
//   audit     every acknowledged transfer once, every balance right, amcheck clean, redis counted what it acknowledged
//   rest      the guest ends its services and writes to its disk no more; after a checkpoint the replica is the
//             primary's disk byte for byte, and e2fsck -n finds it clean
//   audit     again, by services that were started from the disk alone

import { callNode } from '../../api/node-client.ts';
import type { NodeStatus } from '../../api/node-status.ts';
import { wallTime } from '../../base/clock.ts';
import { seededRandom } from '../../base/random.ts';
import { tryCommand } from '../../host/command.ts';
import type { ClientReport } from '../clients/client.ts';
import { watch } from '../demo.ts';
import { injectInto } from '../faults.ts';
import {
  auditInto,
  checkFileSystem,
  diskPath,
  holderOf,
  otherOf,
  type Stage,
  tellAndHear,
  untilProtected,
} from './stage.ts';

const takeoverTimeoutMs = 60_000;
const checkpointTimeoutMs = 60_000;
const checkpointTries = 5;

export interface Rounds {
  /** One line for each kind of client, over all rounds. */
  clients: ClientReport[];
  transfers: number;
  before: NodeStatus | undefined;
  holder: 'a' | 'b';
}

/** Kills the primary `failovers` times, or until something is wrong. */
export async function rounds(
  stage: Stage,
  clients: { start(): Promise<void>; finish(): Promise<ClientReport[]> },
): Promise<Rounds> {
  const { options, problems } = stage;
  const random = seededRandom(options.seed);
  const reports = new Map<string, ClientReport>();
  const told: Rounds = { clients: [], transfers: 0, before: undefined, holder: 'a' };
  for (let index = 1; index <= options.failovers && problems.length === 0; index += 1) {
    await clients.start();
    const killAfterMs = options.seconds * 1000 * random();
    await watch(stage, killAfterMs, `clients write; kill ${index} of ${options.failovers} comes`);
    await untilProtected(stage, 'to be protected before the kill');
    const victim = await holderOf(stage);
    told.before = (await stage.pair.statuses()).find((one) => one.node === victim) ?? told.before;
    const repairMs = await killAndRepair(stage, victim);
    await watch(stage, 1000, 'protected again');
    for (const report of await clients.finish()) add(reports, report);
    told.transfers = await auditInto(stage, stage.ports);
    await restAndCheck(stage, { index, hasFailedOver: true });
    const sums = `${told.transfers} transfers, ${stage.increments} increments`;
    const result = problems.length === 0 ? `${sums}, disk clean` : 'FAILED';
    options.say(
      `kill ${index} of ${options.failovers}, node ${victim} after ${(killAfterMs / 1000).toFixed(1)} s, ` +
        `repaired in ${(repairMs / 1000).toFixed(1)} s: ${result}`,
    );
  }
  told.holder = await holderOf(stage);
  told.clients = [...reports.values()];
  return told;
}

async function killAndRepair(stage: Stage, victim: 'a' | 'b'): Promise<number> {
  const { options, pair, clients } = stage;
  for (const client of clients) client.markFault();
  const { at } = await injectInto(pair[victim], 'primary-kill', () => wallTime(options.clock.now()));
  const tookOver = (one: NodeStatus) =>
    one.node === otherOf(victim) && one.role === 'primary' && (one.failover?.doneAt ?? 0) >= at;
  await pair.until(`taken over by node ${otherOf(victim)}`, takeoverTimeoutMs, (all) => all.some(tookOver));
  await pair.restart(victim);
  return untilProtected(stage, `node ${victim} is back: the disk and the RAM are copied`);
}

/** The resting guest's disk is clean, the replica is the same, and from it alone everything is there again. */
export async function restAndCheck(
  stage: Stage,
  { index, hasFailedOver }: { index: number; hasFailedOver: boolean },
): Promise<void> {
  const { problems, spec } = stage;
  await tellAndHear(stage, `rest ${index}`, `colo-guest rests ${index}.`);
  const primary = await checkpoint(stage);
  const files = [primary, otherOf(primary)].map((name) => diskPath(stage, name, hasFailedOver));
  await checkFileSystem(stage, files[0] ?? '');
  const compared = await tryCommand('cmp', files, { timeoutMs: 120_000 });
  if (compared.code !== 0)
    problems.push(`the replica is not the disk of ${spec.vm}: ${compared.failure ?? compared.stdout.trim()}`);
  await tellAndHear(stage, 'go on', `colo-guest ready ${index}.`);
  await auditInto(stage, stage.ports);
}

/**
 * A checkpoint of the protected VM; returns the primary that it is of. A starved host may lose its secondary meanwhile.
 */
async function checkpoint(stage: Stage): Promise<'a' | 'b'> {
  for (let left = checkpointTries; ; left -= 1) {
    await untilProtected(stage, 'the guest rests');
    const name = await holderOf(stage);
    try {
      const socketPath = stage.pair[name]?.apiPath ?? '';
      await callNode({ socketPath, method: 'POST', path: '/checkpoint', timeoutMs: checkpointTimeoutMs });
      return name;
    } catch (error) {
      if (left <= 1) throw error;
    }
  }
}

/** Sums over the rounds, of the longest gaps the longest. */
function add(reports: Map<string, ClientReport>, report: ClientReport): void {
  const kind = report.name.replace(/ \d+$/, '');
  const known = reports.get(kind);
  if (known === undefined) {
    reports.set(kind, { ...report, name: kind });
    return;
  }
  known.ok &&= report.ok;
  if (!report.ok) known.detail = report.detail;
  known.connections += report.connections;
  known.sent += report.sent;
  known.received += report.received;
  known.gapMsMax = Math.max(known.gapMsMax, report.gapMsMax);
  known.gapBeforeFaultMsMax = Math.max(known.gapBeforeFaultMsMax, report.gapBeforeFaultMsMax);
  known.gapAfterFaultMsMax = Math.max(known.gapAfterFaultMsMax, report.gapAfterFaultMsMax);
  known.latencyMsP50 = Math.max(known.latencyMsP50 ?? 0, report.latencyMsP50 ?? 0);
}
