// What QEMU says on its monitor once it is greeted, as a target of the fuzzer: replies to commands, the text of the
// human monitor, events of jobs. A guest that has broken out into its QEMU says all of it.
//
//   input     piece NUL piece NUL ...; the first byte of a piece says what becomes of the rest
//             0 which question is asked, r a reply of this JSON, h a reply of this text, x an error of this JSON,
//             e an event of this JSON, anything else a line as it is
//   script    pieces up to the first reply are said at once; each command gets the next reply and what follows it up to
//             the one after; when there is none left, QEMU hangs up

import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { type Duplex, duplexPair } from 'node:stream';
import { setImmediate as turn } from 'node:timers/promises';
import type { Clock } from '../../src/base/clock.ts';
import { ColoError } from '../../src/base/errors.ts';
import { openLook } from '../../src/qemu/changes.ts';
import { runJob } from '../../src/qemu/job.ts';
import { diskSizes, foldOverlay, Mirror } from '../../src/qemu/mirror.ts';
import { Qmp } from '../../src/qemu/qmp.ts';
import { ramAddress } from '../../src/qemu/ram-address.ts';
import { assertCovered, parseRamBlocks } from '../../src/qemu/ram-blocks.ts';
import { checkVersion } from '../../src/qemu/start.ts';
import { type Target, words } from './fuzz.ts';

/** Whoever waits for longer than this many turns of the loop waits for something that does not come. */
const turnsMax = 60;

/** A clock by which every wait is over after turnsMax turns. */
export const turnsClock: Clock = {
  now: () => 0,
  after(_, action) {
    let cancelled = false;
    const wait = async () => {
      for (let turns = 0; turns < turnsMax && !cancelled; turns += 1) await turn();
      if (!cancelled) action();
    };
    void wait();
    return () => {
      cancelled = true;
    };
  },
  every: () => assert.fail('nothing here is done again and again'),
};

const isReply = (piece: Buffer) => 'rhx'.includes(String.fromCharCode(piece[0] ?? 0));

function lineOf(piece: Buffer, id: number): string {
  const rest = piece.subarray(1).toString('utf8');
  switch (String.fromCharCode(piece[0] ?? 0)) {
    case 'r':
      return `{"return": ${rest}, "id": ${id}}\r\n`;
    case 'h':
      return `${JSON.stringify({ return: rest, id })}\r\n`;
    case 'x':
      return `{"error": ${rest}, "id": ${id}}\r\n`;
    case 'e':
      return `{"event": ${rest}}\r\n`;
    default:
      return `${piece.toString('utf8')}\r\n`;
  }
}

class FakeQemu {
  private readonly pieces: Buffer[];
  private readonly end: Duplex;
  private text = '';

  constructor(end: Duplex, pieces: Buffer[]) {
    this.end = end;
    this.pieces = pieces;
    end.on('error', () => undefined);
    end.on('data', (chunk: Buffer) => this.hear(chunk));
    end.write('{"QMP": {"version": {}, "capabilities": []}}\r\n');
    this.sayUntilReply();
  }

  private hear(chunk: Buffer): void {
    this.text += String(chunk);
    const lines = this.text.split('\n');
    this.text = lines.pop() ?? '';
    for (const line of lines) this.answer(JSON.parse(line) as { execute: string; id: number });
  }

  private answer({ execute, id }: { execute: string; id: number }): void {
    if (execute === 'qmp_capabilities') return void this.end.write(`{"return": {}, "id": ${id}}\r\n`);
    const reply = this.pieces.shift();
    if (reply === undefined) return void this.end.end();
    this.end.write(lineOf(reply, id));
    this.sayUntilReply();
  }

  private sayUntilReply(): void {
    for (let [next] = this.pieces; next !== undefined && !isReply(next); [next] = this.pieces) {
      this.pieces.shift();
      this.end.write(lineOf(next, 0));
    }
  }
}

const ramBytes = 2 ** 20;
const maps = '7f1577fff000-7f15780ff000 rw-s 00000000 00:19 12 /dev/shm/vm/ram\n';

/** What a node asks its QEMU, in some words of what came of it. */
const questions: readonly ((qmp: Qmp) => Promise<string>)[] = [
  async (qmp) => `version ${(await checkVersion(qmp)).split('.').length}`,
  async (qmp) => {
    const blocks = parseRamBlocks(await qmp.human('info ramblock'));
    assertCovered(blocks, ramBytes);
    return `covered by ${Math.min(blocks.length, 4)}`;
  },
  async (qmp) => `RAM at ${ramAddress(maps, await qmp.human('gpa2hva 0'), '/dev/shm/vm/ram', ramBytes)}`,
  async (qmp) => {
    const job = { id: 'colo0', command: 'snapshot-save', arguments: {} };
    await runJob({ qmp, clock: turnsClock, timeoutMs: 1, ...job });
    return 'job done';
  },
  async (qmp) => {
    const sizes = await diskSizes(qmp, ['disk0']);
    for (const bytes of sizes) assert.ok(Number.isSafeInteger(bytes) && bytes > 0, `a disk of ${bytes} bytes`);
    return `${sizes.length} sizes`;
  },
  async (qmp) => {
    const ends: string[] = [];
    const at = { node: 'disk0', name: 'disk0', socketPath: '/s', exportName: 'disk0' };
    const whileStill = async (command: string, given: Record<string, unknown>) =>
      void (await qmp.execute(command, given));
    const mirror = await Mirror.start({ vm: { qmp, whileStill }, ...at, failed: (why) => void ends.push(words(why)) });
    const how = await Promise.race([mirror.copied.then(() => 'copied', refusalText), idle()]);
    const progress = await mirror.progress().catch(refusalText);
    await Promise.race([mirror.cancel(), idle()]);
    return `mirror ${how} ${typeof progress === 'string' ? progress : typeof progress} ${ends.join(' ')}`;
  },
  async (qmp) => {
    const fold = foldOverlay({ qmp, top: 'top', base: 'base', progress: () => undefined });
    return await Promise.race([fold.then(() => 'folded'), idle()]);
  },
  async (qmp) => {
    const look = await openLook(qmp, { nodes: ['disk0'], name: 'note', blockBytes: 4096, socketPath: '/s' });
    await look.close();
    return 'looked';
  },
];

