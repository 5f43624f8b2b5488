// A file that says which process is this node of this VM: its id and start time. The process that holds it is the only one;
// a second one is refused before it could claim anything. The service finds its children by it after its own restart.

import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { ColoError, errorCodes } from '../base/errors.ts';
import { processIdentity } from '../base/processes.ts';

/** Takes the file for this process; throws when another living process has it. */
export function takeIdentityFile(path: string): void {
  for (let tries = 0; tries < 2; tries += 1) {
    try {
      writeFileSync(path, processIdentity(process.pid) ?? '', { flag: 'wx', mode: 0o600 });
      return;
    } catch (cause) {
      const pid = livingOwner(path);
      if (pid !== undefined)
        throw new ColoError(errorCodes.host, `process ${pid} is this node of this VM already`, { cause });
      rmSync(path, { force: true });
    }
  }
  throw new ColoError(errorCodes.host, `another process is taking ${path}`);
}

/** The process that holds the file; undefined when there is none, or it is dead. */
export function livingOwner(path: string): number | undefined {
  try {
    const owner = readFileSync(path, 'utf8');
    const pid = Number.parseInt(owner, 10);
    return pid > 0 && processIdentity(pid) === owner ? pid : undefined;
  } catch {
    return undefined;
  }
}
