// A spec that came over the network names files below the allowed folders only, however it writes them and whatever
// lies there.

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { z } from 'zod';
import { Refusal } from '../api/refusal.ts';
import { ColoError } from '../base/errors.ts';
import { checkSpec, type Spec, specSchema } from '../config/spec.ts';
import { namedFiles, refuseOutside, refuseOutsideHere } from './allowed-files.ts';

function newFolder(context: TestContext): string {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), 'colo-files-')));
  context.after(() => rmSync(folder, { recursive: true }));
  mkdirSync(join(folder, 'images/sub'), { recursive: true });
  return folder;
}

const diskSpec = (path: string, format: 'raw' | 'qcow2' = 'raw'): Spec =>
  checkSpec({ vm: 'x', boot: { from: 'disk' }, disks: [{ path, format }] }, 'the test');

const is403 = (error: unknown) => error instanceof Refusal && error.status === 403 && error.hint !== undefined;

test("a token cannot have the key of a node as its guest's disk, nor name any other file outside of the allowed folders", () => {
  const folders = ['/var/lib/colo/images', '/srv/kernels'];
  const files = (part: object) =>
    checkSpec({ vm: 'x', boot: { kernel: '/srv/kernels/k', initrd: '/srv/kernels/i' }, ...part }, 'the test');
  refuseOutside(files({ disks: [{ path: '/var/lib/colo/images/a', format: 'raw' }] }), folders);
  refuseOutside(checkSpec({ vm: 'x', boot: { guest: 'demo' } }, 'the test'), []);
  const key = '/etc/colo/identity/node.key';
  for (const wrong of [
    files({ boot: { kernel: key } }),
    files({ boot: { kernel: '/srv/kernels/k', initrd: key } }),
    files({ disks: [{ path: key, format: 'raw' }] }),
    files({ replicaFolder: '/var/lib/colo' }),
    files({ network: { pcap: '/var/lib/colo/vms' } }),
    ...['/var/lib/colo/images/../../../../etc/colo/identity/node.key', '/var/lib/colo/images', 'images/a'].map((path) =>
      diskSpec(path),
    ),
    ...['/var/lib/colo/images2/a', '/var/lib/colo/images/..', '', '/'].map((path) => ({
      ...files({}),
      replicaFolder: path,
    })),
  ])
    assert.throws(() => refuseOutside(wrong as Spec, folders), is403, JSON.stringify(namedFiles(wrong as Spec)));
  assert.throws(() => refuseOutside(files({}), []), is403);
});

/** Keys whose text is whatever somebody writes, wherever they stand in the schema. */
function textKeys(schema: JsonSchema, at = ''): string[] {
  if (schema.enum !== undefined || schema.const !== undefined) return [];
  const { anyOf = [], oneOf = [], allOf = [], properties = {}, items } = schema;
  return [
    ...[...anyOf, ...oneOf, ...allOf].flatMap((one) => textKeys(one, at)),
    ...Object.entries(properties).flatMap(([key, one]) => textKeys(one, at === '' ? key : `${at}.${key}`)),
    ...(items === undefined ? [] : textKeys(items, `${at}[]`)),
    ...(schema.type === 'string' ? [at] : []),
  ];
}

interface JsonSchema {
  type?: string;
  enum?: unknown[];
  const?: unknown;
  anyOf?: JsonSchema[];
  oneOf?: JsonSchema[];
  allOf?: JsonSchema[];
  properties?: Record<string, JsonSchema>;
  items?: JsonSchema;
}

/** A name, a size, a time, an address, a CPU: nothing that a file could be named by. */
const noFiles =
  /^(vm|machine\.(cpu|memory)|boot\.cmdline|(network|cards\[\])\.(mac|address|bridge)|network\.bypass.*|protect\..*)$/;

