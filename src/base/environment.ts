// What a child process inherits from us, in one place, because process.env is read in few.

/**
 * Threads on which one node's process waits for files: far more than a disk that hangs can take of them, so that those
 * of the arbiter's folder are still read and written then. Node has 4 when nobody says.
 */
const fileThreads = 16;

/** For the process of a node. */
export function nodeEnvironment(): NodeJS.ProcessEnv {
  return childEnvironment({ UV_THREADPOOL_SIZE: String(fileThreads) });
}

/** Our own environment with `extra` on top. */
export function childEnvironment(extra: Record<string, string>): NodeJS.ProcessEnv {
  return { ...process.env, ...extra };
}
