// The command line of QEMU: one machine on both nodes, with nothing that would make its two copies differ.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type DiskFiles, type MachineSpec, qemuArguments, vmFiles } from './machine.ts';

const spec: MachineSpec = {
  machine: 'q35',
  accel: 'tcg',
  cpu: undefined,
  vcpus: 2,
  ramBytes: 256 * 2 ** 20,
  kernel: '/boot/vmlinuz',
  initrd: undefined,
  cmdline: 'console=ttyS0 quiet',
  nics: [{ mac: '52:54:00:00:00:01' }, { mac: '52:54:00:00:00:02' }],
  serialLog: '/run/vm/serial.log',
  extraArgs: ['-device', 'virtio-rng-pci'],
};

/** The values that follow each occurrence of `option`. */
function valuesOf(args: string[], option: string): string[] {
  return args.flatMap((each, index) => (each === option ? [args[index + 1] ?? ''] : []));
}

test('both nodes start the same machine: only the files and -S differ', () => {
  const primary = qemuArguments(spec, vmFiles('/run/primary', 2), { paused: false });
  const secondary = qemuArguments(spec, vmFiles('/run/secondary', 2), { paused: true });
  const unified = secondary
    .filter((each) => each !== '-S')
    .map((each) => each.replaceAll('/run/secondary', '/run/primary'));
  assert.deepEqual(unified, primary);
  assert.ok(secondary.includes('-S') && !primary.includes('-S'));
});

test('guest RAM is the shared file, and the state stream has no sections that the loader would miss', () => {
  const args = qemuArguments(spec, vmFiles('/run/vm', 2), { paused: false });
  assert.match(valuesOf(args, '-object')[0] ?? '', /id=ram,size=268435456,mem-path=\/run\/vm\/ram,share=on/);
  assert.match(valuesOf(args, '-machine')[0] ?? '', /^q35,accel=tcg,memory-backend=ram,suppress-vmdesc=on$/);
  assert.equal(valuesOf(args, '-global')[0], 'migration.send-configuration=off');
  assert.deepEqual(valuesOf(args, '-m'), ['262144K']);
});

test('no machine can sleep, and none is started whose state cannot be saved', () => {
  const argsOf = (machine: MachineSpec['machine']) =>
    qemuArguments({ ...spec, machine }, vmFiles('/run/vm', 2), { paused: false });
  const globals = (machine: MachineSpec['machine']) => valuesOf(argsOf(machine), '-global').slice(1);
  assert.deepEqual(globals('q35'), ['ICH9-LPC.disable_s3=1', 'ICH9-LPC.disable_s4=1']);
  assert.deepEqual(globals('pc'), ['PIIX4_PM.disable_s3=1', 'PIIX4_PM.disable_s4=1']);
  assert.deepEqual(globals('microvm'), []);
  for (const machine of ['pc', 'q35', 'microvm'] as const) assert.ok(argsOf(machine).includes('-only-migratable'));
});

test('each card has a socket of its own, as a PCI card or, on microvm, a virtio-mmio device', () => {
  const files = vmFiles('/run/vm', 2);
  const pci = qemuArguments(spec, files, { paused: false });
  assert.deepEqual(valuesOf(pci, '-netdev')[1], 'stream,id=nic1,server=off,addr.type=unix,addr.path=/run/vm/nic1.sock');
  assert.deepEqual(valuesOf(pci, '-device')[1], 'virtio-net-pci,netdev=nic1,mac=52:54:00:00:00:02,romfile=');
  const micro = qemuArguments({ ...spec, machine: 'microvm' }, files, { paused: false });
  assert.deepEqual(valuesOf(micro, '-device')[0], 'virtio-net-device,netdev=nic0,mac=52:54:00:00:00:01');
});

test('a card tells the guest its MTU, where the spec names one', () => {
  const nics = [{ mac: '52:54:00:00:00:01' }, { mac: '52:54:00:00:00:02', mtu: 9000 }];
  const cards = valuesOf(qemuArguments({ ...spec, nics }, vmFiles('/run/vm', 2), { paused: false }), '-device');
  assert.doesNotMatch(cards[0] ?? '', /host_mtu/);
  assert.match(cards[1] ?? '', /,host_mtu=9000,/);
});

test('a comma in a path does not end an option', () => {
  const args = qemuArguments(spec, vmFiles('/run/a,b', 2), { paused: false });
  assert.match(valuesOf(args, '-object')[0] ?? '', /mem-path=\/run\/a,,b\/ram,share/);
});

test('the default CPU has no instruction that draws random numbers', () => {
  const cpu = valuesOf(qemuArguments(spec, vmFiles('/run/vm', 2), { paused: false }), '-cpu')[0] ?? '';
  assert.doesNotMatch(cpu, /rdrand|rdseed|host|max/);
});

test("the real-time clock follows the guest's own clock when asked to", () => {
  const rtcOf = (rtc: 'host' | 'vm') =>
    valuesOf(qemuArguments({ ...spec, rtc }, vmFiles('/run/vm', 2), { paused: false }), '-rtc');
  assert.deepEqual([rtcOf('host'), rtcOf('vm')], [[], ['base=utc,clock=vm']]);
});

test('extra arguments come last', () => {
  assert.deepEqual(qemuArguments(spec, vmFiles('/run/vm', 2), { paused: true }).slice(-2), spec.extraArgs);
});

test('both nodes have the same disk devices over their own files, and a guest without a kernel starts from the first', () => {
  const disks = (files: DiskFiles[]) => ({ ...vmFiles('/run/vm', 2), disks: files });
  const image = disks([{ kind: 'image', path: '/a,b.qcow2', format: 'qcow2' }]);
  const overlay = disks([{ kind: 'overlay', overlayPath: '/o', replicaPath: '/r' }]);
  const bios = { ...spec, kernel: undefined };
  const primary = qemuArguments(bios, image, { paused: false });
  const secondary = qemuArguments(bios, overlay, { paused: false });
  assert.deepEqual(valuesOf(primary, '-device'), valuesOf(secondary, '-device'));
  assert.ok(valuesOf(primary, '-device').includes('virtio-blk-pci,id=disk0,drive=disk0,bootindex=0'));
  const nodes = valuesOf(secondary, '-blockdev')
    .slice(1)
    .map((text): unknown => JSON.parse(text));
  assert.deepEqual(
    nodes.map((node) => Object(node)['node-name']),
    ['disk0-replica-file', 'disk0-replica', 'disk0-file', 'disk0'],
  );
  assert.equal(Object(JSON.parse(valuesOf(primary, '-blockdev')[1] ?? '')).filename, '/a,b.qcow2');
});
