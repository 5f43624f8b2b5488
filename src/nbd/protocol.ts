// The numbers of the Network Block Device protocol, as far as it is spoken here.
// https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
//
//    server                                     client
//      │ "NBDMAGIC" "IHAVEOPT" u16 flags ─────────►│  fixed newstyle
//      │ ◄──────────────────────────── u32 flags   │
//      │ ◄── "IHAVEOPT" u32 option u32 length data │  until GO or EXPORT_NAME
//      │ optionReply u32 option u32 reply u32 length data ─►
//      │ ═══════════════ transmission ═══════════  │
//      │ ◄── request u16 flags u16 type u64 cookie u64 offset u32 length [data]
//      │ simpleReply u32 error u64 cookie [data] ─►│  in any order
//
// As a server we decline structured replies, block status and TLS; QEMU's client goes on without them. Our own client
// (client.ts), whose server is QEMU, uses the first two.

export const magics = {
  greeting: 0x4e42_444d_4147_4943n,
  option: 0x4948_4156_454f_5054n,
  optionReply: 0x0003_e889_0455_65a9n,
  request: 0x2560_9513,
  simpleReply: 0x6744_6698,
  structuredReply: 0x668e_33ef,
} as const;

export const handshakeFlags = { fixedNewstyle: 1, noZeroes: 2 } as const;

export const options = {
  exportName: 1,
  abort: 2,
  list: 3,
  info: 6,
  go: 7,
  structuredReply: 8,
  setMetaContext: 10,
} as const;

export const optionReplies = {
  ack: 1,
  server: 2,
  info: 3,
  metaContext: 4,
  unsupported: 0x8000_0001,
  invalid: 0x8000_0003,
  unknown: 0x8000_0006,
} as const;

export const infoTypes = { export: 0, blockSize: 3 } as const;

export const exportFlags = {
  hasFlags: 1,
  readOnly: 2,
  sendFlush: 4,
  sendFua: 8,
  sendTrim: 32,
  sendWriteZeroes: 64,
} as const;

export const commands = {
  read: 0,
  write: 1,
  disconnect: 2,
  flush: 3,
  trim: 4,
  writeZeroes: 6,
  blockStatus: 7,
} as const;

/** Types of the parts of a structured reply. */
export const replyTypes = { none: 0, offsetData: 1, offsetHole: 2, blockStatus: 5, firstError: 0x8000 } as const;

export const commandFlags = { fua: 1, noHole: 2 } as const;

/** Errors of a reply, by their names. */
export const nbdErrors = { none: 0, permission: 1, io: 5, invalid: 22, noSpace: 28, shutdown: 108 } as const;
export type NbdError = (typeof nbdErrors)[keyof typeof nbdErrors];

export const requestHeadBytes = 28;
export const optionHeadBytes = 16;
