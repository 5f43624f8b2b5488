// What two SYNs of one connection negotiate differently: options or flags that do not agree make two connections of it.

import { synOptions, synText, tcp, tcpFlag } from '../../../packet/tcp.ts';
import type { SegmentParts } from '../../frames/rewrite.ts';
import type { TcpStream } from './stream.ts';

/** Undefined when the PVM's SYN in `head` and the SVM's agree; the SVM's has been seen. */
export function synDifference(stream: TcpStream, head: SegmentParts): string | undefined {
  if (stream.sSyn === undefined) return 'the secondary has sent no SYN';
  const isAnswer = (head.flags & tcpFlag.ack) !== 0;
  const hasAnswered = (stream.sSynFlags & tcpFlag.ack) !== 0 || (isAnswer && stream.sSynAck !== undefined);
  if (isAnswer !== hasAnswered) return 'one side sent SYN, the other SYN-ACK';
  const text = synText(head.frame, head.transportAt);
  return text === stream.sSyn ? undefined : whatDiffers(text, stream.sSyn);
}

/** For people. The texts are equal byte for byte where the two agree, so that nothing is overlooked here. */
function whatDiffers(ours: string, theirs: string): string {
  const [one, other] = [ours, theirs].map((text) => Buffer.from(text, 'latin1')) as [Buffer, Buffer];
  const [primary, secondary] = [synOptions(one, 0), synOptions(other, 0)];
  if (primary.kinds !== secondary.kinds) return 'the two SYNs carry different options';
  if (primary.mss !== secondary.mss) return `maximum segment size ${primary.mss} against ${secondary.mss}`;
  if (primary.windowScale !== secondary.windowScale)
    return `window scale ${primary.windowScale ?? 'none'} against ${secondary.windowScale ?? 'none'}`;
  const areFlagsEqual = one[tcp.flags] === other[tcp.flags] && one[tcp.dataOffset] === other[tcp.dataOffset];
  return areFlagsEqual ? 'an option that is not ours differs' : 'one of the two negotiates ECN';
}
