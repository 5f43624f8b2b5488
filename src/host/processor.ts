// What this host's processor says of itself.

import { existsSync, readFileSync } from 'node:fs';

const frequencyFolder = '/sys/devices/system/cpu/cpu0/cpufreq';

/** What a host tells of its first processor's clock. */
export interface ProcessorClock {
  /** /proc/cpuinfo */
  cpuinfo: string;
  /** The clock's rate changes with the load: "cpu MHz" is that of the moment, and not of the counter. */
  isScaled: boolean;
  /** Its nominal rate in kHz, which is the counter's to a few tenths of a percent; '' where it is not told. */
  baseKhz: string;
}

/** The rate of the time stamp counter in kHz, as near as the host tells; undefined where it does not. */
export function tscKhz(clock: ProcessorClock = readClock()): number | undefined {
  if (!/^flags\s*:.*\bconstant_tsc\b/m.test(clock.cpuinfo)) return undefined;
  const megahertz = Number(/^cpu MHz\s*:\s*([\d.]+)$/m.exec(clock.cpuinfo)?.[1]);
  const khz = Math.round(clock.isScaled ? Number(clock.baseKhz) : megahertz * 1000);
  return khz > 0 ? khz : undefined;
}

function readClock(): ProcessorClock {
  const base = `${frequencyFolder}/base_frequency`;
  return {
    cpuinfo: readFileSync('/proc/cpuinfo', 'utf8'),
    isScaled: existsSync(frequencyFolder),
    baseKhz: existsSync(base) ? readFileSync(base, 'utf8').trim() : '',
  };
}
