// The table of connections: it travels whole, ended connections go, and it never outgrows its bound.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FlowKey, family, portsOf } from '../../packet/flow-key.ts';
import { FrameView } from '../../packet/frame-view.ts';
import { ipProtocol } from '../../packet/ipv4.ts';
import { tcpFlag } from '../../packet/tcp.ts';
import { proxyLimits } from '../limits.ts';
import { fromGuest, synOptionBytes, toGuest } from '../testbed/testbed.ts';
import { ConnectionTable } from './connection-table.ts';

const newTable = (connectionsMax?: number) =>
  new ConnectionTable<{ isBusy: boolean }>(
    () => undefined,
    ({ attachment }) => attachment?.isBusy === true,
    connectionsMax,
  );
const key = (clientPort: number) => {
  const found = new FlowKey();
  found.a0 = 1;
  found.b0 = 2;
  found.ports = portsOf(80, clientPort);
  found.protocol = (family.ipv4 << 16) | ipProtocol.tcp;
  return found;
};
const syn = new FrameView().parse(fromGuest({ sequence: 9, ack: 1, flags: tcpFlag.syn, options: synOptionBytes }));

test('offset, ISN and window shift travel with the table', () => {
  const table = newTable();
  for (let port = 1; port <= 200; port += 1) table.add(key(port), 0);
  const connection = table.add(syn.key, 0);
  assert.ok(connection !== undefined);
  connection.delta = 0xfffffff0;
  connection.clientIsn = 9;
  table.store(connection);
  table.noteGuestFrame(connection, syn, 0);
  const first = table.find(key(1));
  if (first !== undefined) table.forget(first);
  const other = newTable();
  assert.equal(other.adopt(table.encode(), 5), true);
  assert.equal(other.size, 200);
  assert.equal(other.find(key(1)), undefined);
  const found = other.ofGuestFrame(syn);
  assert.deepEqual([found?.delta, found?.clientIsn, found?.windowShift], [0xfffffff0, 9, 7]);
});

test('bytes that are no table are refused', () => {
  const table = newTable();
  table.add(key(1), 0);
  const encoded = table.encode();
  assert.equal(newTable().isTable(encoded), true);
  assert.equal(newTable().isTable(encoded.subarray(1)), false);
  assert.equal(newTable().adopt(encoded.subarray(1), 0), false);
  assert.equal(newTable().adopt(encoded.subarray(0, encoded.length - 1), 0), false);
  encoded[8] = 9;
  assert.equal(newTable().adopt(encoded, 0), false);
});

/** A connection that its client has answered. */
function openOne(table: ReturnType<typeof newTable>, port: number, now = 0) {
  const connection = table.add(key(port), now);
  assert.ok(connection !== undefined);
  table.noteGuestFrame(connection, syn, now);
  connection.clientIsn = 9;
  table.noteClientFrame(connection, new FrameView().parse(toGuest({ sequence: 1, ack: 10, flags: 0 })), now);
  return connection;
}

const fin = new FrameView().parse(fromGuest({ sequence: 10, ack: 1, flags: tcpFlag.fin }));
const week = 7 * 24 * 3_600_000;

test('an ended connection lingers and goes; an idle one stays; a forged reset ends nothing', () => {
  const table = newTable();
  const idle = openOne(table, 1);
  const ended = openOne(table, 2);
  const forged = openOne(table, 3);
  table.noteGuestFrame(ended, fin, 0);
  table.noteClientFrame(ended, fin, 0);
  table.noteClientFrame(forged, new FrameView().parse(toGuest({ sequence: 1, flags: tcpFlag.rst })), 0);
  table.noteClientFrame(forged, new FrameView().parse(toGuest({ sequence: 1, ack: 10, flags: 0 })), 1);
  table.expire(proxyLimits.lingerMs - 1);
  assert.equal(table.size, 3);
  table.expire(proxyLimits.lingerMs + 1);
  table.expire(week);
  assert.deepEqual([table.find(key(1)), table.find(key(2)), table.find(key(3))], [idle, undefined, forged]);
});

