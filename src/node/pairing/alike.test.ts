// Two hosts that would run two machines are no pair, and each difference is named with the values of both.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ColoError } from '../../base/errors.ts';
import { protectSchema } from '../../config/spec.ts';
import type { MachineFacts } from '../../qemu/machine-facts.ts';
import type { NodeConfig } from '../config.ts';
import { encodeMachine, type Machine, madeTraits, parseMachine, refuseUnlike, toldTraits } from './alike.ts';

const facts: MachineFacts = {
  ...{ type: 'pc-q35-7.2', tscKhz: 2_596_132 },
  cpu: { 'CPU vendor': 'AuthenticAMD', 'CPUID 1:ECX': '0x80982201', 'CPUID 7.0:EBX': '0x0' },
};

function made(node: string, part: Partial<MachineFacts> = {}, qemuVersion = '7.2.22'): Machine {
  return { node, told: {}, made: madeTraits({ qemuVersion, facts: { ...facts, ...part } }) };
}

function told(node: string, part: Partial<NodeConfig['machine']> = {}): Machine {
  const machine = {
    ...{ machine: 'q35', accel: 'tcg', cpu: undefined, vcpus: 1, ramBytes: 256 << 20 },
    ...{ kernel: '/here', initrd: undefined, cmdline: '', nics: [], serialLog: '', extraArgs: [], ...part },
  };
  const config = { machine, protect: protectSchema.parse({}) } as unknown as NodeConfig;
  return { node, told: toldTraits(config), made: {} };
}

function refusal(what: 'told' | 'made', theirs: Machine, ours: Machine): string {
  try {
    refuseUnlike(what, theirs, ours);
    return '';
  } catch (error) {
    assert.ok(error instanceof ColoError && error.hint !== undefined && !error.message.includes('\n'));
    return error.message;
  }
}

test('hosts whose QEMU, machine type, CPU or clock differ are refused in one line with the values of both', () => {
  const of = (part: Partial<MachineFacts>, version?: string) => refusal('made', made('h1'), made('h2', part, version));
  assert.equal(of({}), '');
  assert.equal(of({}, '7.2.23'), '', 'an update of one release');
  assert.equal(of({}, '8.0.0'), 'the hosts differ: the release of QEMU is 7.2.22 on h1 and 8.0.0 on h2');
  assert.equal(of({}, '7.20.0'), 'the hosts differ: the release of QEMU is 7.2.22 on h1 and 7.20.0 on h2');
  assert.equal(
    of({ type: 'pc-q35-8.0' }),
    'the hosts differ: the machine type is pc-q35-7.2 on h1 and pc-q35-8.0 on h2',
  );
  const cpu = { ...facts.cpu, 'CPUID 1:ECX': '0x80982001' };
  assert.equal(of({ cpu }), 'the hosts differ: CPUID 1:ECX is 0x80982201 on h1 and 0x80982001 on h2');
  const { 'CPU vendor': _, ...less } = facts.cpu;
  assert.equal(of({ cpu: less }), 'the hosts differ: CPU vendor is AuthenticAMD on h1 and none on h2');
  assert.equal(of({ tscKhz: 2_596_700 }), '', 'what KVM takes as equal');
  assert.equal(of({ tscKhz: 2_100_000 }), 'the hosts differ: the TSC rate in kHz is 2596132 on h1 and 2100000 on h2');
  assert.match(of({ tscKhz: 0 }), /2596132 on h1 and none on h2$/);
  const all = of({ type: 'pc-q35-8.0', tscKhz: 1, cpu: { ...cpu, 'CPU vendor': 'GenuineIntel' } }, '8.0.0');
  assert.match(all, /; and 2 more$/);
});

test('nodes that were told different machines are refused before anything is started', () => {
  assert.equal(refusal('told', told('h1'), told('h2', { kernel: '/elsewhere', serialLog: '/x' })), '');
  assert.equal(
    refusal('told', told('h1'), told('h2', { vcpus: 2, cpu: 'host' })),
    'the hosts differ: machine.cpu is the default on h1 and host on h2; machine.vcpus is 1 on h1 and 2 on h2',
  );
});

test('what a peer says of its machine arrives as it was sent; anything else is refused', () => {
  const machine = { ...made('h1'), told: told('h1').told };
  assert.deepEqual(parseMachine(encodeMachine(machine)), machine);
  const many = Object.fromEntries(Array.from({ length: 201 }, (_, index) => [`trait ${index}`, '']));
  for (const wrong of [
    '',
    '{}',
    JSON.stringify({ ...machine, told: { x: 1 } }),
    JSON.stringify({ ...machine, told: many }),
  ])
    assert.throws(() => parseMachine(Buffer.from(wrong)), ColoError);
  fc.assert(
    fc.property(
      fc.oneof(
        fc.uint8Array(),
        fc.json().map((text) => Buffer.from(text)),
      ),
      (bytes) => {
        assert.throws(() => parseMachine(bytes), ColoError);
      },
    ),
  );
});
