// Why the service does not do what a call asks, with the HTTP status that says so to a program.

import { ColoError, type ErrorCode } from '../base/errors.ts';

export class Refusal extends ColoError {
  readonly status: number;

  constructor(status: number, code: ErrorCode, message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(code, message, options);
    this.status = status;
  }
}
