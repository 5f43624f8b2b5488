// Which folder may import which: only from layers below its own, so folders of one layer never import each other
// (docs/ARCHITECTURE.md, Layers). Tests beside the code may import anything.

import type { Source } from './sources.ts';

/** From the lowest on. */
const layers: readonly (readonly string[])[] = [
  ['src/base'],
  ['src/api', 'src/channel', 'src/config', 'src/etcd', 'src/host', 'src/nbd', 'src/netdev', 'src/packet', 'src/qemu'],
  ['native'],
  ['src/arbiter', 'src/checkpoint', 'src/disk', 'src/heartbeat', 'src/lan', 'src/proxy', 'guest'],
  ['src/controller'],
  ['src/cluster', 'src/node'],
  ['src/child'],
  ['src/local'],
  ['src/colod'],
  ['src/lab', 'sim'],
  ['src/demo'],
  ['bench'],
  ['src/cli', 'docs'],
  ['test'],
];

interface Exception {
  importer: string;
  imported: string;
  why: string;
}

const exceptions: readonly Exception[] = [
  {
    importer: 'src/qemu/',
    imported: 'native/',
    why: 'starts QEMU with the preload library, which is built on this host',
  },
  {
    importer: 'bench/',
    imported: 'test/functional/',
    why: 'measures with the guest and the colo-compare of the tests',
  },
];

const isTest = (path: string) => /\.(?:test|conformance)\.ts$/.test(path);

/**
 * A sentence for each import that goes up or sideways, for each folder without a layer, and for each idle exception.
 */
export function layerFaults(sources: readonly Pick<Source, 'path' | 'imports'>[]): string[] {
  const faults: string[] = [];
  const idle = new Set(exceptions);
  for (const { path, imports } of sources.filter((source) => !isTest(source.path))) {
    const own = layerOf(path);
    if (own === undefined) {
      faults.push(`${path}: its folder has no layer yet; give it one in src/cli/dev/rules/layers.ts`);
      continue;
    }
    for (const imported of imports) {
      const other = layerOf(imported);
      if (isTest(imported)) faults.push(`${path} imports the test ${imported}; move what both need out of it`);
      if (other === undefined || other.level < own.level || other.folder === own.folder) continue;
      const exception = exceptions.find((one) => path.startsWith(one.importer) && imported.startsWith(one.imported));
      if (exception === undefined)
        faults.push(`${path} imports ${imported}, which is not below it; move what is shared down, or hand it in`);
      else idle.delete(exception);
    }
  }
  for (const { importer, imported } of idle)
    faults.push(`no file of ${importer} imports ${imported} any more; take the exception out of layers.ts`);
  return faults;
}

function layerOf(path: string): { level: number; folder: string } | undefined {
  for (const [level, folders] of layers.entries()) {
    const folder = folders.find((one) => path.startsWith(`${one}/`));
    if (folder !== undefined) return { level, folder };
  }
  return undefined;
}
