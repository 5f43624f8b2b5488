// Nothing imports in a circle, types included. A circle of types runs, but none of its files can be read, moved or
// tested alone, and the linter's no-cycle rule does not see it.
//
// Files that reach each other are found by Tarjan's algorithm (one walk; a file is the root of its group when nothing
// below it reaches above it). One shortest circle of each group is told: that is what a reader can cut.

import type { Source } from './sources.ts';

type Graph = ReadonlyMap<string, readonly string[]>;

/** One circle for each group of files that reach each other: its files in the order in which they import. */
export function circlesIn(sources: readonly Pick<Source, 'path' | 'imports'>[]): string[][] {
  const graph: Graph = new Map(sources.map(({ path, imports }) => [path, imports]));
  return new Groups(graph).found.map((group) => shortestCircle(graph, group));
}

class Groups {
  readonly found: string[][] = [];
  private readonly graph: Graph;
  private readonly order = new Map<string, number>();
  /** The earliest file of the open ones that is reached from here. */
  private readonly lowest = new Map<string, number>();
  private readonly open: string[] = [];

  constructor(graph: Graph) {
    this.graph = graph;
    for (const file of graph.keys()) if (!this.order.has(file)) this.walk(file);
  }

  private walk(file: string): number {
    const number = this.order.size;
    this.order.set(file, number);
    this.open.push(file);
    let lowest = number;
    for (const next of this.graph.get(file) ?? []) lowest = Math.min(lowest, this.lowestOf(next, lowest));
    this.lowest.set(file, lowest);
    if (lowest === number) this.close(file);
    return lowest;
  }

  private lowestOf(next: string, lowest: number): number {
    if (!this.graph.has(next)) return lowest;
    if (!this.order.has(next)) return this.walk(next);
    return this.open.includes(next) ? (this.order.get(next) ?? lowest) : lowest;
  }

  private close(root: string): void {
    const group = this.open.splice(this.open.indexOf(root));
    const [only = root] = group;
    if (group.length > 1 || this.graph.get(only)?.includes(only) === true) this.found.push(group);
  }
}

function shortestCircle(graph: Graph, group: readonly string[]): string[] {
  const circles = group.map((file) => circleThrough(graph, new Set(group), file));
  return circles.reduce((best, circle) => (circle.length < best.length ? circle : best));
}

/** Breadth first from a file back to itself. */
function circleThrough(graph: Graph, group: ReadonlySet<string>, start: string): string[] {
  const ways = [[start]];
  const seen = new Set<string>();
  for (const way of ways) {
    for (const next of graph.get(way.at(-1) ?? start) ?? []) {
      if (next === start) return way;
      if (!group.has(next) || seen.has(next)) continue;
      seen.add(next);
      ways.push([...way, next]);
    }
  }
  return [...group];
}

export function circleText(circle: readonly string[]): string {
  return [...circle, circle[0] ?? ''].join(' -> ');
}
