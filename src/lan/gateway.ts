// A way from this machine's ordinary sockets into the user-space LAN, without root: a QEMU that has no machine, only
// its user-mode network (which answers as 10.0.2.2 and forwards ports of 127.0.0.1) joined by a hub to our switch.

import { type ChildProcess, spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { createServer } from 'node:net';
import { ColoError, errorCodes } from '../base/errors.ts';
import { tiedToUs } from '../base/processes.ts';

export interface Forward {
  protocol: 'tcp' | 'udp';
  /** Port of 127.0.0.1 on this machine. */
  hostPort: number;
  /** Port of the guest at `guestAddress`. */
  guestPort: number;
}

export interface GatewayOptions {
  switchPath: string;
  guestAddress: string;
  forwards: Forward[];
  /** Resolves when the gateway's port appears at the switch: its forwards are open then (QEMU makes netdevs in order). */
  connected: Promise<void>;
  qemuPath?: string;
}

export class Gateway {
  private readonly child: ChildProcess;
  private readonly gone: Promise<void>;

  private constructor(child: ChildProcess) {
    this.child = child;
    this.gone = new Promise((resolve) => child.once('close', () => resolve()));
  }

  static async start(options: GatewayOptions): Promise<Gateway> {
    await refuseBusyPorts(options.forwards);
    const forwards = options.forwards.map(
      (one) => `hostfwd=${one.protocol}:127.0.0.1:${one.hostPort}-${options.guestAddress}:${one.guestPort}`,
    );
    const [command, args] = tiedToUs(options.qemuPath ?? 'qemu-system-x86_64', [
      ...['-M', 'none', '-nodefaults', '-no-user-config', '-display', 'none', '-name', 'colo-gateway'],
      // Whoever asks first by DHCP is given the guest's address; further cards of it the ones behind.
      ...['-netdev', ['user,id=user', 'net=10.0.2.0/24', `dhcpstart=${options.guestAddress}`, ...forwards].join(',')],
      ...['-netdev', `stream,id=lan,server=off,addr.type=unix,addr.path=${options.switchPath}`],
      ...['-netdev', 'hubport,id=left,hubid=0,netdev=user', '-netdev', 'hubport,id=right,hubid=0,netdev=lan'],
    ]);
    const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    const gateway = new Gateway(child);
    try {
      await gateway.started(options.connected);
    } catch (error) {
      await gateway.stop();
      throw error;
    }
    return gateway;
  }

  async stop(): Promise<void> {
    if (this.child.exitCode === null && this.child.signalCode === null) this.child.kill('SIGKILL');
    await this.gone;
  }

  /** Resolves when the gateway stands in the network; a QEMU that ends before is an error with its own words. */
  private async started(connected: Promise<void>): Promise<void> {
    let words = '';
    this.child.stderr?.on('data', (chunk: Buffer) => {
      words = (words + chunk.toString()).slice(-2000);
    });
    const failed = new Promise<never>((_, reject) => {
      const fail = (cause?: unknown) =>
        reject(new ColoError(errorCodes.qemu, `the gateway did not start: ${words.trim()}`, { cause }));
      this.child.once('error', fail);
      this.child.once('close', () => fail());
    });
    failed.catch(() => undefined);
    await Promise.race([failed, connected]);
  }
}

/** In one line, before anything is started: QEMU would name only the first, in words of its own. */
export async function refuseBusyPorts(forwards: readonly Pick<Forward, 'protocol' | 'hostPort'>[]): Promise<void> {
  for (const { protocol, hostPort } of forwards)
    if (!(await (protocol === 'tcp' ? canListen(hostPort) : canBind(hostPort))))
      throw new ColoError(errorCodes.input, `${protocol} port ${hostPort} of 127.0.0.1 is in use`, {
        hint: 'choose another host port, or end the program that holds it',
      });
}

function canListen(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

function canBind(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createSocket('udp4');
    socket.once('error', () => socket.close(() => resolve(false)));
    socket.bind(port, '127.0.0.1', () => socket.close(() => resolve(true)));
  });
}

/** `count` free TCP ports of 127.0.0.1. Another program may take one before it is used; the gateway says so then. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer());
  const ports: number[] = [];
  for (const server of servers) {
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const address = server.address();
    if (typeof address === 'object' && address !== null) ports.push(address.port);
  }
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}
