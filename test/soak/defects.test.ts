// Each deliberate defect of the simulation is looked for from seed 1 on, and found in the seed that docs/simulation.md
// says (sim/defects/first.ts). Where its own test begins is chosen so that it takes seconds; this is the whole way.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { defects } from '../../sim/defects/defects.ts';
import { firstSeeds } from '../../sim/defects/first.ts';
import { firstFoundApart } from '../simulation/found.ts';

const seedsMax = 1000;

for (const defect of defects)
  test(`from seed 1 on, ${defect.name} is found in seed ${firstSeeds[defect.name]}`, () => {
    const found = firstFoundApart(defect, { seeds: seedsMax });
    assert.equal(found?.seed, firstSeeds[defect.name], 'write the new number to sim/defects/first.ts');
    assert.equal(found?.checker, defect.finds);
  });
