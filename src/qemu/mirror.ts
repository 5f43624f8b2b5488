// The mirror of a primary's disks, as jobs of a running QEMU, and the fold of a survivor's overlays.
//
//    start   blockdev-add nbd (our sink) ─► blockdev-mirror {sync: full, write-blocking} ─► ... ─► BLOCK_JOB_READY
//            (sync: none, where somebody else copies what there is: ready at once)
//            from READY on every write of the guest is done only when the sink has it too
//    end     stop, block-job-cancel, cont ─► BLOCK_JOB_CANCELLED (failed before: BLOCK_JOB_COMPLETED) ─► blockdev-del
//
// A job that fails does not fail the guest's writes (on-target-error: report): its disk goes on, only unmirrored.
//
// No write of the guest may be on its way to our sink when the job ends: QEMU 7.2 lets go of the job's memory then, and
// the write is noted there when it is answered. That ruins QEMU's heap, and it aborts soon after, with the guest (21 of
// 40 jobs that were cancelled with a write on its way). So a job is cancelled while the guest stands still, which QEMU
// does not before every write is answered, and our sink answers no write with an error, which would end the job.

import { ColoError, errorCodes } from '../base/errors.ts';
import { countIn, textIn } from './reply.ts';
import type { Vm } from './vm.ts';

export interface MirrorOptions {
  vm: Pick<Vm, 'qmp' | 'whileStill'>;
  /** The node the guest's device writes to, and a name for what this adds. */
  node: string;
  name: string;
  /** Our NBD server, and the export there. */
  socketPath: string;
  exportName: string;
  /** Forward only what is written from now on; what is there already is somebody else's to copy. */
  onlyNew?: boolean;
  /**
   * The mirror ended although we did not cancel it. `cancelled`: somebody did, which is what QEMU does with every job
   * when the guest has switched its machine off, a moment before it ends itself.
   */
  failed(why: string, cancelled: boolean): void;
}

export interface Progress {
  doneBytes: number;
  totalBytes: number;
}

export class Mirror {
  private readonly options: MirrorOptions;
  private readonly jobId: string;
  private readonly sinkNode: string;
  private readonly ready = Promise.withResolvers<void>();
  private readonly ended = Promise.withResolvers<void>();
  private readonly offs: (() => void)[] = [];
  private cancelling = false;
  private over = false;

  private constructor(options: MirrorOptions) {
    this.options = options;
    this.jobId = `mirror-${options.name}`;
    this.sinkNode = `sink-${options.name}`;
    this.ready.promise.catch(() => undefined);
  }

  /** Starts copying; `copied` tells when the mirror is whole. */
  static async start(options: MirrorOptions): Promise<Mirror> {
    const mirror = new Mirror(options);
    mirror.listen();
    try {
      await mirror.begin();
      return mirror;
    } catch (error) {
      mirror.end('it could not be started');
      throw error;
    }
  }

  /** Resolves when the copy is complete and every write is forwarded; rejects when the job ends before. */
  get copied(): Promise<void> {
    return this.ready.promise;
  }

  async progress(): Promise<Progress | undefined> {
    const jobs = await this.options.vm.qmp.execute('query-block-jobs');
    const job: unknown = Array.isArray(jobs) ? jobs.find((each: unknown) => idOf(each) === this.jobId) : undefined;
    if (typeof job !== 'object' || job === null || !('offset' in job) || !('len' in job)) return undefined;
    return { doneBytes: countIn(job.offset), totalBytes: countIn(job.len) };
  }

  /** Ends the mirror; the guest's disk goes on. Safe when it has ended already, or QEMU has. */
  async cancel(): Promise<void> {
    const { vm } = this.options;
    this.cancelling = true;
    if (!this.over) {
      // It may end by itself at this moment: then there is no such job, and its end is an event all the same.
      await vm.whileStill('block-job-cancel', { device: this.jobId, force: true }).catch(() => undefined);
      await this.ended.promise;
    }
    await vm.qmp.execute('blockdev-del', { 'node-name': this.sinkNode }).catch(() => undefined);
  }

