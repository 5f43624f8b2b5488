// The text of this checkout that the rules look at: every source file, and for TypeScript what it imports, types
// included.

import { readdir, readFile } from 'node:fs/promises';
import { dirname, join, relative, resolve, sep } from 'node:path';

export interface Source {
  /** From the project's root, with slashes. */
  path: string;
  text: string;
  /** Paths like its own: what it imports of this checkout, in the order of its lines. */
  imports: string[];
}

export const sourceFolders = ['src', 'guest', 'native', 'sim', 'bench', 'test', 'docs'];

// `import ... from './x.ts'`, `export ... from './x.ts'`, `import './x.ts'`, and `import('./x.ts')` of a value or of a
// type.
const importOf = /(?:^|[\s;})(|&<:])(?:from|import)\s*\(?\s*['"](\.[^'"\n]+\.ts)['"]/g;

export function importsOf(path: string, text: string): string[] {
  const found = new Set<string>();
  for (const [, name = ''] of withoutComments(text).matchAll(importOf)) found.add(join(dirname(path), name));
  return [...found];
}

/** A line that is a comment may speak of an import. */
function withoutComments(text: string): string {
  return text.replace(/^\s*(?:\/\/|\/?\*).*$/gm, '');
}

export async function readSources(home: string): Promise<Source[]> {
  const sources: Source[] = [];
  for (const folder of sourceFolders) {
    for (const entry of await readdir(join(home, folder), { recursive: true, withFileTypes: true })) {
      if (!entry.isFile() || !/\.(?:ts|c|h|S)$/.test(entry.name)) continue;
      const file = resolve(entry.parentPath, entry.name);
      const path = relative(home, file).split(sep).join('/');
      const text = await readFile(file, 'utf8');
      sources.push({ path, text, imports: path.endsWith('.ts') ? importsOf(path, text) : [] });
    }
  }
  return sources.sort((a, b) => (a.path < b.path ? -1 : 1));
}
