// This process, watched: what it could not write, and what held up its event loop. For its status and its log.

import { systemClock } from './clock.ts';
import type { Log } from './log.ts';
import { type LoopStatus, LoopWatch } from './loop-watch.ts';
import { Tally } from './tally.ts';
import { type Losses, lossesOfAll } from './writer.ts';

export interface OwnProcess {
  status: () => { losses: Losses[]; loop: LoopStatus };
  close: () => void;
}

export function watchProcess(log: Log): OwnProcess {
  const tally = new Tally(systemClock, (cause, count, detail) => {
    log.warn({ cause, count, newest: detail }, 'the event loop was held up');
  });
  const watch = new LoopWatch(systemClock, ({ ms, cause }) => tally.note(cause, `${ms} ms`));
  return {
    status: () => ({ losses: lossesOfAll(), loop: watch.status }),
    close: () => {
      watch.close();
      tally.close();
    },
  };
}
