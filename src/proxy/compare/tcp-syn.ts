// What two SYNs of one connection negotiate differently: options that do not agree make two connections of it.

import { synOptions, tcpFlag } from '../../packet/tcp.ts';
import type { SegmentParts } from '../rewrite.ts';
import type { TcpStream } from './tcp-stream.ts';

/** Undefined when the PVM's SYN in `head` and the SVM's agree; the SVM's has been seen. */
export function synDifference(stream: TcpStream, head: SegmentParts): string | undefined {
  const secondary = stream.sSyn;
  if (secondary === undefined) return 'the secondary has sent no SYN';
  const primary = synOptions(head.frame, head.transportAt);
  const isAnswer = (head.flags & tcpFlag.ack) !== 0;
  const hasAnswered = (stream.sSynFlags & tcpFlag.ack) !== 0 || (isAnswer && stream.sSynAck !== undefined);
  if (isAnswer !== hasAnswered) return 'one side sent SYN, the other SYN-ACK';
  if (primary.kinds !== secondary.kinds) return 'the two SYNs carry different options';
  if (primary.mss !== secondary.mss) return `maximum segment size ${primary.mss} against ${secondary.mss}`;
  if (primary.windowScale !== secondary.windowScale)
    return `window scale ${primary.windowScale ?? 'none'} against ${secondary.windowScale ?? 'none'}`;
  return areEqual(primary.others, secondary.others) ? undefined : 'an option that is not ours differs';
}

/** A key of Multipath TCP, say, which each guest draws at random. */
function areEqual(one: readonly number[], other: readonly number[]): boolean {
  return one.length === other.length && one.every((byte, at) => byte === other[at]);
}
