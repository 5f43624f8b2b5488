// Why the service does not do what a call asks, with the HTTP status that says so to a program.

import { z } from 'zod';
import { ColoError, type ErrorCode, errorCodes, errorText } from '../base/errors.ts';

/** The body of an answer that refuses. */
export const errorSchema = z.object({
  error: z.object({ code: z.string(), message: z.string(), hint: z.string().optional() }),
});
export type ApiError = z.output<typeof errorSchema>;

export class Refusal extends ColoError {
  readonly status: number;

  constructor(status: number, code: ErrorCode, message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(code, message, options);
    this.status = status;
  }
}

/** The status and body that tell a program why a call was not done. */
export function refusalAnswer(error: unknown): { status: number; body: ApiError } {
  const known = error instanceof ColoError ? error : undefined;
  const hint = known?.hint === undefined ? {} : { hint: known.hint };
  return {
    status: error instanceof Refusal ? error.status : statusOf(known),
    body: { error: { code: known?.code ?? 'COLO_E_BUG', message: errorText(error), ...hint } },
  };
}

/** What fails for a reason outside (a node, etcd, QEMU) may be tried again; 500 is a bug of ours alone. */
function statusOf(error: ColoError | undefined): number {
  if (error === undefined) return 500;
  if (error.code === errorCodes.needed) return 409;
  return error.code === errorCodes.input ? 400 : 503;
}
