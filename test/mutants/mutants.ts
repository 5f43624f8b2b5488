// Small mistakes that somebody could make in the code that must be right, one at a time: each is to be noticed by a
// test or by the simulation (run.ts). `find` stands exactly once in its file (mutants.test.ts sees to it, so that the
// list does not rot).
//
// The first fourteen are those that an adversarial reading tried on 28 November 2026, and that nothing noticed.

export interface Mutant {
  name: string;
  file: string;
  find: string;
  replace: string;
}

const proxy: Mutant[] = [
  {
    name: 'an edge of the window that has left may be taken back',
    file: 'src/proxy/compare/tcp/clamp.ts',
    find: '      edge = later(edge, stream.rEdge);\n',
    replace: '',
  },
  {
    name: 'an acknowledgement that has left may be taken back',
    file: 'src/proxy/compare/tcp/clamp.ts',
    find: '      ack = later(ack, stream.rAck);\n',
    replace: '',
  },
  {
    name: 'the window is not held back to what the SVM opens',
    file: 'src/proxy/compare/tcp/clamp.ts',
    find: 'this.coarseEdge(ack, earlier(wanted, stream.sEdge))',
    replace: 'this.coarseEdge(ack, wanted)',
  },
  {
    name: 'an acknowledgement is not held back to what the SVM has',
    file: 'src/proxy/compare/tcp/clamp.ts',
    find: 'let ack = earlier(parts.ack, stream.sAck);',
    replace: 'let ack = parts.ack;',
  },
  {
    name: 'an early `released` of an epoch is ignored by the secondary',
    file: 'src/proxy/secondary.ts',
    find: '    this.releasedEpoch = Math.max(this.releasedEpoch, epoch);\n',
    replace: '',
  },
  {
    name: 'what was held for a commit stays kept after it has left',
    file: 'src/proxy/secondary.ts',
    find: '    if (epoch === this.epoch) this.held = [];\n',
    replace: '',
  },
  {
    name: 'frames of an older epoch stay kept after an apply',
    file: 'src/proxy/secondary.ts',
    find: '    this.forgetAll();\n    this.epoch = epoch;',
    replace: '    this.epoch = epoch;',
  },
  {
    name: 'ingress from before the capture is replayed',
    file: 'src/proxy/secondary.ts',
    find: '    this.log.dropBefore(epoch);\n',
    replace: '',
  },
  {
    name: 'what the SVM says while it stands still is sent',
    file: 'src/proxy/secondary.ts',
    find: '    if (!this.isRunning) {\n      this.count.dropped.standing += 1;\n      return;\n    }\n',
    replace: '',
  },
  {
    name: 'a client that acknowledged something is sent it again at a takeover',
    file: 'src/proxy/secondary.ts',
    find: 'if (oldest === undefined || distance(oldest.end, ack) > 0) return;',
    replace: 'if (oldest === undefined || distance(oldest.end, ack) >= 0) return;',
  },
  {
    name: 'the timestamps of what is sent again stay as they were',
    file: 'src/proxy/secondary.ts',
    find: 'for (const frame of resend) this.bringUpToDate(frame);',
    replace: '',
  },
  {
    name: 'the grace for another order counts from the older side',
    file: 'src/proxy/compare/datagram.ts',
    find: 'Math.max(head.time, other.time)',
    replace: 'Math.min(head.time, other.time)',
  },
  {
    name: 'a commit keeps the old time at which the SVM resumed',
    file: 'src/proxy/primary.ts',
    find: '    this.epoch = epoch;\n    this.request.answered(true);\n    this.overdue.resumedAt = undefined;\n',
    replace: '    this.epoch = epoch;\n    this.request.answered(true);\n',
  },
  {
    name: 'frames of the SVM of another epoch are compared',
    file: 'src/proxy/primary.ts',
    find: '!isComparable || epoch !== this.epoch',
    replace: '!isComparable',
  },
  {
    name: 'output of after a capture leaves with its commit',
    file: 'src/proxy/primary.ts',
    find: '    else if (this.isInFlight) this.wait(this.next, view, now, this.nextOrder++);\n',
    replace: '',
  },
  {
    name: 'ingress is not mirrored',
    file: 'src/proxy/primary.ts',
    find: '      this.ports.mirror(frame);\n',
    replace: '',
  },
  {
    name: 'a commit with the gate shut is said to have left',
    file: 'src/proxy/primary.ts',
    find: 'if (releasing === undefined || !this.gate.isEmpty) return;',
    replace: 'if (releasing === undefined) return;',
  },
  {
    name: 'owed acknowledgements do not travel with a checkpoint',
    file: 'src/proxy/output/held-output.ts',
    find: 'flow instanceof TcpStream ? tcp.owed.frame(flow) : undefined',
    replace: 'undefined',
  },
  {
    name: 'a frame passes a gate that is shut',
    file: 'src/proxy/output/gate.ts',
    find: 'if (this.open) this.send(frame, ids);',
    replace: 'this.send(frame, ids);',
  },
  {
    name: 'what waited at the gate leaves in no order',
    file: 'src/proxy/output/gate.ts',
    find: '      this.send(next.frame, next.ids);\n',
    replace: '      queueMicrotask(() => this.send(next.frame, next.ids));\n',
  },
  {
    name: 'patience after an apply is none',
    file: 'src/proxy/overdue.ts',
    find: 'Math.max(since, this.resumedAt + this.patienceMs)',
    replace: 'Math.max(since, this.resumedAt)',
  },
  {
    name: 'what waits is never overdue',
    file: 'src/proxy/overdue.ts',
    find: '>= this.compareTimeoutMs',
    replace: '>= 10 * this.compareTimeoutMs',
  },
];

