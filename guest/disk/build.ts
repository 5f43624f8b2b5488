// Builds the root disk of the disk guest once and keeps it, without root and without loop devices.
//
//   packages ─► dpkg-deb -x ─► a folder ─► mke2fs -d ─► disk.raw ─► one boot that makes the database ─► kept
//
//   CACHE/disk-guest/lock        one builder at a time
//                    debs/       Debian's packages as downloaded
//                    HASH/       disk.raw (sparse), initrd, login-key, disk.json; complete or absent
//                    recipe-HASH link to the build of this recipe
//
// The database is made by the guest itself in a boot of its own, because a host's PostgreSQL need not exist, need not
// run as its user, and would bring its locale. It makes the key of its SSH server there, too. Use copyDisk(): a VM
// never gets the kept image itself.

import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmod, cp, mkdir, mkdtemp, readdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ColoError, errorCodes } from '../../src/base/errors.ts';
import { runCommand } from '../../src/host/command.ts';
import { cacheDirectory } from '../../src/host/directories.ts';
import { withFileLock } from '../../src/host/file-lock.ts';
import { buildGuest, type Guest } from '../build.ts';
import { type DebianPackage, fetchPackages, resolveWithLibraries, unpackPackages } from '../packages.ts';
import { makeLoginKey } from './login-key.ts';
import * as recipe from './recipe.ts';

export interface DiskGuest {
  kernel: string;
  initrd: string;
  cmdline: string;
  /** The kept image, raw. */
  diskPath: string;
  /** File with the private key of root's SSH login, and the key the server must show (a type and base64). */
  loginKeyPath: string;
  sshHostKey: string;
  ports: typeof recipe.diskPorts;
  hash: string;
}

export interface DiskGuestOptions {
  cacheDir?: string;
  onProgress?: (line: string) => void;
}

const prepareTimeoutMs = 300_000;
const buildsKeptMax = 2;

/** Changes with every file of guest/disk, and with what this process has loaded of it (guest/build.ts). */
async function recipeHash(base: Guest): Promise<string> {
  const paths = await readdir(import.meta.dirname, { recursive: true, withFileTypes: true });
  const files = paths.filter((each) => each.isFile() && !each.name.endsWith('.test.ts'));
  const hash = createHash('sha256').update(base.hash).update(JSON.stringify(recipe));
  for (const path of files.map((each) => join(each.parentPath, each.name)).sort())
    hash.update(path.slice(import.meta.dirname.length)).update(await readFile(path));
  return hash.digest('hex').slice(0, 16);
}

async function open(home: string, name: string, base: Guest): Promise<DiskGuest | undefined> {
  const text = await readFile(join(home, name, 'disk.json'), 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  const { hash, sshHostKey }: { hash: string; sshHostKey: string } = JSON.parse(text);
  return {
    kernel: base.kernel,
    initrd: join(home, hash, 'initrd'),
    cmdline: `${base.cmdline} rdinit=/disk-first`,
    diskPath: join(home, hash, 'disk.raw'),
    loginKeyPath: join(home, hash, 'login-key'),
    sshHostKey,
    ports: recipe.diskPorts,
    hash,
  };
}

async function layOut(root: string): Promise<void> {
  for (const path of recipe.leftOutPaths) await rm(join(root, path), { recursive: true, force: true });
  for (const path of recipe.diskDirectories) await mkdir(join(root, path), { recursive: true });
  for (const [path, text] of Object.entries(recipe.diskTexts)) await writeFile(join(root, path), text);
  for (const [path, { from, mode }] of Object.entries(recipe.diskFiles)) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await cp(join(import.meta.dirname, 'rootfs', from), join(root, path));
    await chmod(join(root, path), mode);
  }
  for (const applet of recipe.diskApplets) {
    await rm(join(root, 'bin', applet), { force: true });
    await symlink('busybox', join(root, 'bin', applet));
  }
}

/** The demo guest's initramfs with our first process behind it: Linux unpacks archives one after the other. */
async function makeInitrd(base: Guest, path: string): Promise<void> {
  const first = await readFile(join(import.meta.dirname, 'rootfs', 'first'));
  const executable = 0o100755;
  const archive = [
    padded(await readFile(base.initrd)),
    cpioEntry('disk-first', executable, first),
    cpioEntry('TRAILER!!!', 0, Buffer.alloc(0)),
  ];
  await writeFile(path, Buffer.concat(archive));
}

/** One entry of a cpio archive in the "newc" format. */
function cpioEntry(name: string, mode: number, body: Buffer): Buffer {
  const fields = [0, mode, 0, 0, 1, 0, body.length, 0, 0, 0, 0, name.length + 1, 0];
  const head = `070701${fields.map((each) => each.toString(16).padStart(8, '0')).join('')}${name}\0`;
  return Buffer.concat([padded(Buffer.from(head)), padded(body)]);
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)]);
}

/** What the first boot of an image needs. */
type Unprepared = Pick<DiskGuest, 'kernel' | 'initrd' | 'cmdline' | 'diskPath'>;

