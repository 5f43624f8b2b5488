// Makes a folder with those above it that are missing. Node's own recursive mkdir does not end where the file system
// answers that a folder's parent is missing although it is there (any path below /proc), and holds the whole process
// meanwhile.

import { lstatSync, mkdirSync } from 'node:fs';
import { dirname, resolve } from 'node:path';

/** Does nothing when it is there; throws, like `mkdirSync`, when it cannot be made. */
export function makeFolder(path: string, mode = 0o777): void {
  const missing: string[] = [];
  for (let at = resolve(path); !isThere(at); at = dirname(at)) missing.push(at);
  for (const folder of missing.reverse()) makeOne(folder, mode);
}

function isThere(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}

function makeOne(folder: string, mode: number): void {
  try {
    mkdirSync(folder, { mode });
  } catch (error) {
    // Another process was faster.
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}
