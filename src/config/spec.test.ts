// What an operator may write, and what is said when it is wrong: one line for each mistake, and it names the key.

import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { parse } from 'yaml';
import { ColoError, errorCodes } from '../base/errors.ts';
import { parseDuration, parseSize } from './size.ts';
import { checkSpec, readSpec } from './spec.ts';

const examples = resolve(import.meta.dirname, '../../examples');

/** A copy of the examples, with the files that they name beside them. */
function withExamples<T>(work: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'colo-spec-'));
  cpSync(examples, folder, { recursive: true });
  for (const file of ['vmlinuz', 'initrd.img']) writeFileSync(join(folder, file), '');
  return work(folder).finally(() => rmSync(folder, { recursive: true }));
}

const smallest = 'vm: a\nboot: {guest: demo}\n';

/** The message for a spec with `text` in it; fails when the spec is accepted. */
function refusal(text: string): string {
  try {
    checkSpec(parse(text), 'spec.yaml');
  } catch (error) {
    assert.ok(error instanceof ColoError);
    assert.equal(error.code, errorCodes.input);
    assert.ok(error.hint !== undefined);
    return error.message;
  }
  return assert.fail(`accepted: ${text}`);
}

test('every example is a spec that is accepted', async () => {
  await withExamples(async (folder) => {
    const files = readdirSync(examples).filter((name) => name.endsWith('.yaml'));
    assert.ok(files.length > 0);
    const names = new Set<string>();
    for (const file of files) names.add((await readSpec(join(folder, file))).vm);
    assert.equal(names.size, files.length, 'examples have different names, so that they can run beside each other');
  });
});

test('the example that names every key holds the defaults', async () => {
  const { vm, network, ...rest } = await readSpec(join(examples, 'full.yaml'));
  const defaults = checkSpec({ vm, boot: { guest: 'demo' } }, 'defaults');
  assert.deepEqual({ ...rest, vm, network: { ...network, forwards: [] } }, defaults);
});

test('a bypass rule names protocol and port, and an address that is one', () => {
  const withRule = (rule: string) => `${smallest}network: {bypass: [${rule}]}\n`;
  const accepted = checkSpec(parse(withRule('{protocol: udp, address: "fe80::1", port: 514}')), 'spec.yaml');
  assert.deepEqual(accepted.network.bypass, [{ protocol: 'udp', address: 'fe80::1', port: 514 }]);
  assert.match(refusal(withRule('{protocol: udp}')), /network\.bypass\.0\.port/);
  assert.match(refusal(withRule('{protocol: tcp, address: host, port: 1}')), /an IPv4 or IPv6 address/);
  assert.match(refusal(withRule('{protocol: icmp, port: 1}')), /network\.bypass\.0\.protocol/);
});

test('paths of a spec are relative to its file', async () => {
  await withExamples(async (folder) => {
    const { boot } = await readSpec(join(folder, 'kernel.yaml'));
    assert.deepEqual('kernel' in boot ? [boot.kernel, boot.initrd] : [], [
      join(folder, 'vmlinuz'),
      join(folder, 'initrd.img'),
    ]);
  });
});

test('an unknown key is named with the place where it stands', () => {
  assert.match(refusal(`${smallest}protect: {mood: colo}`), /^spec\.yaml: protect: .*"mood"$/);
  assert.match(refusal(`${smallest}disk: a`), /^spec\.yaml: \(top\): .*"disk"$/);
});

test('a number without its unit, or with another one, is refused with an example of a right one', () => {
  assert.match(refusal(`${smallest}machine: {memory: 256}`), /machine\.memory: a size with its unit, such as "256M"$/);
  assert.match(
    refusal(`${smallest}machine: {memory: 256MX}`),
    /machine\.memory: "256MX" is not a size from 64M to 64G/,
  );
  assert.match(refusal(`${smallest}machine: {memory: 1M}`), /machine\.memory: "1M" is not a size from 64M to 64G/);
  assert.match(refusal(`${smallest}protect: {interval: 25}`), /protect\.interval: a duration with its unit/);
  assert.match(refusal(`${smallest}protect: {epochMax: 10h}`), /protect\.epochMax: "10h" is not a duration from/);
});

test('every mistake has one line', () => {
  const lines = refusal(
    'vm: A B\nboot: {}\nnetwork: {mac: "01:00:00:00:00:00", forwards: [{host: 0, guest: 80}]}',
  ).split('\n');
  assert.equal(lines.length, 4);
  for (const key of ['vm: ', 'boot: ', 'network.mac: ', 'network.forwards.0.host: '])
    assert.equal(lines.filter((line) => line.includes(key)).length, 1, key);
});

test('each card has an address of its own', () => {
  assert.match(
    refusal(`${smallest}cards: [{mac: "52:54:00:12:34:57"}, {mac: "52:54:00:12:34:56"}]`),
    /two cards have the address 52:54:00:12:34:56$/,
  );
  assert.match(
    refusal(`${smallest}cards: [{mac: "52:54:00:12:34:57", address: "fe80::1"}]`),
    /cards\.0\.address: an IPv4/,
  );
});

