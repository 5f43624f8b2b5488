// A node of a protected VM: one role at a time (controller/role.ts decides which), the same uplink and the same arbiter
// through all of them.
//
//   role secondary ──takes over──► role primary ──fenced──► everything freed ──► role secondary ...
//
// Everything that outlives a role (uplink, terms, log) is owned here; everything else by the role, and gone with it.

import { cpus } from 'node:os';
import type { NodeStatus } from '../api/node-status.ts';
import { wallTime } from '../base/clock.ts';
import { ColoError, errorCodes, errorText } from '../base/errors.ts';
import { during } from '../base/loop-watch.ts';
import { Role, type RoleAction, type RoleEvent } from '../controller/role.ts';
import { Tolerance } from '../heartbeat/tolerance.ts';
import type { Uplink } from '../netdev/endpoint.ts';
import { type Card, GuestAddresses } from '../proxy/guest-addresses.ts';
import type { Peer } from './config.ts';
import type { NodeContext } from './context.ts';
import { Driver } from './driver.ts';
import { announceEveryMs, announceEveryMsMax, announcements, lookAgainMs, stopClaimMs } from './limits.ts';
import type { DiskSource, GuestCard, GuestVm } from './platform.ts';
import { PrimaryNode, type PrimaryParts } from './primary/primary.ts';
import { Retirement } from './retirement.ts';
import { type Inheritance, SecondaryNode } from './secondary/secondary.ts';
import type { SharedParts } from './shared-parts.ts';
import { describeNode } from './status.ts';
import { Terms } from './terms.ts';
import { Troubles } from './troubles.ts';
import { UplinkHealth } from './uplink-health.ts';

/** A VM of this term has never run before, so nobody else can have spoken for it. */
const firstTerm = 1;

export class ColoNode {
  readonly context: NodeContext;
  readonly terms: Terms;
  readonly role: Role;
  /** How much silence of a peer this node bears; what it learned outlives roles and pairings. */
  readonly tolerance = new Tolerance();
  readonly verified = { equal: 0, different: 0 };
  readonly addresses: GuestAddresses;
  readonly troubles: Troubles;
  readonly uplinkHealth: UplinkHealth;
  primary: PrimaryNode | undefined;
  secondary: SecondaryNode | undefined;
  failoverRecord: NodeStatus['failover'] = null;
  uplink: Uplink | undefined;
  vmOver: { why: string; byGuest: boolean } | null = null;
  private vm: GuestVm | undefined;
  private nic: GuestCard | undefined;
  private inheritance: Inheritance | undefined;
  private stopAnnouncing: () => void = () => undefined;
  private stopLooking: () => void = () => undefined;
  private readonly retirement: Retirement;
  private readonly driver: Driver<RoleEvent, RoleAction>;
  private readonly started = Promise.withResolvers<void>();
  /** Resolves when nothing is being started or freed. */
  private work: Promise<void> = Promise.resolve();

  constructor(context: NodeContext) {
    this.context = context;
    this.terms = new Terms(context);
    this.troubles = new Troubles(context.log);
    const { clock } = context;
    this.uplinkHealth = new UplinkHealth({ clock, troubles: this.troubles });
    this.retirement = new Retirement({ clock, troubles: this.troubles, giveUp: (why) => this.giveUp(why) });
    this.role = new Role(context.config.role);
    const perform = (action: RoleAction) => this.perform(action);
    this.driver = new Driver({ machine: this.role, perform, log: context.log, name: 'role' });
    const { guest, cards = [] } = context.config;
    this.addresses = new GuestAddresses([guest, ...cards].map(cardBytes));
  }

  /** Resolves when the node has its first role; rejects when it cannot have the one it was told to have. */
  async start(): Promise<void> {
    this.started.promise.catch(() => undefined);
    this.uplink = await this.context.platform.connectUplink({
      frame: (frame) => during('network frame', () => (this.primary ?? this.secondary)?.fromNetwork(frame)),
      maySend: () => this.primary?.maySpeak === true,
      settled: () => this.primary?.onSettled(),
      closed: () => this.context.log.error('the uplink is gone: nobody can reach the VM through this node'),
    });
    this.stopLooking = this.uplinkHealth.watch(this.uplink);
    this.post({ kind: 'start' });
    await this.started.promise;
  }

