// The union of two sets of pages, in one pass over both; runs ascend (PageRuns asserts it). Always a set of its own:
// who changes it changes neither of the two.

import { PageRuns } from '../../base/page-runs.ts';

export function unionRuns(left: PageRuns, right: PageRuns): PageRuns {
  const union = new PageRuns();
  let start = -1;
  let end = -1;
  let leftAt = 0;
  let rightAt = 0;
  while (leftAt < left.bounds.length || rightAt < right.bounds.length) {
    const leftStart = left.bounds[leftAt] ?? Number.POSITIVE_INFINITY;
    const rightStart = right.bounds[rightAt] ?? Number.POSITIVE_INFINITY;
    const takeLeft = leftStart <= rightStart;
    const nextStart = takeLeft ? leftStart : rightStart;
    const nextEnd = (takeLeft ? left.bounds[leftAt + 1] : right.bounds[rightAt + 1]) ?? nextStart;
    if (takeLeft) leftAt += 2;
    else rightAt += 2;
    if (nextStart <= end) end = Math.max(end, nextEnd);
    else {
      if (start >= 0) union.add(start, end);
      start = nextStart;
      end = nextEnd;
    }
  }
  if (start >= 0) union.add(start, end);
  return union;
}
