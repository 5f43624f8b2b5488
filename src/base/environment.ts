// What a child process inherits from us, in one place, because process.env is read in few.

/** Our own environment with `extra` on top. */
export function childEnvironment(extra: Record<string, string>): NodeJS.ProcessEnv {
  return { ...process.env, ...extra };
}
