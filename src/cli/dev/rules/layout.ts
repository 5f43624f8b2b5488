// How wide a line, how long a file and how full a folder may be. A formatter wraps code only: a long comment, text or
// test name is found here.

import type { Source } from './sources.ts';

const columns = 120;
const fileLines = 400;
const folderFiles = 12;

const isTest = (path: string) => path.startsWith('test/') || /\.(?:test|conformance)\.ts$/.test(path);

/** The formatter keeps a test's name on one line with its `test(`, however long it is. */
const testName = /^\s*test\(/;

/** A sentence for every line that is too wide. */
export function wideLines({ path, text }: Source): string[] {
  return text.split('\n').flatMap((line, index) => {
    if (line.length <= columns || testName.test(line)) return [];
    return `${path}:${index + 1}: ${line.length} columns are more than ${columns}; break the line`;
  });
}

/** Tests may be as long as what they test asks for. */
export function longFile({ path, text }: Source): string | undefined {
  const lines = text.split('\n').length - 1;
  if (isTest(path) || lines <= fileLines) return undefined;
  return `${path} has ${lines} lines, more than ${fileLines}; split it by what it is about`;
}

/**
 * Folders with too many files of one kind: sources, or tests. Sub-folders count for themselves. By folder, what to say.
 */
export function fullFolders(sources: readonly Pick<Source, 'path'>[]): Map<string, string> {
  const counts = new Map<string, number>();
  for (const { path } of sources) {
    const folder = path.slice(0, path.lastIndexOf('/'));
    const kind = /\.(?:test|conformance)\.ts$/.test(path) ? `${folder}/*.test.ts` : folder;
    counts.set(kind, (counts.get(kind) ?? 0) + 1);
  }
  const full = [...counts].filter(([, count]) => count > folderFiles);
  return new Map(
    full.map(([kind, count]) => [
      kind,
      `${kind}: ${count} files of one kind are more than ${folderFiles}; make sub-folders that say which`,
    ]),
  );
}
