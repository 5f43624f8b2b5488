// The device state that QEMU saves: finding a section in it, and moving the guest's clock forward.
//
// Layout (QEMU docs/devel/migration; numbers big-endian), as xen-save-devices-state writes it:
//
//   "QEVM" | version 3 (u32) | section ... section | 0 (end of file, u8)
//   section: 4 (full, u8) | id (u32) | name length (u8) | name | instance (u32) | version (u32) | content
//            | 0x7e (footer, u8) | id (u32)
//
// A section does not say how long its content is. Ids are handed out in ascending order, so a section ends at a footer
// with its own id that is followed by a section with a higher id, or by the end of the file.
//
// Section `timer`, version 2, is the guest's time:
//   0  i64  cpu_ticks_offset   guest TSC, in ticks: under TCG, host ticks that passed while the guest ran
//   8       unused
//   16 i64  cpu_clock_offset   virtual clock, in ns: the same time, so ticks / clock is the TSC's rate
// A subsection after it means that the machine counts instructions instead (icount): not supported.
//
// Why: the secondary's guest stands still while a checkpoint travels and loads, and would answer with an older time of
// day than the primary; nearly every divergence of a web server came from that (`Date:`).
// Limits: tried under TCG. Under KVM the guest reads another clock (kvmclock), and alignment is only partial.

import { sectionsMax } from './limits.ts';

const magic = 0x5145_564d;
const stateVersion = 3;
const headerBytes = 8;
const sectionFull = 4;
const sectionFooter = 0x7e;
const subsection = 5;
const endOfFile = 0;
const footerBytes = 5;

interface SectionHeader {
  id: number;
  name: string;
  version: number;
  contentStart: number;
}

/** A complete stream of device state begins with the magic and ends with the end-of-file mark. */
export function isDeviceState(state: Uint8Array): boolean {
  const view = viewOf(state);
  return (
    state.length > headerBytes &&
    view.getUint32(0) === magic &&
    view.getUint32(4) === stateVersion &&
    state[state.length - 1] === endOfFile
  );
}

function viewOf(state: Uint8Array): DataView {
  return new DataView(state.buffer, state.byteOffset, state.byteLength);
}

function parseHeader(view: DataView, start: number): SectionHeader | undefined {
  if (start + 6 > view.byteLength || view.getUint8(start) !== sectionFull) return undefined;
  const nameBytes = view.getUint8(start + 5);
  const contentStart = start + 6 + nameBytes + 8;
  if (nameBytes === 0 || contentStart > view.byteLength) return undefined;
  let name = '';
  for (let at = start + 6; at < start + 6 + nameBytes; at++) {
    const code = view.getUint8(at);
    if (code < 0x20 || code > 0x7e) return undefined;
    name += String.fromCharCode(code);
  }
  return { id: view.getUint32(start + 1), name, version: view.getUint32(contentStart - 4), contentStart };
}

/** Where the next section, or the end of the file, begins; undefined when this section has no end. */
function sectionEnd(view: DataView, header: SectionHeader): number | undefined {
  for (let at = header.contentStart; at + footerBytes < view.byteLength; at++) {
    if (view.getUint8(at) !== sectionFooter || view.getUint32(at + 1) !== header.id) continue;
    const next = at + footerBytes;
    if (next === view.byteLength - 1 && view.getUint8(next) === endOfFile) return next;
    const following = parseHeader(view, next);
    if (following !== undefined && following.id > header.id) return next;
  }
  return undefined;
}

function findSection(view: DataView, name: string): { header: SectionHeader; contentEnd: number } | undefined {
  let start = headerBytes;
  for (let count = 0; count < sectionsMax; count++) {
    const header = parseHeader(view, start);
    if (header === undefined) return undefined;
    const end = sectionEnd(view, header);
    if (end === undefined) return undefined;
    if (header.name === name) return { header, contentEnd: end - footerBytes };
    start = end;
  }
  return undefined;
}

const timerVersion = 2;
const ticksAt = 0;
const clockAt = 16;
const timerBytes = 24;

/** Offset of the `timer` section's content, when it is the one we know. */
function timerContent(state: Uint8Array): { view: DataView; at: number } | undefined {
  if (!isDeviceState(state)) return undefined;
  const view = viewOf(state);
  const section = findSection(view, 'timer');
  if (section === undefined || section.header.version !== timerVersion) return undefined;
  const at = section.header.contentStart;
  if (section.contentEnd - at < timerBytes) return undefined;
  if (section.contentEnd - at > timerBytes && view.getUint8(at + timerBytes) === subsection) return undefined;
  return { view, at };
}

/** The guest's time in a saved state, or undefined when the state has none that we understand. */
export function guestTime(state: Uint8Array): { ticks: bigint; clockNs: bigint } | undefined {
  const timer = timerContent(state);
  if (timer === undefined) return undefined;
  return { ticks: timer.view.getBigInt64(timer.at + ticksAt), clockNs: timer.view.getBigInt64(timer.at + clockAt) };
}

/**
 * Ticks of the guest's TSC in a millisecond, from a saved state: both counters began at 0 together, so one state is
 * enough. Undefined when the state has no time, or the guest has run for less than a millisecond.
 */
export function tscTicksPerMs(state: Uint8Array): number | undefined {
  const time = guestTime(state);
  if (time === undefined || time.clockNs < 1_000_000n || time.ticks <= 0n) return undefined;
  return (Number(time.ticks) / Number(time.clockNs)) * 1e6;
}

/**
 * Moves the guest's time in `state` forward by `lagMs`, in place. False: nothing was changed, the section is unknown,
 * or the times are none.
 */
export function alignClock(state: Uint8Array, lagMs: number, tscPerMs: number): boolean {
  const timer = timerContent(state);
  const ticks = Math.round(lagMs * tscPerMs);
  const clockNs = Math.round(lagMs * 1e6);
  // Both come from the peer: finite each, their products may not be.
  if (timer === undefined || !Number.isSafeInteger(ticks) || !Number.isSafeInteger(clockNs)) return false;
  const { view, at } = timer;
  view.setBigInt64(at + ticksAt, view.getBigInt64(at + ticksAt) + BigInt(ticks));
  view.setBigInt64(at + clockAt, view.getBigInt64(at + clockAt) + BigInt(clockNs));
  return true;
}