const controller: Mutant[] = [
  {
    name: 'a checkpoint is taken as staged while another one is applied',
    file: 'src/controller/secondary-pair.ts',
    find: " && !(state.kind === 'protected' && !state.applying)",
    replace: " && state.kind !== 'protected'",
  },
  {
    name: 'a secondary claims the term while it applies',
    file: 'src/controller/secondary-pair.ts',
    find: "...(state.applying ? [] : [{ kind: 'claimAlone' as const }])",
    replace: "{ kind: 'claimAlone' as const }",
  },
  {
    name: 'a secondary in doubt goes on lending',
    file: 'src/controller/secondary-pair.ts',
    find: "[{ kind: 'withhold' }, ",
    replace: '[',
  },
  {
    name: 'a secondary whose disks failed leaves although its primary is in doubt',
    file: 'src/controller/secondary-pair.ts',
    find: "this.state.kind === 'protected' || this.state.kind === 'joining' ? this.leave(event.why) : []",
    replace: 'this.leave(event.why)',
  },
  {
    name: 'a lost answer of the arbiter ends the takeover',
    file: 'src/controller/secondary-pair.ts',
    find: "    if (outcome === 'error') return [{ kind: 'claimAlone' }];\n",
    replace: "    if (outcome === 'error') return this.leave('the arbiter did not answer');\n",
  },
  {
    name: 'a primary in doubt leaves its gate open',
    file: 'src/controller/primary-pair.ts',
    find: "return [{ kind: 'shutGate' }, { kind: 'dropPeer', why }, { kind: 'claimAlone' }];",
    replace: "return [{ kind: 'dropPeer', why }, { kind: 'claimAlone' }];",
  },
  {
    name: 'a checkpoint that is being sent does not count as one that the peer may have',
    file: 'src/controller/primary-pair.ts',
    find: "(state.complete || state.phase === 'sending')",
    replace: 'state.complete',
  },
  {
    name: 'a planned failover does not wait for the apply',
    file: 'src/controller/primary-pair.ts',
    find: "if (state.phase === 'running' || state.phase === 'sending') return this.offer(why);",
    replace: 'return this.offer(why);',
  },
  {
    name: 'the epoch of a refused checkpoint counts',
    file: 'src/controller/primary-pair.ts',
    find: '{ ...state, epoch: state.epoch - 1 }',
    replace: '{ ...state }',
  },
  {
    name: 'a checkpoint that was wanted during an apply is forgotten',
    file: 'src/controller/primary-pair.ts',
    find: '{ ...state, wanted: state.wanted ?? reason }',
    replace: '{ ...state }',
  },
  {
    name: 'refused checkpoints never end the protection',
    file: 'src/controller/primary-pair.ts',
    find: 'running.refusals >= refusalsMax || !state.complete',
    replace: '!state.complete',
  },
  {
    name: 'the owner of a pair that comes back boots without asking its peer',
    file: 'src/controller/role.ts',
    find: "        return [{ kind: 'askPeer' }];\n",
    replace: "        this.move({ kind: 'claiming' });\n        return [{ kind: 'claimFirst' }];\n",
  },
  {
    name: 'rounds of the copy go on however little they shrink what is left',
    file: 'src/controller/policy.ts',
    find: 'dirtyPages < lastDirtyPages * 0.7',
    replace: 'true',
  },
];