test('a call that its client never answers is forgotten when its guest has long given it up, and not while that repeats it', () => {
  const table = newTable();
  const called = table.add(key(1), 0);
  assert.ok(called !== undefined);
  called.clientIsn = 9;
  for (let now = 0; now <= 10 * proxyLimits.openingMs; now += 64_000) {
    table.noteGuestFrame(called, syn, now);
    // Who calls again, and who guesses, is not answered.
    table.noteClientFrame(called, new FrameView().parse(toGuest({ sequence: 1, flags: tcpFlag.syn })), now);
    table.noteClientFrame(called, new FrameView().parse(toGuest({ sequence: 1, ack: 9, flags: 0 })), now);
    table.expire(now);
  }
  assert.equal(table.size, 1);
  table.expire(20 * proxyLimits.openingMs);
  assert.equal(table.size, 0);
});

test('a connection that one end has ended, and of which nothing is heard then, is forgotten after some hours', () => {
  const table = newTable();
  const closing = openOne(table, 1);
  table.noteGuestFrame(closing, fin, 5);
  table.expire(proxyLimits.closingMs);
  assert.equal(table.size, 1);
  table.noteClientFrame(closing, new FrameView().parse(toGuest({ sequence: 1, ack: 11, flags: 0 })), 1_000_000);
  table.expire(proxyLimits.closingMs + 10);
  assert.equal(table.size, 1);
  table.expire(proxyLimits.closingMs + 1_000_001);
  assert.equal(table.size, 0);
});

test('a connection whose beginning nobody saw is an open one as soon as its guest goes on with it', () => {
  const table = newTable();
  const connection = table.add(key(1), 0);
  assert.ok(connection !== undefined);
  table.noteGuestFrame(connection, new FrameView().parse(fromGuest({ sequence: 10, ack: 1, flags: 0 })), 0);
  table.expire(week);
  assert.equal(table.size, 1);
});

test('which phase a connection is in travels with the table', () => {
  const table = newTable();
  openOne(table, 1);
  table.add(key(2), 0);
  table.noteGuestFrame(openOne(table, 3), fin, 0);
  const other = newTable();
  assert.equal(other.adopt(table.encode(), 1000), true);
  other.expire(proxyLimits.openingMs + 1000);
  assert.deepEqual(
    [...other.values()].map(({ key: { clientPort } }) => clientPort),
    [1, 3],
  );
  other.expire(week);
  assert.equal(other.size, 1);
});

test('a connection that is forgotten, begun anew or busy meanwhile is none that has aged', () => {
  const table = newTable();
  const busy = table.add(key(1), 0);
  const anew = table.add(key(2), 0);
  assert.ok(busy !== undefined && anew !== undefined);
  busy.attachment = { isBusy: true };
  table.restart(anew, proxyLimits.openingMs - 1);
  table.expire(proxyLimits.openingMs + 1);
  assert.equal(table.size, 2);
  busy.attachment = undefined;
  table.expire(proxyLimits.openingMs + 2000);
  assert.deepEqual([table.find(key(1)), table.find(key(2))], [undefined, anew]);
  table.expire(3 * proxyLimits.openingMs);
  assert.equal(table.size, 0);
});

test('a flood of calls takes the place of other calls, whatever their offset, and never that of a session', () => {
  const table = newTable(1000);
  const sessions = [openOne(table, 1), openOne(table, 2)];
  for (const session of sessions) session.delta = 12345;
  // As a survivor has them: every call has an offset.
  for (let port = 10; port < 2000; port += 1) {
    const one = table.add(key(port), port);
    assert.ok(one !== undefined);
    one.delta = 12345;
    table.store(one);
  }
  assert.equal(table.size, 1000);
  for (const { key: name } of sessions) assert.ok(table.find(name) !== undefined);
  assert.equal(table.find(key(10)), undefined);
  assert.ok(table.find(key(1999)) !== undefined);
  table.expire(proxyLimits.openingMs + 2000);
  assert.equal(table.size, 2);
});

