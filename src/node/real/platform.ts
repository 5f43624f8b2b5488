// The real things a node stands on: QEMU, Unix sockets, liblz4. Nothing is decided here.

import { randomUUID } from 'node:crypto';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { ColoError, errorCodes } from '../../base/errors.ts';
import { type Identity, identitySource, readIdentity } from '../../base/identity.ts';
import { Tally } from '../../base/tally.ts';
import { connect, type Hello, type Link } from '../../channel/link.ts';
import { LinkServer } from '../../channel/link-server.ts';
import { openCompressor } from '../../checkpoint/compress.ts';
import { SpillFile } from '../../checkpoint/spill.ts';
import { refuseOwner } from '../../disk/recovery.ts';
import { Replica } from '../../disk/replica.ts';
import { overlayPath, replicaPath } from '../../disk/replica-files.ts';
import { connectForFrames, type Uplink } from '../../netdev/endpoint.ts';
import type { FrameHandlers } from '../../netdev/frame-socket.ts';
import { TapUplink } from '../../netdev/tap.ts';
import { ramHash } from '../../qemu/hash.ts';
import { type DiskFiles, vmFiles } from '../../qemu/machine.ts';
import { Vm } from '../../qemu/vm.ts';
import { type Peer, recordName } from '../config.ts';
import type { NodeContext } from '../context.ts';
import type { FaultPoint, Strike } from '../fault-points.ts';
import { linkTimeoutMs, sessionsGatheringMax } from '../limits.ts';
import type { GuestCard, PeerLinks, Platform } from '../platform.ts';
import { Cards, Uplinks } from './cards.ts';
import { QemuDisks } from './disks.ts';
import { hashFile } from './hash-file.ts';
import { LastingUplink } from './lasting-uplink.ts';
import { Nic } from './nic.ts';
import { variablesPath } from './variables.ts';

/** The platform of one node; `context` is complete when the first of these is called. */
export function realPlatform(context: () => NodeContext): Platform {
  let running: { vm: Vm; disks: DiskFiles[] } | undefined;
  return {
    connectUplink: (handlers) => openUplinks(context(), handlers),
    listenCard: () => listenCards(filesOf(context()).nicPaths),
    startVm: async (options) => {
      const disks = diskFiles(context(), options);
      const vm = await startVm(context(), options.vmstateTemplate, disks);
      running = { vm, disks };
      return vm;
    },
    diskSource: () => {
      if (running === undefined) throw new Error('bug: a disk source without a VM');
      return new QemuDisks(running.vm, { runDir: context().config.runDir, disks: running.disks });
    },
    openReplica: (options) =>
      Replica.begin({ folder: replicaFolder(context()), vm: recordName(context().config), ...options }),
    hashFile,
    openLinks: (peer, term, signal) => openPairLinks(context(), peer, term, signal),
    acceptLinks: (options) => acceptPairLinks(context(), options),
    compressor: () => openCompressor({ fellBack: (text) => context().log.warn(text) }),
    openSpill: () => SpillFile.open(context().config.spillDir),
    hashRam: ramHash,
    turn: () => new Promise((resolve) => setImmediate(resolve)),
    reached: (point, epoch) => strike(context().config.armedBy, point, epoch),
  };
}

function strike(armedBy: string | undefined, point: FaultPoint, epoch: number): void {
  if (armedBy === undefined || !existsSync(armedBy)) return;
  const wanted = readStrike(armedBy);
  if (wanted?.point !== point || epoch < wanted.epoch) return;
  // Once: who goes on from here reaches it again.
  rmSync(armedBy, { force: true });
  // QEMU goes with us when we die (native/preload.c).
  process.kill(process.pid, wanted.hold ? 'SIGSTOP' : 'SIGKILL');
}

/** Undefined when it was taken away meanwhile. */
function readStrike(path: string): Strike | undefined {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Strike;
  } catch {
    return undefined;
  }
}

async function openUplinks({ config, log }: NodeContext, handlers: FrameHandlers): Promise<Uplink> {
  const configs = [config.uplink, ...(config.cards ?? []).map((card) => card.uplink)];
  const openOne = async (index: number, own: FrameHandlers): Promise<Uplink> => {
    const uplink = configs[index] ?? config.uplink;
    if (uplink.kind === 'switch') return connectForFrames(uplink.path, own);
    const tap = await TapUplink.open({ name: uplink.name, bridge: uplink.bridge, log }, own);
    refuseSmaller(tap, uplink.bridge, config.machine.nics[index]?.mtu ?? usualMtu);
    return tap;
  };
  const open = (index: number, own: FrameHandlers) => LastingUplink.open((each) => openOne(index, each), own);
  return configs.length === 1 ? open(0, handlers) : Uplinks.open(configs.length, handlers, open);
}

/** What a guest that is told nothing takes. */
const usualMtu = 1500;

/** A frame that the bridge does not carry would be lost without a word. */
function refuseSmaller(tap: TapUplink, bridge: string, guestMtu: number): void {
  if (tap.mtu >= guestMtu) return;
  tap.close();
  throw new ColoError(errorCodes.host, `the bridge ${bridge} carries ${tap.mtu} bytes, the guest sends ${guestMtu}`, {
    hint: `set the MTU of the guest's card in the spec to ${tap.mtu} or less, the same for every host`,
  });
}

