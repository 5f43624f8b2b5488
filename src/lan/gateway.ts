// A way from this machine's ordinary sockets into the user-space LAN, without root: a QEMU that has no machine, only
// its user-mode network (which answers as 10.0.2.2 and forwards ports of 127.0.0.1) joined by a hub to our switch.

import { type ChildProcess, spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { createServer } from 'node:net';
import { delay } from '../base/clock.ts';
import { ColoError, errorCodes, errorText } from '../base/errors.ts';
import { tiedToUs } from '../base/processes.ts';
import { gatewayRetryMs } from './limits.ts';

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
  /**
   * Resolves when the gateway's port appears at the switch: its forwards are open then (QEMU makes netdevs in order).
   */
  connected: () => Promise<void>;
  qemuPath?: string;
  /** It ended, and why, or '': it stands again. */
  changed?: (problem: string) => void;
}

/** A gateway that is started again when its QEMU ends, with the same forwards, for as long as it takes. */
export class Gateway {
  private readonly options: GatewayOptions;
  private running: GatewayProcess;
  private isStopped = false;
  private watching: Promise<void>;

  private constructor(options: GatewayOptions, running: GatewayProcess) {
    this.options = options;
    this.running = running;
    this.watching = this.watch();
  }

  static async start(options: GatewayOptions): Promise<Gateway> {
    await refuseBusyPorts(options.forwards);
    return new Gateway(options, await GatewayProcess.start(options));
  }

  get pid(): number {
    return this.running.pid;
  }

  async stop(): Promise<void> {
    this.isStopped = true;
    await this.running.stop();
    await this.watching;
    await this.running.stop();
  }

  private async watch(): Promise<void> {
    while (!this.isStopped) {
      const why = await this.running.gone;
      if (this.isStopped) return;
      this.options.changed?.(`the gateway ended (${why}): its forwards are closed, and it is started again`);
      await this.again();
    }
  }

  private async again(): Promise<void> {
    while (!this.isStopped)
      try {
        this.running = await GatewayProcess.start(this.options);
        this.options.changed?.('');
        return;
      } catch (error) {
        this.options.changed?.(`the gateway does not start, and is tried again: ${errorText(error)}`);
        await delay(gatewayRetryMs);
      }
  }
}

class GatewayProcess {
  private readonly child: ChildProcess;
  /** Resolves with how it ended. */
  readonly gone: Promise<string>;

  private constructor(child: ChildProcess) {
    this.child = child;
    this.gone = new Promise((resolve) => {
      child.once('close', (code, signal) => resolve(signal ?? `code ${code}`));
    });
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  static async start(options: GatewayOptions): Promise<GatewayProcess> {
    const connected = options.connected();
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
    const gateway = new GatewayProcess(child);
    try {
      await gateway.started(connected);
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