test('every key of a spec that names a file of a host is looked at', () => {
  // Whoever adds a key with a path adds it here and in namedFiles.
  const schema = z.toJSONSchema(specSchema, { io: 'input', unrepresentable: 'any' }) as JsonSchema;
  const keys = new Set(textKeys(schema).filter((key) => !noFiles.test(key)));
  const files = ['boot.initrd', 'boot.kernel', 'disks[].path', 'machine.variables', 'network.pcap', 'replicaFolder'];
  assert.deepEqual([...keys].sort(), files);
  const spec = checkSpec(
    {
      ...{ vm: 'x', boot: { kernel: '/1', initrd: '/2' }, disks: [{ path: '/3', format: 'raw' }] },
      ...{ replicaFolder: '/4', network: { pcap: '/5' }, machine: { firmware: 'uefi', variables: '/6' } },
    },
    'the test',
  );
  assert.deepEqual(
    namedFiles(spec)
      .map(({ path }) => path)
      .sort(),
    ['/1', '/2', '/3', '/4', '/5', '/6'],
  );
});

test("the file of a guest's variables, which it writes, is looked at also where nobody names it", (context) => {
  const folder = newFolder(context);
  const images = join(folder, 'images');
  const uefi = (variables?: string) => {
    const machine = { firmware: 'uefi', ...(variables === undefined ? {} : { variables }) };
    const disks = [{ path: join(images, 'a'), format: 'raw' }];
    return checkSpec({ vm: 'x', boot: { from: 'disk' }, disks, machine }, 'the test');
  };
  assert.throws(() => refuseOutside(uefi('/etc/cron.d/x'), [images]), is403);
  refuseOutsideHere(uefi(), [images]);
  symlinkSync(join(folder, 'node.key'), join(images, 'a.vars.fd'));
  assert.throws(() => refuseOutsideHere(uefi(), [images]), is403);
});

test('links and .. are followed as the kernel does, on the host that opens the file', (context) => {
  const folder = newFolder(context);
  const images = join(folder, 'images');
  const secret = join(folder, 'node.key');
  writeFileSync(secret, '');
  writeFileSync(join(images, 'a'), '');
  symlinkSync(secret, join(images, 'link'));
  symlinkSync(folder, join(images, 'away'));
  symlinkSync(join(images, 'a'), join(images, 'inside'));
  symlinkSync(join(folder, 'not-there'), join(images, 'dangling'));
  symlinkSync(images, join(folder, 'alias'));
  for (const good of ['a', 'inside', 'sub/../a', 'sub/new', 'new/folder/of/replicas'])
    refuseOutsideHere(diskSpec(join(folder, 'images', '.') + `/${good}`), [images]);
  refuseOutsideHere(diskSpec(join(folder, 'alias/a')), [images]);
  refuseOutsideHere(diskSpec(join(images, 'a')), [join(folder, 'alias')]);
  for (const wrong of [
    'link',
    'away/node.key',
    'away/new',
    'away/images/../node.key',
    'sub/../../node.key',
    'new/../../x',
  ])
    assert.throws(() => refuseOutsideHere(diskSpec(`${images}/${wrong}`), [images]), is403, wrong);
  assert.throws(() => refuseOutsideHere(diskSpec(`${images}/dangling`), [images]), is403);
  assert.throws(() => refuseOutsideHere(diskSpec(join(images, 'a')), [join(folder, 'not-there')]), is403);
});

test('a disk image that names other files is refused, whatever is below them', (context) => {
  const images = join(newFolder(context), 'images');
  const qcow2 = (name: string, part: { backing?: bigint; features?: bigint; version?: number }) => {
    const head = Buffer.alloc(104);
    head.write('QFI\xfb', 'latin1');
    head.writeUInt32BE(part.version ?? 3, 4);
    head.writeBigUInt64BE(part.backing ?? 0n, 8);
    head.writeBigUInt64BE(part.features ?? 0n, 72);
    writeFileSync(join(images, name), head);
    return diskSpec(join(images, name), 'qcow2');
  };
  refuseOutsideHere(qcow2('plain', {}), [images]);
  refuseOutsideHere(qcow2('old', { version: 2, features: 4n }), [images]);
  for (const wrong of [
    qcow2('backed', { backing: 512n }),
    qcow2('data', { features: 4n }),
    qcow2('both', { backing: 8n, features: 5n }),
  ])
    assert.throws(
      () => refuseOutsideHere(wrong, [images]),
      (error) => error instanceof ColoError && /names another file/.test(error.message),
    );
});
