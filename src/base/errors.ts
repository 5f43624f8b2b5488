// The errors an operator may see. Every one has a stable code, one clear line, and where it helps a hint that says
// what to do. The command line prints `message` and `hint`, and exits with 2 for the codes of bad input.

/** What went wrong, for scripts: codes are stable, messages are not. */
export const errorCodes = {
  /** A spec file, an option or an argument is wrong: nothing was started. */
  input: 'COLO_E_INPUT',
  /** The host lacks something (a package, a device, memory, a free port). */
  host: 'COLO_E_HOST',
  /** QEMU did not start, died, or answered with an error. */
  qemu: 'COLO_E_QEMU',
  /** QEMU did not answer in time. */
  qemuTimeout: 'COLO_E_QEMU_TIMEOUT',
  /** The machine has state that would not be replicated: never replicate half a machine. */
  machine: 'COLO_E_MACHINE',
  /** The link to the peer node broke, or its bytes are not ours. */
  channel: 'COLO_E_CHANNEL',
  /** A checkpoint could not be taken, sent, staged or applied. */
  checkpoint: 'COLO_E_CHECKPOINT',
  /** The arbiter did not answer, or its record is not readable. */
  arbiter: 'COLO_E_ARBITER',
  /** The term was lost to the peer: this node must not run the VM. */
  termLost: 'COLO_E_TERM_LOST',
  /** The node has the only copy of the VM, or may be about to: it does not give it up. */
  needed: 'COLO_E_NEEDED',
  /** Something did not happen within its bound. */
  timeout: 'COLO_E_TIMEOUT',
} as const;

export type ErrorCode = (typeof errorCodes)[keyof typeof errorCodes];

export class ColoError extends Error {
  readonly code: ErrorCode;
  readonly hint: string | undefined;

  constructor(code: ErrorCode, message: string, options: { cause?: unknown; hint?: string } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'ColoError';
    this.code = code;
    this.hint = options.hint;
  }
}

/** The text of any thrown value, with its causes, each said once. */
export function errorText(error: unknown): string {
  const parts: string[] = [];
  let at: unknown = error;
  while (at !== undefined && at !== null && parts.length < 5) {
    const text = at instanceof Error ? at.message : String(at);
    if (!parts.includes(text)) parts.push(text);
    at = at instanceof Error ? at.cause : undefined;
  }
  return parts.join(': ');
}
