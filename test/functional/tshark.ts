// What Debian's tshark objects to in a recording: checksums, and its analysis of every TCP segment against all that
// came before it on the same connection. Nothing of ours judges here.

import { runCommand } from '../../src/host/command.ts';

/** A frame that tshark has something to say about. */
export interface Objection {
  number: string;
  /** MAC address of the sender. */
  from: string;
  isDamaged: boolean;
  isMalformed: boolean;
  /** It acknowledges bytes that the recording has not seen sent. */
  acknowledgesUnseen: boolean;
  /** Bytes before it on the connection are not in the recording. */
  hasGapBefore: boolean;
  isRetransmission: boolean;
}

const checksums = ['ip', 'tcp', 'udp', 'icmp', 'icmpv6'].map((protocol) => `${protocol}.checksum.status`);
const findings = ['_ws.malformed', 'tcp.analysis.ack_lost_segment', 'tcp.analysis.lost_segment'];
const repeated = 'tcp.analysis.retransmission';
const bad = '0';

/** Frames with wrong checksums, malformed ones, and those that do not fit to what came before. */
export async function objections(path: string): Promise<Objection[]> {
  const filter = [...checksums.map((sum) => `${sum} == ${bad}`), ...findings, repeated].join(' || ');
  const validate = ['ip', 'tcp', 'udp'].flatMap((protocol) => ['-o', `${protocol}.check_checksum:TRUE`]);
  const fields = ['frame.number', 'eth.src', ...findings, repeated, ...checksums].flatMap((field) => ['-e', field]);
  // Without -n names would be asked of the network; payloads are nobody's business here.
  const args = ['-n', '-r', path, ...validate, '-o', 'tcp.desegment_tcp_streams:FALSE'];
  const text = await runCommand('tshark', [...args, '-Y', filter, '-T', 'fields', ...fields], { timeoutMs: 180_000 });
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map(objectionOf);
}

function objectionOf(line: string): Objection {
  const [number = '', from = '', malformed = '', unseen = '', gap = '', again = '', ...sums] = line.split('\t');
  return {
    ...{ number, from },
    // An ICMP error quotes a frame: then a field has two values.
    isDamaged: sums.some((sum) => sum.split(',').includes(bad)),
    isMalformed: malformed !== '',
    acknowledgesUnseen: unseen !== '',
    hasGapBefore: gap !== '',
    isRetransmission: again !== '',
  };
}
