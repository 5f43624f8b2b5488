// Network cards that a spec can name, and what the one-machine network tells a guest that asks by DHCP.

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { after, type TestContext, test } from 'node:test';
import { systemClock } from '../../src/base/clock.ts';
import { silentLog } from '../../src/base/log.ts';
import { Gateway } from '../../src/lan/gateway.ts';
import { Switch } from '../../src/lan/switch.ts';
import { connectForFrames } from '../../src/netdev/endpoint.ts';
import { buildUdp } from '../../src/packet/build.ts';
import { ramHash } from '../../src/qemu/hash.ts';
import { type CardModel, type MachineSpec, vmFiles } from '../../src/qemu/machine.ts';
import type { VmOptions } from '../../src/qemu/start.ts';
import { Vm } from '../../src/qemu/vm.ts';

const root = mkdtempSync('/dev/shm/colo-cards-test-');
after(() => rmSync(root, { recursive: true, force: true }));

async function startVm(context: TestContext, spec: MachineSpec, options: Partial<VmOptions> = {}): Promise<Vm> {
  const files = vmFiles(join(mkdtempSync(join(root, 'vm-')), 'run'), spec.nics.length);
  for (const path of files.nicPaths) {
    mkdirSync(dirname(path), { recursive: true });
    const server = createServer((socket) => void socket.on('error', () => undefined).resume());
    await new Promise<void>((resolve) => server.listen(path, resolve));
    context.after(() => server.close());
  }
  const vm = await Vm.start({ spec, files, paused: false, log: silentLog, clock: systemClock, ...options });
  context.after(() => vm.kill());
  return vm;
}

const models: CardModel[] = ['virtio', 'e1000', 'e1000e', 'rtl8139', 'vmxnet3'];
for (const model of models)
  test(`a machine with a card of kind ${model} is saved, and loaded into a second QEMU, again and again`, async (context) => {
    const spec: MachineSpec = {
      ...{ machine: 'q35', accel: 'tcg', cpu: undefined, vcpus: 1, ramBytes: 32 * 2 ** 20, kernel: undefined },
      ...{ initrd: undefined, cmdline: '', extraArgs: [], serialLog: join(root, 'serial.log') },
      nics: [{ mac: '52:54:00:00:00:01', model }],
    };
    const primary = await startVm(context, spec);
    const vmstateTemplate = await primary.makeTemplate();
    const secondary = await startVm(context, spec, { paused: true, vmstateTemplate });
    for (let round = 0; round < 3; round++) {
      let hash = '';
      // It must not write over what is copied into its RAM.
      if (round > 0) await secondary.stop();
      const capture = await primary.capture({
        onStopped: () => undefined,
        beforeResume: () => {
          hash = ramHash(primary.ram);
          primary.ram.copy(secondary.ram);
        },
      });
      const shadow = Buffer.from(primary.ram.length === 0 ? [] : secondary.ram);
      secondary.tracker.collect();
      await secondary.load(capture.deviceState);
      capture.release();
      secondary.tracker.collect().forEach((start, end) => void shadow.copy(secondary.ram, start, start, end));
      assert.equal(ramHash(secondary.ram), hash);
      await secondary.resume();
      assert.deepEqual(await secondary.condition(), { runState: 'running', faults: [] });
    }
  });

/** A question for an address, to everybody (RFC 2131). */
function discover(mac: Uint8Array): Uint8Array {
  const payload = Buffer.alloc(300);
  payload.set([1, 1, 6, 0], 0);
  payload.writeUInt32BE(0x12345678, 4);
  payload.writeUInt16BE(0x8000, 10);
  payload.set(mac, 28);
  payload.set([0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255], 236);
  const everybody = { mac: new Uint8Array(6).fill(0xff), ip: 0xffffffff, port: 67 };
  return buildUdp({ mac, ip: 0, port: 68 }, everybody, payload);
}

for (const address of ['10.0.2.15', '10.0.2.40'])
  test(`a guest that asks by DHCP on one machine is given the address of its spec, ${address}`, async (context) => {
    const path = join(mkdtempSync(join(root, 'lan-')), 'lan.sock');
    const lan = new Switch(() => systemClock.now());
    await lan.listen(path);
    context.after(() => lan.close());
    const gateway = await Gateway.start({
      ...{ switchPath: path, guestAddress: address, forwards: [], connected: () => lan.nextPort() },
    });
    context.after(() => gateway.stop());
    const { promise, resolve } = Promise.withResolvers<string>();
    const mac = Uint8Array.from([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    const guest = await connectForFrames(path, {
      // Ethernet 14, IPv4 20, UDP 8 bytes; a BOOTP reply says 2 first, and at 16 the address that is offered.
      frame: (frame) => {
        const reply = frame.subarray(42);
        if (reply[0] === 2 && reply.length > 240) resolve(reply.subarray(16, 20).join('.'));
      },
      maySend: () => true,
      closed: () => undefined,
    });
    context.after(() => guest.close());
    guest.send(discover(mac));
    assert.equal(await promise, address);
  });