test('a reset or FIN that the guest does not take ends nothing, however long the client says nothing then', () => {
  const table = newTable();
  const view = new FrameView();
  const begin = (port: number) => {
    const connection = table.add(key(port), 0);
    assert.ok(connection !== undefined);
    connection.delta = 5;
    table.noteGuestFrame(
      connection,
      view.parse(fromGuest({ sequence: 1, ack: 500, window: 1000, flags: tcpFlag.fin })),
      0,
    );
    return connection;
  };
  const says = (port: number, sequence: number, flags: number) =>
    table.noteClientFrame(begin(port), view.parse(toGuest({ sequence, ack: 2, flags })), 0);
  for (const [index, sequence] of [499, 1501, 0x40000000, 0xc0000000].entries()) {
    says(10 + index, sequence, tcpFlag.rst);
    says(20 + index, sequence, tcpFlag.fin);
  }
  const silent = table.add(key(30), 0);
  assert.ok(silent !== undefined);
  silent.delta = 5;
  table.noteClientFrame(silent, view.parse(toGuest({ sequence: 500, flags: tcpFlag.rst })), 0);
  assert.equal(table.size, 9);
  for (const [index, sequence] of [500, 1500].entries()) {
    says(40 + index, sequence, tcpFlag.rst);
    says(50 + index, sequence, tcpFlag.fin);
  }
  table.expire(proxyLimits.lingerMs + 1);
  assert.deepEqual(
    [...table.values()].map(({ key: { clientPort } }) => clientPort).sort((a, b) => a - b),
    [10, 11, 12, 13, 20, 21, 22, 23, 30],
  );
});

test('only who knows the number of the guest can say that windows are not scaled, and that stays said', () => {
  const shiftAfter = (...acks: number[]) => {
    const table = newTable();
    const view = new FrameView();
    const opening = view.parse(fromGuest({ sequence: 9, flags: tcpFlag.syn, options: synOptionBytes }));
    const connection = table.add(opening.key, 0);
    assert.ok(connection !== undefined);
    connection.clientIsn = 9;
    table.noteGuestFrame(connection, opening, 0);
    for (const ack of acks)
      table.noteClientFrame(connection, view.parse(toGuest({ sequence: 5, ack, flags: tcpFlag.syn })), 0);
    // The guest had repeated its SYN before it heard the answer.
    const again = view.parse(fromGuest({ sequence: 9, flags: tcpFlag.syn, options: synOptionBytes }));
    table.noteGuestFrame(connection, again, 0);
    return connection.windowShift;
  };
  assert.equal(shiftAfter(), 7);
  assert.equal(shiftAfter(9, 70_000, 0x40000000), 7);
  assert.equal(shiftAfter(10), 0);
});

test('at the bound a connection is forgotten that needs no translation and has no work, or the new one is refused', () => {
  const table = newTable(3);
  for (const port of [1, 2, 3]) {
    const connection = openOne(table, port);
    if (port === 1) connection.delta = 5;
    if (port === 2) connection.attachment = { isBusy: true };
  }
  const busy = table.add(key(4), 0);
  assert.ok(busy !== undefined);
  busy.attachment = { isBusy: true };
  assert.equal(table.find(key(3)), undefined);
  assert.equal(table.add(key(5), 0), undefined);
  assert.equal(table.size, 3);
  assert.equal(table.evicted, 2);
});

test('a table that is full of IPv4 connections fits into a checkpoint', () => {
  const table = newTable();
  const one = key(1);
  for (let at = 0; at < proxyLimits.connectionsMax; at += 1) {
    one.ports = at;
    table.add(one, 0);
  }
  assert.equal(table.size, proxyLimits.connectionsMax);
  assert.ok(table.encode().length <= proxyLimits.tableBytesMax);
});
