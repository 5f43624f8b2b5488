// The campaign in full: COLO_FAULTS (default 200) and COLO_SEED (default 1) in the environment choose how many faults
// and which; COLO_FAULT keeps it to the kinds whose name contains that text, and COLO_MODE (colo or remus, default
// colo) is how the VM is protected.

import { test } from 'node:test';
import { z } from 'zod';
import { campaign } from '../failover/campaign.ts';

test('fault after fault: no connection is lost, no reply is wrong or missing, one node speaks at a time', (context) =>
  campaign(context, {
    vm: 'campaign',
    mode: z.enum(['colo', 'remus']).parse(process.env['COLO_MODE'] ?? 'colo'),
    count: Number(process.env['COLO_FAULTS'] ?? '200'),
    seed: Number(process.env['COLO_SEED'] ?? '1'),
    only: process.env['COLO_FAULT'] ?? '',
  }));
