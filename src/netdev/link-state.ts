// What the kernel says of all network devices of this thread's network namespace, and whether a guest's TAP leads
// anywhere: by netlink, since a bridge's ports and their carrier are in no ioctl.
//
//   request   struct nlmsghdr: | length u32 | type u16 | flags u16 | sequence u32 | port u32 | struct ifinfomsg, 16
//             bytes |
//   answers   one nlmsghdr each, | ifinfomsg: family u8, pad u8, type u16, index i32, flags u32, change u32 |,
//             attributes
//   attribute | length u16 | type u16 | value, padded to 4 bytes |
//
// Asked and answered at once: the kernel makes the whole answer from memory.

import { closeSync, readSync, writeSync } from 'node:fs';
import { openSocket } from '../base/descriptors.ts';
import { linkAnswerBytes, linkAnswersMax } from './limits.ts';

export interface LinkState {
  name: string;
  index: number;
  /** Set up by somebody. */
  isUp: boolean;
  /** It has a link: a cable, a peer, or a program that holds it. */
  hasLink: boolean;
  /** The bridge that it is a port of; 0: none. */
  master: number;
  /** "tun", "bridge", "veth" ...; '' for a card. */
  kind: string;
}

const netlinkFamily = 16;
const raw = 3;
const routes = 0;
const newLink = 16;
const getLink = 18;
const done = 3;
const requestAndDump = 0x301;
const headBytes = 16;
const infoBytes = 16;
const attributes = { name: 3, master: 10, linkInfo: 18, kind: 1 } as const;
const flagUp = 1;
const flagRunning = 0x40;

/** All devices; throws when the kernel does not say. */
export function readLinks(): LinkState[] {
  const fd = openSocket(netlinkFamily, raw, routes);
  try {
    const request = Buffer.alloc(headBytes + infoBytes);
    request.writeUInt32LE(request.length, 0);
    request.writeUInt16LE(getLink, 4);
    request.writeUInt16LE(requestAndDump, 6);
    writeSync(fd, request);
    const links: LinkState[] = [];
    const answer = Buffer.alloc(linkAnswerBytes);
    for (let count = 0; count < linkAnswersMax; count += 1) {
      const bytes = readSync(fd, answer, 0, answer.length, null);
      if (!takeLinks(answer.subarray(0, bytes), links)) break;
    }
    return links;
  } finally {
    closeSync(fd);
  }
}

/** The devices of one answer, added to `links`; false when it was the last one. */
export function takeLinks(answer: Buffer, links: LinkState[]): boolean {
  for (let at = 0; at + headBytes <= answer.length; ) {
    const length = answer.readUInt32LE(at);
    const type = answer.readUInt16LE(at + 4);
    if (type === done || length < headBytes || at + length > answer.length) return false;
    if (type === newLink && length >= headBytes + infoBytes)
      links.push(linkOf(answer.subarray(at + headBytes, at + length)));
    at += padded(length);
  }
  return true;
}

function linkOf(info: Buffer): LinkState {
  const index = info.readInt32LE(4);
  const flags = info.readUInt32LE(8);
  const link = {
    name: '',
    index,
    isUp: (flags & flagUp) !== 0,
    hasLink: (flags & flagRunning) !== 0,
    master: 0,
    kind: '',
  };
  eachAttribute(info.subarray(infoBytes), (type, value) => {
    if (type === attributes.name) link.name = textOf(value);
    else if (type === attributes.master && value.length >= 4) link.master = value.readUInt32LE(0);
    else if (type === attributes.linkInfo)
      eachAttribute(value, (inner, text) => {
        if (inner === attributes.kind) link.kind = textOf(text);
      });
  });
  return link;
}

function eachAttribute(bytes: Buffer, visit: (type: number, value: Buffer) => void): void {
  for (let at = 0; at + 4 <= bytes.length; ) {
    const length = bytes.readUInt16LE(at);
    if (length < 4 || at + length > bytes.length) return;
    visit(bytes.readUInt16LE(at + 2) & 0x3fff, bytes.subarray(at + 4, at + length));
    at += padded(length);
  }
}

function textOf(value: Buffer): string {
  return value.toString('latin1').replace(/\0.*$/s, '');
}

const padded = (length: number) => (length + 3) & ~3;

/**
 * Why frames of this TAP reach nobody outside; '' when nothing is known to be wrong. A bridge whose ports are all TAPs
 * is a network within its host, and leads where it is to lead.
 */
export function uplinkProblem(links: readonly LinkState[], device: string, bridgeName: string): string {
  const tap = links.find(({ name }) => name === device);
  const bridge = links.find(({ name }) => name === bridgeName);
  if (tap === undefined) return `the device ${device} is gone`;
  if (bridge === undefined) return `the bridge ${bridgeName} is gone`;
  if (!bridge.isUp) return `the bridge ${bridgeName} is down`;
  if (!tap.isUp) return `the device ${device} is down`;
  if (tap.master !== bridge.index) return `the device ${device} is no port of the bridge ${bridgeName} any more`;
  const outward = links.filter(({ master, kind }) => master === bridge.index && kind !== 'tun');
  if (outward.length === 0 || outward.some(({ isUp, hasLink }) => isUp && hasLink)) return '';
  return `no port of the bridge ${bridgeName} has a link (${outward.map(({ name }) => name).join(', ')})`;
}
