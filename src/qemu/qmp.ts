// QMP, QEMU's monitor protocol: one JSON object a line over a Unix socket.
// https://www.qemu.org/docs/master/interop/qmp-spec
//
//   QEMU                                  node
//    | -- {"QMP": {version ...}} --------> |   greeting
//    | <- {"execute": "qmp_capabilities"}  |
//    | -- {"return": {}} ----------------> |   from here on commands are accepted
//    | <- {"execute": ..., "id": 2}        |   commands run in order, one at a time
//    | -- {"event": "STOP", ...} --------> |   at any time
//    | -- {"return": ..., "id": 2} ------> |   or {"error": {class, desc}, "id": 2}
//
// QEMU holds guest-controlled state, so its lines are parsed with suspicion: a line that is too long or not JSON ends
// the connection with a typed error. A command that is not answered in time fails alone; it stays in QEMU's queue and
// its late reply is dropped. That is what lets a caller queue `cont` behind a command that hangs. Time in which this
// process stood still is not QEMU's (base/clock.ts).

import type { Socket } from 'node:net';
import { afterAwake, type Clock } from '../base/clock.ts';
import { ColoError, errorCodes } from '../base/errors.ts';
import { during } from '../base/loop-watch.ts';
import { commandTimeoutMs, qmpLineBytesMax, qmpPendingMax } from './limits.ts';
import { textIn } from './reply.ts';

export interface QmpCommand {
  execute: string;
  arguments?: Record<string, unknown>;
}

export interface QmpEvent {
  name: string;
  data: Record<string, unknown>;
}

interface Pending {
  command: string;
  resolve(value: unknown): void;
  reject(error: ColoError): void;
  cancelTimeout(): void;
}

export interface QmpOptions {
  clock: Clock;
  /** How long any command may take, unless it brings its own bound. */
  timeoutMs?: number;
}

type Message = Record<string, unknown>;

const newline = 0x0a;

