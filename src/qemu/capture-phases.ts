// What a capture costs the guest, step by step.

/** What the steps of a capture cost while the guest stood still, in milliseconds. */
export interface CaptureSteps {
  stopMs: number;
  saveMs: number;
  scanMs: number;
  copyMs: number;
  resumeMs: number;
}

export interface CapturePhases extends CaptureSteps {
  /** The whole: from sending `stop` to the reply to `cont`, so a little more than the guest stood still. */
  pauseMs: number;
}

/** `times`: when it began, and when each step had ended. */
export function phasesOf(times: readonly number[]): CapturePhases {
  const spent = (from: number, to: number) => (times[to] ?? 0) - (times[from] ?? 0);
  return {
    stopMs: spent(0, 1),
    saveMs: spent(1, 2),
    scanMs: spent(2, 3),
    copyMs: spent(3, 4),
    resumeMs: spent(4, 5),
    pauseMs: spent(0, 5),
  };
}