const node: Mutant[] = [
  {
    name: 'any lost link counts as ended by the primary',
    file: 'src/node/secondary/pairing.ts',
    find: '    if (byPeer) heartbeat.closed();\n',
    replace: '    heartbeat.closed();\n',
  },
  {
    name: 'a secondary whose links are lost goes on lending',
    file: 'src/node/secondary/pairing.ts',
    find: '    heartbeat.withhold();\n    if (byPeer)',
    replace: '    if (byPeer)',
  },
  {
    name: 'the lease is not looked at before a commit lets frames leave',
    file: 'src/node/primary/primary.ts',
    find: '    this.gate.checkLease(now);\n    this.proxy.commit(epoch, now);\n',
    replace: '    this.proxy.commit(epoch, now);\n',
  },
  {
    name: 'the lease is not looked at before a frame of the guest leaves',
    file: 'src/node/primary/frames.ts',
    find: '    this.gate.checkLease(now);\n    this.pcap',
    replace: '    this.pcap',
  },
  {
    name: 'what QEMU had not taken before a capture is not repeated',
    file: 'src/node/primary/checkpoint/capture.ts',
    find: 'if (!this.isSettled) for',
    replace: 'if (false) for',
  },
  {
    name: 'frames of before a takeover are kept for longer than a second',
    file: 'src/node/secondary/early-frames.ts',
    find: 'this.frames.length <= earlyFramesMax && now - oldest.at <= earlyMs',
    replace: 'this.frames.length <= earlyFramesMax',
  },
  {
    name: 'the lease lives on after the link',
    file: 'src/node/primary/speech-gate.ts',
    find: "if (pair.state.kind === 'protected') this.set(false",
    replace: "if (pair.state.kind === 'alone') this.set(false",
  },
  {
    name: 'pages of a refused checkpoint are forgotten',
    file: 'src/node/primary/checkpoint/checkpointer.ts',
    find: '    this.parts.vm.tracker.putBack(inFlight.captured.capture.runs);\n',
    replace: '',
  },
  {
    name: 'a record of the arbiter may go back',
    file: 'src/node/terms.ts',
    find: '(known?.term ?? 0) >= seen',
    replace: '(known?.term ?? 0) >= 0',
  },
  {
    name: 'whoever asks for the term alone may have it',
    file: 'src/node/terms.ts',
    find: "      if (!this.isNamedBy(known)) return 'lost';\n",
    replace: '',
  },
];

const channel: Mutant[] = [
  {
    name: 'a connection that timed out counts as ended by the peer',
    file: 'src/channel/link.ts',
    find: "    const what = cause.code === 'ETIMEDOUT' ?",
    replace: "    this.endedByPeer = true;\n    const what = cause.code === 'ETIMEDOUT' ?",
  },
  {
    name: 'a hello of another VM is accepted',
    file: 'src/channel/link.ts',
    find: 'if (hello.vm !== ours.vm)',
    replace: "if (hello.vm === '')",
  },
  {
    name: 'a link that ended delivers on',
    file: 'src/channel/link.ts',
    find: '    return !this.over;\n',
    replace: '    return true;\n',
  },
  {
    name: 'the sequence of messages is not looked at',
    file: 'src/channel/frame.ts',
    find: '      this.sequence = nextSequence(this.sequence);\n',
    replace: '',
  },
  {
    name: 'a part of a checksum is left out',
    file: 'src/channel/frame.ts',
    find: '  for (const part of message.parts) checksum = crc32(part, checksum);\n',
    replace: '',
  },
];

