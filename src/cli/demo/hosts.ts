// `colo demo --hosts N`: several hosts on this machine, shown. The story itself is src/demo/hosts.ts.

import { buildGuest } from '../../../guest/build.ts';
import { systemClock } from '../../base/clock.ts';
import { ColoError, errorCodes } from '../../base/errors.ts';
import type { DemoView } from '../../demo/demo.ts';
import { type HostsReport, runHostsDemo } from '../../demo/hosts.ts';
import { clusterPackages, ensurePackages, guestPackages, runtimePackages } from '../../host/packages.ts';
import { labRefusal } from '../../lab/lab.ts';
import { interruptSignal } from '../interrupt.ts';
import { LiveBlock } from '../view.ts';
import { writeReport } from './arguments.ts';
import { block, clientTable, line } from './show.ts';

export interface HostsArguments {
  name: string;
  mode: 'colo' | 'remus';
  hosts: number;
  seconds: number;
  report: string | undefined;
  json: boolean;
}

/** Runs the demo; 0 only if everything held. */
export async function demoOfHosts(options: HostsArguments): Promise<number> {
  const live = new LiveBlock(() => systemClock.now());
  const say = (text: string) => {
    if (!options.json) live.say(`- ${text}`);
  };
  const packages = [...runtimePackages, ...guestPackages, ...clusterPackages];
  await ensurePackages(packages, { why: 'run the demo on several hosts', onProgress: say });
  // From here on an interrupt unwinds: to find out whether there can be hosts, a namespace is made.
  const signal = interruptSignal();
  const refusal = await labRefusal();
  signal.throwIfAborted();
  if (refusal !== undefined)
    throw new ColoError(errorCodes.host, refusal, { hint: 'run it as root, where network namespaces can be made' });
  const guest = await buildGuest({ onProgress: say });
  signal.throwIfAborted();
  const show = (view: DemoView) => {
    if (!options.json) live.show(block(view, live.rates), line(view));
  };
  const report = await runHostsDemo({ ...options, guest, clock: systemClock, say, show, signal });
  const text = await writeReport(report, options.report);
  process.stdout.write(options.json ? text : `${summary(report).join('\n')}\n`);
  return report.ok ? 0 : 1;
}

function summary(report: HostsReport): string[] {
  const events = report.events.map(
    ({ what, takeoverMs, protectedAgainMs }) =>
      `${what}: taken over after ${takeoverMs.toFixed(0)} ms, protected again after ` +
      `${(protectedAgainMs / 1000).toFixed(1)} s`,
  );
  const verdict = report.ok
    ? ['Everything held: the same connections, every byte, every reply, and one voice at the bridge.']
    : ['FAILED:', ...report.problems.map((problem) => `  ${problem}`)];
  const voices = `heard at the bridge, in turn: ${report.voices.join(', ')}`;
  return ['', ...clientTable(report.clients), '', ...events, voices, '', ...verdict];
}
