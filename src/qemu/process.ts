// One QEMU process: started, watched, killed. Decides nothing; `exited` says how it ended and what it said.
//
// It dies with this process: the preload library asks the kernel for a death signal; without the library the tool
// setpriv (util-linux) does (base/processes.ts). The signal follows the thread that started QEMU, so start it from the
// main thread.

import { type ChildProcess, spawn } from 'node:child_process';
import { childEnvironment } from '../base/environment.ts';
import { tiedToUs } from '../base/processes.ts';
import { stderrBytesMax } from './limits.ts';

export interface ProcessEnd {
  code: number | null;
  signal: string | null;
  /** The end of what it wrote to standard error, or why it could not be started. */
  stderr: string;
  /** Somebody on its host ended it in order, by a signal, say; it leaves with code 0 as when its guest shuts down. */
  byHost?: true;
}

export class QemuProcess {
  /** 0 when it could not be started. */
  readonly pid: number;
  /** Resolves when the process is gone; never rejects. */
  readonly exited: Promise<ProcessEnd>;
  readonly #child: ChildProcess;
  #stderr = Buffer.alloc(0);

  constructor(options: {
    path: string;
    args: string[];
    preload: string | undefined;
    ramPath: string;
    /** Where further RAM blocks lie in the RAM file (ram-blocks.ts). */
    blocks: string;
    /** The page that holds QEMU's clock; none under TCG. */
    clockPath: string | undefined;
  }) {
    const { path, args, preload, ramPath, blocks, clockPath } = options;
    const [command, commandArgs] = preload === undefined ? tiedToUs(path, args) : [path, args];
    const environment = {
      COLO_RAM: ramPath,
      COLO_BLOCKS: blocks,
      COLO_PARENT: String(process.pid),
      ...(clockPath === undefined ? {} : { COLO_CLOCK: clockPath }),
    };
    this.#child = spawn(command, commandArgs, {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: childEnvironment(preload === undefined ? {} : { ...environment, LD_PRELOAD: preload }),
    });
    this.pid = this.#child.pid ?? 0;
    this.#child.stderr?.on('data', (bytes: Buffer) => {
      this.#stderr = Buffer.concat([this.#stderr, bytes]).subarray(-stderrBytesMax);
    });
    this.exited = this.#watch();
  }

  get stderr(): string {
    return this.#stderr.toString('utf8').trim();
  }

  /**
   * What it wrote since the last call: said once, so that an old warning is not taken for the reason of a later error.
   */
  takeStderr(): string {
    const text = this.stderr;
    this.#stderr = Buffer.alloc(0);
    return text;
  }

  /** SIGKILL; `exited` says when it is gone. */
  kill(): void {
    this.#child.kill('SIGKILL');
  }

  #watch(): Promise<ProcessEnd> {
    return new Promise((resolve) => {
      this.#child.once('error', (error) => {
        if (this.#child.pid === undefined) resolve({ code: null, signal: null, stderr: error.message });
      });
      this.#child.once('close', (code, signal) => resolve({ code, signal, stderr: this.stderr }));
    });
  }
}
