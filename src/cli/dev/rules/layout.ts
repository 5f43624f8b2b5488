// How wide a line, how long a file and how full a folder may be. A formatter wraps code only: a long comment, text or
// test name is found here.

import type { Source } from './sources.ts';

const columns = 120;
const fileLines = 400;
const folderFiles = 12;

const isTest = (path: string) => path.startsWith('test/') || /\.(?:test|conformance)\.ts$/.test(path);

/** Every line that is too wide: `path:line`. */
export function wideLines({ path, text }: Source): string[] {
  if (text.length <= columns) return [];
  const lines = text.split('\n').map((line, index) => ({ at: `${path}:${index + 1}`, width: widthOf(line) }));
  return lines.filter(({ width }) => width > columns).map(({ at, width }) => `${at}: ${width} columns`);
}

function widthOf(line: string): number {
  return line.length <= columns ? line.length : [...line].length;
}

/** The lines of a file that has too many; tests may be as long as what they test asks for. */
export function longFile({ path, text }: Source): number | undefined {
  if (isTest(path)) return undefined;
  const lines = text.split('\n').length - 1;
  return lines > fileLines ? lines : undefined;
}

/** Folders with too many files of one kind: sources, or tests. Sub-folders count for themselves. */
export function fullFolders(sources: readonly Pick<Source, 'path'>[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { path } of sources) {
    const folder = path.slice(0, path.lastIndexOf('/'));
    const kind = /\.(?:test|conformance)\.ts$/.test(path) ? `${folder} (tests)` : folder;
    counts.set(kind, (counts.get(kind) ?? 0) + 1);
  }
  return new Map([...counts].filter(([, count]) => count > folderFiles));
}