  /** The operator's word: ends the role, the VM and the uplink. */
  async stop(): Promise<void> {
    if (this.primary !== undefined) await this.endTerm(this.primary);
    else this.post({ kind: 'stop', why: 'stopped by the operator' });
    await this.close();
  }

  /** A signal's word: as `stop`, but never before another node has the VM (retirement.ts). */
  async retire(why: string): Promise<void> {
    await this.retirement.begin(why);
    await this.close();
  }

  private async close(): Promise<void> {
    await this.work;
    this.stopLooking();
    this.uplink?.close();
    await this.context.arbiter.close();
  }

  private giveUp(why: string): boolean {
    const said = `the node was told to end (${why})`;
    this.primary?.offer.make(said);
    if (this.role.state.kind === 'primary' || this.inheritance !== undefined) return false;
    if (this.secondary?.retire(said) === false) return false;
    this.post({ kind: 'stop', why: said });
    return true;
  }

  /**
   * Ends this node's part in the VM, which is to be protected elsewhere, unless the VM is here or may be about to be:
   * then it throws, and nothing was done. It is decided and done at once, whatever the caller saw of this node before.
   */
  leave(): void {
    const why = 'the VM is placed on other nodes';
    const { kind } = this.role.state;
    // A claim that is on its way may be won. One that only looks, or waits for its peer, holds nothing.
    const isNeeded = kind === 'primary' || kind === 'claiming';
    // A secondary keeps its copy until its primary goes on without it: it is asked again then.
    if (isNeeded || this.inheritance !== undefined || this.secondary?.retire(why) === false)
      throw new ColoError(errorCodes.needed, `the VM may need this node (${this.status().state})`, {
        hint: 'see who runs it: `colo ps`',
      });
    this.post({ kind: 'stop', why });
  }

  /**
   * A stop of the primary is the end of the VM only when the record says that nobody else may run it: its word alone
   * may not reach the secondary.
   */
  private async endTerm(primary: PrimaryNode): Promise<void> {
    const { clock, log } = this.context;
    const { promise, resolve } = Promise.withResolvers<'silent'>();
    const cancel = clock.after(stopClaimMs, () => resolve('silent'));
    const outcome = await Promise.race([this.terms.claimAlone(), promise]);
    cancel();
    if (outcome === 'lost') log.warn('stopped, but another node runs the VM: it took the term before');
    else primary.sayEnd();
    if (outcome === 'error' || outcome === 'silent')
      log.warn('the arbiter did not confirm the stop: the other node may take the VM over');
    this.post({ kind: 'stop', why: 'stopped by the operator' });
  }

  private post(event: RoleEvent): void {
    this.driver.postNow(event);
  }

  private perform(action: RoleAction): void {
    switch (action.kind) {
      case 'look':
        void this.terms.look().then((standing) => this.post({ kind: 'seen', standing }));
        return;
      case 'askPeer':
        void this.isPeerFree().then((free) => this.post({ kind: 'peerAsked', free }));
        return;
      case 'lookLater':
        // It has no role yet, and may be asked about that.
        this.started.resolve();
        this.context.clock.after(lookAgainMs, () => this.post({ kind: 'start' }));
        return;
      case 'claimFirst':
        void this.terms.claimFirst().then((outcome) => this.post({ kind: 'claimed', outcome }));
        return;
      case 'startPrimary':
        this.inOrder(() => this.startPrimary().catch((error: unknown) => this.cannotBoot(error)));
        return;
      case 'startSecondary':
        this.inOrder(() => this.startSecondary());
        return;
      case 'carryOn':
        this.carryOn();
        return;
      case 'clear':
        this.leaveRole();
        this.inOrder(() => this.free());
        return;
      case 'refuse':
        this.refuse();
        return;
    }
  }

