// Writes docs/LIMITS.md: every bound of the limits.ts files with its value, and what happens at it.
//
//   node docs/limits.ts          writes the file
//   docs/limits.test.ts          fails when the file is not what this would write
//
// Values are those of the imported modules, so that an expression is shown as what it gives. Words are the comment
// above a constant; constants that stand together under one comment, without a blank line between them, share it.

import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const home = join(import.meta.dirname, '..');
const source = join(home, 'src');

export const limitsDocument = join(home, 'docs', 'LIMITS.md');

interface Limit {
  name: string;
  value: string;
  words: string;
}

const head = `# Limits

Everything in COLO is bounded: queues, buffers, tables, message sizes and waits. This page lists the bounds of every
\`limits.ts\` in \`src/\`, with what happens at each. It is made by \`node docs/limits.ts\`; do not edit it by hand.

The rule behind the bounds of the comparer: at a limit the answer is a checkpoint and a guest that waits, never a frame
that leaves uncompared. What an operator may set (epoch length, compare timeout, dirty pages) is in
[operating.md](operating.md).
`;

/** The whole document. */
export async function renderLimits(): Promise<string> {
  const files = readdirSync(source, { recursive: true, encoding: 'utf8' })
    .filter((path) => path.split('/').at(-1) === 'limits.ts')
    .sort();
  const sections: string[] = [];
  for (const path of files) sections.push(await renderFile(path));
  return `${head}\n${sections.join('\n')}`;
}

async function renderFile(path: string): Promise<string> {
  const file = join(source, path);
  const values = numbersOf((await import(pathToFileURL(file).href)) as Record<string, unknown>);
  const limits = readLimits(readFileSync(file, 'utf8'), values);
  const rows = limits.map(({ name, value, words }) => `| \`${name}\` | ${value} | ${words} |`);
  return [
    `## src/${path}`,
    '',
    '| limit | value | what it bounds, and what happens |',
    '|---|---|---|',
    ...rows,
    '',
  ].join('\n');
}

/** Exported numbers by name, those inside an exported object too. */
function numbersOf(module: Record<string, unknown>): Map<string, number> {
  const values = new Map<string, number>();
  for (const [name, value] of Object.entries(module)) {
    if (typeof value === 'number') values.set(name, value);
    else if (typeof value === 'object' && value !== null)
      for (const [key, inner] of Object.entries(value)) if (typeof inner === 'number') values.set(key, inner);
  }
  return values;
}

/** The constants of a file in their order, each with the words of the comment above it. */
export function readLimits(text: string, values: ReadonlyMap<string, number>): Limit[] {
  const limits: Limit[] = [];
  let words: string[] = [];
  let inComment = false;
  for (const line of text.split('\n').map((one) => one.trim())) {
    if (line.startsWith('/**')) {
      words = [];
      inComment = true;
    }
    if (inComment) words.push(line.replace(/^\/\*\*|\*\/$|^\*/g, '').trim());
    else if (line === '') words = [];
    if (line.endsWith('*/')) inComment = false;
    const name = /^(?:export const )?(\w+)\s*[:=]/.exec(line)?.[1];
    const value = name === undefined ? undefined : values.get(name);
    if (inComment || name === undefined || value === undefined) continue;
    limits.push({ name, value: valueText(name, value), words: cell(words.join(' ')) });
  }
  return limits;
}

function cell(words: string): string {
  return words
    .replaceAll(/\*\/|\s+/g, ' ')
    .replaceAll('|', '\\|')
    .trim();
}

/** The value with the unit that its name carries. */
function valueText(name: string, value: number): string {
  if (/Ms(Max|First)?$/.test(name)) return value >= 1000 ? `${value / 1000} s` : `${value} ms`;
  if (/Bytes/.test(name)) return bytesText(value);
  return value.toLocaleString('en-US');
}

function bytesText(value: number): string {
  for (const [unit, factor] of [
    ['TiB', 1024 ** 4],
    ['GiB', 1024 ** 3],
    ['MiB', 1024 ** 2],
    ['KiB', 1024],
  ] as const)
    if (value >= factor && Number.isInteger((value * 2) / factor)) return `${value / factor} ${unit}`;
  return `${value.toLocaleString('en-US')} B`;
}

if (import.meta.main) writeFileSync(limitsDocument, await renderLimits());
