// Watches the primary's VM: its end, and a QEMU that hangs, which is as bad as one that is dead and looks alive to
// everybody else. Both become the event `vmEnded`; what follows is PrimaryPair's.

import { ColoError, errorCodes, errorText } from '../base/errors.ts';
import { pingMs } from './limits.ts';
import type { PrimaryNode } from './primary.ts';

export class VmWatch {
  private readonly node: PrimaryNode;
  private pinging = false;

  constructor(node: PrimaryNode) {
    this.node = node;
  }

  /** Returns what ends it. */
  start(): () => void {
    const { parts, context } = this.node;
    void parts.vm.exited.then((end) =>
      this.node.post({
        kind: 'vmEnded',
        why: end.signal === null ? `QEMU ended with code ${end.code}` : `QEMU was killed (${end.signal})`,
        byGuest: end.signal === null && end.code === 0,
      }),
    );
    return context.clock.every(pingMs, () => this.ping());
  }

  private ping(): void {
    const { parts, pair } = this.node;
    const { vm } = parts;
    if (vm.ping === undefined || this.pinging || pair.state.kind !== 'protected') return;
    this.pinging = true;
    vm.ping().then(
      () => {
        this.pinging = false;
      },
      (error: unknown) => {
        if (!(error instanceof ColoError) || error.code !== errorCodes.qemuTimeout) return;
        this.node.post({ kind: 'vmEnded', why: `QEMU hangs: ${errorText(error)}`, byGuest: false });
      },
    );
  }
}
