// The bank: money moves between accounts in a real PostgreSQL, every acknowledged transfer is written down here, and in
// the end the database must say exactly the same: each transfer once, each balance to the last unit.
//
// Tellers with a connection each; a teller's transfer number `index` is the same in every run of a seed. A teller
// never reconnects: its connection outlives the primary or the run has failed.

import { type Clock, delay } from '../../base/clock.ts';
import { errorText } from '../../base/errors.ts';
import { seededRandom } from '../../base/random.ts';
import { type ClientReport, MeasuredClient } from '../clients/client.ts';
import { Postgres } from './postgres.ts';

const accounts = 40;
const firstBalance = 1000;
/** Tellers of one bank over all of its life: each has transfer numbers of its own. */
const tellersMax = 1000;

export interface Transfer {
  id: number;
  from: number;
  to: number;
  amount: number;
}

/** Makes the tables; a bank that is there already is emptied. */
export async function openBank(port: number, host?: string): Promise<void> {
  const sql = await Postgres.connect(port, host);
  try {
    await sql.query(`
      DROP TABLE IF EXISTS transfers; DROP TABLE IF EXISTS accounts;
      CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL);
      CREATE TABLE transfers (id bigint PRIMARY KEY, source int NOT NULL, target int NOT NULL, amount bigint NOT NULL);
      INSERT INTO accounts SELECT n, ${firstBalance} FROM generate_series(0, ${accounts - 1}) AS n;
      CREATE EXTENSION IF NOT EXISTS amcheck; CHECKPOINT;`);
  } finally {
    sql.close();
  }
}

export class Teller extends MeasuredClient {
  readonly name: string;
  readonly acknowledged: Transfer[] = [];
  private readonly sql: Postgres;
  private readonly number: number;
  private readonly random: () => number;
  private readonly work: Promise<void>;
  private sent = 0;

  private constructor(sql: Postgres, options: { number: number; seed: number; paceMs: number }, clock: Clock) {
    super(clock);
    this.name = `teller ${options.number}`;
    this.sql = sql;
    this.number = options.number;
    this.random = seededRandom(options.seed + options.number);
    this.work = this.run(options.paceMs);
  }

  static async start(
    port: number,
    options: { number: number; seed: number; paceMs: number; host?: string },
    clock: Clock,
  ): Promise<Teller> {
    return new Teller(await Postgres.connect(port, options.host), options, clock);
  }

  progress(): string {
    return `${this.acknowledged.length} transfers`;
  }

  async finish(deadlineMs: number): Promise<ClientReport> {
    this.finishing = true;
    await Promise.race([this.work, delay(deadlineMs, this.clock)]);
    if (this.wrong === '' && this.sent !== this.acknowledged.length) this.wrong = 'a transfer was never answered';
    this.abort();
    return {
      name: this.name,
      ok: this.wrong === '' && this.sent > 0,
      connections: 1,
      sent: this.sent,
      received: this.acknowledged.length,
      ...this.gaps.report(),
      detail: this.wrong === '' ? 'every transfer acknowledged' : this.wrong,
    };
  }

  abort(): void {
    this.finishing = true;
    this.sql.close();
  }

  private async run(paceMs: number): Promise<void> {
    try {
      while (!this.finishing) {
        await this.transfer(this.next());
        if (paceMs > 0) await delay(paceMs, this.clock);
      }
    } catch (error) {
      this.wrong ||= errorText(error);
    }
  }

  private next(): Transfer {
    const from = Math.floor(this.random() * accounts);
    const to = (from + 1 + Math.floor(this.random() * (accounts - 1))) % accounts;
    const id = this.sent * tellersMax + this.number;
    this.sent += 1;
    return { id, from, to, amount: 1 + Math.floor(this.random() * 9) };
  }