/** Boots the image once: it makes its database and its SSH server's key, which is returned, and switches itself off. */
async function prepare(guest: Unprepared): Promise<string> {
  const args = [
    ...['-machine', 'q35', '-m', '384', '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
    ...['-kernel', guest.kernel, '-initrd', guest.initrd, '-append', `${guest.cmdline} colo.prepare`],
    ...['-drive', `file=${guest.diskPath},format=raw,if=virtio,discard=unmap,cache=unsafe`, '-serial', 'stdio'],
  ];
  const child = spawn('qemu-system-x86_64', args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const timer = setTimeout(() => child.kill('SIGKILL'), prepareTimeoutMs);
  let said = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => {
      said = (said + chunk.toString()).slice(-8000);
    });
  await new Promise<void>((resolve) => {
    child.once('error', () => resolve());
    child.once('close', () => resolve());
  });
  clearTimeout(timer);
  const hostKey = /^(ssh-ed25519 [A-Za-z0-9+/=]+)\s/m.exec(said)?.[1];
  if (hostKey !== undefined && said.includes('colo-guest prepared') && said.includes('colo-guest halted'))
    return hostKey;
  const words = said.trim().split('\n').slice(-4).join(' / ');
  throw new ColoError(errorCodes.host, `the disk guest could not make its database and keys: ${words}`);
}

async function make(home: string, hash: string, files: string[], base: Guest): Promise<void> {
  const work = await mkdtemp(join(home, '.building-'));
  try {
    const [root, result] = [join(work, 'root'), join(work, 'result')];
    for (const folder of [root, result]) await mkdir(folder);
    await unpackPackages(files, root);
    await layOut(root);
    const login = makeLoginKey();
    await writeFile(join(root, 'root/.ssh/authorized_keys'), login.publicLine);
    await writeFile(join(result, 'login-key'), login.privatePem, { mode: 0o600 });
    const diskPath = join(result, 'disk.raw');
    const mebibytes = `${recipe.diskMebibytes}M`;
    // mke2fs lies in sbin, which not every user's path has.
    const environment = { PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin` };
    const options = ['-q', '-t', 'ext4', '-m', '0', '-E', 'lazy_itable_init=0,lazy_journal_init=0', '-L', 'colo'];
    await runCommand('mke2fs', [...options, '-d', root, diskPath, mebibytes], { environment, timeoutMs: 120_000 });
    await makeInitrd(base, join(result, 'initrd'));
    const guest = {
      kernel: base.kernel,
      initrd: join(result, 'initrd'),
      cmdline: `${base.cmdline} rdinit=/disk-first`,
    };
    const sshHostKey = await prepare({ ...guest, diskPath });
    await writeFile(join(result, 'disk.json'), `${JSON.stringify({ hash, sshHostKey })}\n`);
    await rename(result, join(home, hash));
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function build(home: string, name: string, base: Guest, say: (line: string) => void): Promise<void> {
  const resolved = await resolveWithLibraries(recipe.diskPackages);
  const packages = resolved.filter((each) => !recipe.leftOutPackages.includes(each.name));
  const hash = buildHash(name, packages);
  await tidy(home, hash);
  if ((await open(home, hash, base)) === undefined) {
    const files = await fetchPackages(packages, join(home, 'debs'), say);
    say(
      "Building the disk guest's root disk: Debian's PostgreSQL, redis, nginx and SSH (one boot makes the database).",
    );
    await make(home, hash, files, base);
  }
  await rm(join(home, name), { force: true });
  await symlink(hash, join(home, name));
}

function buildHash(name: string, packages: DebianPackage[]): string {
  const text = [name, ...packages.map((each) => `${each.name} ${each.version} ${each.sha256}`)].join('\n');
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}

/** Removes what a killed builder left, and builds beyond the newest; a disk is large. */
async function tidy(home: string, current: string): Promise<void> {
  const names = await readdir(home);
  for (const name of names) if (name.startsWith('.')) await rm(join(home, name), { recursive: true, force: true });
  const builds = names.filter((name) => /^[0-9a-f]{16}$/.test(name) && name !== current);
  for (const name of builds.slice(buildsKeptMax - 1)) await rm(join(home, name), { recursive: true, force: true });
}

/** Returns the disk guest, built first when this recipe has no build yet. */
export async function buildDiskGuest(options: DiskGuestOptions = {}): Promise<DiskGuest> {
  const base = await buildGuest(options);
  const home = join(options.cacheDir ?? cacheDirectory(), 'disk-guest');
  const name = `recipe-${await recipeHash(base)}`;
  const ready = await open(home, name, base);
  if (ready !== undefined) return ready;
  await mkdir(home, { recursive: true });
  return withFileLock(join(home, 'lock'), async () => {
    if ((await open(home, name, base)) === undefined)
      await build(home, name, base, options.onProgress ?? (() => undefined));
    const guest = await open(home, name, base);
    if (guest === undefined) throw new ColoError(errorCodes.host, 'the disk guest cannot be read after its build');
    return guest;
  });
}

/** A copy of the image for one VM, holes kept. */
export async function copyDisk(guest: DiskGuest, path: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await runCommand('cp', ['--sparse=always', '--reflink=auto', guest.diskPath, path], { timeoutMs: 120_000 });
}
