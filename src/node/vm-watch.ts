// Watches a node's VM: its end, and a QEMU that hangs, which is as bad as one that is dead and looks alive to everybody
// else. They become the events `vmEnded` and `vmHangs`; what follows is PrimaryPair's and SecondaryPair's. And asks a
// QEMU for a sign of life where something is to be done that only one that lives can carry.

import { afterAwake, type Clock } from '../base/clock.ts';
import { ColoError, errorCodes, errorText } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { PrimaryEvent, PrimaryPair } from '../controller/primary-pair.ts';
import type { Condition } from '../qemu/guard.ts';
import { endHeardMs, pingMs, saidCharactersMax } from './limits.ts';
import type { GuestVm, VmEnd } from './platform.ts';

export interface VmWatchParts {
  vm: GuestVm;
  clock: Clock;
  log: Pick<Log, 'warn'>;
  pair: Pick<PrimaryPair, 'state'>;
  post: (event: PrimaryEvent) => void;
}

/** Watches a primary's VM. */
export class VmWatch {
  private readonly parts: VmWatchParts;

  constructor(parts: VmWatchParts) {
    this.parts = parts;
  }

  /** Returns what ends it. */
  start(): () => void {
    const { vm, clock, log, pair, post } = this.parts;
    void vm.exited.then((end) => post({ kind: 'vmEnded', ...describeEnd(end) }));
    return watchMonitor(clock, {
      vm: () => (pair.state.kind === 'protected' ? vm : undefined),
      hangs: (why) => {
        log.warn({ why }, 'QEMU does not answer');
        post({ kind: 'vmHangs', why });
      },
    });
  }

  endHeard(): Promise<void> {
    return endHeard(this.parts.vm, this.parts.clock);
  }

  signOfLife(): Promise<Sign> {
    return signOfLife(this.parts.vm);
  }
}

/** What became of a question for a sign of life. One that is `silent` may go on, one that is `gone` never does. */
export type Sign = 'lives' | 'silent' | 'gone';

export async function signOfLife(vm: Pick<GuestVm, 'ping'>): Promise<Sign> {
  try {
    await vm.ping();
    return 'lives';
  } catch (error) {
    return isTimeout(error) ? 'silent' : 'gone';
  }
}

/**
 * What is wrong with a machine that is to run (or, `stands`, that waits for its takeover); undefined when nothing is. A
 * machine that looks alive and does not run, or lost a device, is no copy of one that does.
 */
export function troubleOf({ runState, faults }: Condition, how: 'runs' | 'stands'): string | undefined {
  const stands = how === 'runs' && runState !== 'running' ? [`the machine does not run (${runState})`] : [];
  const all = [...stands, ...faults];
  return all.length === 0 ? undefined : all.join('; ');
}

/** Rejects with what is wrong with the machine. */
export async function assertWell(vm: Pick<GuestVm, 'condition'>, how: 'runs' | 'stands'): Promise<void> {
  const trouble = troubleOf(await vm.condition(), how);
  if (trouble !== undefined) throw new ColoError(errorCodes.machine, trouble);
}

/** QEMU leaves with code 0 when its guest shuts down, and also when it is sent a SIGTERM. */
export function describeEnd({ code, signal, byHost, stderr = '' }: VmEnd): { why: string; byGuest: boolean } {
  // An assertion of QEMU says which one it was.
  const line = signal === 'SIGKILL' ? '' : (stderr.trim().split('\n').at(-1) ?? '').slice(0, saidCharactersMax);
  const said = line === '' ? '' : `: ${line}`;
  if (signal !== null) return { why: `QEMU was killed (${signal})${said}`, byGuest: false };
  if (byHost === true) return { why: 'QEMU was told to end on its host', byGuest: false };
  return { why: `QEMU ended with code ${code}${code === 0 ? '' : said}`, byGuest: code === 0 };
}

/**
 * Resolves when the end of a QEMU that is gone has been heard, and at once when it lives. Whatever a QEMU that is gone
 * is asked fails some ten milliseconds before anybody hears of its end; who takes that for troubles of checkpoints
 * drops the secondary, which has the only copy of the VM then.
 */
export async function endHeard(vm: Pick<GuestVm, 'ping' | 'exited'>, clock: Clock): Promise<void> {
  if ((await signOfLife(vm)) === 'lives') return;
  const { promise, resolve } = Promise.withResolvers<void>();
  const cancel = afterAwake(clock, endHeardMs, resolve);
  await Promise.race([vm.exited, promise]);
  cancel();
}

/**
 * Asks the monitor of the VM of now, if there is one to ask, now and then, and tells of each question that was not
 * answered in time. Returns what ends it.
 */
export function watchMonitor(
  clock: Clock,
  {
    vm,
    hangs,
    answered = () => undefined,
  }: {
    vm: () => GuestVm | undefined;
    hangs: (why: string, vm: GuestVm) => void;
    /** It gave a sign of life. */
    answered?: (vm: GuestVm) => void;
  },
): () => void {
  const asked = new WeakSet<GuestVm>();
  return clock.every(pingMs, () => {
    const one = vm();
    if (one === undefined || asked.has(one)) return;
    asked.add(one);
    one.ping().then(
      () => {
        asked.delete(one);
        answered(one);
      },
      (error: unknown) => {
        if (!isTimeout(error)) return;
        asked.delete(one);
        hangs(`QEMU hangs: ${errorText(error)}`, one);
      },
    );
  });
}

function isTimeout(error: unknown): boolean {
  return error instanceof ColoError && error.code === errorCodes.qemuTimeout;
}
