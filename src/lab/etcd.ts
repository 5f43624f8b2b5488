// A member of an etcd as a child process, for tests and for several hosts on one machine. A real cluster has its own
// etcd, run by its distribution; this one keeps its data in a folder of the run and dies with it.

import type { ChildProcess } from 'node:child_process';
import { openSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { join } from 'node:path';
import { EtcdArbiter } from '../arbiter/etcd.ts';
import { delay } from '../base/clock.ts';
import { ColoError, errorCodes, errorText } from '../base/errors.ts';
import { identityFiles, readIdentity } from '../base/identity.ts';
import { endChild, spawnChild } from '../local/namespace.ts';
import { etcdStartTimeoutMs } from './limits.ts';

export interface EtcdMemberOptions {
  name: string;
  /** Host and ports at which this member is reached. */
  host: string;
  clientPort: number;
  peerPort: number;
  /** Name and peer URL of every member, this one included. */
  cluster: readonly { name: string; peerUrl: string }[];
  dataDir: string;
  logFile: string;
  /** Folder with this member's certificates (base/identity.ts): then clients and members are known by theirs. */
  identityFolder?: string;
  namespace?: string;
  /** How large its data may be; beyond it nothing can be written, and everything read. */
  quotaBytes?: number;
}

/** Shorter than etcd's own (100 ms and 1 s), for one machine: a dead leader is replaced within a second. */
const heartbeatMs = 50;
const electionMs = 500;

export class EtcdMember {
  readonly name: string;
  readonly clientUrl: string;
  private readonly options: EtcdMemberOptions;
  private readonly child: ChildProcess;

  private constructor(options: EtcdMemberOptions, child: ChildProcess) {
    this.name = options.name;
    this.clientUrl = `${schemeOf(options)}://${options.host}:${options.clientPort}`;
    this.options = options;
    this.child = child;
  }

  /** Starts the process; `ready` waits until the cluster answers. */
  static spawn(options: EtcdMemberOptions): EtcdMember {
    const log = openSync(options.logFile, 'a', 0o600);
    const child = spawnChild('etcd', argumentsOf(options), {
      stdio: ['ignore', log, log],
      namespace: options.namespace,
    });
    return new EtcdMember(options, child);
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  /** An arbiter that asks this member alone. */
  arbiter(): EtcdArbiter {
    const { identityFolder } = this.options;
    const identity = identityFolder === undefined ? {} : { identity: readIdentity(identityFolder) };
    return new EtcdArbiter({ endpoints: [this.clientUrl], ...identity });
  }

  /** Resolves when this member answers, which needs a leader. Only from a namespace that reaches it. */
  async ready(): Promise<void> {
    const arbiter = this.arbiter();
    const deadline = performance.now() + etcdStartTimeoutMs;
    try {
      for (;;) {
        try {
          await arbiter.read('probe');
          return;
        } catch (cause) {
          if (this.child.exitCode !== null || this.child.signalCode !== null || performance.now() > deadline)
            throw new ColoError(errorCodes.arbiter, `etcd ${this.name} does not answer: ${errorText(cause)}`, {
              hint: `see ${this.options.logFile}`,
            });
        }
        await delay(50);
      }
    } finally {
      await arbiter.close();
    }
  }

  /** Whether this member leads. A member that does not answer leads nobody. */
  async leads(): Promise<boolean> {
    const { identityFolder, host, clientPort } = this.options;
    const secret = identityFolder === undefined ? {} : secretOf(identityFolder);
    const send = identityFolder === undefined ? httpRequest : httpsRequest;
    const options = {
      host,
      port: clientPort,
      path: '/v3/maintenance/status',
      method: 'POST',
      ...secret,
      timeout: 2000,
    };
    const text = await new Promise<string>((resolve) => {
      const request = send(options, (answer) =>
        answer.toArray().then(
          (parts) => resolve(Buffer.concat(parts).toString()),
          () => resolve(''),
        ),
      );
      request.once('timeout', () => request.destroy());
      request.once('error', () => resolve(''));
      request.end('{}');
    });
    const said = /"member_id":"(\d+)"[^]*"leader":"(\d+)"/.exec(text);
    return said !== null && said[1] === said[2];
  }

  signal(name: NodeJS.Signals): void {
    this.child.kill(name);
  }

  async stop(): Promise<void> {
    await endChild(this.child);
  }
}

function secretOf(folder: string) {
  const { ca, certificate, key } = readIdentity(folder);
  return { ca, cert: certificate, key };
}

function schemeOf(options: EtcdMemberOptions): 'http' | 'https' {
  return options.identityFolder === undefined ? 'http' : 'https';
}

function argumentsOf(options: EtcdMemberOptions): string[] {
  const { name, host, clientPort, peerPort, cluster, dataDir, identityFolder, quotaBytes } = options;
  const client = `${schemeOf(options)}://${host}:${clientPort}`;
  const peer = `${schemeOf(options)}://${host}:${peerPort}`;
  return [
    ...['--name', name, '--data-dir', dataDir, '--log-level', 'warn', '--logger', 'zap'],
    ...['--listen-client-urls', client, '--advertise-client-urls', client],
    ...['--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer],
    ...['--initial-cluster', cluster.map((one) => `${one.name}=${one.peerUrl}`).join(',')],
    ...['--heartbeat-interval', String(heartbeatMs), '--election-timeout', String(electionMs)],
    ...(quotaBytes === undefined ? [] : ['--quota-backend-bytes', String(quotaBytes)]),
    ...(identityFolder === undefined ? [] : certificateArguments(identityFolder)),
  ];
}

function certificateArguments(folder: string): string[] {
  const ca = join(folder, identityFiles.ca);
  const certificate = join(folder, identityFiles.certificate);
  const key = join(folder, identityFiles.key);
  return [
    ...['--client-cert-auth', '--trusted-ca-file', ca, '--cert-file', certificate, '--key-file', key],
    ...['--peer-client-cert-auth', '--peer-trusted-ca-file', ca],
    ...['--peer-cert-file', certificate, '--peer-key-file', key],
  ];
}