const checkpoint: Mutant[] = [
  {
    name: 'a checkpoint that builds on another one is taken',
    file: 'src/checkpoint/stage.ts',
    find: 'if (begin.base === this.newestComplete) return undefined;',
    replace: 'if (begin.base >= 0) return undefined;',
  },
  {
    name: 'an older checkpoint is taken',
    file: 'src/checkpoint/stage.ts',
    find: 'if (begin.epoch <= this.newestComplete)',
    replace: 'if (begin.epoch < 0)',
  },
  {
    name: 'differences are not added to the shadow',
    file: 'src/checkpoint/stage.ts',
    find: '      this.addShadow(pages.runs, pages.deltas, contents);\n',
    replace: '',
  },
];

const disk: Mutant[] = [
  {
    name: 'a replica that is newer than its primary knows is kept',
    file: 'src/disk/recovery.ts',
    find: ' || header.position > from',
    replace: '',
  },
  {
    name: 'a replica that is older than what was noted is kept',
    file: 'src/disk/recovery.ts',
    find: 'header.position < since || ',
    replace: '',
  },
  {
    name: 'a replica that was never flushed is kept after its host ended',
    file: 'src/disk/recovery.ts',
    find: '  if (!header.durable && header.boot !== storage.boot) return undefined;\n',
    replace: '',
  },
  {
    name: 'the newest disks of a VM are overwritten by an equal term',
    file: 'src/disk/recovery.ts',
    find: 'by.term > header.term',
    replace: 'by.term >= header.term',
  },
  {
    name: 'the primary believes that a position is held which it never sent',
    file: 'src/disk/sink.ts',
    find: ' || position > this.position',
    replace: '',
  },
  {
    name: 'a replicated write is answered before it is held',
    file: 'src/disk/sink.ts',
    find: 'entry.position <= this.heldPosition',
    replace: 'entry.position <= this.heldPosition + 1',
  },
  {
    name: 'what waits for a secondary that is lost is answered as done',
    file: 'src/disk/sink.ts',
    find: '      entry.answer(nbdErrors.io);\n',
    replace: '      entry.answer(nbdErrors.none);\n',
  },
  {
    name: 'an apply does not say that it is under way',
    file: 'src/disk/replica.ts',
    find: "      await this.writeHeader('applying', epoch, { through, position });\n",
    replace: '',
  },
];

const heartbeat: Mutant[] = [
  {
    name: 'a lease is extended by an older echo',
    file: 'src/heartbeat/lease.ts',
    find: 'this.newestSentAt === undefined || sentAt > this.newestSentAt',
    replace: 'true',
  },
  {
    name: 'an echo of a beat that was never sent extends the lease',
    file: 'src/heartbeat/lease.ts',
    find: '    if (!(sentAt <= now)) return false;\n',
    replace: '',
  },
  {
    name: 'the grant has no margin over the lease',
    file: 'src/heartbeat/lease.ts',
    find: 'options.leaseMs + options.marginMs',
    replace: 'options.leaseMs - options.marginMs',
  },
  {
    name: 'a node that slept takes its sleep for silence of its peer',
    file: 'src/heartbeat/detector.ts',
    find: '      this.stalledMs += Math.max(0, now - from);\n',
    replace: '',
  },
  {
    name: 'a beat that comes while nothing is lent any more is echoed',
    file: 'src/heartbeat/secondary.ts',
    find: '    if (this.withheld) return true;\n',
    replace: '',
  },
  {
    name: 'silence is never borne longer than at first',
    file: 'src/heartbeat/tolerance.ts',
    find: 'this.largest[at] = Math.max(this.largest[at] ?? 0, gapMs);',
    replace: 'this.largest[at] = 0;',
  },
];

export const mutants: readonly Mutant[] = [
  ...proxy,
  ...controller,
  ...node,
  ...channel,
  ...checkpoint,
  ...disk,
  ...heartbeat,
];
