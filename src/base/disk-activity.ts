// What a disk was asked and has not answered yet. A disk that fails says so; one that hangs says nothing, whoever waits
// for it waits for ever, and only somebody who counts can tell it from one that is slow.
//
// Counted are looks, not time: a process that stood still itself finds an old question and an answer that waits for its
// turn. Pure.

interface Question {
  what: string;
  looks: number;
}

export class DiskActivity {
  private readonly open = new Set<Question>();

  /** `operation` as it is; until it is settled it counts as a question. `what`: of which folder, for people. */
  async track<T>(what: string, operation: Promise<T>): Promise<T> {
    const question = { what, looks: 0 };
    this.open.add(question);
    try {
      return await operation;
    } finally {
      this.open.delete(question);
    }
  }

  /**
   * To be called at equal times: what has just gone without an answer for `looks` of these; said once of each question.
   */
  look(looks: number): string | undefined {
    let silent: string | undefined;
    for (const question of this.open) {
      question.looks += 1;
      if (question.looks === looks) silent ??= question.what;
    }
    return silent;
  }
}
