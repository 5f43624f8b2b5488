// The one thing that may leave although the secondary's guest said something else: the time in the Date header of an
// HTTP answer. Two copies of a web server answer the same request a moment apart, now and then in two seconds. A client
// can tell neither from the other, and nothing rests on it.
//
// Only where all of this holds, so that it is that header and no text that looks like one:
//   - the guest's side of the connection begins with "HTTP/1."
//   - the segment begins with a status line, and no empty line stands before the header: it is of the answer's head
//   - the header is in the fixed form of RFC 9110 (5.6.7), whole in the segment: "Date: Sun, 06 Nov 1994 08:49:37 GMT"
//   - the two times are one second apart, and both within two of this host's clock
//
// Everything else of the answer must be equal, its length among it. Nothing inside TLS is ever seen here.

import { answerHeadBytesMax } from '../limits.ts';

const statusLine = 'HTTP/1.';
const header = /\r\nDate: ([A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT)\r\n/i;

export const dateBytes = 29;
const apartMs = 1000;
const toleratedMs = 2000;

/** Whether the bytes from `from` on begin an answer of HTTP. */
export function beginsAnswer(frame: Uint8Array, from: number, to: number): boolean {
  if (to - from < statusLine.length) return false;
  for (let at = 0; at < statusLine.length; at += 1) if (frame[from + at] !== statusLine.charCodeAt(at)) return false;
  return true;
}

/** Where the value of the Date header begins in which byte `at` of the payload [from, to) lies; undefined: in none. */
export function dateAround(frame: Buffer, from: number, to: number, at: number): number | undefined {
  if (!beginsAnswer(frame, from, to)) return undefined;
  const text = frame.toString('latin1', from, Math.min(to, from + answerHeadBytesMax));
  const headEnd = text.indexOf('\r\n\r\n');
  const found = header.exec(headEnd < 0 ? text : text.slice(0, headEnd + 2));
  if (found === null) return undefined;
  const value = from + found.index + found[0].length - dateBytes - 2;
  return at >= value && at < value + dateBytes ? value : undefined;
}

/** Whether the secondary's time is as good as the primary's. `wallMs` is this host's time since 1970. */
export function areAsGood(primary: string, secondary: string, wallMs: number): boolean {
  const [one, other] = [timeOf(primary), timeOf(secondary)];
  if (one === undefined || other === undefined) return false;
  const areNow = Math.abs(one - wallMs) <= toleratedMs && Math.abs(other - wallMs) <= toleratedMs;
  return areNow && Math.abs(one - other) === apartMs;
}

function timeOf(text: string): number | undefined {
  const time = new Date(text);
  return !Number.isNaN(time.getTime()) && time.toUTCString() === text ? time.getTime() : undefined;
}
