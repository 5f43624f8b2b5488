// Runs the service in this process until SIGTERM, SIGINT or SIGHUP: `colo colod --config FILE`. Its VMs go on without
// it.

import { rm } from 'node:fs/promises';
import { systemClock } from '../base/clock.ts';
import { identitySource } from '../base/identity.ts';
import { endOnBug, openLog } from '../base/log.ts';
import { watchProcess } from '../base/own-process.ts';
import { readServiceConfig } from './config.ts';
import { handlersOf } from './handlers.ts';
import { Monitor } from './monitor.ts';
import { openPlainDoor } from './plain-door.ts';
import { ServiceServer } from './server.ts';
import { Service } from './service.ts';

/** Resolves with the exit code when it was told to end. */
export async function runService(file: string): Promise<number> {
  const config = await readServiceConfig(file);
  // Children inherit it: logs, consoles and replicas are nobody else's to read.
  process.umask(0o077);
  const log = openLog({ level: config.logLevel, bindings: { node: config.node, pid: process.pid } });
  const told = new Promise<void>((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.once(signal, () => resolve());
  });
  endOnBug(log, 'the service ends; its VMs go on');
  const service = await Service.start(config, { clock: systemClock, log });
  const counters: { refused: Record<string, number> } = { refused: {} };
  const monitor = new Monitor(service, () => counters.refused);
  const { monitoring } = config;
  const plain =
    monitoring === undefined
      ? undefined
      : await openPlainDoor({ host: monitoring.address, port: monitoring.port }, (path) => monitor.answer(path));
  const server = await ServiceServer.listen({
    socketPath: config.socket,
    secure: {
      ...{ host: config.address, port: config.api.port, tokens: config.api.tokens },
      identity: identitySource(config.certificates),
    },
    handlers: handlersOf(service, () => counters.refused),
    monitor: (path) => monitor.answer(path),
    events: service.events,
    log,
  }).catch(async (error: unknown) => {
    await service.stop();
    throw error;
  });
  counters.refused = server.refused;
  const own = watchProcess(log);
  service.ownProcess = own.status;
  service.refusedCalls = () => server.refusedCount;
  log.info({ address: config.address, port: config.api.port, socket: config.socket }, 'colod runs');
  await told;
  await plain?.close();
  await server.close();
  await rm(config.socket, { force: true });
  await service.stop();
  own.close();
  log.info('colod ends; its VMs go on');
  return 0;
}
