// How comments are written: plain sentences, the subject first. Only what a machine can tell is held here.

import type { Source } from './sources.ts';

/** A comment's sentence that begins with "Of": what it is about comes before what is said. */
const beginsWithOf = /(?:^|[.:!?]\s)Of [a-z]/;

/** A sentence for every line whose comment begins a sentence with "Of". A colon before it begins one as well. */
export function contortedLines({ path, text }: Source): string[] {
  const faults: string[] = [];
  let isFresh = true;
  for (const [index, line] of text.split('\n').entries()) {
    const comment = /^\s*(?:\/\/|\/?\*\*?(?!\/))\s*(.*?)(?:\*\/)?$/.exec(line)?.[1]?.trim();
    const begins = comment !== undefined && (isFresh ? beginsWithOf.test(comment) : beginsWithOf.test(`-${comment}`));
    if (begins) faults.push(`${path}:${index + 1}: a sentence begins with "Of"; put what it says first`);
    isFresh = comment === undefined || comment === '' || /[.:!?]$/.test(comment);
  }
  return faults;
}
