// What a running QEMU made of its command line, as far as the state of devices and CPUs depends on it. Asked of the
// machine itself and not of its options: `q35` is an alias, and a CPU is what the host's KVM leaves of its model.
//
// The CPU is that of the first vCPU: who it says it is, and what CPUID shows by leaf, after QEMU has filtered what the
// accelerator lacks.

import { z } from 'zod';
import type { Qmp } from './qmp.ts';

export interface MachineFacts {
  /** The machine type as it is resolved, such as pc-q35-7.2. */
  type: string;
  /** Values by name, such as "CPU vendor" and "CPUID 1:ECX". */
  cpu: Record<string, string>;
  /** The rate of the guest's time stamp counter, where KVM says it; 0 otherwise. */
  tscKhz: number;
}

const cpusSchema = z.array(z.object({ 'qom-path': z.string() })).min(1);
const wordsSchema = z
  .array(
    z.object({
      'cpuid-register': z.string().max(8),
      'cpuid-input-eax': z.number(),
      'cpuid-input-ecx': z.number().optional(),
      features: z.number(),
    }),
  )
  .max(100);

const identity = ['vendor', 'family', 'model', 'stepping', 'model-id', 'level', 'xlevel', 'phys-bits'] as const;

/** Asks QEMU, before the guest runs. What a version does not know of is left out. */
export async function readMachineFacts(qmp: Qmp): Promise<MachineFacts> {
  const get = (path: string, property: string) =>
    qmp.execute('qom-get', { path, property }).catch((): undefined => undefined);
  const cpus = cpusSchema.safeParse(await qmp.execute('query-cpus-fast'));
  const path = cpus.success ? (cpus.data[0]?.['qom-path'] ?? '') : '';
  const [type, words, tsc, ...names] = await Promise.all([
    get('/machine', 'type'),
    get(path, 'feature-words'),
    get(path, 'tsc-frequency'),
    ...identity.map((name) => get(path, name)),
  ]);
  const named = identity.map((name, index) => [`CPU ${name}`, textOf(names[index])]);
  return {
    type: textOf(type).replace(/-machine$/, ''),
    cpu: Object.fromEntries([...named, ...leaves(words)]) as Record<string, string>,
    tscKhz: typeof tsc === 'number' ? Math.round(tsc / 1000) : 0,
  };
}

function leaves(words: unknown): [string, string][] {
  const parsed = wordsSchema.safeParse(words);
  if (!parsed.success) return [];
  return parsed.data.map((word) => {
    const leaf = [word['cpuid-input-eax'], word['cpuid-input-ecx']].filter((one) => one !== undefined);
    const name = leaf.map((one) => one.toString(16)).join('.');
    return [`CPUID ${name}:${word['cpuid-register']}`, `0x${word.features.toString(16)}`];
  });
}

function textOf(value: unknown): string {
  return typeof value === 'string' || typeof value === 'number' ? String(value).slice(0, 100) : '';
}
