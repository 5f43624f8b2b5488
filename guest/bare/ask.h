/* ask.h - commands in datagrams. */
#ifndef ASK_H
#define ASK_H
#include "machine.h"

/* Does a command and writes the answer; how many bytes it has. */
u32 answer_command(const u8 *bytes, u32 count, u8 *answer, u32 answer_bytes_max);
#endif
