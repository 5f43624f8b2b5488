// Compiles preload.c for this host, once (compile.ts).
//
// A host without a compiler runs COLO all the same, with a slower way to find written pages.

import { join } from 'node:path';
import { errorText } from '../src/base/errors.ts';
import { compiled } from './compile.ts';

const source = join(import.meta.dirname, 'preload.c');
const flags = ['-shared', '-fPIC', '-O2', '-Wall', '-Wextra', '-Werror=implicit-function-declaration'];

export interface PreloadResult {
  path: string | undefined;
  /** Why there is no library. */
  reason: string | undefined;
}

let result: Promise<PreloadResult> | undefined;

/** The compiled library, or the reason why there is none; never rejects. Made at most once in a process. */
export function buildPreload(): Promise<PreloadResult> {
  const library = { name: 'preload.so', folder: 'native', inputs: [source], args: [...flags, source, '-ldl'] };
  result ??= compiled(library).then(
    (path) => ({ path, reason: undefined }),
    (error: unknown) => ({ path: undefined, reason: errorText(error).split('\n').slice(0, 3).join(' ') }),
  );
  return result;
}
