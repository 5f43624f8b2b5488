// What every demo shows: a live block while it runs, the same in one line where there is no terminal, and its clients
// at the end.

import type { ClientReport } from '../../demo/clients/client.ts';
import type { DemoView } from '../../demo/demo.ts';
import { ms, type Rates, statusBlock, statusLine, table } from '../view.ts';

export function block(view: DemoView, rates: Rates): string[] {
  const clients = view.clients.map((client) => `${client.name} ${client.progress}`).join('   ');
  return ['', view.phase, ...statusBlock(view.statuses, rates), `clients: ${clients}`];
}

export function line(view: DemoView): string {
  const clients = view.clients.map((client) => `${client.name} ${client.progress}`).join(', ');
  return `${statusLine(view.statuses)}; ${clients}`;
}

/** What each client saw, as lines. */
export function clientTable(clients: readonly ClientReport[]): string[] {
  const rows = clients.map((client) => [
    client.name,
    client.ok ? 'ok' : 'FAILED',
    String(client.connections),
    String(client.sent),
    String(client.received),
    ms(client.gapBeforeFaultMsMax),
    ms(client.gapAfterFaultMsMax),
    client.latencyMsP50 === null ? '-' : ms(client.latencyMsP50),
    client.detail,
  ]);
  const head = [
    'client',
    'result',
    'connections',
    'sent',
    'received',
    'gap before',
    'gap after',
    'latency',
    'what it saw',
  ];
  return table(head, rows);
}
