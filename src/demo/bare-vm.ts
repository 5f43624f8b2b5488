// One QEMU with the bare guest, its control page, and the other end of its card: for tests, benchmarks and
// `colo doctor --prove`.

import { join } from 'node:path';
import { ControlPage } from '../../guest/bare/control.ts';
import { type BareGuestOptions, bareGuest } from '../../guest/bare/guest.ts';
import { delay, systemClock } from '../base/clock.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import { silentLog } from '../base/log.ts';
import { type DiskFiles, type MachineSpec, vmFiles } from '../qemu/machine.ts';
import type { VmOptions } from '../qemu/start.ts';
import { Vm } from '../qemu/vm.ts';
import { BareCard, bareMac } from './bare-card.ts';

export interface BareVmOptions extends Omit<BareGuestOptions, 'serialLog' | 'ramBytes' | 'nics'> {
  ramBytes?: number;
  /** A new folder on a tmpfs. */
  dir: string;
  /** Without one the guest has nobody to talk to. */
  hasCard?: boolean;
  disks?: DiskFiles[];
  start?: Partial<Pick<VmOptions, 'paused' | 'vmstateTemplate' | 'tracker' | 'log' | 'qemuPath'>>;
}

export const bareRamBytes = 128 * 2 ** 20;
const pollMs = 2;
const waitTimeoutMs = 180_000;

export class BareVm {
  readonly vm: Vm;
  readonly spec: MachineSpec;
  readonly control: ControlPage;
  private readonly ownCard: BareCard | undefined;

  private constructor(vm: Vm, spec: MachineSpec, card: BareCard | undefined) {
    this.vm = vm;
    this.spec = spec;
    this.control = new ControlPage(vm);
    this.ownCard = card;
  }

  static async start(options: BareVmOptions): Promise<BareVm> {
    const { dir, hasCard = true, ramBytes = bareRamBytes, disks } = options;
    const nics = hasCard ? [{ mac: bareMac }] : [];
    const spec = await bareGuest({ ...options, ramBytes, nics, serialLog: join(dir, 'serial.log') });
    const files = { ...vmFiles(join(dir, 'run'), nics.length), ...(disks === undefined ? {} : { disks }) };
    const [nicPath] = files.nicPaths;
    const card = nicPath === undefined ? undefined : await BareCard.listen(nicPath);
    try {
      const own = { paused: false, log: silentLog, ...options.start };
      const vm = await Vm.start({ spec, files, clock: systemClock, ...own });
      await card?.connected;
      return new BareVm(vm, spec, card);
    } catch (error) {
      await card?.close();
      throw error;
    }
  }

  get card(): BareCard {
    if (this.ownCard === undefined) throw new ColoError(errorCodes.input, 'this guest was started without a card');
    return this.ownCard;
  }

  /** Waits until the guest runs; how long it took. */
  async ready(): Promise<number> {
    const started = systemClock.now();
    await this.until('it runs', () => this.control.isReady);
    return systemClock.now() - started;
  }

  /** Waits until something of the guest holds. */
  async until(what: string, holds: () => boolean): Promise<void> {
    const deadline = systemClock.now() + waitTimeoutMs;
    while (!holds()) {
      if (systemClock.now() > deadline)
        throw new ColoError(errorCodes.timeout, `the bare guest did not come so far that ${what}`, {
          hint: `its console is in ${this.spec.serialLog}`,
        });
      await delay(pollMs);
    }
  }

  /** Waits until the guest has made `count` more turns. */
  turns(count: number): Promise<void> {
    const wanted = this.control.get('turns') + BigInt(count);
    return this.until(`${wanted} turns are made`, () => this.control.get('turns') >= wanted);
  }

  /** Has a guest that does not run free make one turn. */
  async turn(pages: number): Promise<void> {
    this.control.set('pages', pages);
    const wanted = this.control.get('turn_request') + 1n;
    this.control.set('turn_request', wanted);
    await this.until('the turn is made', () => this.control.get('turn_done') === wanted);
  }

  /** Has the guest read a word of every page of its pool; how long that took. */
  async read(): Promise<number> {
    const wanted = this.control.get('read_request') + 1n;
    this.control.set('read_request', wanted);
    await this.until('it has read', () => this.control.get('read_done') === wanted);
    return this.control.ms('read_ticks');
  }

  /** Has the guest read all its clocks into the control page. */
  async clocks(): Promise<void> {
    const wanted = this.control.get('clock_request') + 1n;
    this.control.set('clock_request', wanted);
    await this.until('it has read its clocks', () => this.control.get('clock_done') === wanted);
  }

  async close(): Promise<void> {
    await this.vm.kill();
    await this.ownCard?.close();
  }
}
