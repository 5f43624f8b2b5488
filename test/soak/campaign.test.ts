// The campaign in full. In the environment: COLO_FAULTS (default 200) and COLO_SEED (default 1) choose how many faults
// and which, COLO_FAULT keeps it to the kinds whose name contains one of these texts (with | between them), COLO_MODE
// (colo or remus, default colo) is how the VM is protected, and COLO_GUEST (bare or demo, default bare) which guest it
// is: the bare one runs under KVM where that runs it, and has a disk; the demo guest is a Linux under TCG, and has
// none.

import { test } from 'node:test';
import { z } from 'zod';
import { campaign } from '../failover/campaign.ts';
import { kvmRefusal } from '../kvm/kvm.ts';

test('fault after fault: no connection is lost, no reply is wrong or missing, one node speaks at a time', async (context) => {
  const guest = z.enum(['bare', 'demo']).parse(process.env['COLO_GUEST'] ?? 'bare');
  await campaign(context, {
    vm: 'campaign',
    mode: z.enum(['colo', 'remus']).parse(process.env['COLO_MODE'] ?? 'colo'),
    guest,
    accel: guest === 'bare' && (await kvmRefusal()) === false ? 'kvm' : 'tcg',
    count: Number(process.env['COLO_FAULTS'] ?? '200'),
    seed: Number(process.env['COLO_SEED'] ?? '1'),
    only: (process.env['COLO_FAULT'] ?? '').split('|'),
  });
});
