/* text.h - text that is put together: what does not fit into its buffer is left out. */
#ifndef TEXT_H
#define TEXT_H
#include "machine.h"

struct text {
    char *start, *at, *end;
};

struct text text_in(void *buffer, u32 bytes);
void text_add(struct text *text, const char *words);
void text_number(struct text *text, u64 value);
/* " name=value" */
void text_field(struct text *text, const char *name, u64 value);
u32 text_length(const struct text *text);

/* The number that begins at `at`, 0 when there is none; `end`, where it is wanted, is what follows. */
u64 parse_number(const char *at, const char **end);
bool begins_with(const char *text, const char *words);
#endif
