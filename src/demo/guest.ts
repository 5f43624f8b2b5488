// The guests that a demo can be about: the demo guest, which is Linux with servers, and the bare guest, which also runs
// under a KVM that starts no Linux.

import { bareCommandLine, bareReadyLine } from '../../guest/bare/guest.ts';
import type { Guest } from '../../guest/build.ts';
import { readyLine } from '../../guest/recipe.ts';
import type { SpecInput } from '../config/spec.ts';
import type { BootFiles } from '../local/machine.ts';
import { servedByBare } from './clients/bare.ts';
import { type Served, servedBy } from './clients/clients.ts';

export type GuestKind = 'demo' | 'bare';

export interface DemoGuest {
  kind: GuestKind;
  boot: BootFiles;
  /** What its machine has to be, besides what is asked for. */
  machine: NonNullable<SpecInput['machine']>;
  readyLine: string;
  served: Served;
  /** For people. */
  words: string;
}

export function linuxGuest(guest: Guest): DemoGuest {
  return {
    kind: 'demo',
    boot: { kernel: guest.kernel, initrd: guest.initrd, cmdline: guest.cmdline },
    machine: {},
    readyLine,
    served: servedBy(guest),
    words: 'nginx, redis, sessions both ways and UDP echo',
  };
}

/** `kernel`: what buildBareGuest has built. `bytesPerSecondMax`: of the download; Infinity: as fast as it goes. */
export function bareDemoGuest(kernel: string, bytesPerSecondMax?: number): DemoGuest {
  return {
    kind: 'bare',
    boot: { kernel, initrd: undefined, cmdline: bareCommandLine({ pages: 50, periodMs: 10 }) },
    machine: { memory: '128M' },
    readyLine: bareReadyLine,
    served: servedByBare(bytesPerSecondMax),
    words: 'pages that it checks, known bytes, numbered lines, the time and UDP echo',
  };
}
