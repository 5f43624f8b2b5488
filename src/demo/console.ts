// Waits for a line on the guest's serial console, which QEMU writes to a file.

import { readFile } from 'node:fs/promises';
import { delay } from '../base/clock.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import type { NodeProcess } from '../local/node-process.ts';

export async function consoleSays(
  node: NodeProcess,
  options: { path: string; text: string; timeoutMs: number; signal?: AbortSignal },
): Promise<void> {
  const tries = Math.ceil(options.timeoutMs / 50);
  for (let index = 0; index < tries; index += 1) {
    options.signal?.throwIfAborted();
    const console = await readFile(options.path, 'utf8').catch(() => '');
    if (console.includes(options.text)) return;
    if (!node.alive) throw new ColoError(errorCodes.qemu, `node ${node.name} ended while the guest booted`);
    await delay(50);
  }
  throw new ColoError(errorCodes.timeout, `the guest did not say "${options.text}" in ${options.timeoutMs / 1000} s`, {
    hint: `its console is in ${options.path}`,
  });
}
