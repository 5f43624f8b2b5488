// Disks: the replica is exactly the primary's disk at the capture that was applied, never a part of another one; what a
// guest reads is what it wrote, on the survivor too; and what a node leaves behind when it ends, in whatever instant,
// the product's own `recover` brings to one whole epoch, or says that it is none.

import { recover } from '../../src/disk/recovery.ts';
import type { FaultPoint } from '../../src/node/fault-points.ts';
import type { Death, SimNode } from '../host/node.ts';
import { SimStorage } from '../host/storage.ts';
import type { SimVm } from '../host/vm.ts';
import type { Checker } from '../world/checker.ts';
import type { World } from '../world/world.ts';

const name = 'disk-epoch';
const capturesKept = 64;

export const sentence =
  'After an apply the replica is exactly the disk of that capture, at every end of its node one whole epoch, and a ' +
  'guest reads what it wrote.';

export function diskEpoch(world: World): Checker {
  return world.plan.disk === undefined ? { name, sentence } : new DiskEpoch(world);
}

class DiskEpoch implements Checker {
  readonly name = name;
  readonly sentence = sentence;
  private readonly world: World;
  /** By the capture's number, and by `SESSION EPOCH`: each pairing counts its epochs anew. */
  private readonly disks = new Map<number | string, Buffer>();
  /** The session and epoch that a primary captures, by node. */
  private readonly capturing = new Map<SimNode, string>();
  /** The newest epoch that a secondary has applied, by session. */
  private readonly applied = new Map<string, number>();

  constructor(world: World) {
    this.world = world;
  }

  reached(node: SimNode, point: FaultPoint, epoch: number): void {
    if (point === 'capture.stopped') this.capturing.set(node, `${node.session} ${epoch}`);
    if (point !== 'apply.done') return;
    this.applied.set(node.replicaOf, epoch);
    const where = `${node.name}'s replica after applying ${epoch}`;
    this.mustBe(this.disks.get(`${node.replicaOf} ${epoch}`), node.folder.bytes('disk0.raw'), where);
  }

  captured(vm: SimVm, captureId: number): void {
    const node = this.world.nodes.find((one) => one.vm === vm);
    if (node === undefined || vm.parts.disk === undefined) return;
    const disk = vm.parts.disk.contents();
    this.remember(captureId, disk);
    // A capture for a secondary that is gone has no epoch.
    const epoch = this.capturing.get(node);
    if (epoch !== undefined) this.remember(epoch, disk);
    this.capturing.delete(node);
  }

  resumedFrom(vm: SimVm, captureId: number): void {
    const { disk, name: machine } = vm.parts;
    if (disk === undefined) return;
    this.mustBe(this.disks.get(captureId), disk.contents(), `${machine}, loaded with capture ${captureId},`);
  }

  polled(): void {
    for (const node of this.world.nodes) {
      const { vm } = node;
      if (vm?.alive !== true || !vm.running || vm.guest.diskAgrees()) continue;
      this.complain(`the guest on ${node.name} reads from its disk what it never wrote`);
      return;
    }
  }

  folderLeft(node: SimNode, death: Death): void {
    const newest = this.applied.get(node.replicaOf) ?? 0;
    const where = `what ${node.name} left behind (${death} ended)`;
    this.judge(node, where, newest).catch((error: unknown) =>
      this.complain(`${where}: ${error instanceof Error ? error.message : String(error)}`),
    );
  }

  private async judge({ replicaOf, folder }: SimNode, where: string, newest: number): Promise<void> {
    const left = folder.copy();
    const state = await recover(new SimStorage(left));
    if (state.kind !== 'epoch') return;
    this.mustBe(
      this.disks.get(`${replicaOf} ${state.epoch}`),
      left.bytes('disk0.raw'),
      `${where}: epoch ${state.epoch}`,
    );
    if (state.epoch < newest) this.complain(`${where} is epoch ${state.epoch}, and ${newest} had been applied`);
  }

  private remember(key: number | string, disk: Buffer): void {
    this.disks.delete(key);
    this.disks.set(key, disk);
    const [oldest] = this.disks.keys();
    if (this.disks.size > capturesKept && oldest !== undefined) this.disks.delete(oldest);
  }

  private mustBe(expected: Buffer | undefined, found: Buffer | undefined, where: string): void {
    if (expected !== undefined && found?.equals(expected) !== true) this.complain(`${where} is another disk`);
  }

  private complain(what: string): void {
    this.world.violate(name, sentence, what);
  }
}