test('a port of the host is forwarded once', () => {
  const withForwards = (text: string) => `${smallest}network: {forwards: [${text}]}\n`;
  assert.match(refusal(withForwards('{host: 80, guest: 80}, {host: 80, guest: 81}')), /tcp port 80 .* given twice$/);
  const both = withForwards('{host: 53, guest: 53}, {protocol: udp, host: 53, guest: 53}');
  assert.equal(checkSpec(parse(both), 'spec.yaml').network.forwards.length, 2);
});

test('a missing spec, a missing kernel and broken YAML are one line each that names the file', async () => {
  const missing = await readSpec(join(examples, 'no-such.yaml')).catch((error: unknown) => error);
  assert.match(oneLine(missing), /cannot read .*no-such\.yaml/);
  const noKernel = await readSpec(join(examples, 'kernel.yaml')).catch((error: unknown) => error);
  assert.match(oneLine(noKernel), /kernel\.yaml: cannot read .*vmlinuz/);
  await withExamples(async (folder) => {
    const path = join(folder, 'broken.yaml');
    writeFileSync(path, 'vm: [a\n');
    const broken = await readSpec(path).catch((error: unknown) => error);
    assert.match(oneLine(broken), /broken\.yaml: .*line \d/);
    for (const text of ['vm: *a\nboot: {guest: demo}\n', '', '[vm]\n', 'vm: a\nvm: b\n']) {
      writeFileSync(path, text);
      const wrong = await readSpec(path).catch((error: unknown) => error);
      assert.match(oneLine(wrong), /broken\.yaml: /, text);
    }
    writeFileSync(path, 'vm: a\nboot: {kernel: .}\n');
    assert.match(oneLine(await readSpec(path).catch((error: unknown) => error)), /broken\.yaml: .* is a folder$/);
  });
});

function oneLine(error: unknown): string {
  assert.ok(error instanceof ColoError);
  assert.equal(error.code, errorCodes.input);
  assert.ok(!error.message.includes('\n'), error.message);
  return error.message;
}

test('sizes and durations are whole texts with a unit', () => {
  assert.deepEqual(['64K', '256M', '2 G', '1GiB', '1GB'].map(parseSize), [
    65_536,
    256 * 2 ** 20,
    2 * 2 ** 30,
    2 ** 30,
    2 ** 30,
  ]);
  assert.deepEqual(['25ms', '0.5s', '2m'].map(parseDuration), [25, 500, 120_000]);
  for (const text of ['', '5', '-1M', '1.5G', '1T', '1M x']) assert.equal(parseSize(text), undefined, text);
  for (const text of ['', '5', '1h', '-1s', '1sx']) assert.equal(parseDuration(text), undefined, text);
});

test('a device that cannot be protected is refused by name, with what to take instead', () => {
  for (const name of ['qxl', 'virtio', 'ramfb', 'cirrus'])
    assert.match(
      refusal(`${smallest}machine: {display: ${name}}`),
      new RegExp(`${name} cannot be protected: .*take vga`),
    );
  assert.match(refusal(`${smallest}machine: {display: monochrome}`), /machine\.display: one of "none", "vga"/);
  assert.match(refusal(`${smallest}machine: {tpm: true}`), /machine\.tpm: cannot be protected: .*swtpm/);
});

test('a disk that its machine has no place for is refused', () => {
  const disks = (text: string, machine = 'q35') => refusal(`${smallest}machine: {type: ${machine}}\ndisks: [${text}]`);
  assert.match(disks('{path: a, format: raw, bus: nvme}'), /disks\.0\.bus: nvme cannot be protected: .*take virtio/);
  assert.match(disks('{path: a, format: raw, bus: virtio, cdrom: true}'), /no CD drive of virtio/);
  assert.match(disks('{path: a, format: raw, bus: scsi}', 'microvm'), /a microvm has only virtio disks/);
  const five = Array.from({ length: 5 }, (_, at) => `{path: a${at}, format: raw, bus: sata}`).join();
  assert.match(disks(five, 'pc'), /has 4 places for sata/);
  const order = (text: string) =>
    refusal(`vm: a\nboot: {from: disk, order: ${text}}\ndisks: [{path: a, format: raw}, {path: b, format: raw}]`);
  assert.match(order('[2]'), /boot\.order: 2 is no disk/);
  assert.match(order('[0, 0]'), /boot\.order: 0 .* there twice/);
  assert.match(refusal(`${smallest}network: {model: e1000, mtu: 1400}`), /cannot tell its guest an MTU/);
});

test('a machine that QEMU could not make is refused with what to write', () => {
  const machine = (text: string) => refusal(`${smallest}machine: {${text}}`);
  assert.match(machine('type: microvm, firmware: uefi'), /a microvm has no flash/);
  assert.match(machine('type: pc, firmware: uefi-secure'), /Secure Boot needs/);
  assert.match(machine('variables: a.fd'), /a BIOS keeps none/);
  assert.match(machine('type: microvm, display: vga'), /no place for one/);
  assert.equal(checkSpec(parse(`${smallest}machine: {firmware: uefi-secure}`), 'spec.yaml').machine.type, 'q35');
});
