// Compiles preload.c for this host, once: the result is kept under the hash of its source, so a new version of COLO
// never loads an old library, and two nodes that start at once do not disturb each other (compile aside, then rename).
//
// A host without a compiler runs COLO all the same, with a slower way to find written pages.

import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { errorText } from '../src/base/errors.ts';
import { cacheDirectory } from '../src/host/directories.ts';

const source = join(import.meta.dirname, 'preload.c');
const compilerTimeoutMs = 60_000;
const flags = ['-shared', '-fPIC', '-O2', '-Wall', '-Wextra', '-Werror=implicit-function-declaration'];

export interface PreloadResult {
  path: string | undefined;
  /** Why there is no library. */
  reason: string | undefined;
}

let result: Promise<PreloadResult> | undefined;

/** The compiled library, or the reason why there is none; never rejects. Made at most once in a process. */
export function buildPreload(): Promise<PreloadResult> {
  result ??= build().then(
    (path) => ({ path, reason: undefined }),
    (error: unknown) => ({ path: undefined, reason: errorText(error).split('\n').slice(0, 3).join(' ') }),
  );
  return result;
}

async function build(): Promise<string> {
  const hash = createHash('sha256').update(readFileSync(source)).update(process.arch).digest('hex').slice(0, 16);
  const folder = join(cacheDirectory(), 'native', hash);
  const path = join(folder, 'preload.so');
  if (isBuilt(path)) return path;
  mkdirSync(folder, { recursive: true });
  const aside = join(folder, `.${process.pid}.so`);
  try {
    await promisify(execFile)('cc', [...flags, '-o', aside, source, '-ldl'], { timeout: compilerTimeoutMs });
    renameSync(aside, path);
  } finally {
    rmSync(aside, { force: true });
  }
  return path;
}

function isBuilt(path: string): boolean {
  try {
    return readFileSync(path).length > 0;
  } catch {
    return false;
  }
}
