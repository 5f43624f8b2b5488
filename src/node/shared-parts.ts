// What outlives the roles of a node, and both roles use.

import type { Tolerance } from '../heartbeat/tolerance.ts';
import type { GuestAddresses } from '../proxy/guest-addresses.ts';
import type { Terms } from './terms.ts';
import type { Troubles } from './troubles.ts';
import type { UplinkHealth } from './uplink-health.ts';

export interface SharedParts {
  terms: Terms;
  /** How much silence of a peer this node bears. */
  tolerance: Tolerance;
  addresses: GuestAddresses;
  troubles: Troubles;
  uplinkHealth: UplinkHealth;
  /** `protect.verify`: checkpoints whose state was equal to the capture after their apply, and others. */
  verified: { equal: number; different: number };
}
