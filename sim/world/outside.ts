// The schedule of a run settles promises itself (schedule.ts), so a run must not begin within one.

/** Runs `work` outside of any promise; resolves or rejects as it returns or throws. */
export function outside<T>(work: () => T): Promise<T> {
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  setImmediate(() => {
    try {
      resolve(work());
    } catch (error) {
      reject(error instanceof Error ? error : new Error(String(error)));
    }
  });
  return promise;
}
