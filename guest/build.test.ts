// The guest recipe's pure parts: what is read from Debian's tools, and the bytes that clients check downloads against.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { contentBlock, downloadSha256, smallSha256 } from './big-file.ts';
import { recipeHash } from './build.ts';
import { moduleDependencies, parseLoaderList } from './image.ts';
import { parseDependencies, parsePackages } from './packages.ts';

test('of alternatives and versions in a Depends field the first plain name counts', () => {
  const text = 'libc6 (>= 2.34), initramfs-tools (>= 0.120) | linux-initramfs-tool, libgcc-s1:any, libc6 (<< 3)';
  assert.deepEqual(parseDependencies(text), ['libc6', 'initramfs-tools', 'libgcc-s1']);
  assert.deepEqual(parseDependencies(','), []);
});

test('the first stanza of a package wins, and one without a sum is not in the archive', () => {
  const stanza = (version: string): string =>
    `Package: a\nVersion: ${version}\nSection: libs\nSHA256: 12\nDepends: bb (= 1)\nPre-Depends: cc\n`;
  const found = parsePackages(`${stanza('2')}\n${stanza('1')}\nPackage: local\nVersion: 1\n`);
  assert.deepEqual(found, [{ name: 'a', version: '2', section: 'libs', sha256: '12', dependencies: ['cc', 'bb'] }]);
});

test('a library that no package holds stops the build and is named', () => {
  const text = '\tlinux-vdso.so.1 (0x7ff)\n\tlibz.so.1 => /u/lib/libz.so.1 (0x7f)\n';
  assert.deepEqual([...parseLoaderList(text)], [['libz.so.1', '/u/lib/libz.so.1']]);
  assert.throws(() => parseLoaderList('\tlibq.so.2 => not found\n'), /libq\.so\.2/);
});

test("a module's dependencies are read from its bytes", () => {
  assert.deepEqual(moduleDependencies(Buffer.from('\0license=GPL\0depends=virtio,virtio_ring\0name=x\0')), [
    'virtio',
    'virtio_ring',
  ]);
  assert.deepEqual(moduleDependencies(Buffer.from('\0depends=\0name=x\0')), []);
  assert.deepEqual(moduleDependencies(Buffer.from('no module')), []);
});

test('the content is the same everywhere, and each size has its own sum', () => {
  assert.equal(contentBlock().length, 65_536);
  assert.equal(downloadSha256(64), 'bd4ed65ebc6b0469eabb4a0f83e7bb36655618b7c799588843fd8992c9a9be3b');
  assert.equal(new Set([downloadSha256(1), downloadSha256(2), smallSha256()]).size, 3);
});

test('the same recipe has the same hash', async () => {
  assert.equal(await recipeHash(), await recipeHash());
});
