// What the demo and the process in its clients' namespace say to each other. Both are of this checkout and of one run.

import type { ClientReport } from './client.ts';
import type { WantedClient } from './clients.ts';

/** Clients are numbered from 0 in the order in which they are started. */
export type Order =
  /** `pcap`: every frame of the clients' link, in both directions, is written to this file. */
  | { do: 'connect'; path: string; pcap?: string | undefined }
  | { do: 'start'; index: number; wanted: WantedClient }
  | { do: 'mark' | 'abort'; index: number }
  | { do: 'finish'; index: number; deadlineMs: number };

export type Answer =
  | { is: 'namespace-ready'; ipv6Refusal: string | undefined }
  | { is: 'connected' }
  | { is: 'started'; index: number }
  | { is: 'progress'; all: { text: string; gapMs: number }[] }
  | { is: 'finished'; index: number; report: ClientReport }
  | { is: 'failed'; why: string };
