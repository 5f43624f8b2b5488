// The template of a session: the carrier of device state as the primary's QEMU made it, from which this node starts its
// own.

import { ColoError, errorCodes } from '../../base/errors.ts';
import { checkpointTypes, encodings, parseTemplate } from '../../checkpoint/message.ts';
import type { NodeContext } from '../context.ts';
import { machineHash } from '../pairing/machine-hash.ts';

export const templateType = checkpointTypes.template;

/** The template's bytes, when it is of the machine that this node would start. */
export function readTemplate(context: NodeContext, payload: Uint8Array): Uint8Array {
  const template = parseTemplate(payload);
  if (template instanceof ColoError) throw template;
  if (template.specHash !== machineHash(context.config))
    throw new ColoError(errorCodes.input, 'the primary runs another machine than this node would start', {
      hint: 'give both nodes the same spec file',
    });
  if (template.encoding === encodings.raw) return Uint8Array.from(template.data);
  const bytes = Buffer.alloc(template.rawBytes);
  if (context.platform.compressor().decode(template.encoding, template.data, bytes, template.rawBytes)) return bytes;
  throw new ColoError(errorCodes.checkpoint, "the primary's template cannot be decoded", {
    hint: 'install liblz4-1 on both nodes',
  });
}
