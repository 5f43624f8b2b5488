// Why a checkpoint is wanted, and what differed.

export type CheckpointKind =
  | 'payload'
  | 'options'
  | 'fin'
  | 'rst'
  | 'timeout'
  | 'ack-timeout'
  | 'limit'
  | 'periodic'
  | 'dirty'
  | 'interval'
  | 'operator'
  | 'initial';

export type CheckpointReason = { kind: CheckpointKind; connection?: string; offset?: number; detail?: string };

export type DivergenceKind = 'payload' | 'options' | 'fin' | 'rst';

export interface DivergenceRecord {
  time: number;
  epoch: number;
  kind: DivergenceKind;
  /** "client > guest protocol". */
  connection: string;
  /** TCP: bytes of the guest's stream since ISN + 1, modulo 2^32. Datagrams: offset in the content. */
  offset: number;
  /** Up to 16 bytes around the difference, in hex. */
  primary: string;
  secondary: string;
  detail?: string;
}
