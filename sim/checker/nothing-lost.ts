// What the secondary's guest has said in the primary's stead, and what a checkpoint brought along that had not left yet,
// leaves at a takeover; and a node that takes over speaks at once, so that the network learns where the guest lives now.
//
// Watched on datagrams, which nobody sends again: a lost TCP segment would only cost its repetition. What was handed to the
// uplink counts as said: the primary tells its secondary in the same turn, and is not asked when the kernel had it.

import { FrameView } from '../../src/packet/frame-view.ts';
import { targetIp } from '../addresses.ts';
import type { Checker } from '../checker.ts';
import type { SimProcess } from '../process.ts';
import type { SimVm } from '../vm.ts';
import type { World } from '../world.ts';

const withinMs = 60;
const capturesKept = 16;

export const sentence =
  'What the survivor has said and nobody was told leaves at the takeover, and the network learns its place.';

export function nothingLost(world: World): Checker {
  const checker = {
    name: 'nothing-lost',
    sentence,
  };
  const view = new FrameView();
  /** Of each machine: datagrams said since it was loaded, that have not left. */
  const waiting = new Map<SimVm, Set<string>>();
  const takeovers: { process: SimProcess; vm: SimVm; due: Set<string>; deadline: number; spoke: boolean }[] = [];
  const known = new Set<SimProcess>();
  /** Of the PVM: what has not left; and that as it was at each capture. */
  let unsaid = new Set<string>();
  const atCapture = new Map<number, Set<string>>();

  const look = () => {
    for (const { node, process, vm } of world.nodes) {
      if (process === undefined || vm === undefined || node?.primary === undefined || known.has(process)) continue;
      known.add(process);
      const due = new Set(waiting.get(vm) ?? []);
      if (vm.loadedFrom === 0) continue;
      // What the lost primary had said beyond it is gone with it, and was never promised.
      unsaid = new Set(due);
      takeovers.push({ process, vm, due, deadline: world.schedule.now + withinMs, spoke: false });
    }
  };

  /** Its kernel takes nothing, or has only just begun to. */
  const isHindered = (process: SimProcess) =>
    world.nodes.some((node) => node.process === process && world.network.kernels.get(node.name)?.isFull === true);

  const judge = (takeover: (typeof takeovers)[number]) => {
    const { process, vm, due, spoke } = takeover;
    if (!process.alive || process.paused || !vm.alive || isHindered(process)) return;
    if (!spoke) world.violate(checker.name, checker.sentence, `${process.name} took over and said nothing`);
    else if (due.size > 0)
      world.violate(
        checker.name,
        checker.sentence,
        `${process.name} kept ${due.size} datagrams to itself at its takeover`,
      );
  };

  return {
    ...checker,
    captured: (_vm, captureId) => {
      atCapture.set(captureId, new Set(unsaid));
      atCapture.delete(captureId - capturesKept);
    },
    resumedFrom: (vm, captureId) => void waiting.set(vm, new Set(atCapture.get(captureId))),
    booted: () => {
      unsaid = new Set();
      waiting.clear();
      atCapture.clear();
    },
    guestSaid: (vm, frame) => {
      const said = view.parse(frame);
      if (said.kind !== 'udp') return;
      const isPrimary = world.nodes.some(({ node, vm: own }) => own === vm && node?.primary !== undefined);
      if (isPrimary) unsaid.add(contentOf(said));
      else waiting.get(vm)?.add(contentOf(said));
    },
    frameLeft: (node) => {
      look();
      for (const takeover of takeovers) if (takeover.process === node.process) takeover.spoke = true;
    },
    frameReleased: (_node, frame) => {
      look();
      const released = view.parse(frame);
      if (released.kind !== 'udp') return;
      const content = contentOf(released);
      unsaid.delete(content);
      for (const one of atCapture.values()) one.delete(content);
      for (const one of waiting.values()) one.delete(content);
      for (const one of takeovers) one.due.delete(content);
    },
    polled: () => {
      look();
      for (let takeover = takeovers[0]; takeover !== undefined; takeover = takeovers[0]) {
        if (world.schedule.now < takeover.deadline) return;
        takeovers.shift();
        judge(takeover);
      }
    },
  };
}

function contentOf(view: FrameView): string {
  const content = view.frame.subarray(view.contentFrom, view.contentTo);
  return `${targetIp(view)} ${Buffer.from(content.buffer, content.byteOffset, content.length).toString('latin1')}`;
}
