// Values of QEMU's replies and events, which hold whatever a QEMU that its guest has taken over wants them to hold.
// String() and Number() throw on some objects that JSON can make; these do not.

/** Text as it is; anything else as JSON. */
export function textIn(value: unknown): string {
  return typeof value === 'string' ? value : (JSON.stringify(value) ?? 'nothing');
}

/** A count of something; 0 when it is none. */
export function countIn(value: unknown): number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : 0;
}
