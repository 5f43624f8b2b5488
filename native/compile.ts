// Compiles C for this host, once: a result is kept under the hash of its sources and flags, so a new version of COLO
// never uses an old one, and two processes that start at once do not disturb each other (compile aside, then rename).

import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { cacheDirectory } from '../src/host/directories.ts';

const compilerTimeoutMs = 60_000;

export interface CompileOptions {
  /** The result's name, and the folder of the cache that it lies in. */
  name: string;
  folder: string;
  /** Every file that the result depends on. */
  inputs: string[];
  /** What `cc` is given besides `-o RESULT`. */
  args: string[];
}

/** The path of the result; rejects with what the compiler says. */
export async function compiled({ name, folder, inputs, args }: CompileOptions): Promise<string> {
  const hash = createHash('sha256');
  for (const input of inputs) hash.update(readFileSync(input)).update('\0');
  hash.update(args.join(' ')).update(process.arch);
  const home = join(cacheDirectory(), folder, hash.digest('hex').slice(0, 16));
  const path = join(home, name);
  if (isThere(path)) return path;
  mkdirSync(home, { recursive: true });
  const aside = join(home, `.${process.pid}.${name}`);
  try {
    await promisify(execFile)('cc', ['-o', aside, ...args], { timeout: compilerTimeoutMs });
    renameSync(aside, path);
  } finally {
    rmSync(aside, { force: true });
  }
  return path;
}

function isThere(path: string): boolean {
  try {
    return readFileSync(path).length > 0;
  } catch {
    return false;
  }
}
