// The names of the files of a replica; what each holds is said in replica.ts.

import { join } from 'node:path';

export const replicaName = (disk: number) => `disk${disk}.raw`;
export const overlayName = (disk: number) => `disk${disk}.overlay`;
export const segmentName = (serial: number) => `journal.${serial}`;

export function replicaPath(folder: string, disk: number): string {
  return join(folder, replicaName(disk));
}

export function overlayPath(folder: string, disk: number): string {
  return join(folder, overlayName(disk));
}
