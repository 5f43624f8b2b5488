// Ports of this machine that a spec forwards: one that is taken is refused before anything is started.

import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { createServer } from 'node:net';
import { type TestContext, test } from 'node:test';
import { Gateway, refuseBusyPorts } from './gateway.ts';

async function takenTcpPort(context: TestContext): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  context.after(() => new Promise((resolve) => server.close(resolve)));
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : 0;
}

async function takenUdpPort(context: TestContext): Promise<number> {
  const socket = createSocket('udp4');
  await new Promise<void>((resolve) => socket.bind(0, '127.0.0.1', resolve));
  context.after(() => new Promise<void>((resolve) => socket.close(resolve)));
  return socket.address().port;
}

test('a port in use is refused in one line that names it, over TCP and over UDP, before anything is started', async (context) => {
  const ports = { tcp: await takenTcpPort(context), udp: await takenUdpPort(context) };
  for (const protocol of ['tcp', 'udp'] as const) {
    const hostPort = ports[protocol];
    const refused = { code: 'COLO_E_INPUT', message: `${protocol} port ${hostPort} of 127.0.0.1 is in use` };
    await assert.rejects(refuseBusyPorts([{ protocol, hostPort }]), refused);
    const gateway = Gateway.start({
      switchPath: '/nonexistent/lan.sock',
      guestAddress: '10.0.2.15',
      forwards: [{ protocol, hostPort, guestPort: 80 }],
      connected: () => new Promise(() => undefined),
      qemuPath: '/nonexistent-qemu',
    });
    await assert.rejects(gateway, refused);
  }
});

test('a port that was looked at is free again for the gateway itself', async (context) => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  const hostPort = typeof address === 'object' && address !== null ? address.port : 0;
  await new Promise((resolve) => server.close(resolve));
  await refuseBusyPorts([
    { protocol: 'tcp', hostPort },
    { protocol: 'udp', hostPort },
  ]);
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(hostPort, '127.0.0.1', resolve));
  context.after(() => new Promise((resolve) => server.close(resolve)));
});
