// The table of connections: it travels whole, ended connections go, and it never outgrows its bound.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FlowKey, family, portsOf } from '../packet/flow-key.ts';
import { FrameView } from '../packet/frame-view.ts';
import { ipProtocol } from '../packet/ipv4.ts';
import { tcpFlag } from '../packet/tcp.ts';
import { ConnectionTable } from './connection.ts';
import { proxyLimits } from './limits.ts';
import { fromGuest, synOptionBytes, toGuest } from './testbed.ts';

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
  for (let port = 1; port <= 200; port += 1) table.add(key(port));
  const connection = table.add(syn.key);
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
  table.add(key(1));
  const encoded = table.encode();
  assert.equal(newTable().isTable(encoded), true);
  assert.equal(newTable().isTable(encoded.subarray(1)), false);
  assert.equal(newTable().adopt(encoded.subarray(1), 0), false);
  assert.equal(newTable().adopt(encoded.subarray(0, encoded.length - 1), 0), false);
  encoded[8] = 9;
  assert.equal(newTable().adopt(encoded, 0), false);
});

test('an ended connection lingers and goes; an idle one stays; a forged reset ends nothing', () => {
  const table = newTable();
  const idle = table.add(key(1));
  const ended = table.add(key(2));
  const forged = table.add(key(3));
  assert.ok(idle !== undefined && ended !== undefined && forged !== undefined);
  const fin = new FrameView().parse(fromGuest({ sequence: 1, ack: 1, flags: tcpFlag.fin }));
  table.noteGuestFrame(ended, fin, 0);
  table.noteClientFrame(ended, fin, 0);
  table.noteClientFrame(forged, new FrameView().parse(toGuest({ sequence: 1, flags: tcpFlag.rst })), 0);
  table.noteClientFrame(forged, new FrameView().parse(toGuest({ sequence: 1, ack: 1, flags: 0 })), 1);
  table.expire(proxyLimits.lingerMs - 1);
  assert.equal(table.size, 3);
  table.expire(proxyLimits.lingerMs + 1);
  assert.deepEqual([table.find(key(1)), table.find(key(2)), table.find(key(3))], [idle, undefined, forged]);
});

test('a reset or FIN that the guest does not take ends nothing, however long the client says nothing then', () => {
  const table = newTable();
  const view = new FrameView();
  const begin = (port: number) => {
    const connection = table.add(key(port));
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
  const silent = table.add(key(30));
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
    const connection = table.add(opening.key);
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
    const connection = table.add(key(port));
    assert.ok(connection !== undefined);
    if (port === 1) connection.delta = 5;
    if (port === 2) connection.attachment = { isBusy: true };
  }
  const busy = table.add(key(4));
  assert.ok(busy !== undefined);
  busy.attachment = { isBusy: true };
  assert.equal(table.find(key(3)), undefined);
  assert.equal(table.add(key(5)), undefined);
  assert.equal(table.size, 3);
  assert.equal(table.evicted, 2);
});

test('a table that is full of IPv4 connections fits into a checkpoint', () => {
  const table = newTable();
  const one = key(1);
  for (let at = 0; at < proxyLimits.connectionsMax; at += 1) {
    one.ports = at;
    table.add(one);
  }
  assert.equal(table.size, proxyLimits.connectionsMax);
  assert.ok(table.encode().length <= proxyLimits.tableBytesMax);
});
