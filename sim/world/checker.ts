// What a checker may watch. Each is one file in checker/ and holds one sentence; it may look at everything, also at
// what no node can know, and complains by the name of its sentence.

import type { FaultPoint } from '../../src/node/fault-points.ts';
import type { TcpState } from '../guest/tcp.ts';
import type { Death, SimNode } from '../host/node.ts';
import type { SimVm } from '../host/vm.ts';

export interface Checker {
  readonly name: string;
  readonly sentence: string;
  /** A node puts a frame onto the network; `late`: one that it was stopped with behind its look (network/uplink.ts). */
  frameLeft?(node: SimNode, frame: Uint8Array, late: boolean): void;
  /** A node hands a frame to its uplink, and counts it as said; its kernel has it a moment later, or never. */
  frameReleased?(node: SimNode, frame: Uint8Array): void;
  /** A guest says something, to its card. */
  guestSaid?(vm: SimVm, frame: Uint8Array, connection: TcpState | undefined): void;
  captured?(vm: SimVm, captureId: number): void;
  resumedFrom?(vm: SimVm, captureId: number): void;
  reached?(node: SimNode, point: FaultPoint, epoch: number): void;
  /** Before a fault, or a command of an operator: what it takes away is still there. */
  aboutToStrike?(node: SimNode, what: string): void;
  /** A node's process or host has ended; its folder is as that left it. */
  folderLeft?(node: SimNode, death: Death): void;
  /** An operator's stop of a primary is done. */
  stopped?(node: SimNode): void;
  /** Before that: a node boots a fresh guest although one has run. */
  aboutToBoot?(node: SimNode): void;
  /** A fresh guest was booted, because no copy was left. */
  booted?(): void;
  /** A client has seen what it must not. */
  clientComplains?(what: string): void;
  /** Code has thrown where nobody catches; of which node, if that is known. */
  uncaught?(node: SimNode | undefined, error: unknown): void;
  /** The run has far more events than its time explains. */
  endless?(events: number): void;
  /** The arbiter's record may have changed. */
  termChanged?(): void;
  /** Every event; for what is quickly looked at. */
  stepped?(): void;
  /** Every few virtual milliseconds. */
  polled?(): void;
  /** All faults are over. */
  healed?(): void;
  /** The run is over. */
  ended?(): void;
}
