// Whether KVM runs the bare guest on this host: found out once in a process, by starting it.

import { buildBareGuest } from '../../guest/bare/build.ts';
import { probeBareGuest } from '../../src/host/accelerator.ts';

/** A starved host may take long for what takes a tenth of a second. */
const startTimeoutMs = 60_000;

let known: Promise<string | false> | undefined;

/** Why tests under KVM are skipped here, false when they are not: what node:test takes for `skip`. */
export function kvmRefusal(): Promise<string | false> {
  known ??= buildBareGuest()
    .then((kernel) => probeBareGuest(kernel, startTimeoutMs))
    .then(({ usable, detail }) => (usable ? false : detail));
  return known;
}
