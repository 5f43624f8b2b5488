// Bypass rules: traffic that the operator declares unprotected. It leaves uncompared and untranslated, the SVM's own is
// dropped, and no survivor can carry it on. There is never one by default, and the status shows every one.

import { read32 } from '../packet/checksum.ts';
import type { FrameView } from '../packet/frame-view.ts';
import { ipProtocol, parseIp } from '../packet/ipv4.ts';
import { parseIpv6 } from '../packet/ipv6.ts';

export interface BypassRule {
  protocol: 'tcp' | 'udp';
  /** The other end; any when absent. */
  address?: string | undefined;
  /** The port at either end. */
  port: number;
}

export interface BypassCount {
  rule: string;
  frames: number;
  bytes: number;
}

interface Compiled {
  protocol: number;
  words: readonly number[] | undefined;
  port: number;
  count: BypassCount;
}

export class Bypass {
  private readonly rules: readonly Compiled[];

  /** A rule whose address is none matches nothing; the spec refuses it before it comes here. */
  constructor(rules: readonly BypassRule[]) {
    this.rules = rules.map(compile);
  }

  /** Whether a frame of the guest is named by a rule; it is counted then. */
  takes(view: FrameView): boolean {
    if (this.rules.length === 0 || (view.kind !== 'tcp' && view.kind !== 'udp')) return false;
    for (const rule of this.rules) {
      if (!matches(rule, view)) continue;
      rule.count.frames += 1;
      rule.count.bytes += view.frame.length;
      return true;
    }
    return false;
  }

  get counts(): readonly BypassCount[] {
    return this.rules.map(({ count }) => count);
  }
}

function compile(rule: BypassRule): Compiled {
  const words = rule.address === undefined ? undefined : wordsOf(rule.address);
  const place = rule.address === undefined ? 'any address' : rule.address;
  const text = `${rule.protocol} ${place} port ${rule.port}`;
  return { protocol: ipProtocol[rule.protocol], words, port: rule.port, count: { rule: text, frames: 0, bytes: 0 } };
}

function wordsOf(address: string): readonly number[] {
  const ip = parseIp(address);
  if (ip !== undefined) return [ip | 0, 0, 0, 0];
  const bytes = parseIpv6(address);
  return bytes === undefined ? [] : [0, 4, 8, 12].map((at) => read32(bytes, at) | 0);
}

function matches({ protocol, words, port }: Compiled, { key, ipProtocol: carried }: FrameView): boolean {
  if (carried !== protocol || (key.guestPort !== port && key.clientPort !== port)) return false;
  if (words === undefined) return true;
  return words[0] === key.b0 && words[1] === key.b1 && words[2] === key.b2 && words[3] === key.b3;
}
