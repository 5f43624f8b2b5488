// All checkers: each is one file of checker/ with one sentence. docs/simulation.md lists them (docs/defects.ts).

import * as bounds from '../checker/bounds.ts';
import * as connection from '../checker/connection.ts';
import * as diskEpoch from '../checker/disk-epoch.ts';
import * as liveness from '../checker/liveness.ts';
import * as noCrash from '../checker/no-crash.ts';
import * as nothingLost from '../checker/nothing-lost.ts';
import * as once from '../checker/once.ts';
import * as outputCommit from '../checker/output-commit.ts';
import * as ramEpoch from '../checker/ram-epoch.ts';
import * as singleVoice from '../checker/single-voice.ts';
import * as stopped from '../checker/stopped.ts';
import * as survivor from '../checker/survivor.ts';
import type { MakeChecker } from './world.ts';

export const checkers: readonly { name: string; sentence: string; make: MakeChecker }[] = [
  { name: 'output-commit', sentence: outputCommit.sentence, make: outputCommit.outputCommit },
  { name: 'single-voice', sentence: singleVoice.sentence, make: singleVoice.singleVoice },
  { name: 'ram-epoch', sentence: ramEpoch.sentence, make: ramEpoch.ramEpoch },
  { name: 'disk-epoch', sentence: diskEpoch.sentence, make: diskEpoch.diskEpoch },
  { name: 'connection', sentence: connection.sentence, make: connection.connection },
  { name: 'survivor', sentence: survivor.sentence, make: survivor.survivor },
  { name: 'stopped', sentence: stopped.sentence, make: stopped.stopped },
  { name: 'nothing-lost', sentence: nothingLost.sentence, make: nothingLost.nothingLost },
  { name: 'once', sentence: once.sentence, make: once.once },
  { name: 'bounds', sentence: bounds.sentence, make: bounds.bounds },
  { name: 'liveness', sentence: liveness.sentence, make: liveness.liveness },
  { name: 'no-crash', sentence: noCrash.sentence, make: noCrash.noCrash },
];