  private async transfer(one: Transfer): Promise<void> {
    const begun = this.clock.now();
    // The lower account first, so that two tellers never wait for each other in a circle.
    const moves = [
      { id: one.from, by: -one.amount },
      { id: one.to, by: one.amount },
    ].sort((left, right) => left.id - right.id);
    const updates = moves.map(({ id, by }) => `UPDATE accounts SET balance = balance + (${by}) WHERE id = ${id};`);
    const insert = `INSERT INTO transfers VALUES (${one.id}, ${one.from}, ${one.to}, ${one.amount});`;
    const { tags } = await this.sql.query(`BEGIN; ${updates.join(' ')} ${insert} COMMIT;`);
    const expected = 'BEGIN, UPDATE 1, UPDATE 1, INSERT 0 1, COMMIT';
    if (tags.join(', ') !== expected) throw new Error(`transfer ${one.id} was answered "${tags.join(', ')}"`);
    this.acknowledged.push(one);
    this.gaps.progress(this.clock.now() - begun);
  }
}

export interface Audit {
  transfers: number;
  problems: string[];
}

/** Asks the database for everything and compares it with what the tellers wrote down. */
export async function audit(port: number, tellers: readonly Teller[], host?: string): Promise<Audit> {
  const sql = await Postgres.connect(port, host);
  try {
    const { rows: transfers } = await sql.query('SELECT id, source, target, amount FROM transfers');
    const { rows: balances } = await sql.query('SELECT id, balance FROM accounts ORDER BY id');
    const problems = [
      ...compareTransfers(transfers, tellers),
      ...compareBalances(balances, tellers),
      ...(await checkTables(sql)),
    ];
    return { transfers: transfers.length, problems };
  } finally {
    sql.close();
  }
}

type Rows = (string | null)[][];

function compareTransfers(rows: Rows, tellers: readonly Teller[]): string[] {
  const found = new Map(rows.map((row) => [Number(row[0]), row.join(' ')]));
  const problems: string[] = [];
  const wanted = tellers.flatMap((teller) => teller.acknowledged);
  for (const one of wanted) {
    const text = `${one.id} ${one.from} ${one.to} ${one.amount}`;
    if (found.get(one.id) !== text)
      problems.push(`the acknowledged transfer "${text}" is in the database as "${found.get(one.id) ?? 'nothing'}"`);
  }
  if (rows.length !== wanted.length)
    problems.push(`the database has ${rows.length} transfers, ${wanted.length} were acknowledged`);
  return problems.slice(0, 5);
}

function compareBalances(rows: Rows, tellers: readonly Teller[]): string[] {
  const balances = Array.from({ length: accounts }, () => firstBalance);
  for (const { from, to, amount } of tellers.flatMap((teller) => teller.acknowledged)) {
    balances[from] = (balances[from] ?? 0) - amount;
    balances[to] = (balances[to] ?? 0) + amount;
  }
  const sum = rows.reduce((total, row) => total + Number(row[1]), 0);
  const problems = sum === accounts * firstBalance ? [] : [`the accounts hold ${sum}, not ${accounts * firstBalance}`];
  const wrong = balances.filter((balance, index) => Number(rows[index]?.[1]) !== balance).length;
  if (wrong > 0) problems.push(`${wrong} accounts have another balance than the acknowledged transfers give`);
  return problems;
}

/**
 * What pg_amcheck does: PostgreSQL's own look at its files, every row of every table and every entry of every index.
 */
async function checkTables(sql: Postgres): Promise<string[]> {
  try {
    // Throws at the first index that is wrong.
    await sql.query(`
      SELECT bt_index_check(i.indexrelid, true) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        JOIN pg_am a ON a.oid = c.relam
        WHERE a.amname = 'btree' AND c.relpersistence = 'p' AND i.indisready AND i.indisvalid`);
    const { rows } = await sql.query(`
      SELECT c.oid::regclass || ': ' || v.msg FROM pg_class c, LATERAL verify_heapam(c.oid) v
        WHERE c.relkind IN ('r', 'm', 't') AND c.relpersistence = 'p'`);
    return rows.map((row) => `amcheck: ${row[0]}`).slice(0, 5);
  } catch (error) {
    return [`amcheck: ${errorText(error)}`];
  }
}
