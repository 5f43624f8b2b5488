// The two orders in which events reach a state machine, and that one event is done before the next begins.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLog } from '../base/log.ts';
import { Driver } from './driver.ts';

interface Event {
  kind: 'add' | 'fail';
  name: string;
  why?: string;
}

/** A machine whose state is the last event, and which asks for one action per event. */
function open(perform: (action: string, driver: Driver<Event, string>) => void = () => undefined) {
  const done: string[] = [];
  const lines: unknown[] = [];
  const machine = {
    state: { kind: 'none' },
    on: (event: Event) => {
      if (event.kind === 'fail') throw new Error(event.name);
      done.push(`on ${event.name}`);
      machine.state = { kind: event.name };
      return [`do ${event.name}`];
    },
  };
  const driver: Driver<Event, string> = new Driver<Event, string>({
    ...{ machine, name: 'test', log: { ...silentLog, info: (fields: unknown) => void lines.push(fields) } },
    noted: (event, before) => void done.push(`noted ${before} ${event.name}`),
    perform: (action) => {
      done.push(action);
      perform(action, driver);
    },
  });
  return { driver, done, lines };
}

const add = (name: string): Event => ({ kind: 'add', name });

test('an event that is posted for later is handled when the callback that brought it has returned', async () => {
  const { driver, done } = open();
  driver.postLater(add('a'));
  driver.postLater(add('b'));
  assert.deepEqual(done, []);
  await Promise.resolve();
  assert.deepEqual(done, ['on a', 'noted none a', 'do a', 'on b', 'noted a b', 'do b']);
});

test('an event that is posted for now is done when the call returns, and does not overtake a queue that waits', async () => {
  const { driver, done } = open();
  driver.postNow(add('a'));
  assert.deepEqual(done, ['on a', 'noted none a', 'do a']);
  driver.postLater(add('b'));
  driver.postNow(add('c'));
  assert.equal(done.length, 3);
  await Promise.resolve();
  assert.deepEqual(done.slice(3), ['on b', 'noted a b', 'do b', 'on c', 'noted b c', 'do c']);
});

test('an event that an action posts waits until that action and those beside it are performed', () => {
  const { driver, done } = open((action, self) => {
    if (action === 'do a') self.postNow(add('b'));
    done.push('performed');
  });
  driver.postNow(add('a'));
  assert.deepEqual(done.slice(0, 5), ['on a', 'noted none a', 'do a', 'performed', 'on b']);
});

test('a machine that throws does not keep the driver from the next event', () => {
  const { driver, done } = open();
  assert.throws(() => driver.postNow({ kind: 'fail', name: 'bug' }), /bug/);
  driver.postNow(add('a'));
  assert.deepEqual(done, ['on a', 'noted none a', 'do a']);
});

test('a move is logged with its event and reason, and an event that moves nothing is not', () => {
  const { driver, lines } = open();
  driver.postNow({ ...add('a'), why: 'wanted' });
  driver.postNow(add('a'));
  assert.deepEqual(lines, [{ from: 'none', to: 'a', on: 'add', why: 'wanted' }]);
});