function isObject(value: unknown): value is Message {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export class Qmp {
  /** Resolves with the reason when the connection is gone; never rejects. */
  readonly closed: Promise<ColoError>;
  readonly #socket: Socket;
  readonly #clock: Clock;
  readonly #timeoutMs: number;
  readonly #pending = new Map<number, Pending>();
  readonly #listeners = new Map<string, Set<(event: QmpEvent) => void>>();
  readonly #greeting = Promise.withResolvers<Message>();
  readonly #lost = Promise.withResolvers<ColoError>();
  readonly #lossListeners = new Set<(loss: ColoError) => void>();
  #loss: ColoError | undefined;
  #nextId = 1;
  #partial: Buffer[] = [];
  #partialBytes = 0;

  private constructor(socket: Socket, options: QmpOptions) {
    this.#socket = socket;
    this.#clock = options.clock;
    this.#timeoutMs = options.timeoutMs ?? commandTimeoutMs;
    this.closed = this.#lost.promise;
    this.#greeting.promise.catch(() => undefined);
    socket.on('data', (bytes: Buffer) => during('qmp', () => this.#receive(bytes)));
    socket.on('error', (cause) =>
      this.#lose(new ColoError(errorCodes.qemu, 'The monitor connection broke.', { cause })),
    );
    socket.on('close', () => this.#lose(new ColoError(errorCodes.qemu, 'QEMU closed the monitor connection.')));
  }

  /** Waits for the greeting on a fresh connection and negotiates. */
  static async open(socket: Socket, options: QmpOptions): Promise<Qmp> {
    const qmp = new Qmp(socket, options);
    const cancel = afterAwake(options.clock, qmp.#timeoutMs, () =>
      qmp.#lose(new ColoError(errorCodes.qemuTimeout, `QEMU's monitor said nothing for ${qmp.#timeoutMs} ms.`)),
    );
    try {
      await qmp.#greeting.promise;
      await qmp.execute('qmp_capabilities');
      return qmp;
    } catch (error) {
      qmp.close();
      throw error;
    } finally {
      cancel();
    }
  }

  execute(command: string, commandArguments?: Record<string, unknown>, timeoutMs?: number): Promise<unknown> {
    const sent = { execute: command, ...(commandArguments === undefined ? {} : { arguments: commandArguments }) };
    const [reply] = this.executeTogether([sent], timeoutMs);
    return reply ?? Promise.reject(new ColoError(errorCodes.qemu, 'No command was sent.'));
  }

  /** Writes several commands at once; QEMU runs them in order, also when an earlier one fails. One promise for each. */
  executeTogether(commands: readonly QmpCommand[], timeoutMs = this.#timeoutMs): Promise<unknown>[] {
    let text = '';
    const replies = commands.map((command) => {
      const id = this.#nextId++;
      text += `${JSON.stringify({ ...command, id })}\n`;
      return this.#expect(id, command.execute, timeoutMs);
    });
    if (this.#loss === undefined) this.#socket.write(text);
    return replies;
  }

  /** A command of the human monitor; returns what it prints. */
  async human(line: string): Promise<string> {
    const reply = await this.execute('human-monitor-command', { 'command-line': line });
    if (typeof reply !== 'string') throw new ColoError(errorCodes.qemu, `QEMU's reply to "${line}" is not text.`);
    return reply;
  }

  /** Calls `listener` for every event of this name; returns what ends it. */
  on(name: string, listener: (event: QmpEvent) => void): () => void {
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners);
    listeners.add(listener);
    return () => void listeners.delete(listener);
  }

  /** Calls `listener` once when the connection is gone, at once if it is; returns what ends it. */
  onLost(listener: (loss: ColoError) => void): () => void {
    if (this.#loss !== undefined) listener(this.#loss);
    else this.#lossListeners.add(listener);
    return () => void this.#lossListeners.delete(listener);
  }

  /** Ends the connection; every pending command fails. */
  close(): void {
    this.#lose(new ColoError(errorCodes.qemu, 'The monitor connection was closed.'));
  }

  #expect(id: number, command: string, timeoutMs: number): Promise<unknown> {
    const refusal = this.#refusal(command);
    if (refusal !== undefined) return Promise.reject(refusal);
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const cancelTimeout = afterAwake(this.#clock, timeoutMs, () => {
      this.#pending.delete(id);
      reject(new ColoError(errorCodes.qemuTimeout, `QEMU did not answer "${command}" within ${timeoutMs} ms.`));
    });
    this.#pending.set(id, { command, resolve, reject, cancelTimeout });
    return promise;
  }

  #refusal(command: string): ColoError | undefined {
    if (this.#loss !== undefined) {
      return new ColoError(errorCodes.qemu, `"${command}" was not sent to QEMU.`, { cause: this.#loss });
    }
    if (this.#pending.size < qmpPendingMax) return undefined;
    return new ColoError(errorCodes.qemu, `"${command}" was not sent: ${qmpPendingMax} commands wait for QEMU.`);
  }

  #receive(bytes: Buffer): void {
    let start = 0;
    for (let end = bytes.indexOf(newline); end >= 0; end = bytes.indexOf(newline, start)) {
      this.#partial.push(bytes.subarray(start, end));
      const line = Buffer.concat(this.#partial).toString('utf8').trim();
      this.#partial = [];
      this.#partialBytes = 0;
      start = end + 1;
      if (line !== '') this.#receiveLine(line);
      if (this.#loss !== undefined) return;
    }
    if (start === bytes.length) return;
    this.#partial.push(Buffer.from(bytes.subarray(start)));
    this.#partialBytes += bytes.length - start;
    if (this.#partialBytes > qmpLineBytesMax) {
      this.#lose(new ColoError(errorCodes.qemu, `A line of QEMU's monitor is longer than ${qmpLineBytesMax} bytes.`));
    }
  }

  #receiveLine(line: string): void {
    let message: unknown;
    try {
      message = JSON.parse(line);
    } catch {
      message = undefined;
    }
    if (!isObject(message)) {
      this.#lose(new ColoError(errorCodes.qemu, `QEMU's monitor sent "${line.slice(0, 80)}", which is not QMP.`));
    } else if ('QMP' in message) this.#greeting.resolve(message);
    else if (typeof message.event === 'string') this.#receiveEvent(message.event, message.data);
    else this.#receiveReply(message);
  }

  #receiveEvent(name: string, data: unknown): void {
    const event = { name, data: isObject(data) ? data : {} };
    for (const listener of this.#listeners.get(name) ?? []) listener(event);
  }

  #receiveReply(message: Message): void {
    const pending = typeof message.id === 'number' ? this.#pending.get(message.id) : undefined;
    if (pending === undefined || typeof message.id !== 'number') return;
    this.#pending.delete(message.id);
    pending.cancelTimeout();
    if (!('error' in message)) return pending.resolve(message.return);
    const text = isObject(message.error) ? textIn(message.error.desc) : 'no description';
    pending.reject(new ColoError(errorCodes.qemu, `QEMU refused "${pending.command}": ${text}`));
  }

  #lose(loss: ColoError): void {
    if (this.#loss !== undefined) return;
    this.#loss = loss;
    this.#socket.destroy();
    this.#greeting.reject(loss);
    for (const pending of this.#pending.values()) {
      pending.cancelTimeout();
      pending.reject(new ColoError(loss.code, `QEMU did not answer "${pending.command}".`, { cause: loss }));
    }
    this.#pending.clear();
    for (const listener of this.#lossListeners) listener(loss);
    this.#lossListeners.clear();
    this.#lost.resolve(loss);
  }
}
