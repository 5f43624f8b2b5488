// The process of one node of one protected VM. Serves the node's API, and ends when it is told to (POST /stop). A
// signal (SIGTERM, SIGINT, SIGHUP) ends it as soon as another node has the VM, and no VM (node/retirement.ts). QEMU is
// its child and goes with it, whatever happens to it (native/preload.c). Started in one of two ways:
//
//   configuration on standard input   it belongs to whoever started it, and ends with them (standard input closes)
//   --config FILE                     a child of the service, which may end and come back: it goes on alone, and says
//                                     in an identity file who it is, so that the service finds it again

import { randomFillSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import type { Arbiter } from '../arbiter/arbiter.ts';
import { EtcdArbiter } from '../arbiter/etcd.ts';
import { FolderArbiter } from '../arbiter/folder.ts';
import { WatchedArbiter } from '../arbiter/watched.ts';
import { systemClock, wallMs } from '../base/clock.ts';
import { errorText } from '../base/errors.ts';
import { readIdentity } from '../base/identity.ts';
import { endOnBug, type Log, openLog } from '../base/log.ts';
import { makeFolder } from '../base/make-folder.ts';
import { watchProcess } from '../base/own-process.ts';
import { type NodeConfig, recordName } from '../node/config.ts';
import type { NodeContext } from '../node/context.ts';
import { ColoNode } from '../node/node.ts';
import { realPlatform } from '../node/real/platform.ts';
import { termAndEpoch } from '../node/status.ts';
import { scatterHashes } from '../packet/flow-key.ts';
import type { DaemonConfig } from './config.ts';
import { takeIdentityFile } from './identity-file.ts';
import { ApiServer } from './server.ts';

async function main(): Promise<void> {
  const fromFile = process.argv[2] === '--config' ? process.argv[3] : undefined;
  const config = fromFile === undefined ? await readConfig() : readConfigFile(fromFile);
  if (config.identityPath !== undefined) takeIdentityFile(config.identityPath);
  scatterHashes([...randomFillSync(new Uint32Array(5))]);
  const { vm, node: name } = config.node;
  let node: ColoNode | undefined;
  const log = openLog({
    ...{ level: config.logLevel, file: config.logFile, bindings: { vm, node: name, pid: process.pid } },
    moment: () => (node === undefined ? {} : termAndEpoch(node)),
  });
  makeFolder(config.node.runDir, 0o700);
  const arbiter = watch(await openArbiter(config.node), config.node, log);
  const platform = realPlatform(() => context);
  const context: NodeContext = { config: config.node, clock: systemClock, wallMs, log, arbiter, platform };
  node = new ColoNode(context);
  const failed = (error: unknown) => log.error({ error: errorText(error) }, 'stopping failed');
  const stop = once(async (code: number) => {
    await node?.stop().catch(failed);
    await leave(code);
  });
  const leave = async (code: number): Promise<void> => {
    await api?.close();
    await rm(config.apiPath, { force: true });
    await rm(config.node.runDir, { recursive: true, force: true });
    if (config.identityPath !== undefined) await rm(config.identityPath, { force: true });
    process.exit(code);
  };
  endOnBug(log, 'this node ends');
  // Whoever started it may be gone, and where its words went may be full: that is no reason to end.
  process.stdout.on('error', () => undefined);
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const)
    process.on(
      signal,
      () =>
        void node
          ?.retire(signal)
          .catch(failed)
          .then(() => leave(0)),
    );
  if (fromFile === undefined) {
    process.stdin.on('end', () => stop(0));
    process.stdin.resume();
  }
  const own = watchProcess(log);
  let api: ApiServer | undefined;
  try {
    await node.start();
    api = await ApiServer.listen(config.apiPath, { node, stop: () => stop(0), process: own.status });
    process.stdout.write('ready\n');
  } catch (error) {
    log.error({ error: errorText(error) }, 'the node did not start');
    process.stdout.write(`failed ${JSON.stringify(failureOf(error))}\n`);
    stop(1);
  }
}

async function openArbiter({ arbiter, identityFolder }: NodeConfig): Promise<Arbiter> {
  if (arbiter.kind === 'folder') return FolderArbiter.open(arbiter.folder);
  const identity = identityFolder === undefined ? {} : { identity: () => readIdentity(identityFolder) };
  const prefix = arbiter.prefix === undefined ? {} : { prefix: arbiter.prefix };
  return new EtcdArbiter({ endpoints: arbiter.endpoints, ...prefix, ...identity });
}

/** While it does not answer, nobody could go on when a node of the pair dies: an operator must know before that. */
function watch(arbiter: Arbiter, node: NodeConfig, log: Log): WatchedArbiter {
  return new WatchedArbiter(arbiter, {
    vm: recordName(node),
    clock: systemClock,
    changed: (problem) => {
      if (problem === undefined) log.info('the arbiter takes claims again');
      else log.error({ error: problem.why }, 'the arbiter takes no claim: nobody could take over');
    },
  });
}

/** Written by the service, for this process alone. */
function readConfigFile(path: string): DaemonConfig {
  return JSON.parse(readFileSync(path, 'utf8')) as DaemonConfig;
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
