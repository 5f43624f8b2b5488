// Writes the table of devices in docs/guests.md from src/config/devices.ts.
//
//   node docs/guests.ts          writes the file
//   docs/guests.test.ts          fails when the file is not what this would write

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { devices } from '../src/config/devices.ts';

export const guestsDocument = join(import.meta.dirname, 'guests.md');
const marks = { begin: '<!-- devices: made by docs/guests.ts -->', end: '<!-- end of devices -->' };

/** The whole document, with the table of today. */
export function renderGuests(text: string): string {
  const begin = text.indexOf(marks.begin);
  const end = text.indexOf(marks.end);
  if (begin < 0 || end < begin) throw new Error(`docs/guests.md lacks "${marks.begin}" or "${marks.end}"`);
  return `${text.slice(0, begin)}${marks.begin}\n\n${table()}\n\n${text.slice(end)}`;
}

function table(): string {
  const can = devices.flatMap(({ kind, name, qemu, support }) =>
    support.how === 'supported' ? [`| ${kind} | \`${name}\` | ${qemu} | ${support.needs} | ${support.tested} |`] : [],
  );
  const cannot = devices.flatMap(({ name, qemu, support }) =>
    support.how === 'refused' ? [`| ${name} | ${qemu} | ${support.why} | ${support.instead} |`] : [],
  );
  const head = (titles: string[]) => [`| ${titles.join(' | ')} |`, `|${titles.map(() => '---|').join('')}`];
  return [
    ...[...head(['of', 'word', 'QEMU', 'what it needs', 'tested']), ...can, ''],
    ...['Refused:', '', ...head(['device', 'QEMU', 'why', 'take instead']), ...cannot],
  ].join('\n');
}

if (import.meta.main) writeFileSync(guestsDocument, renderGuests(readFileSync(guestsDocument, 'utf8')));
