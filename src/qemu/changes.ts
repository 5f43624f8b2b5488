// Which blocks of the guest's disks changed since some moment: dirty bitmaps of a running QEMU.
//
//    note(name)   block-dirty-bitmap-add on every disk: from here on every write of the guest is in it
//    look(name)   a copy of the bitmaps as they are now, beside the disks' contents, over QEMU's NBD server
//                 (nbd/client.ts)
//
// QEMU exports only a bitmap that does not change, so it is merged into one of its own first.

import type { Qmp } from './qmp.ts';

const lookName = 'colo-look';

/** Every write to one of the nodes is in the bitmap `name` from now on, in blocks of `blockBytes`. */
export async function addBitmaps(
  qmp: Qmp,
  options: { nodes: readonly string[]; name: string; blockBytes: number },
): Promise<void> {
  const { nodes, name, blockBytes } = options;
  const done: string[] = [];
  try {
    for (const node of nodes) {
      await qmp.execute('block-dirty-bitmap-add', { node, name, granularity: blockBytes, persistent: false });
      done.push(node);
    }
  } catch (error) {
    await removeBitmaps(qmp, { nodes: done, name }).catch(() => undefined);
    throw error;
  }
}

export async function removeBitmaps(qmp: Qmp, options: { nodes: readonly string[]; name: string }): Promise<void> {
  for (const node of options.nodes) await qmp.execute('block-dirty-bitmap-remove', { node, name: options.name });
}

/** The bitmaps `name` as they are now, and the disks, at a socket; each export has its node's name. */
export async function openLook(
  qmp: Qmp,
  options: { nodes: readonly string[]; name: string; blockBytes: number; socketPath: string },
): Promise<{ bitmap: string; close(): Promise<void> }> {
  const { nodes, name, blockBytes, socketPath } = options;
  const undo: (() => Promise<unknown>)[] = [];
  const close = async () => {
    for (const step of undo.splice(0).reverse()) await step().catch(() => undefined);
  };
  try {
    await qmp.execute('nbd-server-start', { addr: { type: 'unix', data: { path: socketPath } } });
    // Ends the exports with it.
    undo.push(() => qmp.execute('nbd-server-stop'));
    for (const node of nodes) {
      const look = { node, name: lookName };
      await qmp.execute('block-dirty-bitmap-add', { ...look, granularity: blockBytes, disabled: true });
      undo.unshift(() => qmp.execute('block-dirty-bitmap-remove', look));
      await qmp.execute('block-dirty-bitmap-merge', { node, target: lookName, bitmaps: [name] });
      const place = { 'node-name': node, name: node, writable: false, bitmaps: [lookName] };
      await qmp.execute('block-export-add', { type: 'nbd', id: `look-${node}`, ...place });
    }
    return { bitmap: lookName, close };
  } catch (error) {
    await close();
    throw error;
  }
}
