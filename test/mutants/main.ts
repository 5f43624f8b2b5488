// `colo test mutants` as a process of its own: the table of what notices each mutant, and which none does.
//
//   node test/mutants/main.ts [TEXT] [SEEDS]       only mutants with TEXT in name or file; 500 seeds

import { runMutants } from './run.ts';

const [only, seeds] = process.argv.slice(2);
const abort = new AbortController();
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, () => abort.abort());

const results = await runMutants({
  signal: abort.signal,
  ...(only === undefined || only === '' ? {} : { only }),
  ...(seeds === undefined ? {} : { seeds: Number(seeds) }),
  onResult: ({ name, file, killedBy, test }, done, total) => {
    const what = killedBy === undefined ? 'SURVIVES' : `noticed by ${killedBy}: ${test ?? ''}`;
    process.stdout.write(`${done}/${total}  ${what}  ${file}: ${name}\n`);
  },
});
const left = results.filter(({ killedBy }) => killedBy === undefined);
process.stdout.write(`\n${results.length} mutants, ${left.length} survive\n`);
for (const { name, file } of left) process.stdout.write(`  ${file}: ${name}\n`);
process.exitCode = abort.signal.aborted ? 130 : left.length === 0 ? 0 : 1;
