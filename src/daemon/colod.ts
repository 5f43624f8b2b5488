// colod: the process of one node of one protected VM. Takes its NodeConfig as JSON on standard input, serves the API,
// and ends when it is told to (SIGTERM, SIGINT, POST /stop) or when whoever started it is gone (standard input closes).
// QEMU is its child and goes with it, whatever happens to it (native/preload.c).

import { mkdir, rm } from 'node:fs/promises';
import { systemClock } from '../base/clock.ts';
import { errorText } from '../base/errors.ts';
import { readIdentity } from '../base/identity.ts';
import { openLog } from '../base/log.ts';
import type { Arbiter } from '../failover/arbiter/arbiter.ts';
import { EtcdArbiter } from '../failover/arbiter/etcd.ts';
import { FolderArbiter } from '../failover/arbiter/folder.ts';
import type { NodeConfig, NodeContext } from '../node/context.ts';
import { ColoNode } from '../node/node.ts';
import { realPlatform } from '../node/real-platform.ts';
import type { DaemonConfig } from './config.ts';
import { ApiServer } from './server.ts';

async function main(): Promise<void> {
  const config = await readConfig();
  const { vm, node: name } = config.node;
  const log = openLog({ level: config.logLevel, file: config.logFile, bindings: { vm, node: name, pid: process.pid } });
  await mkdir(config.node.runDir, { recursive: true, mode: 0o700 });
  const arbiter = await openArbiter(config.node);
  const platform = realPlatform(() => context);
  const context: NodeContext = { config: config.node, clock: systemClock, log, arbiter, platform };
  const node = new ColoNode(context);
  const stop = once(async (code: number) => {
    await node.stop().catch((error: unknown) => log.error({ error: errorText(error) }, 'stopping failed'));
    await api?.close();
    await rm(config.apiPath, { force: true });
    await rm(config.node.runDir, { recursive: true, force: true });
    process.exit(code);
  });
  // A bug of ours ends the node: its peer takes over, which is the case COLO exists for.
  process.on('uncaughtException', (error) => {
    log.fatal({ error: errorText(error), stack: error.stack }, 'bug: this node ends');
    process.exit(70);
  });
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => stop(0));
  process.stdin.on('end', () => stop(0));
  process.stdin.resume();
  let api: ApiServer | undefined;
  try {
    await node.start();
    api = await ApiServer.listen(config.apiPath, node, () => stop(0));
    process.stdout.write('ready\n');
  } catch (error) {
    log.error({ error: errorText(error) }, 'the node did not start');
    process.stdout.write(`failed ${JSON.stringify(failureOf(error))}\n`);
    stop(1);
  }
}

async function openArbiter({ arbiter, identityFolder }: NodeConfig): Promise<Arbiter> {
  if (arbiter.kind === 'folder') return FolderArbiter.open(arbiter.folder);
  const identity = identityFolder === undefined ? {} : { identity: readIdentity(identityFolder) };
  return new EtcdArbiter({ endpoints: arbiter.endpoints, ...identity });
}

/** The first line of standard input; the rest stays open, and its end means that our starter is gone. */
function readConfig(): Promise<DaemonConfig> {
  return new Promise((resolve, reject) => {
    let text = '';
    const take = (chunk: Buffer) => {
      text += chunk.toString('utf8');
      const end = text.indexOf('\n');
      if (end < 0) return;
      process.stdin.off('data', take);
      resolve(JSON.parse(text.slice(0, end)) as DaemonConfig);
    };
    process.stdin.on('data', take);
    process.stdin.once('end', () => reject(new Error('no configuration on standard input')));
  });
}

function failureOf(error: unknown): { code: string; message: string; hint: string } {
  const code = error instanceof Error && 'code' in error ? String(error.code) : 'COLO_E_BUG';
  const hint = error instanceof Error && 'hint' in error && error.hint !== undefined ? String(error.hint) : '';
  return { code, message: errorText(error), hint };
}

function once(action: (code: number) => Promise<void>): (code: number) => void {
  let called = false;
  return (code) => {
    if (called) return;
    called = true;
    void action(code);
  };
}

await main();
