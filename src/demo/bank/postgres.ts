// As much of PostgreSQL's wire protocol as the bank needs: connect without a password, send one text of SQL, get rows
// and the tags of its commands. https://www.postgresql.org/docs/15/protocol.html
//
//    'Q' u32 length, text, 0 ──►    ◄── 'T' columns, 'D' row ..., 'C' tag, ... 'Z' ready      ('E' error, then 'Z')

import { createConnection, type Socket } from 'node:net';

export interface SqlResult {
  rows: (string | null)[][];
  /** One per command: "BEGIN", "UPDATE 1" ... */
  tags: string[];
}

interface Asked {
  result: SqlResult;
  failure: string | undefined;
  resolve(result: SqlResult): void;
  reject(error: Error): void;
}

/** A message of the server longer than this ends the connection: nothing here asks for as much. */
const messageBytesMax = 16 * 1024 * 1024;
const connectTimeoutMs = 120_000;

export class Postgres {
  private readonly socket: Socket;
  private pending: Buffer = Buffer.alloc(0);
  private asked: Asked | undefined;
  private ended: Error | undefined;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => this.take(chunk));
    socket.on('error', (error) => this.end(new Error(`connection failed: ${error.message}`)));
    socket.on('close', () => this.end(new Error('the connection was closed')));
  }

  /** `host`: the guest, or its forward. */
  static async connect(port: number, host = '127.0.0.1'): Promise<Postgres> {
    const socket = createConnection({ port, host, noDelay: true });
    const sql = new Postgres(socket);
    const parameters = Buffer.from('user\0postgres\0database\0postgres\0\0');
    const start = Buffer.alloc(8);
    start.writeUInt32BE(8 + parameters.length, 0);
    start.writeUInt32BE(196_608, 4);
    const answer = sql.expect();
    socket.write(Buffer.concat([start, parameters]));
    socket.setTimeout(connectTimeoutMs, () => sql.end(new Error('PostgreSQL does not answer')));
    await answer;
    socket.setTimeout(0);
    return sql;
  }

  /** Runs one text of SQL, which may hold several commands; one at a time. */
  query(text: string): Promise<SqlResult> {
    const answer = this.expect();
    const body = Buffer.from(`${text}\0`);
    const head = Buffer.alloc(5);
    head.write('Q', 0);
    head.writeUInt32BE(4 + body.length, 1);
    this.socket.write(Buffer.concat([head, body]));
    return answer;
  }

  close(): void {
    this.ended ??= new Error('the client closed the connection');
    this.socket.destroy();
  }

  private expect(): Promise<SqlResult> {
    if (this.ended !== undefined) return Promise.reject(this.ended);
    if (this.asked !== undefined) return Promise.reject(new Error('bug: one query at a time'));
    return new Promise((resolve, reject) => {
      this.asked = { result: { rows: [], tags: [] }, failure: undefined, resolve, reject };
    });
  }

  private take(chunk: Buffer): void {
    this.pending = Buffer.concat([this.pending, chunk]);
    while (this.pending.length >= 5) {
      const length = this.pending.readUInt32BE(1);
      if (length < 4 || length > messageBytesMax) return this.end(new Error('the server sent no PostgreSQL message'));
      if (this.pending.length < 1 + length) return;
      const body = this.pending.subarray(5, 1 + length);
      const type = this.pending.toString('latin1', 0, 1);
      this.pending = this.pending.subarray(1 + length);
      this.onMessage(type, body);
    }
  }

  private onMessage(type: string, body: Buffer): void {
    const asked = this.asked;
    if (asked === undefined) return;
    if (type === 'D') asked.result.rows.push(rowOf(body));
    else if (type === 'C') asked.result.tags.push(body.toString('utf8', 0, body.length - 1));
    else if (type === 'E') asked.failure ??= errorOf(body);
    else if (type === 'Z') {
      this.asked = undefined;
      if (asked.failure === undefined) asked.resolve(asked.result);
      else asked.reject(new Error(asked.failure));
    }
  }

  private end(error: Error): void {
    this.ended ??= error;
    this.socket.destroy();
    const asked = this.asked;
    this.asked = undefined;
    asked?.reject(this.ended);
  }
}

function rowOf(body: Buffer): (string | null)[] {
  const row: (string | null)[] = [];
  let at = 2;
  for (let index = 0; index < body.readUInt16BE(0); index += 1) {
    const length = body.readInt32BE(at);
    at += 4;
    row.push(length < 0 ? null : body.toString('utf8', at, at + length));
    at += Math.max(0, length);
  }
  return row;
}

/** The message field ('M') of an error. */
function errorOf(body: Buffer): string {
  const fields = body.toString('utf8').split('\0');
  return fields.find((field) => field.startsWith('M'))?.slice(1) ?? 'an error without a text';
}
