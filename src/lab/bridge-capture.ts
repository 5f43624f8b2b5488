// Listens at the ports of a bridge for who speaks for an address: one packet socket per port, incoming frames only.
// What it keeps is what the user-space switch keeps (lan/turns.ts): the turns of speaking, oldest first.
//
// A packet socket sees a frame when it arrives at the port, before the bridge has done anything with it.

import { closeSync } from 'node:fs';
import { bindSocket, controlDevice, enterNetwork, openSocket, setSocketOption } from '../base/descriptors.ts';
import { noteTurn, type Turn } from '../lan/turns.ts';
import { type DeviceReader, readDevice } from '../netdev/frame-device.ts';
import { claimOf } from '../packet/claim.ts';
import { announcementsMax, turnsMax } from './limits.ts';

const packetFamily = 17;
const rawFrames = 3;
const allProtocols = 0x0003;
const packetLevel = 263;
const ignoreOutgoing = 23;
const getIndex = 0x8933;

export class BridgeCapture {
  /** `port` is the index of the port in the list given. */
  readonly turns: Turn[] = [];
  /** Addresses that were announced to everybody, in hex, with the port from which. */
  readonly announcements: { port: number; address: string; at: number }[] = [];
  private readonly address: Buffer;
  private readonly now: () => number;
  private readonly open: { fd: number; reader: DeviceReader }[] = [];

  private constructor(mac: string, now: () => number) {
    this.address = Buffer.from(mac.replaceAll(':', ''), 'hex');
    this.now = now;
  }

  /** Listens at `ports`, devices of the network namespace at `namespace`, for frames from `mac`. */
  static async start(
    namespace: string,
    ports: readonly string[],
    options: { mac: string; now: () => number },
  ): Promise<BridgeCapture> {
    const capture = new BridgeCapture(options.mac, options.now);
    try {
      for (const [index, port] of ports.entries()) {
        const fd = openPort(namespace, port);
        const heard = { frame: (frame: Uint8Array) => capture.take(index, frame), closed: () => undefined };
        capture.open.push({ fd, reader: await readDevice(fd, heard) });
      }
      return capture;
    } catch (error) {
      capture.close();
      throw error;
    }
  }

  close(): void {
    for (const { fd, reader } of this.open.splice(0)) {
      reader.close();
      closeSync(fd);
    }
  }

  private take(port: number, frame: Uint8Array): void {
    if (frame.length < 14 || !this.address.equals(frame.subarray(6, 12))) return;
    const now = this.now();
    this.noteAnnouncement(port, frame, now);
    noteTurn(this.turns, { port, bytes: frame.length, now }, turnsMax);
  }

  private noteAnnouncement(port: number, frame: Uint8Array, at: number): void {
    const isToMany = ((frame[0] as number) & 1) === 1;
    const claim = isToMany && this.announcements.length < announcementsMax ? claimOf(frame) : undefined;
    if (claim === undefined) return;
    this.announcements.push({ port, address: Buffer.from(claim.address).toString('hex'), at });
  }
}

function openPort(namespace: string, port: string): number {
  const leave = enterNetwork(namespace);
  try {
    const fd = openSocket(packetFamily, rawFrames, 0);
    setSocketOption(fd, packetLevel, ignoreOutgoing, Uint8Array.of(1, 0, 0, 0));
    bindSocket(fd, addressOf(indexOf(fd, port)));
    return fd;
  } finally {
    leave();
  }
}

function indexOf(fd: number, port: string): number {
  const request = new Uint8Array(40);
  request.set(Buffer.from(port, 'latin1').subarray(0, 15));
  controlDevice(fd, getIndex, request, `asking for ${port}`);
  return new DataView(request.buffer).getInt32(16, true);
}

/** struct sockaddr_ll: family u16, protocol u16 (network order), index i32, and 12 bytes that do not matter here. */
function addressOf(index: number): Uint8Array {
  const address = new Uint8Array(20);
  const view = new DataView(address.buffer);
  view.setUint16(0, packetFamily, true);
  view.setUint16(2, allProtocols, false);
  view.setInt32(4, index, true);
  return address;
}
