// QEMU's frame sockets: frames stay whole and in order however the stream is cut, drained, full, or stopped in the
// middle.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { connectForFrames, listenForFrames } from './endpoint.ts';
import { FrameParser } from './frame-parser.ts';
import { FrameSocket } from './frame-socket.ts';
import { frameBytesMax } from './limits.ts';

function encode(frames: Uint8Array[]): Buffer {
  return Buffer.concat(
    frames.flatMap((frame) => {
      const head = Buffer.alloc(4);
      head.writeUInt32BE(frame.length);
      return [head, frame];
    }),
  );
}

test('frames come out whole and in order, wherever the stream is cut', () => {
  const frames = fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 20 });
  const cuts = fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 20 });
  fc.assert(
    fc.property(frames, cuts, (sent, lengths) => {
      const parser = new FrameParser();
      const got: Uint8Array[] = [];
      const bytes = encode(sent);
      for (let at = 0, turn = 0; at < bytes.length; turn += 1) {
        const length = lengths[turn % lengths.length] ?? 1;
        assert.equal(
          parser.push(bytes.subarray(at, at + length), (frame) => got.push(Uint8Array.from(frame))),
          true,
        );
        at += length;
      }
      assert.deepEqual(got, sent);
      assert.equal(parser.aligned, true);
    }),
  );
});

test('a length beyond the limit ends the stream', () => {
  const head = Buffer.alloc(4);
  head.writeUInt32BE(frameBytesMax + 1);
  assert.equal(
    new FrameParser().push(head, () => assert.fail('no frame')),
    false,
  );
});

/**
 * A sender and the receiver that it reached, over a Unix socket; `got` has the first byte of each frame that was
 * received.
 */
async function withSockets(
  options: { maySend?: () => boolean; paused?: boolean },
  run: (ends: { sender: FrameSocket; receiver: FrameSocket; socket: Socket; got: number[] }) => Promise<void>,
): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'colo-netdev-'));
  const path = join(directory, 'nic.sock');
  const got: number[] = [];
  const accepted = Promise.withResolvers<{ receiver: FrameSocket; socket: Socket }>();
  const server = await listenForFrames(path, (socket) => {
    const handlers = { frame: (frame: Uint8Array) => void got.push(frame[0] ?? 0), closed: () => undefined };
    const receiver = new FrameSocket(socket, handlers);
    if (options.paused === true) receiver.pause();
    accepted.resolve({ receiver, socket });
  });
  try {
    const { maySend } = options;
    const handlers = { frame: () => undefined, closed: () => undefined, ...(maySend === undefined ? {} : { maySend }) };
    const sender = await connectForFrames(path, handlers);
    const { receiver, socket } = await accepted.promise;
    await run({ sender, receiver, socket, got });
    sender.close();
    receiver.close();
  } finally {
    server.close();
    rmSync(directory, { recursive: true });
  }
}

const settled = () => new Promise((resolve) => setImmediate(resolve));

test('drain takes what is in the socket at once, before the event loop does, and keeps the order', async () => {
  await withSockets({}, async ({ sender, receiver, got }) => {
    for (let index = 0; index < 100; index += 1) sender.send(Uint8Array.of(index));
    sender.flush();
    // The write above is done when flush returns; nothing has been read, since no event was handled in between.
    receiver.drain();
    assert.deepEqual(
      got,
      Array.from({ length: 100 }, (_, index) => index),
    );
  });
});

test('drain keeps the order of a paused socket, of which some bytes have been read already', async () => {
  await withSockets({}, async ({ sender, receiver, socket, got }) => {
    receiver.pause();
    // The first pieces go to Node's own buffer, until it has enough; the rest stays in the kernel.
    for (let index = 0; index < 60; index += 1) {
      sender.send(Buffer.alloc(1000, index));
      sender.flush();
      if (index < 20) await settled();
    }
    const taken = socket.readableLength;
    receiver.drain();
    assert.ok(taken > 0, 'Node has read something');
    assert.deepEqual(
      got,
      Array.from({ length: 60 }, (_, index) => index),
    );
  });
});

test('what waits to be written is asked for once more: a process that was stopped meanwhile may not speak any longer', async () => {
  let may = true;
  await withSockets({ maySend: () => may }, async ({ sender, receiver, got }) => {
    sender.send(Uint8Array.of(1));
    await settled();
    // Released, but not yet written when the right to speak ends: it never leaves, not even when that right comes back.
    sender.send(Uint8Array.of(2));
    may = false;
    await settled();
    may = true;
    sender.send(Uint8Array.of(3));
    await settled();
    while (got.length < 2) {
      receiver.drain();
      await settled();
    }
    assert.deepEqual(got, [1, 3]);
    assert.equal(sender.counters.withheld, 1);
    // More than the kernel takes at once goes out piece by piece, each asked for, and in order.
    const many = 400;
    for (let index = 0; index < many; index += 1) {
      sender.send(Buffer.alloc(4000, index % 251));
      if (index % 40 === 39) await settled();
    }
    while (got.length < 2 + many) {
      receiver.drain();
      await settled();
    }
    assert.deepEqual(
      got.slice(2),
      Array.from({ length: many }, (_, index) => index % 251),
    );
  });
});

test('a full socket holds whole frames: when the right to speak ends, not even the rest of one follows', async () => {
  let may = true;
  await withSockets({ maySend: () => may, paused: true }, async ({ sender, receiver, got }) => {
    // Far more than the kernel takes of a peer that does not read, in frames of every length.
    for (let index = 0; index < 2000; index += 1) {
      sender.send(Buffer.alloc(60 + ((index * 37) % 1455), index % 251));
      if (index % 10 === 0) await settled();
    }
    may = false;
    receiver.drain();
    const held = got.length;
    assert.ok(held > 0 && held < 2000);
    // What was written is told from what waits, and what waits is lost with the right to speak.
    assert.deepEqual(sender.progress, { taken: 2000, settled: held, lost: 0 });
    assert.deepEqual(
      sender.unwritten().map(([first]) => first),
      Array.from({ length: 2000 - held }, (_, index) => (held + index) % 251),
    );
    while (sender.counters.withheld === 0) await settled();
    assert.deepEqual(sender.progress, { taken: 2000, settled: 2000, lost: 2000 - held });
    assert.equal(sender.unwritten().length, 0);
    may = true;
    sender.send(Uint8Array.of(255));
    while (got.at(-1) !== 255) {
      await settled();
      receiver.drain();
    }
    assert.deepEqual(got, [...Array.from({ length: held }, (_, index) => index % 251), 255]);
  });
});
