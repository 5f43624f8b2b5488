// A hash over the whole of guest RAM, for --verify: do both nodes hold the same bytes? It guards against our own
// mistakes, not against an attacker, so the fastest one will do: XXH3 of the system's libxxhash, some 10 GB/s. Where
// the library is missing it is SHA-1 of node:crypto, ten times slower; the two never compare equal, because the name is
// in it.

import { createHash } from 'node:crypto';
import koffi from 'koffi';

type Hash = (bytes: Uint8Array) => string;

let chosen: Hash | undefined;

function choose(): Hash {
  try {
    const xxh3 = koffi.load('libxxhash.so.0').func('uint64_t XXH3_64bits(void *input, size_t length)');
    return (bytes) => `xxh3:${BigInt(xxh3(bytes, bytes.length)).toString(16).padStart(16, '0')}`;
  } catch {
    return (bytes) => `sha1:${createHash('sha1').update(bytes).digest('hex')}`;
  }
}

export function ramHash(ram: Uint8Array): string {
  chosen ??= choose();
  return chosen(ram);
}
