// The three links of one pairing, opened by the primary and accepted by the secondary. They live and die together: when
// one is lost all are closed and the owner is told once.

import { randomUUID } from 'node:crypto';
import { ColoError, errorCodes } from '../base/errors.ts';
import { type Address, connect, type Hello, type Link, type LinkKind, LinkServer } from '../channel/link.ts';
import type { NodeContext } from './context.ts';

export type LinkMessageHandler = (kind: LinkKind, type: number, payload: Uint8Array) => void;

export class PairLinks {
  readonly beat: Link;
  readonly packet: Link;
  readonly bulk: Link;
  private readonly onLost: (why: string) => void;
  private over = false;

  constructor(links: Record<LinkKind, Link>, on: { message: LinkMessageHandler; lost: (why: string) => void }) {
    this.beat = links.beat;
    this.packet = links.packet;
    this.bulk = links.bulk;
    this.onLost = on.lost;
    for (const kind of ['beat', 'packet', 'bulk'] as const)
      links[kind].start({
        message: (type, payload) => {
          if (!this.over) this.deliver(on.message, kind, type, payload);
        },
        closed: (error) => this.lose(error?.message ?? `the ${kind} link was closed by the peer`),
      });
  }

  get open(): boolean {
    return !this.over;
  }

  /** Sends what is queued, says goodbye; the owner is not told. */
  close(): void {
    this.over = true;
    for (const link of [this.packet, this.bulk, this.beat]) link.close();
  }

  private deliver(handler: LinkMessageHandler, kind: LinkKind, type: number, payload: Uint8Array): void {
    try {
      handler(kind, type, payload);
    } catch (error) {
      if (!(error instanceof ColoError)) throw error;
      this.lose(`the peer sent something that is not ours: ${error.message}`);
    }
  }

  private lose(why: string): void {
    if (this.over) return;
    this.over = true;
    for (const link of [this.beat, this.packet, this.bulk]) link.destroy();
    this.onLost(why);
  }
}

const connectTimeoutMs = 2000;
const linkKinds = ['beat', 'packet', 'bulk'] as const;

/** Opens the three links to the peer, or none. */
export async function openPairLinks(
  context: NodeContext,
  address: Address,
  term: number,
  signal: AbortSignal,
): Promise<Record<LinkKind, Link>> {
  const session = randomUUID();
  const { vm, node } = context.config;
  const open: Partial<Record<LinkKind, Link>> = {};
  try {
    for (const kind of linkKinds) {
      const hello: Hello = { vm, node, kind, term, session };
      open[kind] = await connect(address, hello, { timeoutMs: connectTimeoutMs, signal });
    }
  } catch (error) {
    for (const link of Object.values(open)) link.destroy();
    throw error;
  }
  const { beat, packet, bulk } = open;
  if (beat === undefined || packet === undefined || bulk === undefined)
    throw new ColoError(errorCodes.channel, 'not every link to the peer was opened');
  return { beat, packet, bulk };
}

/** Accepts pairings, one at a time: gathers the three links of a session and hands them over together. */
export async function acceptPairLinks(
  context: NodeContext,
  options: { busy: () => string | undefined; paired: (links: Record<LinkKind, Link>, peer: Hello) => void },
): Promise<LinkServer> {
  const { vm, node } = context.config;
  const gathering = new Map<string, Partial<Record<LinkKind, Link>>>();
  return LinkServer.listen(context.config.listen, {
    handshakeTimeoutMs: connectTimeoutMs,
    accept: (peer) => (peer.vm === vm ? options.busy() : `this node protects ${vm}, not ${peer.vm}`),
    local: (peer) => ({ ...peer, node }),
    link: (link) => {
      const { session, kind } = link.peer;
      const links = gathering.get(session) ?? {};
      links[kind] = link;
      gathering.set(session, links);
      const { beat, packet, bulk } = links;
      if (gathering.size > sessionsGatheringMax) dropOldest(gathering);
      if (beat === undefined || packet === undefined || bulk === undefined) return;
      gathering.delete(session);
      options.paired({ beat, packet, bulk }, link.peer);
    },
    refused: (error) => context.log.warn({ reason: error.message }, 'a connection was refused'),
  });
}

const sessionsGatheringMax = 4;

function dropOldest(gathering: Map<string, Partial<Record<LinkKind, Link>>>): void {
  for (const [session, links] of gathering) {
    for (const link of Object.values(links)) link.destroy();
    gathering.delete(session);
    return;
  }
}
