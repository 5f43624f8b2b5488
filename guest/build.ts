// Builds the demo guest once and keeps it.
//
//   CACHE/guest/lock              one builder at a time (flock)
//   CACHE/guest/debs/*.deb        Debian's packages as downloaded
//   CACHE/guest/HASH/             vmlinuz, initrd, guest.json; complete or absent (made aside, then renamed)
//   CACHE/guest/recipe-HASH       link to the build that was made from this recipe
//
// HASH covers the recipe, its scripts and the versions of every package. A build made from the same recipe is used
// again even when Debian has newer packages since: a demo must start without asking the network. Removing
// CACHE/guest, or a changed recipe, gives the newest.

import { createHash } from 'node:crypto';
import { copyFile, mkdir, mkdtemp, readdir, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { ColoError, errorCodes } from '../src/base/errors.ts';
import { cacheDirectory } from '../src/host/directories.ts';
import { withFileLock } from '../src/host/file-lock.ts';
import { bigMebibytesDefault, downloadSha256 } from './big-file.ts';
import { kernelImage, layOut, pack } from './image.ts';
import {
  type DebianPackage,
  fetchPackages,
  removeOtherPackages,
  resolveKernel,
  resolveWithLibraries,
  unpackPackages,
} from './packages.ts';
import * as recipe from './recipe.ts';
import { kernelCommandLine, kernelMetaPackage, ports, rootPackages } from './recipe.ts';

export interface Guest {
  /** Paths for QEMU's -kernel and -initrd. */
  kernel: string;
  initrd: string;
  /** For QEMU's -append; add ` colo.big=MIB` for another size of /big. */
  cmdline: string;
  /** What /big is in a guest of 256 MiB of RAM without colo.big. */
  files: { downloadPath: '/big'; downloadBytes: number; downloadSha256: string };
  ports: typeof ports;
  hash: string;
}

export interface GuestOptions {
  /** Where colo keeps what it can make again; default $XDG_CACHE_HOME/colo. */
  cacheDir?: string;
  onProgress?: (line: string) => void;
}

/** Builds that stay in the cache: the newest ones, so that a guest another checkout uses is not taken away at once. */
const buildsKeptMax = 3;

async function recipeFiles(): Promise<string[]> {
  const paths = await readdir(import.meta.dirname, { recursive: true, withFileTypes: true });
  // guest/disk and guest/bare are guests of their own with recipes of their own.
  const others = ['disk', 'bare'].map((name) => join(import.meta.dirname, name));
  const own = paths.filter((each) => !others.some((other) => each.parentPath.startsWith(other)));
  const files = own.filter((each) => each.isFile() && !each.name.endsWith('.test.ts'));
  return files.map((each) => join(each.parentPath, each.name)).sort();
}

/**
 * Changes with every file of guest/ except its tests and the other guests', and with the recipe that this process has
 * loaded: a checkout may be updated under a process that runs, and what that one builds is of the recipe before.
 */
export async function recipeHash(): Promise<string> {
  const hash = createHash('sha256').update(JSON.stringify(recipe));
  for (const path of await recipeFiles()) {
    const bytes = await readFile(path);
    hash.update(`${path.slice(import.meta.dirname.length)} ${bytes.length}\n`).update(bytes);
  }
  return hash.digest('hex').slice(0, 16);
}

function buildHash(recipe: string, packages: DebianPackage[]): string {
  const text = [recipe, ...packages.map((each) => `${each.name} ${each.version} ${each.sha256}`)].join('\n');
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}

/** The guest in a finished build directory, or undefined when there is none. */
async function open(directory: string): Promise<Guest | undefined> {
  const text = await readFile(join(directory, 'guest.json'), 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  const stored: { hash: string; downloadSha256: string } = JSON.parse(text);
  const home = join(directory, '..', stored.hash);
  return {
    kernel: join(home, 'vmlinuz'),
    initrd: join(home, 'initrd'),
    cmdline: kernelCommandLine,
    files: {
      downloadPath: '/big',
      downloadBytes: bigMebibytesDefault * 1024 * 1024,
      downloadSha256: stored.downloadSha256,
    },
    ports,
    hash: stored.hash,
  };
}

async function make(files: string[], hash: string, packages: DebianPackage[], home: string): Promise<void> {
  const work = await mkdtemp(join(home, '.building-'));
  try {
    const [unpacked, root, result] = [join(work, 'unpacked'), join(work, 'root'), join(work, 'result')];
    for (const directory of [unpacked, root, result]) await mkdir(directory);
    await unpackPackages(files, unpacked);
    await layOut(unpacked, root);
    await copyFile(await kernelImage(unpacked), join(result, 'vmlinuz'));
    await pack(root, join(work, 'initrd'));
    await rename(join(work, 'initrd'), join(result, 'initrd'));
    const versions = Object.fromEntries(packages.map((each) => [each.name, each.version]));
    const description = { hash, downloadSha256: downloadSha256(bigMebibytesDefault), packages: versions };
    await writeFile(join(result, 'guest.json'), `${JSON.stringify(description, null, 2)}\n`);
    await rename(result, join(home, hash));
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Removes what a killed builder left, builds beyond the newest, and links to them. Runs under the lock. */
async function tidy(home: string, current: string): Promise<void> {
  const names = await readdir(home);
  for (const name of names) if (name.startsWith('.')) await rm(join(home, name), { recursive: true, force: true });
  const builds = names.filter((name) => /^[0-9a-f]{16}$/.test(name) && name !== current);
  const dated = await Promise.all(
    builds.map(async (name) => ({ name, madeAtMs: (await stat(join(home, name))).mtimeMs })),
  );
  dated.sort((a, b) => b.madeAtMs - a.madeAtMs);
  for (const { name } of dated.slice(buildsKeptMax - 1)) await rm(join(home, name), { recursive: true, force: true });
  for (const name of names.filter((each) => each.startsWith('recipe-'))) {
    if ((await open(join(home, name))) === undefined) await rm(join(home, name), { force: true });
  }
}

async function link(home: string, recipe: string, hash: string): Promise<void> {
  const temporary = join(home, `.link-${recipe}`);
  await rm(temporary, { force: true });
  await symlink(hash, temporary);
  await rename(temporary, join(home, `recipe-${recipe}`));
}

async function build(home: string, recipe: string, onProgress: (line: string) => void): Promise<void> {
  const kernel = await resolveKernel(kernelMetaPackage);
  const packages = [kernel, ...(await resolveWithLibraries(rootPackages))];
  const hash = buildHash(recipe, packages);
  await tidy(home, hash);
  if ((await open(join(home, hash))) === undefined) {
    const debs = join(home, 'debs');
    const files = await fetchPackages(packages, debs, onProgress);
    onProgress(`Building the guest: Debian's ${kernel.name.replace('linux-image-', 'kernel ')}, nginx and redis.`);
    await rm(join(home, hash), { recursive: true, force: true });
    await make(files, hash, packages, home);
    await removeOtherPackages(packages, debs);
  }
  await link(home, recipe, hash);
}

/** The guest that was already built from this recipe, or undefined; builds and fetches nothing. */
export async function findGuest(options: GuestOptions = {}): Promise<Guest | undefined> {
  return open(join(options.cacheDir ?? cacheDirectory(), 'guest', `recipe-${await recipeHash()}`));
}

/** Returns the guest, built first when this recipe has no build yet; says what it does through `onProgress`. */
export async function buildGuest(options: GuestOptions = {}): Promise<Guest> {
  if (process.arch !== 'x64') {
    throw new ColoError(errorCodes.host, `the demo guest is for amd64 only, this host is ${process.arch}`);
  }
  const home = join(options.cacheDir ?? cacheDirectory(), 'guest');
  const recipe = await recipeHash();
  const linked = join(home, `recipe-${recipe}`);
  const ready = await open(linked);
  if (ready !== undefined) return ready;
  return withFileLock(join(home, 'lock'), async () => {
    // Another process may have built it while this one waited.
    if ((await open(linked)) === undefined) await build(home, recipe, options.onProgress ?? (() => undefined));
    const guest = await open(linked);
    if (guest === undefined) throw new ColoError(errorCodes.host, `the guest in ${basename(linked)} is not readable`);
    return guest;
  });
}
