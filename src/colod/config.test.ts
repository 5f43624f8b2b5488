// What an operator may write into a node's configuration, and what is said when it is wrong.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { parse } from 'yaml';
import { ColoError, errorCodes } from '../base/errors.ts';
import { checkServiceConfig, readServiceConfig, serviceSchema } from './config.ts';

const example = join(import.meta.dirname, '../../deploy/colod.yaml');

function refusal(text: string): string {
  try {
    checkServiceConfig(parse(text), 'colod.yaml');
  } catch (error) {
    assert.ok(error instanceof ColoError);
    assert.equal(error.code, errorCodes.input);
    return error.message;
  }
  return assert.fail(`accepted: ${text}`);
}

test('the example is accepted, and names every key', () => {
  const text = readFileSync(example, 'utf8');
  checkServiceConfig(parse(text), 'the example');
  for (const key of Object.keys(serviceSchema.shape)) assert.match(text, new RegExp(`^(# )?${key}:`, 'm'), key);
});

test('every mistake is one line that names the key', () => {
  const lines = refusal('node: h 1\naddress: here\ncertificates: node\narbiter: {}\nbridge: a/b\nextra: 1\n').split(
    '\n',
  );
  assert.equal(lines.length, 6);
  for (const key of ['node: ', 'address: ', 'certificates: ', 'arbiter: ', 'bridge: ', '"extra"'])
    assert.equal(lines.filter((line) => line.includes(key)).length, 1, key);
  const rest = 'node: h1\naddress: 10.0.0.1\ncertificates: /a\narbiter: {etcd: ["https://h:2379"]}\n';
  assert.match(refusal(`${rest}linkPorts: {from: 7900, to: 7800}`), /linkPorts.*at least "from"/);
  assert.match(refusal(rest.replace('https://h:2379', 'h:2379')), /arbiter.etcd.0: a client URL/);
});

test('a file that is not there is one line', async () => {
  await assert.rejects(readServiceConfig('/nonexistent/colod.yaml'), (error: unknown) => {
    return error instanceof ColoError && error.code === errorCodes.input && !error.message.includes('\n');
  });
});
