// A capture put into a second machine of the same test, as a secondary would.

import type { PageRuns } from '../../src/base/page-runs.ts';
import type { Capture, Vm } from '../../src/qemu/vm.ts';

/** The secondary's side of a checkpoint: the pages of before, then those of the capture, then the devices. */
export async function apply(vm: Vm, shadow: Buffer, capture: Capture): Promise<void> {
  const restore = (runs: PageRuns) => runs.forEach((start, end) => void shadow.copy(vm.ram, start, start, end));
  restore(vm.tracker.collect());
  let at = 0;
  capture.runs.forEach((start, end) => {
    at += capture.pages.copy(shadow, start, at, at + end - start);
  });
  shadow.copy(vm.ram);
  await vm.load(capture.deviceState);
  restore(vm.tracker.collect());
}
