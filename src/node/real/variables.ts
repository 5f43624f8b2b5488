// Where a UEFI machine's variables are on this node (qemu/variables.ts).
//
//    the node that starts the VM   spec: machine.variables, or IMAGE.vars.fd beside the first disk; its owner's
//    a secondary                   the same beside its replica of the first disk: whoever goes on from there finds both
//    a machine without disks       in the run directory, and gone with the VM: nothing of such a machine stays

import { join } from 'node:path';
import type { DiskFiles } from '../../qemu/machine.ts';
import { variablesBeside } from '../../qemu/variables.ts';

export interface VariablesPlace {
  runDir: string;
  disks: readonly DiskFiles[];
  /** As the spec names it. */
  named: string | undefined;
  isSecondary: boolean;
}

export function variablesPath({ runDir, disks, named, isSecondary }: VariablesPlace): string {
  if (named !== undefined && !isSecondary) return named;
  const [first] = disks;
  if (first === undefined) return join(runDir, 'variables.fd');
  return variablesBeside(first.kind === 'image' ? first.path : first.replicaPath);
}
