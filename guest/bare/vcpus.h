/* vcpus.h - the further vCPUs. */
#ifndef VCPUS_H
#define VCPUS_H
#include "machine.h"

/* Starts the vCPUs 1 to count - 1, one after the other. */
void vcpus_open(u64 count);
/* In every turn of the loop: tells how far they are. */
void vcpus_poll(void);
#endif
