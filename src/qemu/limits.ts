// Limits of the qemu folder, and what happens at each.

/** One line of QEMU's monitor. Longer: the connection is closed, every pending command fails. */
export const qmpLineBytesMax = 4 * 1024 * 1024;

/** Commands waiting for their reply. More: the command is refused (a bug of ours: nothing sends that many). */
export const qmpPendingMax = 64;

/** What is kept of QEMU's standard error, the newest. Older text is dropped. */
export const stderrBytesMax = 8 * 1024;

/** Device state of one checkpoint, one cluster of the carrier. Larger: capture and load throw COLO_E_CHECKPOINT. */
export const deviceStateBytesMax = 2 * 1024 * 1024;

/** The carrier as a file, holes included. A peer's template that unpacks to more is refused. */
export const carrierBytesMax = 64 * 1024 * 1024;

/** Dirty pages one capture may hold. More: capture throws COLO_E_CHECKPOINT, the pages stay dirty. */
export const capturePagesBytesMax = 4 * 1024 * 1024 * 1024;

/** The first size of the capture buffer: 4,096 pages, so that an ordinary checkpoint never allocates. */
export const capturePagesBytesFirst = 16 * 1024 * 1024;

/**
 * Captures in a row that needed less memory than is kept for them. After as many, twice at most, a smaller buffer
 * replaces it.
 */
export const captureShrinkAfter = 32;

/**
 * Saves of the devices in one capture, repeated while the stopped machine's cards still send (some 1.3 ms each; a ring
 * of 4,096 full frames through a socket of 200 KB needs 30). More: capture throws COLO_E_CHECKPOINT, the guest runs on,
 * the pages stay dirty.
 */
export const deviceSavesMax = 64;

/** Guest RAM. More: the machine is refused (the RAM file is one Buffer, and offsets are doubles). */
export const ramBytesMax = 1024 ** 4;

/** How long QEMU may take to answer its first command. Beyond: it is killed and the start fails (see VmTimeouts). */
export const startTimeoutMs = 30_000;

/** How long QEMU may take to answer a later command. Beyond: that command fails with COLO_E_QEMU_TIMEOUT. */
export const commandTimeoutMs = 10_000;

/** How long a killed QEMU may take to be gone. Beyond: closing the VM fails and names the process. */
export const killTimeoutMs = 10_000;

/**
 * A QEMU that answers nothing for this long hangs: its node treats it as dead. A primary hands over, a secondary
 * leaves.
 */
export const pingTimeoutMs = 3000;

/** How long qemu-img may take to make a file. Beyond: it is killed, and the start fails. */
export const imageToolTimeoutMs = 20_000;

/** Captures in memory: one on its way and one being taken. A further capture throws COLO_E_CHECKPOINT. */
export const captureBuffersMax = 2;

/** Sections of device state that are looked at. What stands behind more is not found, and the clock is not aligned. */
export const sectionsMax = 1024;

/** Virtio devices that are asked whether they work, and queues of one of them. What stands behind more is not asked. */
export const virtioDevicesMax = 64;
export const virtioQueuesMax = 64;

/**
 * Written pages from which on a capture copies them while the guest still runs. Fewer: all are copied while it stands
 * still.
 */
export const earlyPagesMin = 256;

/** Runs of pages that are copied so without letting the event loop do other work. More: it gets a turn in between. */
export const earlyRunsAtOnce = 512;

/** Bytes that are copied so without letting the event loop do other work. More: it gets a turn in between. */
export const earlyBytesAtOnce = 8 * 1024 * 1024;

/** Size at which the file of a guest's serial console is put aside as FILE.old, in the place of the one before. */
export const consoleFileBytesMax = 4 * 1024 * 1024;

/**
 * What a guest can write to its console while its node does something else. Beyond: it waits, as for a slow serial
 * line.
 */
export const consolePipeBytes = 1024 * 1024;

/** What is read of a console at once. */
export const consolePieceBytes = 64 * 1024;

/** Bytes of a console that wait to be written. Beyond: what comes is lost, and the file says so. */
export const consoleWaitingBytesMax = 4 * 1024 * 1024;
