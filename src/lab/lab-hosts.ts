// What every cluster on the hosts of a lab (lab.ts) needs, whatever runs on them: a folder of its own and the network
// namespaces, and a member of the cluster's etcd on each host.

import { join } from 'node:path';
import { ColoError, errorCodes } from '../base/errors.ts';
import { releaseRunDirectory, takeRunDirectory } from '../local/directories.ts';
import { EtcdMember } from './etcd.ts';
import { hostAddress, Lab } from './lab.ts';

/** Where a cluster lives. */
export interface LabPlace {
  lab: Lab;
  /** On tmpfs, this cluster's alone. */
  directory: string;
  logDir: string;
}

export interface LabHost {
  name: string;
  index: number;
  /** Folder with the host's certificates. */
  identityFolder: string;
}

const etcdPorts = { client: 2379, peer: 2380 };

/** Takes the run directory of that name and makes the hosts h1, h2 ... of it. */
export async function makeLab(name: string, hosts: number, networks = 1): Promise<Pick<LabPlace, 'lab' | 'directory'>> {
  const names = Array.from({ length: hosts }, (_, index) => `h${index + 1}`);
  const directory = takeRunDirectory(name);
  try {
    return { directory, lab: await Lab.make(names, networks) };
  } catch (error) {
    releaseRunDirectory(directory);
    throw error;
  }
}

export function startMember({ lab, directory, logDir }: LabPlace, host: LabHost): EtcdMember {
  const peerUrl = (index: number) => `https://${hostAddress(index)}:${etcdPorts.peer}`;
  return EtcdMember.spawn({
    ...{ name: host.name, host: hostAddress(host.index), clientPort: etcdPorts.client, peerPort: etcdPorts.peer },
    cluster: lab.hosts.map((name, index) => ({ name, peerUrl: peerUrl(index) })),
    dataDir: join(directory, `${host.name}.etcd`),
    logFile: join(logDir, `${host.name}.etcd.log`),
    identityFolder: host.identityFolder,
    namespace: lab.namespace(host.name),
  });
}

/** The members of etcd as the host asks them: its own first, because a cut cable does not take that one away. */
export function membersFrom(lab: Lab, index: number): string[] {
  const others = lab.hosts.map((_, at) => at).filter((at) => at !== index);
  return [index, ...others].map((at) => `https://${hostAddress(at)}:${etcdPorts.client}`);
}

export function hostNamed<T extends { name: string }>(hosts: readonly T[], name: string): T {
  const host = hosts.find((one) => one.name === name);
  if (host === undefined) throw new ColoError(errorCodes.input, `there is no host ${name}`);
  return host;
}