  /** A node accepts links only while it holds no copy that it could run, and nothing of one. */
  private async isPeerFree(): Promise<boolean> {
    const { record } = this.terms;
    const peer = this.context.config.peers.find(({ node }) => node === record?.peer);
    if (record === undefined || peer === undefined) return false;
    try {
      const links = await this.context.platform.openLinks(peer, record.term, new AbortController().signal);
      for (const link of Object.values(links)) link.destroy();
      return true;
    } catch {
      return false;
    }
  }

  /** One start or freeing at a time; what fails ends the node's part in this VM. */
  private inOrder(task: () => Promise<void>): void {
    this.work = this.work.then(task).catch((error: unknown) => {
      this.context.log.error({ error: errorText(error) }, 'this node can have no role');
      this.started.reject(error);
      this.post({ kind: 'failed', why: errorText(error) });
    });
  }

  /** The term is this node's: nobody else runs the VM, and whoever watches this node may have it tried again. */
  private cannotBoot(error: unknown): never {
    this.vmOver = { why: errorText(error), byGuest: false };
    throw error;
  }

  private refuse(): void {
    const { vm } = this.context.config;
    const owner = this.terms.record?.owner;
    const error =
      owner === undefined
        ? new ColoError(errorCodes.arbiter, `the arbiter did not say who runs ${vm}`, {
            hint: 'see the log of this node',
          })
        : new ColoError(errorCodes.termLost, `the arbiter says that ${owner} owns ${vm}`, {
            hint: 'start this node as a secondary, or remove the VM first',
          });
    this.started.reject(error);
  }

  private async startPrimary(): Promise<void> {
    const { uplink } = this;
    if (uplink === undefined || this.role.state.kind !== 'primary') return;
    const nic = await this.context.platform.listenCard();
    this.nic = nic;
    const vm = await this.context.platform.startVm({});
    this.vm = vm;
    const template = await vm.makeTemplate();
    if (this.role.state.kind !== 'primary') return;
    const isAnew = (this.terms.record?.term ?? 0) > firstTerm;
    if (isAnew) this.context.log.error('the VM is booted anew: no node has its memory any more');
    this.addresses.reset();
    this.becomePrimary({ vm, nic, uplink, template, ...this.disksOf(vm) });
    await vm.resume();
    // Booted anew: another node may have run the guest before, and be stopped with something on its way, as at a
    // takeover.
    if (isAnew) this.announce(uplink);
    this.started.resolve();
  }

  private async startSecondary(): Promise<void> {
    if (this.role.state.kind !== 'secondary') return;
    const secondary = new SecondaryNode(this.context, this.shared);
    this.secondary = secondary;
    secondary.onTakenOver = (inheritance) => {
      this.inheritance = inheritance;
      this.post({ kind: 'tookOver' });
    };
    secondary.onOrphaned = (why) => {
      this.context.log.error({ why }, 'the copy that was to go on is lost: nobody has the VM any more');
      this.post({ kind: 'orphaned', why });
    };
    await secondary.start();
    this.started.resolve();
  }

  /** The secondary has the term and a running VM: this node is the primary from here on, whatever fails beside it. */
  private carryOn(): void {
    const { config, clock, log } = this.context;
    const { inheritance, uplink, troubles } = this;
    if (uplink === undefined || inheritance === undefined) return;
    const { applier, resend, spoken, early, why, detectedAt, takenOverAt } = inheritance;
    this.inheritance = undefined;
    this.vm = applier.vm;
    this.nic = applier.nic;
    this.secondary = undefined;
    this.becomePrimary({
      vm: applier.vm,
      nic: applier.nic,
      uplink,
      template: applier.template,
      ...(inheritance.table === undefined ? {} : { table: inheritance.table }),
      ...troubles.isolate('overlay', () => this.disksOf(applier.vm)),
    });
    const { primary } = this;
    primary?.plight.tookOver(why);
    void applier.kept?.mayFold.then((may) => may && this.primary === primary && primary?.disks?.fold());
    troubles.isolate('announcement', () => this.announce(uplink));
    for (const frame of resend) uplink.send(frame);
    for (const frame of spoken) primary?.fromGuest(frame, clock.now());
    for (const frame of early) primary?.fromNetwork(frame);
    this.context.platform.reached('takeover.announced', 0);
    this.failoverRecord = { why, detectedAt: wallTime(detectedAt), doneAt: wallTime(takenOverAt) };
    log.warn({ why, resent: resend.length, early: early.length, vm: config.vm, at: clock.now() }, 'took over');
  }