async function listenCards(paths: readonly string[]): Promise<GuestCard> {
  const nics: Nic[] = [];
  try {
    for (const path of paths) nics.push(await Nic.listen(path));
  } catch (error) {
    for (const nic of nics) await nic.close();
    throw error;
  }
  const [only] = nics;
  return only !== undefined && nics.length === 1 ? only : new Cards(nics);
}

function filesOf(context: NodeContext) {
  return vmFiles(context.config.runDir, context.config.machine.nics.length);
}

function replicaFolder(context: NodeContext): string {
  const { replicaDir } = context.config;
  if (replicaDir !== undefined) return replicaDir;
  throw new ColoError(errorCodes.input, 'this node has no folder for a replica of the disks', {
    hint: 'name one in the spec file: replicaFolder: /var/lib/colo/NAME',
  });
}

/** The images of the VM's first node, or overlays over the replica. */
function diskFiles(context: NodeContext, options: { vmstateTemplate?: Uint8Array; overlays?: number }): DiskFiles[] {
  if (options.vmstateTemplate === undefined) {
    // An image that a survivor has left behind must never run again by itself.
    if (context.config.replicaDir !== undefined)
      refuseOwner(context.config.replicaDir, undefined, context.config.disks);
    return (context.config.disks ?? []).map(({ path, format }) => ({ kind: 'image', path, format }));
  }
  return Array.from({ length: options.overlays ?? 0 }, (_, disk) => {
    const folder = replicaFolder(context);
    return { kind: 'overlay', overlayPath: overlayPath(folder, disk), replicaPath: replicaPath(folder, disk) };
  });
}

function startVm(context: NodeContext, vmstateTemplate: Uint8Array | undefined, disks: DiskFiles[]): Promise<Vm> {
  const { config, log, clock } = context;
  const { firmware } = config.machine;
  const place = { runDir: config.runDir, disks, named: config.variables, isSecondary: vmstateTemplate !== undefined };
  const variables = firmware === undefined ? {} : { variablesPath: variablesPath(place) };
  return Vm.start({
    spec: config.machine,
    files: { ...filesOf(context), disks, ...variables },
    paused: true,
    tracker: config.protect.tracker,
    log,
    clock,
    ...(vmstateTemplate === undefined ? {} : { vmstateTemplate }),
    ...(config.qemuPath === undefined ? {} : { qemuPath: config.qemuPath }),
  });
}

/** This node's certificates, read anew each time: a renewed one counts from the next connection on. */
function identityOf(context: NodeContext): { identity?: Identity } {
  const { identityFolder } = context.config;
  return identityFolder === undefined ? {} : { identity: readIdentity(identityFolder) };
}

const linkKinds = ['beat', 'packet', 'bulk'] as const;

/** Opens the three links to the peer, or none. */
async function openPairLinks(context: NodeContext, peer: Peer, term: number, signal: AbortSignal): Promise<PeerLinks> {
  const session = randomUUID();
  const { node } = context.config;
  const vm = recordName(context.config);
  const open: Partial<Record<'beat' | 'packet' | 'bulk', Link>> = {};
  try {
    for (const kind of linkKinds) {
      const hello: Hello = { vm, node, kind, term, session };
      open[kind] = await connect(peer.address, hello, {
        ...{ timeoutMs: linkTimeoutMs, signal, peerNode: peer.node },
        ...identityOf(context),
      });
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
async function acceptPairLinks(
  context: NodeContext,
  options: { busy: () => string | undefined; paired: (links: PeerLinks) => void },
): Promise<{ close: () => Promise<void> }> {
  const { node, identityFolder } = context.config;
  const vm = recordName(context.config);
  const gathering: Gathering = new Map();
  const tally = new Tally(context.clock, (kind, count, newest) => {
    context.log.warn({ kind, count, reason: newest }, 'connections were refused');
  });
  const server = await LinkServer.listen(context.config.listen, {
    handshakeTimeoutMs: linkTimeoutMs,
    ...(identityFolder === undefined ? {} : { identity: identitySource(identityFolder) }),
    accept: (peer) => (peer.vm === vm ? options.busy() : `this node protects ${vm}, not ${peer.vm}`),
    local: (peer) => ({ ...peer, node }),
    link: (link) => {
      const { session, kind } = link.peer;
      const links = gathering.get(session) ?? {};
      links[kind] = link;
      gathering.set(session, links);
      const { beat, packet, bulk } = links;
      if (gathering.size > sessionsGatheringMax) dropOldest(gathering);
      context.clock.after(linkTimeoutMs, () => dropSession(gathering, session));
      if (beat === undefined || packet === undefined || bulk === undefined) return;
      gathering.delete(session);
      options.paired({ beat, packet, bulk });
    },
    refused: (kind, text) => tally.note(kind, text),
  });
  return {
    close: async () => {
      tally.close();
      await server.close();
    },
  };
}

type Gathering = Map<string, Partial<Record<'beat' | 'packet' | 'bulk', Link>>>;

function dropOldest(gathering: Gathering): void {
  const [oldest] = gathering.keys();
  if (oldest !== undefined) dropSession(gathering, oldest);
}

/** One whose links have not all come, or nothing: it has been handed over. */
function dropSession(gathering: Gathering, session: string): void {
  for (const link of Object.values(gathering.get(session) ?? {})) link.destroy();
  gathering.delete(session);
}
