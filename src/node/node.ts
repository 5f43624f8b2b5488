// A node of a protected VM: one role at a time, the same uplink and the same arbiter through all of them.
//
//   role secondary ──takes over──► role primary ──fenced──► nothing runs here
//
// Everything that outlives a role (uplink, terms, log) is owned here; everything else by the role.

import { cpus } from 'node:os';
import type { NodeStatus } from '../api/status.ts';
import { wallTime } from '../base/clock.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import type { Uplink } from '../netdev/endpoint.ts';
import { announce } from '../packet/arp.ts';
import type { NodeContext } from './context.ts';
import type { GuestCard, GuestVm } from './platform.ts';
import { PrimaryNode } from './primary.ts';
import { type Inheritance, SecondaryNode } from './secondary.ts';
import { describeNode } from './status.ts';
import { Terms } from './terms.ts';

/** The guest's address is announced this often after a takeover, since an announcement may be lost. */
const announcements = 4;
const announceEveryMs = 100;

export class ColoNode {
  readonly context: NodeContext;
  readonly terms: Terms;
  primary: PrimaryNode | undefined;
  secondary: SecondaryNode | undefined;
  failoverRecord: NodeStatus['failover'] = null;
  ending: string | undefined;
  uplink: Uplink | undefined;
  private vm: GuestVm | undefined;
  private nic: GuestCard | undefined;

  constructor(context: NodeContext) {
    this.context = context;
    this.terms = new Terms(context);
  }

  async start(): Promise<void> {
    const { config, clock } = this.context;
    this.uplink = await this.context.platform.connectUplink({
      frame: (frame) => {
        if (this.primary !== undefined) this.primary.fromNetwork(frame);
        else this.secondary?.fromNetwork(frame);
      },
      closed: () => this.context.log.error('the uplink is gone: nobody can reach the VM through this node'),
    });
    if (config.role === 'secondary') await this.startSecondary();
    else await this.startPrimary(this.uplink);
    this.context.log.info({ role: config.role, now: clock.now() }, 'node started');
  }

  private async startPrimary(uplink: Uplink): Promise<void> {
    const { config } = this.context;
    const outcome = await this.terms.claimFirst();
    if (outcome !== 'won') {
      const owner = this.terms.record?.owner ?? 'nobody';
      throw new ColoError(errorCodes.termLost, `the arbiter says that ${owner} owns ${config.vm}`, {
        hint: 'start this node as a secondary, or remove the VM first',
      });
    }
    const nic = await this.context.platform.listenCard();
    this.nic = nic;
    const vm = await this.context.platform.startVm({});
    this.vm = vm;
    const template = await vm.makeTemplate();
    if (this.ending !== undefined) {
      // Stopped while it started: what came up meanwhile was not there to be stopped.
      await vm.kill();
      await nic.close();
      throw new ColoError(errorCodes.termLost, `the node did not start: ${this.ending}`);
    }
    this.becomePrimary(new PrimaryNode(this.context, { vm, nic, uplink, terms: this.terms, template }));
    await vm.resume();
  }

  private async startSecondary(): Promise<void> {
    const secondary = new SecondaryNode(this.context, { terms: this.terms });
    this.secondary = secondary;
    secondary.onTakenOver = (inheritance) => this.takeOver(inheritance);
    await secondary.start();
  }

  /** The secondary has the term and a running VM: it is the primary from here on. */
  private takeOver(inheritance: Inheritance): void {
    const { config, clock, log } = this.context;
    const { applier, table, resend, early, why, detectedAt, takenOverAt } = inheritance;
    const uplink = this.uplink;
    if (uplink === undefined || this.ending !== undefined) {
      void applier.close();
      return;
    }
    this.vm = applier.vm;
    this.nic = applier.nic;
    this.secondary = undefined;
    const parts = { vm: applier.vm, nic: applier.nic, uplink, terms: this.terms, template: applier.template, table };
    this.becomePrimary(new PrimaryNode(this.context, parts));
    this.announce(uplink);
    for (const frame of resend) uplink.send(frame);
    for (const frame of early) this.primary?.fromNetwork(frame);
    this.failoverRecord = { why, detectedAt: wallTime(detectedAt), doneAt: wallTime(takenOverAt) };
    log.warn({ why, resent: resend.length, early: early.length, vm: config.vm, at: clock.now() }, 'took over');
  }

  private becomePrimary(primary: PrimaryNode): void {
    this.primary = primary;
    primary.onFenced = (why) => {
      this.ending = why;
      this.context.log.error({ why }, 'this node no longer runs the VM');
      void this.vm?.kill();
    };
    primary.onAlone = (why, detectedAt) => {
      this.failoverRecord = { why, detectedAt: wallTime(detectedAt), doneAt: wallTime(this.context.clock.now()) };
    };
    primary.start();
  }

  private announce(uplink: Uplink): void {
    const { guest } = this.context.config;
    const frame = announce(macBytes(guest.mac), ipNumber(guest.address));
    uplink.send(frame);
    for (let index = 1; index < announcements; index += 1)
      this.context.clock.after(announceEveryMs * index, () => {
        // A node that was stopped meanwhile may find that another one has the guest.
        if (this.ending === undefined && this.primary?.maySpeak === true) uplink.send(frame);
      });
  }

  status(): NodeStatus {
    return describeNode(this, cpus().length);
  }

  checkpoint(): Promise<void> {
    return this.asPrimary().checkpoint();
  }

  failover(): void {
    this.asPrimary().failover();
  }

  /** Ends the role, the VM and the uplink. */
  async stop(): Promise<void> {
    this.ending ??= 'stopped by the operator';
    this.primary?.stop();
    await this.secondary?.stop();
    await this.vm?.kill();
    await this.nic?.close();
    this.uplink?.close();
    await this.context.arbiter.close();
  }

  private asPrimary(): PrimaryNode {
    if (this.primary !== undefined && this.ending === undefined) return this.primary;
    throw new ColoError(errorCodes.input, 'this node is not the primary of the VM', { hint: 'ask the other node' });
  }
}

function macBytes(mac: string): Uint8Array {
  return Uint8Array.from(mac.split(':'), (part) => Number.parseInt(part, 16));
}

function ipNumber(address: string): number {
  return address.split('.').reduce((value, part) => value * 256 + Number(part), 0);
}
