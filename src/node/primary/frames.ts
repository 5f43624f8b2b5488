// The ways of frames through a primary. What decides is the proxy; here are its sockets, the right to speak that is
// asked before anything is handed to it, and the recording.
//
//   network ──► ingress (waits while a capture begins) ──► proxy ──► nic ──► PVM
//                                                            └─ mirror ──► packet link
//   network ◄── uplink ◄── proxy ◄── lease asked ◄── nic ◄── PVM
//                            ▲
//                            └── answers of the SVM ◄── packet link (pairing.ts asks for the lease)

import type { PrimaryPair } from '../../controller/primary-pair.ts';
import type { Uplink } from '../../netdev/endpoint.ts';
import type { GuestAddresses } from '../../proxy/guest-addresses.ts';
import { PrimaryProxy } from '../../proxy/primary.ts';
import type { CheckpointReason } from '../../proxy/reason.ts';
import type { NodeContext } from '../context.ts';
import { encodeNumber, encodeNumbers, messages } from '../pairing/message.ts';
import type { GuestCard } from '../platform.ts';
import { PcapLegs } from '../real/pcap-legs.ts';
import type { Troubles } from '../troubles.ts';
import { AddressNews } from './address-news.ts';
import { Ingress } from './ingress.ts';
import { type GatePairing, SpeechGate } from './speech-gate.ts';

export interface FramesParts {
  context: Pick<NodeContext, 'clock' | 'config' | 'log' | 'wallMs'>;
  nic: GuestCard;
  uplink: Uplink;
  addresses: GuestAddresses;
  troubles: Troubles;
  /** Connections begun before a takeover, from SecondaryProxy. */
  table?: Uint8Array;
  pair: Pick<PrimaryPair, 'state'>;
  /** The secondary of now; undefined without one. */
  pairing: () => GatePairing | undefined;
  /** The proxy asks for a checkpoint. */
  want: (reason: CheckpointReason) => void;
}

export class PrimaryFrames {
  readonly proxy: PrimaryProxy;
  readonly gate: SpeechGate;
  readonly ingress: Ingress;
  /** The guest's addresses, for the secondary. */
  readonly addresses: AddressNews;
  private readonly parts: FramesParts;
  private readonly pcap: PcapLegs | undefined;

  constructor(parts: FramesParts) {
    const { context, pair, pairing, addresses } = parts;
    const { clock, log } = context;
    this.parts = parts;
    this.pcap = openPcap(parts);
    this.proxy = new PrimaryProxy(this.ports(), proxyOptions(parts));
    this.gate = new SpeechGate({ clock, log, pair, pairing, proxy: this.proxy });
    this.ingress = new Ingress((frame, now) => this.toProxy(frame, now));
    this.addresses = new AddressNews({ addresses, say: (...said) => pairing()?.say(...said) });
  }

  /** A frame of the guest. */
  fromGuest(frame: Uint8Array, now: number): void {
    // A node that was stopped wakes with frames of its guest waiting that the SVM has answered long ago.
    this.gate.checkLease(now);
    this.pcap?.write('primary', frame, now);
    this.proxy.fromGuest(frame, now);
  }

  /** A frame of the network. */
  fromNetwork(frame: Uint8Array, now: number): void {
    this.ingress.take(frame, now, this.parts.pairing() !== undefined);
  }

  /** A frame of the SVM, made in `epoch`; whoever brings it has asked for the lease. */
  fromSecondary(epoch: number, id: number, frame: Uint8Array, now: number): void {
    this.pcap?.write('secondary', frame, now);
    this.proxy.fromSecondary(epoch, id, frame, now);
  }

  /** What waited for a capture goes on its way, behind the marker. */
  releaseIngress(): void {
    this.ingress.release(this.parts.context.clock.now(), this.parts.pairing() !== undefined);
  }

  close(): void {
    void this.pcap?.close();
  }

  private toProxy(frame: Uint8Array, now: number): void {
    this.addresses.heard(frame);
    this.proxy.fromNetwork(frame, now);
  }

  private toNetwork(frame: Uint8Array): void {
    const { context, uplink } = this.parts;
    const now = context.clock.now();
    this.pcap?.write('released', frame, now);
    const { lost } = uplink.progress;
    uplink.send(frame);
    // What has not left is no claim: the survivor's guest may never have made it.
    if (uplink.progress.lost === lost) this.addresses.said(frame, now);
  }

  private ports() {
    const { uplink, nic, pairing, want } = this.parts;
    return {
      toNetwork: (frame: Uint8Array) => this.toNetwork(frame),
      toGuest: (frame: Uint8Array) => nic.send(frame),
      mirror: (frame: Uint8Array) => pairing()?.say(messages.ingress, frame),
      announceIsn: (key: Uint8Array, isn: number) => pairing()?.say(messages.isn, encodeNumber(isn), key),
      progress: uplink.progress,
      unwritten: () => uplink.unwritten(),
      confirm: (ids: number[]) => pairing()?.say(messages.confirm, encodeNumbers(ids)),
      tolerate: (patch: Uint8Array) => pairing()?.say(messages.tolerate, patch),
      wantCheckpoint: want,
      pauseGuest: (paused: boolean) => nic.pause(paused),
    };
  }
}

function proxyOptions({ context, table }: FramesParts) {
  const { config, clock, wallMs } = context;
  const { protect } = config;
  return {
    mode: protect.mode === 'remus' ? ('remus' as const) : ('colo' as const),
    compareTimeoutMs: protect.compareTimeout,
    patienceMs: protect.patience,
    similarity: protect.similarity,
    wallMs,
    bypass: config.network?.bypass ?? [],
    ...(table === undefined ? {} : { table, now: clock.now() }),
  };
}

function openPcap({ context, troubles }: FramesParts): PcapLegs | undefined {
  const { config } = context;
  const directory = config.network?.pcapDir;
  if (directory === undefined) return undefined;
  return new PcapLegs(directory, `${config.vm}-${config.node}`, (why) => troubles.tell('pcap', why));
}
