// Bounds and periods of a node's roles, and what happens at each bound.

/**
 * Frames of the network that wait for the few milliseconds of a capture. Beyond: dropped, as by a full ring, and
 * counted.
 */
export const ingressHeldFramesMax = 4096;

/** Ingress of the last moments that is repeated to the secondary when a capture could not wait for QEMU to take it. */
export const replayWindowMs = 10;

/**
 * How long a capture or an apply waits until QEMU has read what it was given. Beyond: the last moments are repeated.
 */
export const settleMs = 3;

/**
 * Restarts of a loaded machine that the next one is planned by; before the first one it is planned for so many
 * milliseconds.
 */
export const restartGuessesKept = 8;
export const firstRestartGuessMs = 9;

/**
 * How long a loaded machine waits for the moment that its clocks are at. Beyond: it is started, and they are that much
 * ahead.
 */
export const restartWaitMsMax = 20;

/**
 * What a guest says between the takeover of its copy and the role of its new primary, some milliseconds. Further frames
 * are dropped.
 */
export const spokenFramesMax = 4096;

/**
 * Frames of the network that arrive at the secondary and may have missed the primary, and for how long they are kept.
 * The oldest leave; what nobody got, TCP sends again.
 */
export const earlyFramesMax = 2048;
export const earlyMs = 1000;

/** A peer that is not protecting yet is given up after this silence: it may be starting its VM, or take in all RAM. */
export const unprotectedSilenceMs = 20_000;

/** A text that a peer sends (a reason); a longer one is cut. */
export const textBytesMax = 4096;

/** The roles look at the time this often: timeouts of the proxy, beats, due checkpoints. */
export const tickMs = 5;

/** Dirty pages are counted this often: a count costs about as much as a scan. */
export const countDirtyMs = 50;

/** A hanging QEMU is looked for this often. */
export const pingMs = 1000;

/** From a QEMU's being gone to hearing of its end, at most. Beyond: what it was asked failed for another reason. */
export const endHeardMs = 2000;

/** Between two rounds of asking the other nodes whether one can be the secondary. */
export const reconnectMs = 300;

/**
 * A changed list of the guest's addresses is told to the secondary this often at most: a guest may change it at will.
 */
export const addressesEveryMs = 50;

/** How long a link of a pairing may take to be opened. Beyond: none is, and the pairing is tried again. */
export const linkTimeoutMs = 2000;

/** Pairings of which not every link is there yet. The oldest is given up for a further one. */
export const sessionsGatheringMax = 4;

/** The guest's addresses are announced this often soon after a takeover, since an announcement may be lost. */
export const announcements = 4;
export const announceEveryMs = 100;

/**
 * Then ever more seldom, down to once in this time: what the lost primary had on its way when it was stopped leaves
 * when it wakes, whenever that is, and the network believes for that that the guest is there again.
 */
export const announceEveryMsMax = 4000;

/** Between two looks at a record that names a pair of which nobody is heard. */
export const lookAgainMs = 300;

/** How long the arbiter may take to confirm that an operator's stop is the end of the VM. Then it is unconfirmed. */
export const stopClaimMs = 2000;

/** A node that was told to end by a signal looks this often whether it may. */
export const retireEveryMs = 50;

/** A primary that has asked its secondary to take over looks this often whether that has the term. */
export const offerLookMs = 50;

/**
 * A node that is to end leaves the term to its peer for so long: a primary that does not hear its secondary, a
 * secondary that has told its primary. Then it asks for it itself.
 */
export const yieldMs = 3000;

/** Waits between two tries of a claim that the arbiter did not answer. */
export const claimRetryMs = 200;

/** A pcap file holds up to this; each leg has two. A full one takes the place of the older. */
export const pcapFileBytesMax = 64 << 20;

/** Bytes for a pcap file that wait for the disk; beyond it frames are left out, and counted. */
export const pcapBacklogBytesMax = 4 << 20;

/**
 * After a trouble of the disks, or a secondary that could not run what it was given, no secondary is tried for this,
 * doubled each time up to the maximum.
 */
export const diskPauseMsFirst = 1000;
export const diskPauseMsMax = 60_000;

/** How often the mirrors of the disks are asked how far the initial copy is. */
export const mirrorProgressMs = 250;

/**
 * How long a takeover waits until the disks are labelled as the survivor's. Beyond: the guest goes on, the status says
 * that its disk does not answer, and the label follows when it does.
 */
export const takeoverDiskMs = 1000;

/**
 * A disk of a secondary is looked at this often, and has failed when something that it was asked has no answer for so
 * many looks, 10 s: the secondary leaves, the primary goes on without it and says why. Nothing at once: a disk may be
 * slow, and what waits for it is copied anew then.
 */
export const diskLookMs = 500;
export const diskSilentLooks = 20;

/** Between two tries to bring the flushes of a survivor's guest to its disk, when QEMU has refused that. */
export const keepRetryMs = 2000;

/** A copy that is to go on and cannot be made to run is tried so often, this far apart. Then this node gives it up. */
export const takeoverTriesMax = 5;
export const takeoverRetryMs = 100;

/** A text that says what is wrong on a node and costs itself alone. A longer one is cut. */
export const troubleCharactersMax = 300;

/** A guest that waits for room on its own disk is let try again this often. */
export const diskRetryMs = 1000;

/** From QEMU cancelling its jobs to its end, at most. Beyond: it was something else, and the disks count as failed. */
export const jobEndingMs = 3000;

/** A text of a node or of a system call that says why a primary has no secondary. A longer one is cut. */
export const plightCharactersMax = 200;

/** Whether the network can be reached through this node is asked this often. */
export const uplinkLookMs = 200;

/** Traits of a machine that a peer may name. More are none that we know, and its session is over. */
export const traitsMax = 200;

/** Differences of two hosts that a refusal names. It says how many others there are. */
export const differencesMax = 3;

/**
 * By how much the rates of two hosts' time stamp counters may differ: what KVM takes as equal. Beyond it a guest's
 * clock would run wrong after a failover, and the host is no secondary.
 */
export const tscTolerance = 250e-6;

/**
 * What a host's QEMU makes of a machine is taken to stay the same for this long; then a refused primary is looked at
 * anew.
 */
export const madeTraitsMs = 60_000;

/** Staged pages that wait for the spill file. Beyond: the bulk link is not read until the disk has caught up. */
export const spillWaitingBytesMax = 32 * 1024 * 1024;

/**
 * How far the clock of a state that is loaded may be behind this host's. More, or as much before it: the clock is left
 * as it is.
 */
export const clockLagMsMax = 3_600_000;

/** The last line of a QEMU that ended, in the reason for its end. The rest of a longer one is left out. */
export const saidCharactersMax = 300;
