// What this host's processor says of itself.

import { readFileSync } from 'node:fs';

/** The rate of the time stamp counter in kHz, as near as /proc/cpuinfo tells; undefined where it does not. */
export function tscKhz(cpuinfo: string = readFileSync('/proc/cpuinfo', 'utf8')): number | undefined {
  const isConstant = /^flags\s*:.*\bconstant_tsc\b/m.test(cpuinfo);
  const megahertz = Number(/^cpu MHz\s*:\s*([\d.]+)$/m.exec(cpuinfo)?.[1]);
  return isConstant && megahertz > 0 ? Math.round(megahertz * 1000) : undefined;
}