  private async begin(): Promise<void> {
    const { vm, node, socketPath, exportName, onlyNew = false } = this.options;
    const { qmp } = vm;
    await qmp.execute('blockdev-add', {
      driver: 'nbd',
      'node-name': this.sinkNode,
      server: { type: 'unix', path: socketPath },
      export: exportName,
      discard: 'unmap',
    });
    try {
      await qmp.execute('blockdev-mirror', {
        'job-id': this.jobId,
        device: node,
        target: this.sinkNode,
        sync: onlyNew ? 'none' : 'full',
        'copy-mode': 'write-blocking',
        'on-source-error': 'report',
        'on-target-error': 'report',
      });
    } catch (error) {
      await qmp.execute('blockdev-del', { 'node-name': this.sinkNode }).catch(() => undefined);
      throw error;
    }
  }

  private listen(): void {
    const { qmp } = this.options.vm;
    const on = (name: string, act: (data: Record<string, unknown>) => void) =>
      this.offs.push(
        qmp.on(name, ({ data }) => {
          if (data.device === this.jobId) act(data);
        }),
      );
    on('BLOCK_JOB_READY', () => this.ready.resolve());
    on('BLOCK_JOB_CANCELLED', () => this.end('it was cancelled', true));
    on('BLOCK_JOB_COMPLETED', (data) => this.end(data.error === undefined ? 'it ended' : textIn(data.error)));
    this.offs.push(qmp.onLost(() => this.end('QEMU is gone')));
  }

  private end(why: string, cancelled = false): void {
    if (this.over) return;
    this.over = true;
    for (const off of this.offs.splice(0)) off();
    this.ready.reject(new ColoError(errorCodes.qemu, `the mirror of ${this.options.name} ended: ${why}`));
    this.ended.resolve();
    if (!this.cancelling) this.options.failed(why, cancelled);
  }
}

function idOf(job: unknown): unknown {
  return typeof job === 'object' && job !== null && 'device' in job ? job.device : undefined;
}

/** Sizes of the guest's disks, as the nodes `names` show them. */
export async function diskSizes(qmp: Vm['qmp'], names: readonly string[]): Promise<number[]> {
  const nodes = await qmp.execute('query-named-block-nodes', { flat: true });
  return names.map((name) => {
    const node: unknown = Array.isArray(nodes)
      ? nodes.find(
          (each: unknown) =>
            typeof each === 'object' && each !== null && 'node-name' in each && each['node-name'] === name,
        )
      : undefined;
    const image = typeof node === 'object' && node !== null && 'image' in node ? node.image : undefined;
    const bytes = typeof image === 'object' && image !== null && 'virtual-size' in image ? image['virtual-size'] : 0;
    if (countIn(bytes) > 0) return countIn(bytes);
    throw new ColoError(errorCodes.qemu, `QEMU does not say how large ${name} is`);
  });
}

export interface FoldOptions {
  qmp: Vm['qmp'];
  /** The overlay, and the node below it that becomes the guest's disk. */
  top: string;
  base: string;
  progress: (progress: Progress) => void;
}

/** Writes an overlay into what is below it while the guest runs, and lets the guest go on there (block-commit). */
export async function foldOverlay({ qmp, top, base, progress }: FoldOptions): Promise<void> {
  const id = `fold-${top}`;
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  promise.catch(() => undefined);
  const ofJob = (act: (data: Record<string, unknown>) => void) => (event: { data: Record<string, unknown> }) => {
    if (event.data.device === id) act(event.data);
  };
  const fail = (why: string) => reject(new ColoError(errorCodes.qemu, `folding ${top} ended: ${why}`));
  const offs = [
    qmp.on(
      'BLOCK_JOB_READY',
      ofJob((data) => {
        progress({ doneBytes: countIn(data.offset), totalBytes: countIn(data.len) });
        qmp.execute('block-job-complete', { device: id }).catch(reject);
      }),
    ),
    qmp.on(
      'BLOCK_JOB_COMPLETED',
      ofJob((data) => (data.error === undefined ? resolve() : fail(textIn(data.error)))),
    ),
    qmp.on(
      'BLOCK_JOB_CANCELLED',
      ofJob(() => fail('it was cancelled')),
    ),
    qmp.onLost(reject),
  ];
  try {
    await qmp.execute('block-commit', { 'job-id': id, device: top, 'top-node': top, 'base-node': base });
    await promise;
  } finally {
    for (const off of offs) off();
  }
}
