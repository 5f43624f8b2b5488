// Finds a node that will be the secondary: asks the others in their order, again and again, while this primary is
// alone.
//
//   seek ─► own machine well? ─► open links ─► found ─► its session is sent
//    ▲                             └── refused: why is kept for who asks (unprotected-reason.ts)
//    └── every reconnectMs; after a failure of the disks or of the last secondary's machine when its pause is over

import { ColoError, errorCodes, errorText } from '../../base/errors.ts';
import type { PrimaryPair } from '../../controller/primary-pair.ts';
import type { Peer } from '../config.ts';
import type { NodeContext } from '../context.ts';
import { diskPauseMsFirst, diskPauseMsMax, reconnectMs } from '../limits.ts';
import type { GuestVm, PeerLinks } from '../platform.ts';
import type { Terms } from '../terms.ts';
import { troubleOf } from '../vm-watch.ts';
import type { PrimaryDisks } from './disks/disks.ts';
import type { Plight } from './unprotected-reason.ts';

export interface SeekerParts {
  context: Pick<NodeContext, 'clock' | 'log'> & {
    config: Pick<NodeContext['config'], 'peers'>;
    platform: Pick<NodeContext['platform'], 'openLinks'>;
  };
  vm: Pick<GuestVm, 'condition'>;
  terms: Pick<Terms, 'record'>;
  pair: Pick<PrimaryPair, 'state'>;
  disks: Pick<PrimaryDisks, 'waitMs' | 'hurry'> | undefined;
  plight: Pick<Plight, 'refused'>;
  /** Aborted when the role ends. */
  signal: AbortSignal;
  isPaired: () => boolean;
  /** This one will; resolves when its session is sent. */
  found: (peer: Peer, links: PeerLinks) => Promise<void>;
}

export class Seeker {
  private readonly parts: SeekerParts;
  /** After a secondary that took in everything and could not run it: the next one would most likely fare the same. */
  private pauseMs = 0;
  private notBefore = 0;

  constructor(parts: SeekerParts) {
    this.parts = parts;
  }

  /** Asks the other nodes in their order whenever there is no secondary, until the role ends. */
  async seek(): Promise<void> {
    const { context, signal } = this.parts;
    const { config, clock } = context;
    while (!signal.aborted) {
      for (const peer of config.peers) if (this.isSeeking) await this.tryPeer(peer);
      await new Promise<void>((resolve) => void clock.after(reconnectMs, resolve));
    }
  }

  /** In how long another node is asked, while none is for a reason of the disks or of the machine. */
  get waitMs(): number {
    const { disks, context } = this.parts;
    const now = context.clock.now();
    return Math.max(0, this.notBefore - now, disks === undefined ? 0 : disks.waitMs(now));
  }

  /** Another node is asked at once; false when that was so anyway. */
  hurry(): boolean {
    const isWaiting = this.parts.pair.state.kind === 'alone' && this.waitMs > 0;
    this.notBefore = 0;
    this.parts.disks?.hurry();
    return isWaiting;
  }

  /** A checkpoint of this machine runs over there. */
  loaded(): void {
    this.pauseMs = 0;
  }

  /**
   * A secondary that had everything has left before it loaded it: each further try would copy all of it for nothing.
   */
  pause(): void {
    this.pauseMs = Math.min(diskPauseMsMax, Math.max(diskPauseMsFirst, this.pauseMs * 2));
    this.notBefore = this.parts.context.clock.now() + this.pauseMs;
  }

  private get isSeeking(): boolean {
    const { signal, pair, isPaired } = this.parts;
    return this.waitMs <= 0 && !signal.aborted && pair.state.kind === 'alone' && !isPaired();
  }

  private async tryPeer(peer: Peer): Promise<void> {
    const { context, terms, signal, found, plight } = this.parts;
    try {
      await this.refuseUnwell();
      const opened = await context.platform.openLinks(peer, terms.record?.term ?? 0, signal);
      if (this.isSeeking) return await found(peer, opened);
      for (const link of Object.values(opened)) link.destroy();
    } catch (error) {
      plight.refused(peer.node, errorText(error));
      context.log.debug({ peer: peer.node, error: errorText(error) }, 'no secondary there yet');
    }
  }

  /**
   * A machine that does not run, or lost a device, would make a secondary that is no better. One that was not started
   * yet, or waits for room on its own disk, goes on by itself.
   */
  private async refuseUnwell(): Promise<void> {
    const condition = await this.parts.vm.condition();
    const goesOn = condition.runState === 'io-error' || condition.runState === 'prelaunch';
    const trouble = troubleOf(condition, goesOn ? 'stands' : 'runs');
    if (trouble !== undefined) throw new ColoError(errorCodes.machine, `this node cannot protect it: ${trouble}`);
  }
}
