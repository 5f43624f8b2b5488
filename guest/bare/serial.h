/* serial.h - the first serial port, for writing. */
#ifndef SERIAL_H
#define SERIAL_H
#include "text.h"

void serial_open(void);
void serial_write(const struct text *text);
void serial_say(const char *words);
#endif
