// A small fuzzer that keeps what it learns. A target is fed bytes and says in a few words what came of them; an input
// whose words were never heard before is worth keeping, and further inputs are made of it. The kept inputs of each
// target are the files of corpus/NAME: a short run replays and mutates them with the unit tests, a long run
// (test/soak/fuzz.test.ts) adds to them. An input that made a target throw is kept too, as corpus/NAME/failed-*, and
// replayed for ever.
//
// From a seed, so that a run can be repeated.

import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { seededRandom } from '../../src/base/random.ts';

export interface Target {
  name: string;
  /** Inputs to begin with, of every kind there is. */
  seeds: readonly Uint8Array[];
  /** Throws when a promise is broken; else says what came of the input: alike inputs say alike things. */
  feed(input: Uint8Array): string | Promise<string>;
  /** What has to come of some of the inputs: each way to be taken, and each way to be refused, that there is. */
  reaches: readonly RegExp[];
}

/** What is said of an input in words: a refusal without its numbers, its paths, and what it quotes of the input. */
export function words(text: string): string {
  return text
    .replace(/sent ".*", which/s, 'sent what')
    .replace(/there is no .*/s, 'there is no such thing')
    .replaceAll(/\/\S+/g, 'PATH')
    .replaceAll(/[^A-Za-z ]/g, '')
    .slice(0, 60);
}

const corpusFolder = join(import.meta.dirname, 'corpus');
const keptMax = 120;
const inputBytesMax = 16 * 1024;

export interface FuzzResult {
  fed: number;
  kept: number;
  /** Different things that came of inputs. */
  heard: number;
  /** What should have come of some input, and came of none: the target does not reach what it is to try. */
  missed: string[];
}

export async function fuzz(target: Target, run: { seed: number; count: number; keep: boolean }): Promise<FuzzResult> {
  const random = seededRandom(run.seed);
  const below = (limit: number) => Math.floor(random() * limit);
  const folder = join(corpusFolder, target.name);
  const inputs: Uint8Array[] = [...target.seeds, ...kept(folder)];
  const heard = new Set<string>();
  const feed = async (input: Uint8Array): Promise<boolean> => {
    const said = await answer(target, input, folder);
    const isNew = !heard.has(said);
    heard.add(said);
    return isNew;
  };
  for (const input of inputs) await feed(input);
  let added = 0;
  for (let index = 0; index < run.count; index += 1) {
    const input = mutate(inputs, below);
    if (!(await feed(input)) || inputs.length >= target.seeds.length + keptMax) continue;
    inputs.push(input);
    added += 1;
    if (run.keep) keep(folder, input, '');
  }
  const missed = target.reaches.filter((one) => ![...heard].some((said) => one.test(said)));
  return { fed: target.seeds.length + run.count, kept: added, heard: heard.size, missed: missed.map(String) };
}

async function answer(target: Target, input: Uint8Array, folder: string): Promise<string> {
  const strays: unknown[] = [];
  const onStray = (error: unknown) => void strays.push(error);
  process.on('unhandledRejection', onStray).on('uncaughtException', onStray);
  try {
    // The target may do with its own copy what it likes.
    const fed = target.feed(Uint8Array.from(input));
    if (typeof fed === 'string') return fed;
    const said = await fed;
    // What nobody hears is told at the end of a turn.
    await turn();
    if (strays.length > 0) throw strays[0];
    return said;
  } catch (error) {
    const path = keep(folder, input, 'failed-');
    throw new Error(`${target.name}: an input broke a promise; it is kept in ${path}`, { cause: error });
  } finally {
    process.off('unhandledRejection', onStray).off('uncaughtException', onStray);
  }
}

function kept(folder: string): Uint8Array[] {
  try {
    return readdirSync(folder)
      .sort()
      .map((name) => Uint8Array.from(readFileSync(join(folder, name))));
  } catch {
    return [];
  }
}

function keep(folder: string, input: Uint8Array, prefix: string): string {
  mkdirSync(folder, { recursive: true });
  const path = join(folder, prefix + createHash('sha256').update(input).digest('hex').slice(0, 16));
  writeFileSync(path, input);
  return path;
}

const interesting = [0, 1, 0x7f, 0x80, 0xff, 0x0a, 0x22, 0x7b, 0x5b, 0x2d];

function mutate(inputs: readonly Uint8Array[], below: (limit: number) => number): Uint8Array {
  const one = inputs[below(inputs.length)] ?? new Uint8Array(0);
  let bytes = Buffer.from(one);
  for (let changes = 1 + below(4); changes > 0; changes -= 1) {
    const at = below(bytes.length + 1);
    const what = below(8);
    if (what === 0) bytes = Buffer.from(bytes.subarray(0, at));
    else if (what === 1) {
      const other = inputs[below(inputs.length)] ?? one;
      bytes = Buffer.concat([bytes.subarray(0, at), other.subarray(below(other.length + 1))]);
    } else if (what === 2) bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(below(bytes.length + 1))]);
    else if (what === 3) {
      const extra = Uint8Array.from({ length: 1 + below(8) }, () => below(256));
      bytes = Buffer.concat([bytes.subarray(0, at), extra, bytes.subarray(at)]);
    } else if (bytes.length > 0) {
      const place = below(bytes.length);
      if (what === 4) bytes[place] = below(256);
      else if (what === 5) bytes[place] = (bytes[place] ?? 0) ^ (1 << below(8));
      else bytes.fill(interesting[below(interesting.length)] ?? 0, place, Math.min(bytes.length, place + 1 + below(4)));
    }
  }
  return bytes.subarray(0, inputBytesMax);
}
