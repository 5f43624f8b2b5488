// A call that is wrong ends with exit code 2 and says in one line what is wrong with it; nothing is started.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

const program = join(import.meta.dirname, 'main.ts');

const wrong: [call: string, says: RegExp][] = [
  ['demo --fault nope', /'nope' is invalid.*primary-kill/],
  ['demo --failovers 2 --fault none', /--failovers/],
  ['demo --report /nowhere/report.json', /cannot write the report/],
  ['run /nowhere/spec.yaml', /cannot read \/nowhere\/spec\.yaml/],
  ['status no-such-vm', /no VM named no-such-vm runs/],
  ['check everything', /there is no check everything/],
  ['test unit --file no-such-file', /no file of unit has no-such-file/],
  ['bench nothing', /there is no benchmark nothing/],
  ['bench memory --pages 1000', /--pages is for the benchmark checkpoint/],
  ['bench memory --accel kvm', /--accel is for the benchmark checkpoint/],
  ['bench checkpoint --accel xen', /Allowed choices are tcg, kvm/],
  ['bench checkpoint --pages some', /'some' is invalid/],
  ['join /nowhere node', /\/nowhere holds no authority/],
  ['init /dev/null/ca', /the authority cannot be kept in \/dev\/null\/ca/],
  ['init /proc/x', /the authority cannot be kept in \/proc\/x/],
  ['token /nowhere/tokens anna', /the token cannot be written to \/nowhere\/tokens/],
  ['logs vm --lines some', /'some' is invalid/],
  ['frobnicate', /unknown command/],
];

for (const [call, says] of wrong)
  test(`colo ${call}: exit code 2, and one line that says why`, () => {
    const result = spawnSync(process.execPath, [program, ...call.split(' ')], { encoding: 'utf8' });
    const [line = ''] = result.stderr.split('\n');
    assert.match(line, says);
    assert.equal(result.status, 2, result.stderr);
    assert.equal(result.stdout, '');
  });

test('colo run with a port that is in use: exit code 2, and one line that names it', async (context) => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  context.after(() => new Promise((resolve) => server.close(resolve)));
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const folder = mkdtempSync(join(tmpdir(), 'colo-main-test-'));
  context.after(() => rmSync(folder, { recursive: true }));
  const spec = join(folder, 'spec.yaml');
  writeFileSync(
    spec,
    `vm: busy\nboot: {guest: demo}\nnetwork: {forwards: [{protocol: tcp, host: ${port}, guest: 80}]}\n`,
  );
  const result = spawnSync(process.execPath, [program, 'run', spec], { encoding: 'utf8' });
  assert.equal(result.status, 2, result.stderr);
  assert.equal(result.stdout, '');
  const [line, hint, ...more] = result.stderr.trimEnd().split('\n');
  assert.equal(line, `colo: tcp port ${port} of 127.0.0.1 is in use`);
  assert.match(hint ?? '', /choose another host port/);
  assert.deepEqual(more, []);
});

test('every command takes --json; colod, whose lines are JSON anyway, does not', () => {
  const help = (...call: string[]) => spawnSync(process.execPath, [program, ...call, '--help'], { encoding: 'utf8' });
  const commands = [...help().stdout.matchAll(/^ {2}([a-z]+) /gm)].map(([, name = '']) => name);
  assert.ok(commands.length > 15, commands.join(', '));
  const without = commands.filter((name) => name !== 'help' && !help(name).stdout.includes('--json'));
  assert.deepEqual(without, ['colod']);
});
