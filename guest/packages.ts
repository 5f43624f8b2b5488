// Debian packages for the guest image: which are needed, downloading, unpacking. Nothing is installed.
//
// From the programs' packages, dependencies are followed only into Debian's section "libs": that leaves out what a
// guest without a package manager has no use for (debconf, adduser, initramfs-tools) and keeps every shared library.
// apt checks what it downloads against Debian's signatures; a package kept in the cache is checked again by its sum.

import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ColoError, errorCodes } from '../src/base/errors.ts';
import { runCommand, tryCommand } from '../src/host/command.ts';

export interface DebianPackage {
  name: string;
  version: string;
  section: string;
  sha256: string;
  dependencies: string[];
}

/** Rounds of following dependencies; Debian's libraries need 4. More means a cycle in our own logic. */
const roundsMax = 12;
const packagesMax = 100;

function field(stanza: string, name: string): string {
  return new RegExp(`^${name}: (.*)$`, 'm').exec(stanza)?.[1] ?? '';
}

/** Package names of a Depends field; of alternatives the first. */
export function parseDependencies(text: string): string[] {
  const names = text.split(',').map((entry) => /^\s*([a-z0-9][a-z0-9+.-]+)/.exec(entry)?.[1]);
  return [...new Set(names.filter((name) => name !== undefined))];
}

/** Reads what `apt-cache show` prints; the first stanza of a name wins, which is the candidate. */
export function parsePackages(text: string): DebianPackage[] {
  const found = new Map<string, DebianPackage>();
  for (const stanza of text.split(/\n\n+/)) {
    const name = field(stanza, 'Package');
    if (name === '' || found.has(name) || field(stanza, 'SHA256') === '') continue;
    found.set(name, {
      name,
      version: field(stanza, 'Version'),
      section: field(stanza, 'Section'),
      sha256: field(stanza, 'SHA256'),
      dependencies: parseDependencies(`${field(stanza, 'Pre-Depends')},${field(stanza, 'Depends')}`),
    });
  }
  return [...found.values()];
}

async function show(names: string[]): Promise<DebianPackage[]> {
  // Names that are only virtual make apt-cache fail although it shows the rest.
  const result = await tryCommand('apt-cache', ['show', '--no-all-versions', ...names]);
  if (result.failure !== undefined) throw new ColoError(errorCodes.host, result.failure, { hint: aptHint });
  return parsePackages(result.stdout);
}

const aptHint =
  'The demo guest is made from Debian packages: it needs a Debian or Ubuntu host, and "apt-get update" run once.';

async function showOne(name: string): Promise<DebianPackage> {
  const found = (await show([name])).find((each) => each.name === name);
  if (found === undefined) throw new ColoError(errorCodes.host, `apt knows no package ${name}`, { hint: aptHint });
  return found;
}

/** The package that holds the kernel image itself. */
export async function resolveKernel(metaPackage: string): Promise<DebianPackage> {
  const meta = await showOne(metaPackage);
  const name = meta.dependencies.find((each) => each.startsWith('linux-image-'));
  if (name === undefined) throw new ColoError(errorCodes.host, `${metaPackage} names no kernel`, { hint: aptHint });
  return showOne(name);
}

/** The given packages and every library package they need, sorted by name. */
export async function resolveWithLibraries(roots: string[]): Promise<DebianPackage[]> {
  const chosen = new Map<string, DebianPackage>();
  const seen = new Set(roots);
  let wanted = roots;
  for (let round = 0; wanted.length > 0 && round < roundsMax && chosen.size < packagesMax; round++) {
    const shown = await show(wanted);
    const taken = shown.filter((each) => roots.includes(each.name) || each.section === 'libs');
    for (const each of taken) chosen.set(each.name, each);
    wanted = [...new Set(taken.flatMap((each) => each.dependencies))].filter((name) => !seen.has(name));
    for (const name of wanted) seen.add(name);
  }
  const missing = roots.filter((name) => !chosen.has(name));
  if (missing.length > 0) {
    throw new ColoError(errorCodes.host, `apt knows no package ${missing.join(', ')}`, { hint: aptHint });
  }
  return [...chosen.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

function fileName(each: DebianPackage): string {
  return `${each.name}_${each.version.replaceAll(':', '%3a')}.deb`;
}

async function isWhole(path: string, sha256: string): Promise<boolean> {
  const bytes = await readFile(path).catch(() => undefined);
  return bytes !== undefined && createHash('sha256').update(bytes).digest('hex') === sha256;
}

async function download(wanted: DebianPackage[], directory: string): Promise<void> {
  const temporary = await mkdtemp(join(directory, '.download-'));
  try {
    const names = wanted.map((each) => `${each.name}=${each.version}`);
    // Without this, apt running as root warns that its unprivileged user cannot write here.
    const result = await tryCommand('apt-get', ['-o', 'APT::Sandbox::User=root', '-q', 'download', ...names], {
      cwd: temporary,
    });
    const files = await readdir(temporary);
    for (const each of wanted) {
      const file = files.find((name) => name.startsWith(`${each.name}_`));
      if (file !== undefined && (await isWhole(join(temporary, file), each.sha256))) {
        await rename(join(temporary, file), join(directory, fileName(each)));
        continue;
      }
      const said = result.stderr.trim().split('\n').at(-1) ?? '';
      throw new ColoError(
        errorCodes.host,
        `could not download Debian's package ${each.name} ${each.version}: ${said}`,
        {
          hint: 'Check the network; if the version is no longer there, run "apt-get update" and try again.',
        },
      );
    }
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

/** Brings the packages into `directory`, keeping those already there; returns their files in the same order. */
export async function fetchPackages(
  packages: DebianPackage[],
  directory: string,
  onProgress: (line: string) => void,
): Promise<string[]> {
  await mkdir(directory, { recursive: true });
  const missing: DebianPackage[] = [];
  for (const each of packages) {
    if (!(await isWhole(join(directory, fileName(each)), each.sha256))) missing.push(each);
  }
  if (missing.length > 0) {
    onProgress(`Downloading ${missing.length} Debian packages for the guest.`);
    await download(missing, directory);
  }
  return packages.map((each) => join(directory, fileName(each)));
}

/** Removes every file of `directory` that is not one of `packages`. */
export async function removeOtherPackages(packages: DebianPackage[], directory: string): Promise<void> {
  const kept = new Set(packages.map(fileName));
  for (const name of await readdir(directory)) {
    if (!kept.has(name)) await rm(join(directory, name), { recursive: true, force: true });
  }
}

/** Unpacks the packages' files under `target`. */
export async function unpackPackages(files: string[], target: string): Promise<void> {
  for (const file of files) await runCommand('dpkg-deb', ['-x', file, target]);
}
