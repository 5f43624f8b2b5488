// Runs test files, and says one line of each test that fails, with its file, as soon as it does: what run.ts listens
// to.
//
//   node test/mutants/tests.ts FILE...

import { resolve } from 'node:path';
import { run } from 'node:test';

const files = process.argv.slice(2).map((path) => resolve(path));
for await (const { type, data } of run({ files, concurrency: 2 })) {
  if (type !== 'test:fail') continue;
  process.exitCode = 1;
  process.stdout.write(`${JSON.stringify([data.file ?? '', data.name])}\n`);
}
