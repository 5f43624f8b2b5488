// Runs a short command of the host to its end and keeps what it said. For tools (apt-get, dpkg-deb, qemu-img), never
// for QEMU itself. Bounded in time and in output: a command over either limit is killed and reported.

import { type ExecFileException, execFile } from 'node:child_process';
import { ColoError, errorCodes } from '../base/errors.ts';
import { commandOutputBytesMax, commandTimeoutMs } from './limits.ts';

export interface CommandOptions {
  cwd?: string;
  timeoutMs?: number;
  /** Added to this process's environment. */
  environment?: Record<string, string>;
  signal?: AbortSignal;
}

export interface CommandResult {
  /** The exit code; -1 when the command was killed or could not be started. */
  code: number;
  stdout: string;
  stderr: string;
  /** Why it did not run to its end: not found, time over, too much output. */
  failure?: string;
}

function failureOf(error: ExecFileException, file: string, timeoutMs: number): string {
  if (error.code === 'ENOENT') return `${file} is not installed`;
  if (error.code === 'ERR_CHILD_PROCESS_STDIO_MAXBUFFER')
    return `${file} said more than ${commandOutputBytesMax} bytes`;
  return error.killed ? `${file} did not end within ${timeoutMs / 1000} s` : `${file} was ended by a signal`;
}

/** Runs the command; never throws for what the command does. */
export function tryCommand(file: string, args: string[], options: CommandOptions = {}): Promise<CommandResult> {
  const timeoutMs = options.timeoutMs ?? commandTimeoutMs;
  return new Promise((resolve) => {
    const child = execFile(
      file,
      args,
      {
        cwd: options.cwd,
        env: { ...process.env, LC_ALL: 'C', ...options.environment },
        timeout: timeoutMs,
        killSignal: 'SIGKILL',
        maxBuffer: commandOutputBytesMax,
        ...(options.signal === undefined ? {} : { signal: options.signal }),
      },
      (error, stdout, stderr) => {
        if (error === null) resolve({ code: 0, stdout, stderr });
        else if (typeof error.code === 'number') resolve({ code: error.code, stdout, stderr });
        else resolve({ code: -1, stdout, stderr, failure: failureOf(error, file, timeoutMs) });
      },
    );
    child.stdin?.end();
  });
}

/** Runs the command and returns its standard output; throws ColoError(host) with its last line when it fails. */
export async function runCommand(file: string, args: string[], options: CommandOptions = {}): Promise<string> {
  const result = await tryCommand(file, args, options);
  if (result.code === 0) return result.stdout;
  const said = result.stderr.trim().split('\n').at(-1) ?? '';
  const why = result.failure ?? `exit code ${result.code}${said === '' ? '' : `: ${said}`}`;
  throw new ColoError(errorCodes.host, `"${[file, ...args.slice(0, 3)].join(' ')}" failed: ${why}`);
}
