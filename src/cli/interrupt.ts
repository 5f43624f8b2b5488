// Ctrl-C and its relatives as an AbortSignal: the command unwinds, and its `finally` blocks end what it started. A
// second Ctrl-C ends at once.

let controller: AbortController | undefined;

export function interruptSignal(): AbortSignal {
  if (controller !== undefined) return controller.signal;
  const made = new AbortController();
  controller = made;
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(name, () => {
      if (made.signal.aborted) process.exit(130);
      made.abort(new Interrupted());
    });
  return made.signal;
}

/**
 * Whether this command was interrupted: then what fails in it fails because of that (a terminal tells its children,
 * too).
 */
export function isInterrupted(): boolean {
  return controller?.signal.aborted === true;
}

/** The reason of an interrupted command. */
export class Interrupted extends Error {
  constructor() {
    super('interrupted');
    this.name = 'Interrupted';
  }
}
