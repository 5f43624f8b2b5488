// Disks: the replica is exactly the primary's disk at the capture that was applied, never a part of another one; what a
// guest reads is what it wrote, on the survivor too; and what a node leaves behind when it ends, in whatever instant, the
// product's own `recover` brings to one whole epoch, or says that it is none.

import { recover } from '../../src/disk/recovery.ts';
import type { Checker } from '../checker.ts';
import type { SimNode } from '../node.ts';
import { SimStorage } from '../storage.ts';
import type { SimVm } from '../vm.ts';
import type { World } from '../world.ts';

const capturesKept = 64;

export const sentence =
  'After an apply the replica is exactly the disk of that capture, at every end of its node one whole epoch, and a ' +
  'guest reads what it wrote.';

export function diskEpoch(world: World): Checker {
  const checker = {
    name: 'disk-epoch',
    sentence,
  };
  if (world.plan.disk === undefined) return checker;
  /** By the capture's number, and by `PROCESS EPOCH` of its primary. */
  const disks = new Map<number | string, Buffer>();
  /** Of each node, the epoch that a primary captures. */
  const stopped = new Map<SimNode, number>();
  /** Of each secondary's process, the newest epoch that it has applied. */
  const applied = new Map<string, number>();
  const complain = (what: string) => world.violate(checker.name, checker.sentence, what);

  const remember = (key: number | string, disk: Buffer) => {
    disks.delete(key);
    disks.set(key, disk);
    const [oldest] = disks.keys();
    if (disks.size > capturesKept && oldest !== undefined) disks.delete(oldest);
  };

  const mustBe = (expected: Buffer | undefined, found: Buffer | undefined, where: string) => {
    if (expected !== undefined && found?.equals(expected) !== true) complain(`${where} is another disk`);
  };

  const judge = async ({ name, replicaOf, folder }: SimNode, death: string, newest: number) => {
    const left = folder.copy();
    const state = await recover(new SimStorage(left));
    const where = `what ${name} left behind (${death} ended)`;
    if (state.kind !== 'epoch') return;
    mustBe(disks.get(`${replicaOf} ${state.epoch}`), left.bytes('disk0.raw'), `${where}: epoch ${state.epoch}`);
    if (state.epoch < newest) complain(`${where} is epoch ${state.epoch}, and ${newest} had been applied`);
  };

  return {
    ...checker,
    reached: (node, point, epoch) => {
      if (point === 'capture.stopped') stopped.set(node, epoch);
      if (point !== 'apply.done') return;
      applied.set(`${node.process?.name} ${node.replicaOf}`, epoch);
      const where = `${node.name}'s replica after applying ${epoch}`;
      mustBe(disks.get(`${node.replicaOf} ${epoch}`), node.folder.bytes('disk0.raw'), where);
    },
    captured: (vm, captureId) => {
      const node = world.nodes.find((one) => one.vm === vm);
      if (node === undefined || vm.parts.disk === undefined) return;
      const disk = vm.parts.disk.contents();
      remember(captureId, disk);
      // A capture for a secondary that is gone has no epoch.
      const epoch = stopped.get(node);
      if (epoch !== undefined) remember(`${node.process?.name} ${epoch}`, disk);
      stopped.delete(node);
    },
    resumedFrom: (vm: SimVm, captureId) => {
      const { disk, name } = vm.parts;
      if (disk === undefined) return;
      mustBe(disks.get(captureId), disk.contents(), `${name}, loaded with capture ${captureId},`);
    },
    polled: () => {
      for (const { name, vm } of world.nodes) {
        if (vm?.alive !== true || !vm.running || vm.guest.diskAgrees()) continue;
        complain(`the guest on ${name} reads from its disk what it never wrote`);
        return;
      }
    },
    folderLeft: (node, death) => {
      const newest = applied.get(`${node.process?.name} ${node.replicaOf}`) ?? 0;
      judge(node, death, newest).catch((error: unknown) =>
        complain(
          `what ${node.name} left behind (${death} ended): ${error instanceof Error ? error.message : String(error)}`,
        ),
      );
    },
  };
}
