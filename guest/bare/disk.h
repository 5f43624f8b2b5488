/* disk.h - the sector writer. */
#ifndef DISK_H
#define DISK_H
#include "machine.h"

void disk_open(void);
/* In every turn of the loop: takes what the disk has done, and begins the next step. */
void disk_poll(void);
#endif
