// The Debian packages that colo needs on this host: which are missing, and installing them by name when we may.
//
// A package whose program is already on the PATH counts as there, whoever put it there (a QEMU of one's own). Only
// libraries without a program are asked of dpkg.

import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';
import { ColoError, errorCodes } from '../base/errors.ts';
import { runCommand, tryCommand } from './command.ts';

/** What a program of each package is called; null for packages that hold none. */
const programOf: Record<string, string | null> = {
  'qemu-system-x86': 'qemu-system-x86_64',
  'qemu-utils': 'qemu-img',
  cpio: 'cpio',
  'etcd-server': 'etcd',
  gcc: 'gcc',
  iproute2: 'ip',
  'libc6-dev': null,
  'liblz4-1': null,
  nftables: 'nft',
  ovmf: null,
  'openssh-client': 'ssh',
  openssl: 'openssl',
  prometheus: 'prometheus',
  tshark: 'tshark',
  'util-linux': 'flock',
};

/** Needed to run and protect a machine. */
export const runtimePackages = ['qemu-system-x86', 'qemu-utils', 'gcc', 'libc6-dev', 'liblz4-1', 'util-linux'];

/** Needed, in addition, for several hosts as namespaces of this one. */
export const clusterPackages = ['etcd-server', 'iproute2', 'openssl'];

/** Needed, in addition, to lose packets between them. */
export const faultPackages = ['nftables'];

/** Needed, in addition, to build the demo guest. */
export const guestPackages = ['cpio'];

/** Needed, in addition, by the tests that have what they recorded judged by another program. */
export const captureTestPackages = ['tshark'];

/** Needed, in addition, by the tests that log in to a guest. */
export const loginTestPackages = ['openssh-client'];

/** Needed, in addition, by the test that has metrics read by a real Prometheus. */
export const monitoringTestPackages = ['prometheus'];

export interface EnsureOptions {
  /** Completes "needed to ...", for the line that tells the person. */
  why: string;
  /** Where the person is told that something is installed; standard error when absent. */
  onProgress?: (line: string) => void;
}

/** True when `program` is an executable file of one of the PATH's directories. */
function isOnPath(program: string): boolean {
  return (process.env['PATH'] ?? '').split(':').some((directory) => {
    try {
      accessSync(join(directory, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** Of `names` those that the output of dpkg-query (lines "NAME STATUS") does not call installed. */
export function notInstalled(names: string[], dpkgOutput: string): string[] {
  const installed = new Set<string>();
  for (const line of dpkgOutput.split('\n')) {
    const [name, status] = line.split(' ');
    if (name !== undefined && status === 'installed') installed.add(name);
  }
  return names.filter((name) => !installed.has(name));
}

/** Which of the packages are missing on this host. Without dpkg, packages that hold no program are taken for there. */
export async function missingPackages(names: string[]): Promise<string[]> {
  const unsure = names.filter((name) => {
    const program = programOf[name] ?? undefined;
    return program === undefined || !isOnPath(program);
  });
  if (unsure.length === 0) return [];
  if (!isOnPath('dpkg-query')) return unsure.filter((name) => programOf[name] !== null);
  const result = await tryCommand('dpkg-query', ['-W', '-f=${Package} ${db:Status-Status}\\n', ...unsure]);
  return notInstalled(unsure, result.stdout);
}

async function install(names: string[], onProgress: (line: string) => void): Promise<void> {
  const environment = { DEBIAN_FRONTEND: 'noninteractive' };
  // Another apt may be at work (a first boot's upgrades): wait for it, within bounds.
  const lock = ['-o', 'DPkg::Lock::Timeout=120', '-q'];
  const update = async (): Promise<void> => {
    onProgress('Running apt-get update.');
    await runCommand('apt-get', [...lock, 'update'], { environment });
  };
  const known = await tryCommand('apt-cache', ['show', '--no-all-versions', ...names]);
  if (known.code !== 0) await update();
  const args = [...lock, 'install', '-y', '--no-install-recommends', ...names];
  const first = await tryCommand('apt-get', args, { environment });
  if (first.code === 0) return;
  // Old lists name versions that the archive no longer has.
  if (known.code === 0) await update();
  await runCommand('apt-get', args, { environment });
}

function tell(line: string): void {
  process.stderr.write(`colo: ${line}\n`);
}

function missingError(names: string[], why: string): ColoError {
  const onDebian = isOnPath('apt-get');
  const hint = onDebian
    ? `Do: sudo apt-get install --no-install-recommends ${names.join(' ')}`
    : 'This is not a Debian system: install what holds these programs with its own package manager.';
  const programs = names.map((name) => programOf[name] ?? name);
  const what = onDebian
    ? `Debian packages are missing: ${names.join(', ')}`
    : `programs are missing: ${programs.join(', ')}`;
  return new ColoError(errorCodes.host, `${what} (needed to ${why}).`, { hint });
}

/** Makes sure that the packages are there: installs the missing ones as root, else says exactly what to do. */
export async function ensurePackages(names: string[], options: EnsureOptions): Promise<void> {
  const missing = await missingPackages(names);
  if (missing.length === 0) return;
  const isRoot = process.getuid?.() === 0;
  if (!isRoot || !isOnPath('apt-get')) throw missingError(missing, options.why);
  const onProgress = options.onProgress ?? tell;
  onProgress(`Installing Debian packages to ${options.why}: ${missing.join(' ')}`);
  try {
    await install(missing, onProgress);
  } catch (cause) {
    const hint = `Do: apt-get update && apt-get install --no-install-recommends ${missing.join(' ')}`;
    throw new ColoError(errorCodes.host, 'Installing Debian packages failed', { cause, hint });
  }
}
