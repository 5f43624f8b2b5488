// A guest for tests and measurements of src/qemu: the demo guest's kernel and programs with another first process.
//
// It counts on the serial console, and rewrites a number of pages in every turn, each with the count in it:
//
//   beat 1 / beat 2 / ...      kernel command line: colo.pages=PAGES colo.period=MILLISECONDS
//
// Linux unpacks archives that stand one after the other as one initramfs, so ours is appended and rdinit= names it.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { buildGuest } from '../../guest/build.ts';
import type { MachineSpec } from '../../src/qemu/machine.ts';

const firstProcess = `#!/bin/sh
export PATH=/bin:/usr/bin:/usr/sbin PERL_HASH_SEED=0
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mkdir -p /work
mount -t tmpfs -o size=90% work /work
exec </dev/null >/dev/ttyS0 2>&1
exec perl /memory.pl
`;

// The pages are those of one tmpfs file, written from a block whose pages begin with the count: a few system calls a
// turn, because emulated Perl is slow.
const memoryProgram = `
use strict;
open(my $command, '<', '/proc/cmdline');
my $line = <$command>;
my ($pages) = $line =~ /colo\\.pages=(\\d+)/;
my ($period) = $line =~ /colo\\.period=(\\d+)/;
open(my $file, '+>:raw', '/work/pages') or die "pages: $!";
$| = 1;
my $chunk = 250;
for (my $beat = 1; ; $beat++) {
  my $block = (pack('Q', $beat) x 512) x ($pages < $chunk ? $pages : $chunk);
  sysseek($file, 0, 0);
  for (my $left = $pages; $left > 0; $left -= $chunk) {
    syswrite($file, $block, 4096 * ($left < $chunk ? $left : $chunk)) or die "write: $!";
  }
  print "beat $beat\\n";
  select(undef, undef, undef, $period / 1000);
}
`;

const variablesInit = `#!/bin/sh
export PATH=/bin:/usr/bin:/usr/sbin PERL_HASH_SEED=0
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
exec </dev/null >/dev/ttyS0 2>&1
insmod /modules/efivarfs.ko
mount -t efivarfs efivarfs /sys/firmware/efi/efivars
exec perl /variables.pl
`;

// A variable's file begins with its attributes: non-volatile, for boot services and at run time. It is written in one
// call.
const variablesProgram = `
use strict;
my $path = '/sys/firmware/efi/efivars/ColoCount-5c010c01-0001-4c0c-8c01-0c010c010c01';
$| = 1;
my $count = 0;
if (open(my $old, '<:raw', $path)) {
  sysread($old, my $bytes, 100);
  $count = unpack('Q', substr($bytes, 4));
  close($old);
}
opendir(my $all, '/sys/firmware/efi/efivars'); my @secure = grep(/^SecureBoot-/, readdir($all));
my $secure = '';
if (@secure && open(my $file, '<:raw', "/sys/firmware/efi/efivars/$secure[0]")) {
  sysread($file, my $bytes, 5);
  $secure = ord(substr($bytes, 4));
}
print "found $count\nsecure $secure\n";
while (1) {
  $count++;
  # Linux makes a variable that it does not know immutable: FS_IOC_SETFLAGS takes that away.
  my $none = pack('Q', 0);
  if (open(my $old, '<', $path)) { ioctl($old, 0x40086602, $none) or die "flags: $!"; close($old); }
  open(my $file, '>:raw', $path) or die "variable: $!";
  syswrite($file, pack('LQ', 7, $count)) or die "write: $!";
  close($file);
  print "beat $count\n";
  select(undef, undef, undef, 0.1);
}
`;

/** One entry of a cpio archive in the "newc" format. */
function cpioEntry(name: string, mode: number, content: string): Buffer {
  const body = Buffer.from(content);
  const fields = [0, mode, 0, 0, 1, 0, body.length, 0, 0, 0, 0, name.length + 1, 0];
  const header = `070701${fields.map((each) => each.toString(16).padStart(8, '0')).join('')}${name}\0`;
  return Buffer.concat([padded(Buffer.from(header)), padded(body)]);
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)]);
}

export interface MemoryGuestOptions {
  machine: MachineSpec['machine'];
  ramBytes: number;
  /** Pages rewritten in every turn, and the wait after each turn. */
  pages: number;
  periodMs: number;
  /** Where the initramfs and the serial log go. */
  dir: string;
}

/** An initramfs: the demo guest's, and behind it files of a test's own. */
function initramfs(base: string, dir: string, files: Record<string, string>): string {
  const initrd = join(dir, 'initrd');
  const ours = Object.entries(files).map(([name, text]) => cpioEntry(name, 0o100755, text));
  writeFileSync(initrd, Buffer.concat([padded(readFileSync(base)), ...ours, cpioEntry('TRAILER!!!', 0, '')]));
  return initrd;
}

/**
 * A guest on a machine with UEFI that keeps a count in a variable of its firmware: "found N" says which it found when
 * it booted, "secure S" whether Secure Boot is on, "beat N" that N was written.
 */
export async function variablesGuest(options: {
  ramBytes: number;
  dir: string;
  firmware: NonNullable<MachineSpec['firmware']>;
}): Promise<MachineSpec> {
  const guest = await buildGuest();
  const files = { 'variables-init': variablesInit, 'variables.pl': variablesProgram };
  return {
    ...{ machine: 'q35', accel: 'tcg', cpu: undefined, vcpus: 1, nics: [], extraArgs: [] },
    ...{ ramBytes: options.ramBytes, firmware: options.firmware },
    kernel: guest.kernel,
    initrd: initramfs(guest.initrd, options.dir, files),
    cmdline: `${guest.cmdline} rdinit=/variables-init`,
    serialLog: join(options.dir, 'serial.log'),
  };
}

/** The spec of a machine that runs this guest; its files lie in `dir`. */
export async function memoryGuest(options: MemoryGuestOptions): Promise<MachineSpec> {
  const guest = await buildGuest();
  const initrd = initramfs(guest.initrd, options.dir, { 'memory-init': firstProcess, 'memory.pl': memoryProgram });
  return {
    machine: options.machine,
    accel: 'tcg',
    cpu: undefined,
    vcpus: 1,
    ramBytes: options.ramBytes,
    kernel: guest.kernel,
    initrd,
    cmdline: `${guest.cmdline} rdinit=/memory-init colo.pages=${options.pages} colo.period=${options.periodMs}`,
    nics: [],
    serialLog: join(options.dir, 'serial.log'),
    // A microvm with ACPI has no timer that Linux accepts until the TSC's rate is known, and under emulation on a busy
    // host finding it sometimes fails: the boot then hangs. Without ACPI it uses the PIT. (Debian's kernel would not
    // find the microvm's cards then, but this guest has none.)
    extraArgs: options.machine === 'microvm' ? ['-machine', 'acpi=off'] : [],
  };
}

/** The last count the guest wrote, 0 when it wrote none. */
export function lastBeat(serialLog: string): number {
  const beats = [...readFileSync(serialLog, 'utf8').matchAll(/^beat (\d+)\s*$/gm)];
  return Number(beats.at(-1)?.[1] ?? 0);
}
