// What the kernel is asked about a network interface by name: its MTU, its flags, its addresses, the bridge it belongs
// to. By ioctl, in the network namespace of the calling thread; changing anything needs CAP_NET_ADMIN there.
//
//   struct ifreq, 40 bytes:      | name, 16 bytes | flags u16, or index i32, or MTU i32, or sockaddr_in | ... |
//   struct in6_ifreq, 24 bytes:  | address, 16 bytes | prefix bits u32 | index i32 |

import { closeSync } from 'node:fs';
import { controlDevice, openSocket } from '../base/descriptors.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import { deviceNameBytesMax } from './limits.ts';

const getFlags = 0x8913;
const setFlags = 0x8914;
const setAddress = 0x8916;
const setNetmask = 0x891c;
const getMtu = 0x8921;
const setMtu = 0x8922;
const getIndex = 0x8933;
const addToBridge = 0x89a2;
const up = 1;
const requestBytes = 40;
/** Where a request's value stands. */
export const valueAt = 16;
const internetFamily = 2;
const internet6Family = 10;
const datagram = 2;

/** Makes `name` a port of the bridge, with the bridge's MTU; returns that. */
export function joinBridge(name: string, bridge: string): number {
  return withControl(internetFamily, (control) => {
    const mtu = ask(control, getMtu, bridge);
    tell(control, setMtu, name, mtu);
    tell(control, addToBridge, bridge, ask(control, getIndex, name));
    return mtu;
  });
}

/** Sets it up; returns its MTU. */
export function setUp(name: string): number {
  return withControl(internetFamily, (control) => {
    tell(control, setFlags, name, (ask(control, getFlags, name) & 0xffff) | up);
    return ask(control, getMtu, name);
  });
}

/** Gives it an IPv4 address, four bytes. */
export function addIpv4Address(name: string, address: Uint8Array, prefixBits: number): void {
  withControl(internetFamily, (control) => {
    const mask = new Uint8Array(4);
    new DataView(mask.buffer).setUint32(0, (0xffffffff << (32 - prefixBits)) >>> 0);
    for (const [what, bytes] of [[setAddress, address] as const, [setNetmask, mask] as const]) {
      const request = interfaceRequest(name);
      new DataView(request.buffer).setUint16(valueAt, internetFamily, true);
      request.set(bytes, valueAt + 4);
      controlDevice(control, what, request, `giving ${name} an address`);
    }
  });
}

/** Gives it an IPv6 address, sixteen bytes. */
export function addIpv6Address(name: string, address: Uint8Array, prefixBits: number): void {
  const index = withControl(internetFamily, (control) => ask(control, getIndex, name));
  withControl(internet6Family, (control) => {
    const request = new Uint8Array(24);
    const view = new DataView(request.buffer);
    request.set(address);
    view.setUint32(16, prefixBits, true);
    view.setInt32(20, index, true);
    controlDevice(control, setAddress, request, `giving ${name} an address`);
  });
}

/** A request about the device, with nothing in it yet. */
export function interfaceRequest(device: string): Uint8Array {
  const name = Buffer.from(device, 'latin1');
  if (name.length === 0 || name.length > deviceNameBytesMax)
    throw new ColoError(errorCodes.input, `${JSON.stringify(device)} cannot name a network device`, {
      hint: `use 1 to ${deviceNameBytesMax} letters and digits`,
    });
  const request = new Uint8Array(requestBytes);
  request.set(name);
  return request;
}

function withControl<T>(family: number, work: (control: number) => T): T {
  const control = openSocket(family, datagram, 0);
  try {
    return work(control);
  } finally {
    closeSync(control);
  }
}

function ask(control: number, what: number, device: string): number {
  const request = interfaceRequest(device);
  controlDevice(control, what, request, `asking for ${device}`);
  return new DataView(request.buffer).getInt32(valueAt, true);
}

function tell(control: number, what: number, device: string, value: number): void {
  const request = interfaceRequest(device);
  new DataView(request.buffer).setInt32(valueAt, value, true);
  controlDevice(control, what, request, `setting ${device}`);
}
