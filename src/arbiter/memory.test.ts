// The arbiter in memory keeps every promise of an arbiter.

import { arbiterConformance } from './arbiter.conformance.ts';
import { MemoryArbiter, type Terms } from './memory.ts';

arbiterConformance('memory', async () => {
  const terms: Terms = new Map();
  return { open: async () => new MemoryArbiter(terms), end: async () => undefined };
});
