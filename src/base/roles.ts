// What a caller may do, and whom a certificate is for. One order for people and programs; nodes of the cluster are
// apart: what is between nodes is for them alone.
//
//   viewer     sees the cluster, its VMs and what happens
//   operator   and moves what runs: failover, checkpoint, drain; reads logs and consoles, which may hold secrets
//   admin      and runs and removes VMs
//   node       a node's certificate, and whoever may open a node's Unix socket: everything

export const roles = ['viewer', 'operator', 'admin'] as const;
export type Role = (typeof roles)[number];
export const certificateRoles = ['node', ...roles] as const;
export type CertificateRole = (typeof certificateRoles)[number];

/** Whether a caller who is one may do what needs the other. */
export function mayDo(is: CertificateRole, needed: CertificateRole): boolean {
  if (is === 'node' || needed === 'node') return is === 'node';
  return roles.indexOf(is) >= roles.indexOf(needed);
}

export function isRole(text: unknown): text is Role {
  return roles.some((one) => one === text);
}

/**
 * Whom a certificate is for, by the organizational unit in its subject, as Node gives it. One without was made before
 * there were roles, for a node. Undefined: for somebody whom this version does not know.
 */
export function certificateRole(subject: { OU?: unknown } | undefined): CertificateRole | undefined {
  const unit: unknown = subject?.OU ?? 'node';
  return certificateRoles.find((one) => one === unit);
}
