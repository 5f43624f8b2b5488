// The first faults of a campaign; the whole of it is test/soak/campaign.test.ts.

import { test } from 'node:test';
import { campaign } from './campaign.ts';

test('four faults in a row: no connection is lost, no reply is wrong or missing, one node speaks at a time', (context) =>
  campaign(context, { vm: 'short-campaign', mode: 'colo', count: 4, seed: 7 }));
