/* serial.c - the first serial port: 115200 baud, no interrupts; a port that takes nothing is not waited for long. */
#include "serial.h"

#define PORT 0x3f8
#define LINE_STATUS (PORT + 5)
#define TRIES 100000

void serial_open(void) {
    out8(PORT + 1, 0);
    out8(PORT + 3, 0x80);
    out8(PORT, 1);
    out8(PORT + 1, 0);
    out8(PORT + 3, 3);
    out8(PORT + 2, 0xc7);
    out8(PORT + 4, 3);
}

static void put(char byte) {
    for (u32 i = 0; i < TRIES && !(in8(LINE_STATUS) & 0x20); i++) barrier();
    out8(PORT, byte);
}

void serial_write(const struct text *text) {
    for (const char *at = text->start; at < text->at; at++) {
        if (*at == '\n') put('\r');
        put(*at);
    }
}

void serial_say(const char *words) {
    char buffer[128];
    struct text text = text_in(buffer, sizeof buffer);
    text_add(&text, words);
    serial_write(&text);
}
