// The uplink of a node on a real network: a TAP device that is a port of a bridge of this host. The device belongs to
// this process and is gone with it, so a dead node's port is no port any more.
//
//   guest ── node ── TAP ── bridge ── network card ── network
//
// Making one needs CAP_NET_ADMIN and /dev/net/tun. The device is made down, attached, and then set up, so that nothing
// is ever sent through it that is not the guest's: IPv6 is switched off on it, as the host itself would speak there.
// Its MTU is the bridge's, because a frame that the network does not carry is lost without a word.
//
// Without a bridge the device is where this host itself speaks: the clients of the demo stand behind one.

import { closeSync, constants, existsSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { systemClock } from '../base/clock.ts';
import { controlDevice } from '../base/descriptors.ts';
import { ColoError, errorCodes, errorText } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { Uplink } from './endpoint.ts';
import { type DeviceReader, readDevice } from './frame-device.ts';
import type { FrameHandlers } from './frame-socket.ts';
import { interfaceRequest, joinBridge, setUp, valueAt } from './interface.ts';
import { linkLookMs } from './limits.ts';
import { readLinks, uplinkProblem } from './link-state.ts';

const makeTap = 0x4004_54ca;
const tapWithoutHeader = 0x1002;

export interface TapOptions {
  /** The new device's name; "%d" in it becomes a free number. */
  name: string;
  /** Undefined: a device of this host's own. */
  bridge: string | undefined;
  log: Log;
  /** For tests: read as where Node cannot poll the device. */
  polled?: boolean;
}

export class TapUplink implements Uplink {
  readonly counters = { framesIn: 0, bytesIn: 0, framesOut: 0, bytesOut: 0, dropped: 0, withheld: 0 };
  readonly progress = { taken: 0, settled: 0, lost: 0 };
  readonly name: string;
  readonly mtu: number;
  private readonly fd: number;
  private reader: DeviceReader | undefined;
  private open = true;
  problem = '';
  private stopLooking: () => void = () => undefined;

  private readonly handlers: FrameHandlers;

  private constructor(parts: { fd: number; name: string; mtu: number }, handlers: FrameHandlers) {
    this.handlers = handlers;
    this.fd = parts.fd;
    this.name = parts.name;
    this.mtu = parts.mtu;
  }

  static async open(options: TapOptions, handlers: FrameHandlers): Promise<TapUplink> {
    const { bridge, log } = options;
    const fd = openTun();
    try {
      const name = nameTap(fd, options.name);
      const mtu = bridge === undefined ? setUp(name) : attach(name, bridge);
      const tap = new TapUplink({ fd, name, mtu }, handlers);
      const reader = await readDevice(
        fd,
        {
          frame: (frame) => {
            tap.counters.framesIn += 1;
            tap.counters.bytesIn += frame.length;
            handlers.frame(frame);
          },
          closed: () => handlers.closed(),
        },
        options.polled === undefined ? {} : { polled: options.polled },
      );
      tap.reader = reader;
      if (bridge !== undefined) tap.stopLooking = systemClock.every(linkLookMs, () => tap.look(bridge));
      log.info({ device: name, bridge, mtu }, 'uplink');
      if (reader.polled) log.warn('this Node cannot poll a TAP: it is read every millisecond instead');
      return tap;
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  /**
   * One frame, one write; dropped and counted when the device's queue is full, as a real card's would, or when it is
   * not this node's turn to speak (FrameHandlers.maySend).
   */
  send(frame: Uint8Array): void {
    const isWritten = this.open && this.write(frame);
    this.progress.taken += 1;
    this.progress.settled += 1;
    if (!isWritten) this.progress.lost += 1;
  }

  private write(frame: Uint8Array): boolean {
    if (this.handlers.maySend !== undefined && !this.handlers.maySend()) {
      this.counters.withheld += 1;
      return false;
    }
    try {
      writeSync(this.fd, frame);
      this.counters.framesOut += 1;
      this.counters.bytesOut += frame.length;
      return true;
    } catch {
      this.counters.dropped += 1;
      return false;
    }
  }

  /** A host whose network is set up anew makes its bridge anew: the device becomes a port of that one. */
  private look(bridge: string): void {
    try {
      this.problem = uplinkProblem(readLinks(), this.name, bridge);
      if (this.problem === '') return;
      if (isPortOf(this.name, bridge)) setUp(this.name);
      else attach(this.name, bridge);
      this.problem = uplinkProblem(readLinks(), this.name, bridge);
    } catch (error) {
      if (this.problem === '') this.problem = errorText(error);
    }
  }

  /** The device takes a frame at once or never. */
  unwritten(): Uint8Array[] {
    return [];
  }

  pause(): void {
    this.reader?.pause();
  }

  resume(): void {
    this.reader?.resume();
  }

  /** The device is gone when this returns. */
  close(): void {
    if (!this.open) return;
    this.open = false;
    this.stopLooking();
    this.reader?.close();
    closeSync(this.fd);
  }
}

function openTun(): number {
  try {
    return openSync('/dev/net/tun', constants.O_RDWR | constants.O_NONBLOCK);
  } catch (cause) {
    throw new ColoError(errorCodes.host, 'the device /dev/net/tun cannot be opened', {
      cause,
      hint: 'load the kernel module tun, and give the node the capability CAP_NET_ADMIN',
    });
  }
}

/** Makes the descriptor a TAP; returns the device's name. */
function nameTap(fd: number, wanted: string): string {
  const request = interfaceRequest(wanted);
  new DataView(request.buffer).setUint16(valueAt, tapWithoutHeader, true);
  try {
    controlDevice(fd, makeTap, request, 'TUNSETIFF');
  } catch (cause) {
    throw new ColoError(errorCodes.host, `the TAP device ${wanted} cannot be made`, {
      cause,
      hint: 'give the node the capability CAP_NET_ADMIN, and another name if this one is taken',
    });
  }
  return Buffer.from(request.subarray(0, valueAt)).toString('latin1').replace(/\0.*$/s, '');
}

/** Makes the device a port of the bridge and sets it up; returns its MTU. */
function attach(name: string, bridge: string): number {
  silenceHost(name);
  try {
    joinBridge(name, bridge);
    return setUp(name);
  } catch (cause) {
    throw new ColoError(errorCodes.host, `the device ${name} cannot be made a port of the bridge ${bridge}`, {
      cause,
      hint: `make the bridge first (ip link add ${bridge} type bridge), and give the node CAP_NET_ADMIN`,
    });
  }
}

function isPortOf(name: string, bridge: string): boolean {
  const links = readLinks();
  const index = links.find((link) => link.name === bridge)?.index;
  return index !== undefined && links.some((link) => link.name === name && link.master === index);
}

function silenceHost(name: string): void {
  const ipv6 = `/proc/sys/net/ipv6/conf/${name}/disable_ipv6`;
  try {
    if (existsSync(ipv6)) writeFileSync(ipv6, '1');
  } catch (cause) {
    throw new ColoError(errorCodes.host, `IPv6 of this host cannot be switched off on the device ${name}`, {
      cause,
      hint: `let the node write ${ipv6} (deploy/colod.service names the folder in ReadWritePaths)`,
    });
  }
}
