/* clocks.h - every clock that a guest can read, and periods of time by the TSC. */
#ifndef CLOCKS_H
#define CLOCKS_H
#include "text.h"

/* In ring 0: whether KVM is below, and its clock. */
bool has_kvm(void);
void kvmclock_open(void);
/* In the ring that the guest stays in: finds the other clocks, and measures the TSC. */
void clocks_open(void);
/* In every turn of the loop: looks whether TSC or kvmclock stepped. */
void clocks_watch(void);
/* Reads every clock into the control page, and tells them. */
void clocks_read(void);
void clocks_tell(struct text *text);

/* Periods, in ticks of the TSC. A clock that was set back makes a period end early, never wait longer. */
struct period {
    u64 start, ticks;
};
struct period period_of(u64 microseconds);
bool is_over(const struct period *period);
#endif