  private disksOf(vm: GuestVm): { disks?: DiskSource } {
    const { config, platform } = this.context;
    const disks = (config.disks ?? []).length === 0 ? undefined : platform.diskSource(vm);
    return disks === undefined ? {} : { disks };
  }

  private becomePrimary(parts: Omit<PrimaryParts, keyof SharedParts>): void {
    const primary = new PrimaryNode(this.context, { ...parts, ...this.shared });
    this.primary = primary;
    primary.onFenced = (why) => {
      this.context.log.error({ why }, 'this node no longer runs the VM');
      this.post({ kind: 'fenced', why });
    };
    primary.onVmOver = (why, byGuest) => {
      this.vmOver = { why, byGuest };
      this.post({ kind: 'vmOver', why });
    };
    primary.onAlone = (why, detectedAt) => {
      this.failoverRecord = { why, detectedAt: wallTime(detectedAt), doneAt: wallTime(this.context.clock.now()) };
    };
    primary.start();
  }

  /** From this moment on nothing is said for the VM; what it used is freed then. */
  private leaveRole(): void {
    this.stopAnnouncing();
    this.primary?.shutDown();
    this.primary = undefined;
  }

  private async free(): Promise<void> {
    const { vm, nic, secondary } = this;
    this.vm = undefined;
    this.nic = undefined;
    this.secondary = undefined;
    await secondary?.stop();
    // A takeover that was done when the node was already told to stop.
    await this.inheritance?.applier.close();
    this.inheritance = undefined;
    await vm?.kill();
    await nic?.close();
    this.post({ kind: 'cleared' });
  }

  /** What a role is given and does not own. */
  private get shared(): SharedParts {
    const { terms, tolerance, addresses, verified, troubles, uplinkHealth } = this;
    return { terms, tolerance, addresses, verified, troubles, uplinkHealth };
  }

  private announce(uplink: Uplink): void {
    const { primary } = this;
    const say = (count: number, waitMs: number) => {
      // A node that was stopped meanwhile may find that another one has the guest.
      if (count === 0 || primary?.maySpeak === true)
        for (const frame of this.addresses.announcements()) uplink.send(frame);
      const nextMs = count + 1 < announcements ? announceEveryMs : Math.min(2 * waitMs, announceEveryMsMax);
      this.stopAnnouncing = this.context.clock.after(nextMs, () => say(count + 1, nextMs));
    };
    say(0, announceEveryMs);
  }

  /** Why this node runs the VM no longer; undefined while it has a role. */
  get ending(): string | undefined {
    const { state } = this.role;
    return state.kind === 'ended' || state.kind === 'clearing' ? state.why : undefined;
  }

  status(): NodeStatus {
    return describeNode(this, cpus().length);
  }

  checkpoint(): Promise<void> {
    return this.asPrimary().checkpoint();
  }

  async failover(): Promise<void> {
    await this.asPrimary().offer.ask('the operator asked for a failover');
  }

  /** Other nodes can be the secondary from now on. A pair that stands is not touched. */
  setPeers(peers: readonly Peer[]): void {
    this.context.config.peers = peers;
  }

  private asPrimary(): PrimaryNode {
    if (this.primary !== undefined) return this.primary;
    throw new ColoError(errorCodes.input, 'this node is not the primary of the VM', { hint: 'ask the other node' });
  }
}

function cardBytes({ mac, address }: { mac: string; address?: string | undefined }): Card {
  return { mac: macBytes(mac), ...(address === undefined ? {} : { address: ipBytes(address) }) };
}

function macBytes(mac: string): Uint8Array {
  return Uint8Array.from(mac.split(':'), (part) => Number.parseInt(part, 16));
}

function ipBytes(address: string): Uint8Array {
  return Uint8Array.from(address.split('.'), Number);
}
