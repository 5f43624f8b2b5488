// `colo colod` runs the service of this host; `colo token` makes a token for its API.

import { randomBytes } from 'node:crypto';
import { appendFileSync, chmodSync, existsSync } from 'node:fs';
import { isName } from '../arbiter/names.ts';
import { systemClock } from '../base/clock.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import type { Role } from '../base/roles.ts';
import { readTokens, tokenHash } from '../colod/authentication.ts';
import { readServiceConfig, type ServiceConfig } from '../colod/config.ts';
import { handOverAll } from '../colod/hand-over.ts';
import { handOverMs } from '../colod/limits.ts';
import { runService } from '../colod/main.ts';
import { ensurePackages, runtimePackages } from '../host/packages.ts';

export async function colod(options: { config: string; check: boolean; handOver: boolean }): Promise<number> {
  const config = await readServiceConfig(options.config);
  if (options.handOver) return handOver(config);
  if (options.check) {
    process.stdout.write(`${options.config}: good, for node ${config.node}\n`);
    return 0;
  }
  await ensurePackages([...runtimePackages, 'iproute2'], { why: 'run VMs' });
  return runService(options.config);
}

/** Exit code 1: some VM has nobody else. */
async function handOver(config: ServiceConfig): Promise<number> {
  const left = await handOverAll(config, { waitMs: handOverMs, clock: systemClock });
  for (const vm of left) process.stderr.write(`${vm} was not handed over: this node has its only copy\n`);
  return left.length === 0 ? 0 : 1;
}

export async function token(file: string, name: string, options: { role: Role; json: boolean }): Promise<number> {
  if (!isName(name)) throw new ColoError(errorCodes.input, `${JSON.stringify(name)} cannot name a token`);
  if (existsSync(file) && readTokens(file).has(name))
    throw new ColoError(errorCodes.input, `${file} has a token named ${name} already`, {
      hint: 'remove its line first',
    });
  const secret = randomBytes(24).toString('base64url');
  try {
    appendFileSync(file, `${name}:${tokenHash(secret)}:${options.role}\n`, { mode: 0o600 });
    chmodSync(file, 0o600);
  } catch (cause) {
    throw new ColoError(errorCodes.input, `the token cannot be written to ${file}`, {
      cause,
      hint: 'name a file in a folder that is there, and that you may write to',
    });
  }
  process.stdout.write(
    options.json ? `${JSON.stringify({ name, role: options.role, file, token: secret })}\n` : `${secret}\n`,
  );
  process.stderr.write(
    `Keep it now: ${file} holds only its hash. A line that is removed takes the token away at once.\n`,
  );
  return 0;
}
