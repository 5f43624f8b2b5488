/* text.c - putting text together and reading numbers in it; and the two functions that C itself needs. */
#include "text.h"

void *memcpy(void *to, const void *from, unsigned long count) {
    void *start = to;
    asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count)::"memory");
    return start;
}

void *memset(void *to, int value, unsigned long count) {
    void *start = to;
    asm volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(value) : "memory");
    return start;
}

struct text text_in(void *buffer, u32 bytes) {
    char *start = buffer;
    return (struct text){.start = start, .at = start, .end = start + bytes};
}

void text_add(struct text *text, const char *words) {
    while (*words && text->at < text->end) *text->at++ = *words++;
}

void text_number(struct text *text, u64 value) {
    char digits[21], *at = digits + 20;
    *at = 0;
    do *--at = '0' + value % 10;
    while (value /= 10);
    text_add(text, at);
}

void text_field(struct text *text, const char *name, u64 value) {
    if (text->at != text->start) text_add(text, " ");
    text_add(text, name);
    text_add(text, "=");
    text_number(text, value);
}

u32 text_length(const struct text *text) { return text->at - text->start; }

u64 parse_number(const char *at, const char **end) {
    u64 value = 0;
    for (; *at >= '0' && *at <= '9'; at++) value = value * 10 + (*at - '0');
    if (end) *end = at;
    return value;
}

bool begins_with(const char *text, const char *words) {
    while (*words && *text == *words) text++, words++;
    return !*words;
}
