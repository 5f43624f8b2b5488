// The rules of this project that no tool knows: nothing imports in a circle, folders import downwards, lines end at 120
// columns, files and folders stay small, comments are plain sentences. All of them in half a second, from the text.
//
// What is not mended yet is allowed by name, with its reason, and only shrinks: an allowance that nothing needs any
// more is a fault as well.

import { circlesIn, circleText } from './circles.ts';
import { layerFaults } from './layers.ts';
import { fullFolders, longFile, wideLines } from './layout.ts';
import { readSources, type Source } from './sources.ts';
import { contortedLines } from './words.ts';

/** What is allowed (a path, or how it begins), and why. */
export type Allowances = Readonly<Record<string, string>>;

export interface AllowedFaults {
  /** By the file that a circle begins with. */
  circles: Allowances;
  wide: Allowances;
  long: Allowances;
  full: Allowances;
  words: Allowances;
}

const allowed: AllowedFaults = {
  circles: {},
  wide: {},
  long: {
    'bench/proxy.ts': 'older than the rule',
    'sim/checker/output-commit.ts': 'older than the rule',
    'sim/guest/guest.ts': 'older than the rule',
    'sim/host/node.ts': 'older than the rule',
    'sim/host/vm.ts': 'older than the rule',
    'sim/model/step.ts': 'older than the rule',
    'sim/world/plan.ts': 'older than the rule',
    'src/proxy/compare/tcp/comparer.ts': 'older than the rule',
    'src/proxy/primary.ts': 'older than the rule',
    'src/proxy/secondary.ts': 'older than the rule',
  },
  full: {
    'guest/bare': 'older than the rule',
    'sim/*.test.ts': 'older than the rule',
    'sim/world': 'older than the rule',
    'src/base': 'older than the rule',
    'src/colod': 'older than the rule',
    'src/demo/clients': 'older than the rule',
    'src/disk': 'older than the rule',
    'src/node': 'older than the rule',
    'src/packet': 'older than the rule',
    'src/qemu': 'older than the rule',
    'test/failover/*.test.ts': 'older than the rule',
    'test/functional/*.test.ts': 'older than the rule',
  },
  words: {},
};

/** Sentences that say what is wrong; none when all is well. */
export async function rulesFaults(home: string): Promise<string[]> {
  return faultsOf(await readSources(home), allowed);
}

export function faultsOf(sources: readonly Source[], allowances: AllowedFaults): string[] {
  const circles = new Allowed('circles', allowances.circles);
  const faults = [...layerFaults(sources)];
  for (const circle of circlesIn(sources))
    if (!circles.has(circle[0] ?? '')) faults.push(`these import in a circle: ${circleText(circle)}`);
  const wide = new Allowed('wide', allowances.wide);
  const long = new Allowed('long', allowances.long);
  for (const source of sources) {
    const lines = wideLines(source);
    if (lines.length > 0 && !wide.has(source.path)) faults.push(...lines);
    const length = longFile(source);
    if (length !== undefined && !long.has(source.path)) faults.push(length);
  }
  const words = new Allowed('words', allowances.words);
  for (const source of sources) {
    const lines = contortedLines(source);
    if (lines.length > 0 && !words.has(source.path)) faults.push(...lines);
  }
  const full = new Allowed('full', allowances.full);
  for (const [folder, fault] of fullFolders(sources)) if (!full.has(folder)) faults.push(fault);
  return [...faults, ...[circles, wide, long, full, words].flatMap((kind) => kind.idle())];
}

/** Allowances of one kind, and which of them were needed. */
class Allowed {
  private readonly kind: keyof AllowedFaults;
  private readonly unused: Set<string>;
  private readonly names: readonly string[];

  constructor(kind: keyof AllowedFaults, allowances: Allowances) {
    this.kind = kind;
    this.names = Object.keys(allowances);
    this.unused = new Set(this.names);
  }

  has(path: string): boolean {
    const name = this.names.find((one) => path === one || (one.endsWith('/') && path.startsWith(one)));
    if (name === undefined) return false;
    this.unused.delete(name);
    return true;
  }

  idle(): string[] {
    return [...this.unused].map(
      (name) => `${name} needs no allowance any more; take it out of "${this.kind}" in rules.ts`,
    );
  }
}
