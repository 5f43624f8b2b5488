// Whatever a run creates is gone when it ends, also when it is interrupted at any moment or killed itself.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { buildGuest } from '../../guest/build.ts';
import { delay, systemClock } from '../../src/base/clock.ts';
import { checkSpec } from '../../src/config/spec.ts';
import { runDirectory } from '../../src/local/directories.ts';
import { LocalPair } from '../../src/local/pair.ts';

const program = join(import.meta.dirname, '../../src/cli/main.ts');

function startDemo(name: string): {
  child: ChildProcess;
  said(text: string): Promise<void>;
  ended: Promise<number | null>;
} {
  const args = [program, 'demo', '--name', name, '--seconds', '30', '--fault', 'none'];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let text = '';
  child.stdout.on('data', (chunk: Buffer) => {
    text += chunk.toString();
  });
  child.stderr.resume();
  const ended = new Promise<number | null>((resolve) => child.once('close', (code) => resolve(code)));
  return { child, ended, said: (wanted) => until(`the demo says "${wanted}"`, () => text.includes(wanted)) };
}

async function until(what: string, holds: () => boolean): Promise<void> {
  for (let tries = 0; tries < 6000; tries += 1) {
    if (holds()) return;
    await delay(50);
  }
  assert.fail(`not within five minutes: ${what}`);
}

/** Living processes whose command line or environment names the run's directory. */
function processesOf(directory: string): string[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry) && Number(entry) !== process.pid)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes(`${directory}/`);
      } catch {
        return false;
      }
    });
}

const moments: [name: string, text: string][] = [
  ['while the guest boots', ''],
  ['while the RAM is copied', 'the guest runs'],
  ['while the clients run', 'protected in'],
];

for (const [moment, text] of moments)
  test(`a demo that is interrupted ${moment} leaves nothing behind`, async () => {
    await buildGuest();
    const name = 'cleanup-interrupt';
    const demo = startDemo(name);
    if (text === '') await until('QEMU runs', () => processesOf(runDirectory(name)).length >= 2);
    else await demo.said(text);
    demo.child.kill('SIGINT');
    assert.equal(await demo.ended, 130);
    // What the kernel was told to kill may need a moment to go, on a starved host even a long one.
    await until('every process ended', () => processesOf(runDirectory(name)).length === 0);
    assert.equal(existsSync(runDirectory(name)), false);
  });

test('the nodes and the guests of a demo that is killed end by themselves, and the next run sweeps what is left', async () => {
  await buildGuest();
  const name = 'cleanup-kill';
  const demo = startDemo(name);
  await demo.said('protected in');
  demo.child.kill('SIGKILL');
  await demo.ended;
  await until('every process ended', () => processesOf(runDirectory(name)).length === 0);
  const next = startDemo(name);
  await next.said('the guest runs');
  next.child.kill('SIGINT');
  assert.equal(await next.ended, 130);
  assert.equal(existsSync(runDirectory(name)), false);
});

test('a start that hangs is given up at once, and nothing of it is left', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'colo-cleanup-'));
  const qemuPath = join(folder, 'qemu');
  writeFileSync(qemuPath, '#!/bin/sh\nwhile :; do sleep 0.2; done\n', { mode: 0o755 });
  const spec = checkSpec({ vm: 'cleanup-hang', boot: { guest: 'demo' } }, 'the test');
  const boot = { kernel: undefined, initrd: undefined, cmdline: '' };
  const interrupt = new AbortController();
  try {
    const started = LocalPair.start({
      ...{ spec, boot, forwards: [], gateway: false, clock: systemClock, qemuPath, signal: interrupt.signal },
    });
    started.catch(() => undefined);
    await until('QEMU is waited for', () => processesOf(runDirectory(spec.vm)).length > 0);
    interrupt.abort(new Error('given up by the test'));
    await assert.rejects(started, /given up by the test/);
    await until('every process ended', () => processesOf(runDirectory(spec.vm)).length === 0);
    assert.equal(existsSync(runDirectory(spec.vm)), false);
  } finally {
    interrupt.abort();
    rmSync(folder, { recursive: true });
  }
});
