// Builds the bare guest: one file that QEMU takes for a kernel (start.S), compiled once (native/compile.ts).

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { compiled } from '../../native/compile.ts';
import { ColoError, errorCodes } from '../../src/base/errors.ts';

const flags = [
  ...['-m64', '-O2', '-Wall', '-Wextra', '-Werror=implicit-function-declaration'],
  // Code without a system below: nothing of libc, no vector registers, no stack below the stack pointer.
  ...['-ffreestanding', '-nostdlib', '-mgeneral-regs-only', '-mno-red-zone', '-mcmodel=small', '-fno-pic', '-fno-pie'],
  ...['-fno-stack-protector', '-fno-asynchronous-unwind-tables', '-fcf-protection=none'],
  ...['-no-pie', '-static', '-Wl,--build-id=none', '-Wl,--oformat,binary'],
];

let result: Promise<string> | undefined;

/** The path of the guest's image; COLO_E_HOST when it cannot be compiled here. Made at most once in a process. */
export function buildBareGuest(): Promise<string> {
  result ??= build().catch((cause: unknown) => {
    result = undefined;
    throw new ColoError(errorCodes.host, 'the bare guest cannot be compiled', {
      cause,
      hint: 'It needs gcc for x86-64: apt-get install --no-install-recommends gcc',
    });
  });
  return result;
}

function build(): Promise<string> {
  const home = import.meta.dirname;
  const inputs = readdirSync(home)
    .filter((name) => /\.(c|h|S|ld)$/.test(name))
    .sort()
    .map((name) => join(home, name));
  const sources = inputs.filter((path) => /\.(c|S)$/.test(path));
  const args = [...flags, `-Wl,-T,${join(home, 'layout.ld')}`, ...sources];
  return compiled({ name: 'bare-guest', folder: 'bare', inputs, args });
}
