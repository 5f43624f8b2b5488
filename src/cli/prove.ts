// `colo doctor --prove` in words: the table and the verdict of src/demo/prove.

import { systemClock } from '../base/clock.ts';
import { clockNames, clockTexts } from '../demo/prove/clock-sample.ts';
import { type Proof, prove } from '../demo/prove/prove.ts';
import { ensurePackages, runtimePackages } from '../host/packages.ts';
import { interruptSignal } from './interrupt.ts';
import { ms, table } from './view.ts';

const captures = 200;
const loads = 50;

/** 0 only when everything held. */
export async function proveCommand(options: { accel?: 'kvm' | 'tcg'; json: boolean }): Promise<number> {
  const say = (line: string) => void process.stderr.write(`- ${line}\n`);
  await ensurePackages(runtimePackages, { why: 'prove what COLO promises', onProgress: say });
  const accel = options.accel === undefined ? {} : { accel: options.accel };
  const proof = await prove({ ...accel, captures, loads, clock: systemClock, signal: interruptSignal(), say });
  process.stdout.write(options.json ? `${JSON.stringify(proof, null, 2)}\n` : `${formatProof(proof).join('\n')}\n`);
  return proof.ok ? 0 : 1;
}

function severalRow({ several, host }: Proof): string[] {
  const { vcpus, captures: of, loads: after } = several;
  const words =
    `${of.missedPages} of ${of.changedPages} changed pages missed, ${after.exact} of ${after.loads} loads ` + 'exact';
  return [`${vcpus} running vCPUs: pause`, ms(of.pauseMs.p50), ms(of.pauseMs.p99), `${words}, ${host.accel}`];
}

export function formatProof(proof: Proof): string[] {
  const { host } = proof;
  const kvm =
    host.kvm === null
      ? ''
      : ` (${host.kvm.module}, ${host.kvm.hasNestedPaging ? 'nested paging' : 'no nested paging'})`;
  return [
    '',
    `QEMU ${host.qemu}, ${host.accel}${host.accel === 'kvm' ? kvm : ''}, Linux ${host.kernel}, ` +
      `${host.processor}, ${host.cores} cores, tracker ${host.tracker}`,
    ...(host.ring === 3 ? ['this KVM emulates all of ring 0, so the bare guest ran in ring 3'] : []),
    '',
    ...table(['what', 'p50', 'p99', 'of'], rowsOf(proof)),
    '',
    ...proof.seen.map((what) => `seen      ${what}`),
    ...proof.notSeen.map((what) => `not seen  ${what}`),
    '',
    ...verdictOf(proof),
  ];
}

type Pair = { p50: number; p99: number };

function rowsOf(proof: Proof): string[][] {
  const { captures: captured, loads: loaded, slowDown, failovers, host } = proof;
  const row = (what: string, of: Pair | undefined | null, note: string) =>
    of === undefined || of === null ? [] : [[what, ms(of.p50), ms(of.p99), note]];
  const perCapture = Math.round(captured.listedPages / Math.max(1, captured.captures));
  const mib = (slowDown.poolPages * 4096) / 2 ** 20;
  return [
    ...row(
      'pause of a capture',
      captured.pauseMs,
      `${captured.captures}, ${perCapture} pages each, ${captured.missedPages} of ${captured.changedPages} ` +
        'changed pages missed',
    ),
    ...row(`reading ${mib} MiB after it`, slowDown.readMs.afterCapture, 'by the guest'),
    ...row('  the same once more', slowDown.readMs.again, ''),
    ...row(`writing ${slowDown.writtenPages} pages after it`, slowDown.writeMs.afterCapture, 'by the guest'),
    ...row('  the same once more', slowDown.writeMs.again, ''),
    ...row(
      'load',
      loaded.loadMs,
      `${loaded.exact} of ${loaded.loads} exact, ${loaded.stateBytes} bytes of device state`,
    ),
    ...clockRows(loaded),
    severalRow(proof),
    ...failovers.flatMap((each) => {
      const name = `failover of the ${each.guest} guest`;
      const took =
        each.detectMs === null ? 'none' : `seen after ${ms(each.detectMs)}, done ${ms(each.takeoverMs ?? 0)} later`;
      return [
        ...row(`${name}: pause`, each.pauseMs, `${each.checkpoints} checkpoints, ${each.vcpus} vCPUs, ${host.accel}`),
        [`${name}: gap`, '-', ms(each.gapMsMax), `${took}; download ${each.downloadMibPerSecond} MiB/s`],
      ];
    }),
  ];
}

function clockRows({ clocks }: Proof['loads']): string[][] {
  const names = [...clockNames, 'rtc'] as const;
  return names.flatMap((name) => {
    const lag = clocks[name];
    if (lag === undefined) return [];
    const text = name === 'rtc' ? 'real-time clock' : clockTexts[name];
    const note = `secondary from primary, give or take ${ms(lag.openMs)}`;
    return [[`${text} apart after it`, ms(lag.apartMs.p50), ms(lag.apartMs.p99), note]];
  });
}

function verdictOf(proof: Proof): string[] {
  if (proof.ok) return [`PROVEN under ${proof.host.accel.toUpperCase()}: everything above held.`];
  return ['FAILED:', ...proof.problems.slice(0, 20).map((problem) => `  ${problem}`)];
}
