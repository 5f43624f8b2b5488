// A file that says which process is this node of this VM. The process that holds it is the only one; a second one is
// refused before it could claim anything. The service finds its children by it after its own restart.

import { ColoError, errorCodes } from '../base/errors.ts';
import { takeFile } from '../base/owner-file.ts';

/** Takes the file for this process; throws when another living process has it. */
export function takeIdentityFile(path: string): void {
  const taken = takeFile(path);
  if ('pid' in taken) {
    const who = taken.pid === 0 ? 'another process' : `process ${taken.pid}`;
    throw new ColoError(errorCodes.host, `${who} is this node of this VM already`);
  }
}