async function idle(): Promise<string> {
  for (let turns = 0; turns < turnsMax; turns += 1) await turn();
  return 'nothing came';
}

function refusalText(error: unknown): string {
  if (!(error instanceof ColoError)) throw error;
  return words(error.message.replace(/\(.*\)/s, ''));
}

const script = (which: number, ...pieces: string[]) =>
  Buffer.concat([Buffer.of(which), Buffer.from(pieces.map((piece) => `\0${piece}`).join(''))]);
const jobEvent = (status: string) => `e"JOB_STATUS_CHANGE", "data": {"id": "colo0", "status": "${status}"}`;
const blockEvent = (name: string, id: string) => `e"${name}", "data": {"device": "${id}", "len": 9, "offset": 9}`;
const heading = '              Block Name    PSize              Offset               Used              Total\n';
const block = (name: string, bytes = ramBytes) =>
  `                     ${name}    4 KiB  0x0000000000000000 0x${bytes.toString(16)} 0x${bytes.toString(16)}\n`;

export const qmpReplies: Target = {
  name: 'qmp-replies',
  seeds: [
    script(0, 'r{"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": ""}'),
    script(0, 'r{"qemu": {"major": 5, "minor": 2, "micro": 0}}'),
    script(0, 'rnull'),
    script(0, 'x{"class": "GenericError", "desc": "no"}'),
    script(0, 'x{"class": "GenericError", "desc": {"toString": 1}}'),
    script(1, `h${heading}${block('ram')}${block('pc.bios', 4096)}${block('/rom@etc/acpi/tables', 4096)}`),
    script(1, `h${heading}${block('ram')}${block('0000:00:02.0/vga.vram', 4096)}`),
    script(2, 'hHost virtual address for 0x0 (ram) is 0x7f1577fff000\r\n'),
    script(2, 'hNo memory is mapped at address 0x0\r\n'),
    script(3, 'r{}', jobEvent('created'), jobEvent('concluded'), 'r[{"id": "colo0"}]', 'r{}'),
    script(3, 'r{}', jobEvent('concluded'), 'r[{"id": "colo0", "error": "disk full"}]', 'r{}'),
    script(3, 'r{}', jobEvent('concluded'), 'r[{"id": "colo0", "error": {"toString": 1}}]', 'r{}'),
    script(4, 'r[{"node-name": "disk0", "image": {"virtual-size": 1048576}}]'),
    script(4, 'r[{"node-name": "disk0", "image": {"virtual-size": {"valueOf": 1}}}]'),
    script(
      5,
      'r{}',
      'r{}',
      blockEvent('BLOCK_JOB_READY', 'mirror-disk0'),
      'r[{"device": "mirror-disk0", "offset": 1, "len": 2}]',
    ),
    script(5, 'r{}', 'r{}', 'e"BLOCK_JOB_COMPLETED", "data": {"device": "mirror-disk0", "error": "no space"}', 'r[]'),
    script(5, 'r{}', 'x{"class": "GenericError", "desc": "no"}', 'r{}'),
    script(6, 'r{}', blockEvent('BLOCK_JOB_READY', 'fold-top'), 'r{}', blockEvent('BLOCK_JOB_COMPLETED', 'fold-top')),
    script(6, 'r{}', blockEvent('BLOCK_JOB_CANCELLED', 'fold-top')),
    script(7, 'r{}', 'r{}', 'r{}', 'r{}', 'r{}', 'r{}'),
    script(7, 'r{}', 'r{}', 'x{"desc": "no"}', 'r{}', 'r{}'),
  ],
  reaches: [
    ...[/^0 version/, /^0 QEMU .* is too old/, /^1 covered/, /^1 The machine has memory/, /^2 RAM at/, /^2 Guest RAM/],
    ...[/^3 job done/, /^3 .*failed/, /^3 .*did not finish/, /^4 1 sizes/, /^4 QEMU does not say/, /^5 mirror copied/],
    ...[/^5 mirror the mirror of disk ended/, /^6 folded/, /^6 folding/, /^6 nothing came/, /^7 looked/, /not QMP/],
  ],
  feed: async (input) => {
    const [first, ...pieces] = split(Buffer.from(input));
    const which = (first?.[0] ?? 0) % questions.length;
    const [ours, theirs] = duplexPair();
    ours.once('end', () => ours.destroy());
    new FakeQemu(theirs, pieces);
    try {
      const qmp = await Qmp.open(ours as unknown as Socket, { clock: turnsClock });
      const said = (await questions[which]?.(qmp).catch(refusalText)) ?? '';
      qmp.close();
      return `${which} ${said}`;
    } catch (error) {
      return `${which} ${refusalText(error)}`;
    } finally {
      ours.destroy();
      theirs.destroy();
    }
  },
};

function split(input: Buffer): Buffer[] {
  // The first byte is a number, and may be any.
  const pieces = [input.subarray(0, 1)];
  for (let at = 1; at < input.length; ) {
    const end = input.indexOf(0, at);
    const piece = input.subarray(at, end < 0 ? input.length : end);
    if (piece.length > 0) pieces.push(piece);
    at = end < 0 ? input.length : end + 1;
  }
  return pieces;
}
