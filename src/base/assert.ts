// Assertions are for bugs of ours only (docs/decisions/0003-errors.md): a failed one stops the process, and
// losing a node is the case COLO exists for. Untrusted input is parsed to a typed refusal, never asserted.

/** Throws when `condition` is false; `message` says which invariant of ours broke. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(`bug: ${message}`);
}

/** Ends an exhaustive switch: compiles only when every case is handled. */
export function unreachable(value: never): never {
  throw new Error(`bug: unreachable case ${JSON.stringify(value)}`);
}
