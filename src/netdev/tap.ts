// The uplink of a node on a real network: a TAP device that is a port of a bridge of this host. The device belongs to
// this process and is gone with it, so a dead node's port is no port any more.
//
//   guest ── node ── TAP ── bridge ── network card ── network
//
// Making one needs CAP_NET_ADMIN and /dev/net/tun. The device is made down, attached, and then set up, so that nothing is
// ever sent through it that is not the guest's: IPv6 is switched off on it, as the host itself would speak there.
// Its MTU is the bridge's, because a frame that the network does not carry is lost without a word.
//
//   struct ifreq, 40 bytes:  | name, 16 bytes | flags u16, or index i32, or MTU i32 | ... |

import { closeSync, constants, existsSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { controlDevice, openSocket } from '../base/descriptors.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { Uplink } from './endpoint.ts';
import { type DeviceHandlers, type DeviceReader, readDevice } from './frame-device.ts';
import { deviceNameBytesMax } from './limits.ts';

const makeTap = 0x4004_54ca;
const tapWithoutHeader = 0x1002;
const getFlags = 0x8913;
const setFlags = 0x8914;
const getMtu = 0x8921;
const setMtu = 0x8922;
const getIndex = 0x8933;
const addToBridge = 0x89a2;
const up = 1;
const requestBytes = 40;
const valueAt = 16;
const internetFamily = 2;
const datagram = 2;

export interface TapOptions {
  /** Of the new device; "%d" in it becomes a free number. */
  name: string;
  bridge: string;
  log: Log;
  /** For tests: read as where Node cannot poll the device. */
  polled?: boolean;
}

export class TapUplink implements Uplink {
  readonly counters = { framesIn: 0, bytesIn: 0, framesOut: 0, bytesOut: 0, dropped: 0 };
  readonly name: string;
  readonly mtu: number;
  private readonly fd: number;
  private reader: DeviceReader | undefined;
  private open = true;

  private constructor(parts: { fd: number; name: string; mtu: number }) {
    this.fd = parts.fd;
    this.name = parts.name;
    this.mtu = parts.mtu;
  }

  static async open(options: TapOptions, handlers: DeviceHandlers): Promise<TapUplink> {
    const { bridge, log } = options;
    const fd = openTun();
    try {
      const name = nameTap(fd, options.name);
      const mtu = attach(name, bridge);
      const tap = new TapUplink({ fd, name, mtu });
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
      log.info({ device: name, bridge, mtu }, 'uplink');
      if (reader.polled) log.warn('this Node cannot poll a TAP: it is read every millisecond instead');
      return tap;
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  /** One frame, one write; dropped and counted when the device's queue is full, as a real card's would. */
  send(frame: Uint8Array): void {
    if (!this.open) return;
    try {
      writeSync(this.fd, frame);
      this.counters.framesOut += 1;
      this.counters.bytesOut += frame.length;
    } catch {
      this.counters.dropped += 1;
    }
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
  const request = requestFor(wanted);
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
  const control = openSocket(internetFamily, datagram, 0);
  try {
    const mtu = ask(control, getMtu, bridge);
    const ipv6 = `/proc/sys/net/ipv6/conf/${name}/disable_ipv6`;
    if (existsSync(ipv6)) writeFileSync(ipv6, '1');
    tell(control, setMtu, name, mtu);
    tell(control, addToBridge, bridge, ask(control, getIndex, name));
    tell(control, setFlags, name, (ask(control, getFlags, name) & 0xffff) | up);
    return mtu;
  } catch (cause) {
    throw new ColoError(errorCodes.host, `the device ${name} cannot be made a port of the bridge ${bridge}`, {
      cause,
      hint: `make the bridge first (ip link add ${bridge} type bridge), and give the node CAP_NET_ADMIN`,
    });
  } finally {
    closeSync(control);
  }
}

function ask(control: number, what: number, device: string): number {
  const request = requestFor(device);
  controlDevice(control, what, request, `asking for ${device}`);
  return new DataView(request.buffer).getInt32(valueAt, true);
}

function tell(control: number, what: number, device: string, value: number): void {
  const request = requestFor(device);
  new DataView(request.buffer).setInt32(valueAt, value, true);
  controlDevice(control, what, request, `setting ${device}`);
}

function requestFor(device: string): Uint8Array {
  const name = Buffer.from(device, 'latin1');
  if (name.length === 0 || name.length > deviceNameBytesMax)
    throw new ColoError(errorCodes.input, `${JSON.stringify(device)} cannot name a network device`, {
      hint: `use 1 to ${deviceNameBytesMax} letters and digits`,
    });
  const request = new Uint8Array(requestBytes);
  request.set(name);
  return request;
}
