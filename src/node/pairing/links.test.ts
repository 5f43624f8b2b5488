// What a peer says last is heard, whichever of its links ends first and whatever this node was doing meanwhile.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { handClock } from '../../base/hand-clock.ts';
import { closeTimeoutMs } from '../../channel/limits.ts';
import type { LinkHandlers, LinkKind } from '../../channel/link.ts';
import type { PeerLink } from '../platform.ts';
import { PairLinks } from './links.ts';
import { messages } from './message.ts';

/** A link whose other end is the test. */
function linkOf(kind: LinkKind): PeerLink & { say(type: number): void; bye(): void } {
  let handlers: LinkHandlers | undefined;
  return {
    peer: { vm: 'vm', node: 'a', kind, term: 1, session: '' },
    ...{ ended: false, endedByPeer: true, farewell: '', ends: { local: '', remote: '' } },
    send: () => undefined,
    start: (given) => void (handlers = given),
    drain: async () => undefined,
    close: () => undefined,
    destroy: () => undefined,
    say: (type) => handlers?.message(type, Buffer.alloc(0)),
    bye: () => handlers?.closed(undefined),
  };
}

function pair() {
  const clock = handClock();
  const links = { beat: linkOf('beat'), packet: linkOf('packet'), bulk: linkOf('bulk') };
  const heard: string[] = [];
  new PairLinks(links, clock).start({
    message: (kind, type) => void heard.push(`${kind} ${type}`),
    lost: () => void heard.push('lost'),
  });
  return { clock, links, heard };
}

test('a goodbye that comes first on another link hides no last words, however long this node stood still then', () => {
  for (const stoodStillMs of [0, 20 * closeTimeoutMs]) {
    const { clock, links, heard } = pair();
    links.beat.bye();
    clock.move(stoodStillMs);
    links.packet.say(messages.end);
    links.packet.bye();
    assert.deepEqual(heard, [`packet ${messages.end}`, 'lost'], `after ${stoodStillMs} ms`);
  }
});

test('a peer that says goodbye and no more is gone after a while', () => {
  const { clock, links, heard } = pair();
  links.bulk.bye();
  for (let ms = 0; ms < 2 * closeTimeoutMs; ms += 50) clock.move(50);
  assert.deepEqual(heard, ['lost']);
});
