// Records of a cluster with one VM, as the tests of placement need them; each says only what it is about.

import type { Hosted, NodeInfo, VmRecord } from './registry.ts';

export const GiB = 2 ** 30;
export const life = '00000001';

export function hosted(part: Partial<Hosted>): Hosted {
  const rest = { role: 'primary', state: 'alone', why: '', protected: false, term: 1, port: 1, failures: 0 } as const;
  return { vm: 'web', life, ...rest, ...part };
}

export function info(node: string, part: Partial<NodeInfo> = {}): NodeInfo {
  const room = { cores: 2, memoryBytes: 8 * GiB, memoryFreeBytes: 4 * GiB };
  return { node, address: node, apiPort: 1, version: '', refused: 0, hosted: [], ...room, ...part };
}

export function vmRecord(part: Partial<VmRecord> = {}): VmRecord & { revision: number } {
  return { vm: 'web', life, home: 'h1', spec: {}, memoryBytes: GiB / 4, protect: true, revision: 1, ...part };
}
