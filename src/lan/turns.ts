// Turns of speaking for one address, as whoever listens on a network keeps them: one entry for each time that another
// port speaks than before.
//
// One thing cannot be kept from leaving late: what a node was about to write when it was stopped, between its look at
// its right to speak and the kernel's write (netdev/frame-socket.ts). It was released by right, leaves in one write
// when the node wakes, and is to the network like a frame that was on its way for long. `withoutLate` tells such a
// moment from a turn.

import { wholeBytesMax } from '../netdev/limits.ts';
import { lateMsMax } from './limits.ts';

export interface Turn {
  port: number;
  frames: number;
  bytes: number;
  firstAt: number;
  lastAt: number;
}

/** Notes a frame that came from `port`; beyond `turnsMax` no further turn is begun. */
export function noteTurn(turns: Turn[], heard: { port: number; bytes: number; now: number }, turnsMax: number): void {
  const { port, bytes, now } = heard;
  const last = turns.at(-1);
  if (last?.port === port) {
    last.frames += 1;
    last.bytes += bytes;
    last.lastAt = now;
  } else if (turns.length < turnsMax) turns.push({ port, frames: 1, bytes, firstAt: now, lastAt: now });
}

/** The turns, and apart from them what their last speaker but one said late, in the midst of another's turn. */
export function withoutLate(heard: readonly Turn[]): { turns: Turn[]; late: Turn[] } {
  const turns: Turn[] = [];
  const late: Turn[] = [];
  for (const [index, turn] of heard.entries()) {
    const current = turns.at(-1);
    const next = heard[index + 1];
    const isAmid = current !== undefined && turns.at(-2)?.port === turn.port && next?.port === current.port;
    if (isAmid && isOneWrite(turn)) late.push(turn);
    else if (current?.port === turn.port) add(current, turn);
    else turns.push({ ...turn });
  }
  return { turns, late };
}

function isOneWrite({ bytes, firstAt, lastAt }: Turn): boolean {
  return bytes <= wholeBytesMax && lastAt - firstAt <= lateMsMax;
}

function add(to: Turn, turn: Turn): void {
  to.frames += turn.frames;
  to.bytes += turn.bytes;
  to.lastAt = turn.lastAt;
}

/** For people: "port 0: 120 frames, 0.000 to 1.250 s; port 2: ...". */
export function describeTurns(turns: readonly Turn[]): string {
  const start = turns[0]?.firstAt ?? 0;
  const seconds = (at: number) => ((at - start) / 1000).toFixed(3);
  return turns
    .map(
      ({ port, frames, firstAt, lastAt }) =>
        `port ${port}: ${frames} frames, ${seconds(firstAt)} to ${seconds(lastAt)} s`,
    )
    .join('; ');
}
