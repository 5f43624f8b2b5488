// What is wrong on this node and costs itself alone, in words for an operator: a recording that cannot be written, a
// replica without its label, an uplink that is gone. Each is logged when it begins and when it is over, and told in the
// status meanwhile.
//
// Between winning a term and going on, everything that the VM can do without is done here (`isolate`): it may fail, and
// says so.

import { errorText } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { troubleCharactersMax } from './limits.ts';

/** What can be wrong; one text for each. */
export type Trouble =
  | 'pcap'
  | 'label'
  | 'overlay'
  | 'table'
  | 'announcement'
  | 'uplink'
  | 'peer uplink'
  | 'fold'
  | 'leaving';

export class Troubles {
  private readonly texts = new Map<Trouble, string>();
  private readonly log: Pick<Log, 'error' | 'info'>;

  constructor(log: Pick<Log, 'error' | 'info'>) {
    this.log = log;
  }

  tell(what: Trouble, why: string): void {
    const text = why.slice(0, troubleCharactersMax);
    if (this.texts.get(what) === text) return;
    this.texts.set(what, text);
    this.log.error({ what, why }, 'something is wrong, and the VM goes on');
  }

  over(what: Trouble): void {
    if (this.texts.delete(what)) this.log.info({ what }, 'what was wrong is right again');
  }

  get lines(): string[] {
    return [...this.texts.values()];
  }

  /** Does what the VM can do without; undefined when it failed. */
  isolate<T>(what: Trouble, work: () => T): T | undefined {
    try {
      return work();
    } catch (error) {
      this.tell(what, errorText(error));
      return undefined;
    }
  }
}
