// What a capture costs the guest after it has resumed: the first reading of its memory, and the first write to a
// thousand pages, against the same once more. Write protection may take page tables from the guest, and it pays for
// them here.

import { type Percentiles, percentiles } from '../../checkpoint/record.ts';
import type { BareVm } from '../bare-vm.ts';

export interface SlowDown {
  poolPages: number;
  writtenPages: number;
  /** One word of every page of the pool. */
  readMs: { afterCapture: Percentiles; again: Percentiles };
  writeMs: { afterCapture: Percentiles; again: Percentiles };
}

const writtenPages = 1000;

/** Takes the guest's turns into its own hands for as long as it lasts. */
export async function measureSlowDown(guest: BareVm, rounds: number): Promise<SlowDown> {
  const { control, vm } = guest;
  const pages = control.get('pages');
  const times = { read: [[], []] as [number[], number[]], write: [[], []] as [number[], number[]] };
  const capture = async () => (await vm.capture({ onStopped: () => undefined })).release();
  const write = async () => {
    await guest.turn(writtenPages);
    return control.ms('turn_ticks');
  };
  control.set('free_run', 0);
  try {
    await write();
    for (let round = 0; round < rounds; round++) {
      await capture();
      times.read[0].push(await guest.read());
      times.read[1].push(await guest.read());
      await capture();
      times.write[0].push(await write());
      times.write[1].push(await write());
    }
  } finally {
    control.set('pages', pages);
    control.set('free_run', 1);
  }
  const both = ([after, again]: [number[], number[]]) => ({
    afterCapture: percentiles(after),
    again: percentiles(again),
  });
  return {
    ...{ poolPages: control.number('pool_pages'), writtenPages },
    ...{ readMs: both(times.read), writeMs: both(times.write) },
  };
}
