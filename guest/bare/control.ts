// The host's view of the guest's control page (control.h): numbers of 64 bits in RAM that both see.
//
// What the host writes there is not seen by write tracking, which notes the guest's writes alone; the guest writes the
// same page in every turn of its loop, so it travels all the same.

/** The fields of `struct control` in their order; a test compares them with control.h. */
export const controlFields = [
  'magic',
  ...(['pages', 'period_us', 'free_run', 'turn_request', 'read_request', 'clock_request'] as const),
  ...(['turn_done', 'turns', 'turn_ticks', 'writes', 'page_errors', 'chain', 'chain_errors'] as const),
  ...(['read_done', 'read_ticks', 'pool_pages', 'loops', 'clock_done', 'ticks_per_ms', 'tsc', 'kvmclock_ns'] as const),
  ...(['pm_timer', 'hpet', 'hpet_fs', 'lapic', 'pit', 'rtc_s'] as const),
  ...(['tsc_back', 'tsc_jump', 'kvmclock_back', 'kvmclock_jump', 'pm_back', 'hpet_back', 'lapic_back'] as const),
  ...(['card', 'frames_in', 'frames_out', 'frames_bad', 'frames_lost', 'arp', 'icmp', 'udp'] as const),
  ...(['tcp_open', 'tcp_opened', 'tcp_refused', 'tcp_resent', 'tcp_given_up', 'isn'] as const),
  ...(['disk', 'disk_writes', 'disk_reads', 'disk_flushes', 'disk_errors'] as const),
  ...(['vcpus', 'vcpu_turns', 'vcpu_errors', 'tsc_apart', 'ring'] as const),
] as const;

export type ControlField = (typeof controlFields)[number];

const pageAt = 0x400000;
const ready = 0x434f4c4f42415245n;
const offsets = new Map<ControlField, number>(controlFields.map((name, index) => [name, pageAt + index * 8]));

export class ControlPage {
  private readonly ram: () => Buffer;

  /** Takes the VM's RAM anew each time: it is gone when the VM is. */
  constructor(vm: { ram: Buffer }) {
    this.ram = () => vm.ram;
  }

  get isReady(): boolean {
    return this.get('magic') === ready;
  }

  get(name: ControlField): bigint {
    return this.ram().readBigUInt64LE(offsets.get(name) ?? 0);
  }

  number(name: ControlField): number {
    return Number(this.get(name));
  }

  set(name: ControlField, value: bigint | number): void {
    this.ram().writeBigUInt64LE(BigInt(value), offsets.get(name) ?? 0);
  }

  /** Ticks of the TSC as milliseconds. */
  ms(ticks: ControlField): number {
    return this.number(ticks) / this.number('ticks_per_ms');
  }

  /** What the guest found wrong with its own memory and disk. */
  get errors(): number {
    const kinds = ['page_errors', 'chain_errors', 'disk_errors', 'vcpu_errors'] as const;
    return kinds.reduce((sum, kind) => sum + this.number(kind), 0);
  }
}
