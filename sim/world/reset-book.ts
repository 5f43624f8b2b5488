// The resets that the two guests have said, for the output-commit checker. A reset that nobody's connection says has no
// state of TCP with it, and each guest counts from an initial sequence number of its own. So one that leaves is the
// same as one that was said when their sequence numbers are equal, or stand at the same place behind the initial ones
// of a connection.

import type { FrameView } from '../../src/packet/frame-view.ts';
import { targetIp } from '../guest/wire.ts';

/**
 * Where one connection on a flow begins: the initial sequence number as the client knows it, and those of the two
 * guests.
 */
export interface Origins {
  isn: number | undefined;
  primary: number | undefined;
  replica: number | undefined;
}

interface Said {
  sequence: number;
  order: number;
}

const flowsKept = 200;
const keptPerFlow = 16;

export class ResetBook {
  /** What the primary's guest has said until now, counted; and until the capture that the secondary holds. */
  count = 0;
  covered = 0;
  private readonly primary = new Map<string, Said[]>();
  private readonly replica = new Map<string, Said[]>();

  said(by: 'primary' | 'replica', view: FrameView): void {
    if (by === 'primary') this.count += 1;
    const flow = flowOf(view);
    const of = this[by];
    const list = of.get(flow) ?? [];
    of.delete(flow);
    of.set(flow, [...list.slice(1 - keptPerFlow), { sequence: view.sequence, order: this.count }]);
    const [oldest] = of.keys();
    if (of.size > flowsKept && oldest !== undefined) of.delete(oldest);
  }

  /**
   * The secondary holds a complete checkpoint, of when the primary's guest had said `covered`: its own epoch is new.
   */
  complete(covered: number): void {
    this.covered = covered;
    this.replica.clear();
  }

  mayLeave(view: FrameView, connections: readonly Origins[]): boolean {
    const flow = flowOf(view);
    const isSame = (by: 'primary' | 'replica', said: number) =>
      said === view.sequence ||
      connections.some(({ isn, ...origins }) => {
        const from = origins[by];
        return isn !== undefined && from !== undefined && (said - from) >>> 0 === (view.sequence - isn) >>> 0;
      });
    const isCovered = ({ sequence, order }: Said) => order <= this.covered && isSame('primary', sequence);
    return (
      this.replica.get(flow)?.some(({ sequence }) => isSame('replica', sequence)) === true ||
      this.primary.get(flow)?.some(isCovered) === true
    );
  }
}

/**
 * The client's address and port, and the guest's port: the guest calls one port of its clients from many of its own.
 */
export function flowOf(view: FrameView): string {
  return `${targetIp(view)}:${view.targetPort}-${view.sourcePort}`;
}
