// What the test runner says to run.ts: one line for each test that fails, with its file, as soon as it does.

import type { TestEvent } from 'node:test/reporters';

export default async function* reporter(source: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  for await (const event of source)
    if (event.type === 'test:fail') yield `${JSON.stringify([event.data.file ?? '', event.data.name])}\n`;
}
