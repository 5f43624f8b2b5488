/* work.h - the page writer. */
#ifndef WORK_H
#define WORK_H
#include "machine.h"

void work_open(u64 pool_pages, bool tells_turns);
/* In every turn of the loop: makes the turn that is due. */
void work_poll(void);
void work_turn(u64 pages);
void work_read(void);
#endif
