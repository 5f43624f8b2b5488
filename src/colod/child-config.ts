// What a child is told: the NodeConfig of one VM on this node, from the VM's spec and this node's configuration.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { buildBareGuest } from '../../guest/bare/build.ts';
import { bareCommandLine } from '../../guest/bare/guest.ts';
import { buildGuest } from '../../guest/build.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import type { DaemonConfig } from '../child/config.ts';
import type { VmRecord } from '../cluster/registry.ts';
import { checkSpec, type Spec, writtenDisks } from '../config/spec.ts';
import type { WantedRole } from '../controller/role.ts';
import { ensureFirmware } from '../local/firmware.ts';
import { type BootFiles, machineOf } from '../local/machine.ts';
import type { UplinkConfig } from '../node/config.ts';
import { refuseOutsideHere } from './allowed-files.ts';
import { filesFolders, type ServiceConfig } from './config.ts';

/** Files of one child. */
export interface ChildPaths {
  /** On tmpfs, gone with the child. */
  folder: string;
  config: string;
  identity: string;
  api: string;
  /**
   * What the process says besides its log, such as a crash: written by itself at once, so it is on no disk that could
   * hang.
   */
  output: string;
  /** Kept: logs. */
  logs: string;
  log: string;
  console: string;
}

export function childPaths(config: ServiceConfig, vm: string): ChildPaths {
  const folder = join(config.runFolder, 'vms', vm);
  const logs = join(config.stateFolder, 'vms', vm);
  return {
    folder,
    config: join(folder, 'config.json'),
    identity: join(folder, 'identity'),
    api: join(folder, 'api.sock'),
    output: join(folder, 'output'),
    logs,
    log: join(logs, 'node.log'),
    console: join(logs, 'console'),
  };
}

/** Kept within a spec: the checks of a spec as this node runs it. */
export function specOf(record: Pick<VmRecord, 'vm' | 'spec'>): Spec {
  const spec = checkSpec(record.spec, `the spec of ${record.vm}`);
  if (spec.vm === record.vm) return spec;
  throw new ColoError(errorCodes.input, `the spec of ${record.vm} names another VM, ${spec.vm}`);
}

/** QEMU may not start programs, gain privileges, or call what is obsolete. */
const sandboxArguments = ['-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny'];

export interface ChildOptions {
  record: VmRecord;
  role: WantedRole;
  port: number;
}

/** May take a while the first time: the demo guest is built on this node. */
export async function childConfig(config: ServiceConfig, options: ChildOptions): Promise<DaemonConfig> {
  const { record, role, port } = options;
  const spec = specOf(record);
  if (record.confined === true) refuseOutsideHere(spec, filesFolders(config));
  const paths = childPaths(config, record.vm);
  const { arbiter } = config;
  await ensureFirmware(spec.machine);
  const machine = machineOf(spec, await bootFiles(spec), paths.console);
  return {
    apiPath: paths.api,
    logFile: paths.log,
    logLevel: config.logLevel,
    identityPath: paths.identity,
    node: {
      vm: record.vm,
      life: record.life,
      node: config.node,
      role,
      peers: [],
      listen: { host: config.address, port },
      machine: { ...machine, extraArgs: [...machine.extraArgs, ...(config.sandbox ? sandboxArguments : [])] },
      protect: spec.protect,
      guest: { mac: spec.network.mac, address: spec.network.address },
      network: { bypass: spec.network.bypass, pcapDir: spec.network.pcap },
      runDir: join(paths.folder, 'vm'),
      spillDir: config.stateFolder,
      disks: writtenDisks(spec),
      ...(spec.machine.variables === undefined ? {} : { variables: spec.machine.variables }),
      replicaDir: join(spec.replicaFolder ?? join(config.stateFolder, 'replicas'), record.vm),
      uplink: uplinkOn(config.bridge),
      cards: spec.cards.map(({ mac, address, bridge }) => ({ mac, address, uplink: uplinkOn(bridge) })),
      arbiter:
        'folder' in arbiter
          ? { kind: 'folder', folder: join(arbiter.folder, 'terms') }
          : { kind: 'etcd', endpoints: arbiter.etcd, prefix: arbiter.prefix },
      identityFolder: config.certificates,
      qemuPath: undefined,
      armedBy: undefined,
    },
  };
}

function uplinkOn(bridge: string): UplinkConfig {
  return { kind: 'tap', name: 'colo%d', bridge };
}

async function bootFiles(spec: Spec): Promise<BootFiles> {
  if ('from' in spec.boot) return { kernel: undefined, initrd: undefined, cmdline: '' };
  if ('kernel' in spec.boot) {
    for (const file of [spec.boot.kernel, spec.boot.initrd])
      if (file !== undefined && !existsSync(file))
        throw new ColoError(errorCodes.input, `${file} is not on this node`, {
          hint: 'kernel and initrd have to be at the same path on every node',
        });
    return { ...spec.boot, initrd: spec.boot.initrd };
  }
  if (spec.boot.guest === 'bare')
    return { kernel: await buildBareGuest(), initrd: undefined, cmdline: bareCommandLine({}) };
  const guest = await buildGuest({});
  return { kernel: guest.kernel, initrd: guest.initrd, cmdline: guest.cmdline };
}
