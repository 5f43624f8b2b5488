// A small disk in a test's hands: a file system of its own (ext4 on a loop device) that can be filled up, and that can
// hang: a frozen file system keeps every process that writes to it waiting in the kernel, where no signal reaches it,
// as a storage that does not answer does. Needs root and a kernel that has loop devices.
//
// What freezes it is a process that lives as long as the test: should the test be killed, its input ends, and it thaws.

import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';

const fillerBytes = 1 << 20;
let fillers = 0;

/** Writes until there is no room, to the last block; again, into what room there is meanwhile. */
export function fill(folder: string): void {
  for (let bytes = fillerBytes; bytes >= 512; )
    try {
      writeFileSync(join(folder, `filler${(fillers += 1)}`), Buffer.alloc(bytes, 1));
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC');
      bytes /= 2;
    }
}

export function empty(folder: string): void {
  for (const name of readdirSync(folder)) if (name.startsWith('filler')) rmSync(join(folder, name));
}

/** Also what a run that was killed has left: it would be in the way of this one. */
export function unmount(folder: string): void {
  while (readFileSync('/proc/self/mounts', 'utf8').includes(` ${folder} `)) execFileSync('umount', ['-l', folder]);
}

/** Memory holds what these disks hold, so that only the fault makes them slow. */
const parent = '/dev/shm';
const freezer = 'fsfreeze -f "$1" && echo frozen && cat >/dev/null; fsfreeze -u "$1"';

export class Volume {
  /** Where it is mounted. */
  readonly folder: string;
  private readonly own: string;
  private frozen: ChildProcess | undefined;

  constructor(mebibytes: number) {
    this.own = mkdtempSync(join(parent, 'colo-volume-'));
    this.folder = join(this.own, 'disk');
    const image = join(this.own, 'image');
    try {
      writeFileSync(image, '');
      truncateSync(image, mebibytes << 20);
      mkdirSync(this.folder);
      // Nothing is kept back for root, who would not find it full.
      execFileSync('mkfs.ext4', ['-q', '-m', '0', '-O', '^has_journal', image], { stdio: 'pipe' });
      execFileSync('mount', ['-o', 'loop', image, this.folder], { stdio: 'pipe' });
    } catch (error) {
      rmSync(this.own, { recursive: true, force: true });
      throw error;
    }
  }

  fill(): void {
    fill(this.folder);
  }

  empty(): void {
    empty(this.folder);
  }

  /** From now on it hangs. */
  async freeze(): Promise<void> {
    // In a session of its own: what ends the test's group of processes does not end this.
    const child = spawn('sh', ['-c', freezer, 'sh', this.folder], {
      stdio: ['pipe', 'pipe', 'inherit'],
      detached: true,
    });
    this.frozen = child;
    const answer = once(child.stdout ?? assert.fail(), 'data');
    await Promise.race([answer, once(child, 'exit').then(() => assert.fail(`${this.folder} is not frozen`))]);
  }

  async thaw(): Promise<void> {
    const child = this.frozen;
    if (child === undefined) return;
    this.frozen = undefined;
    const over = once(child, 'exit');
    child.stdin?.end();
    await over;
  }

  async close(): Promise<void> {
    await this.thaw();
    // A process that was killed may hold a file there for a moment longer.
    execFileSync('umount', ['-l', this.folder]);
    rmSync(this.own, { recursive: true, force: true });
  }
}

export type DiskKind = 'log' | 'replica' | 'spill';
/**
 * More than a log and the one before it may have (base/limits.ts), and than a replica of the campaign's disk and its
 * journal.
 */
const mebibytes: Record<DiskKind, number> = { log: 64, replica: 128, spill: 64 };

/**
 * The disks of two hosts, each with one for logs and consoles, one for the VM's disk and its copy, and one to spill
 * to. The folder of replicas has those of both nodes, each on its own disk.
 */
export class HostDisks {
  readonly replicas = mkdtempSync(join(parent, 'colo-replicas-'));
  private readonly all = new Map<string, Volume>();

  constructor() {
    try {
      for (const node of ['a', 'b'] as const)
        for (const kind of ['log', 'replica', 'spill'] as const)
          this.all.set(`${kind} ${node}`, new Volume(mebibytes[kind]));
      for (const node of ['a', 'b'] as const) symlinkSync(this.of('replica', node).folder, join(this.replicas, node));
    } catch (error) {
      for (const volume of this.all.values()) void volume.close();
      rmSync(this.replicas, { recursive: true });
      throw error;
    }
  }

  of(kind: DiskKind, node: 'a' | 'b'): Volume {
    return this.all.get(`${kind} ${node}`) ?? assert.fail();
  }

  async close(): Promise<void> {
    for (const volume of this.all.values()) await volume.close();
    rmSync(this.replicas, { recursive: true });
  }
}
