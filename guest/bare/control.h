/*
 * control.h - the control page: numbers of 64 bits that the guest tells its host, and a few that the host tells it, in
 * RAM that both see. control.ts has the same names in the same order; a test compares them.
 */
#ifndef CONTROL_H
#define CONTROL_H
#include "machine.h"

#define READY 0x434f4c4f42415245ull /* "COLOBARE" */

struct control {
    /* READY when the guest runs. */
    u64 magic;

    /* Told by the host, at any time. */
    u64 pages;         /* written in every turn */
    u64 period_us;     /* from the beginning of a turn to the next one's */
    u64 free_run;      /* 0: a turn is made when turn_request differs from turn_done, and no other */
    u64 turn_request;  /* any new number asks for a turn */
    u64 read_request;  /* for one word of every page of the pool to be read */
    u64 clock_request; /* for every clock to be read */

    /* The work (work.c). */
    u64 turn_done, turns, turn_ticks;
    u64 writes;       /* pages written since boot */
    u64 page_errors;  /* a page did not hold what was last written to it */
    u64 chain;        /* a number that each turn makes from the one before, kept in a variable as well */
    u64 chain_errors; /* both differed */
    u64 read_done, read_ticks;
    u64 pool_pages;
    u64 loops;

    /* The clocks (clocks.c): as last read; 0 where the machine has none. */
    u64 clock_done;
    u64 ticks_per_ms; /* of the TSC, as measured at boot */
    u64 tsc, kvmclock_ns;
    u64 pm_timer, hpet, hpet_fs, lapic, pit, rtc_s;
    /* Largest steps seen between two readings; the host may set them to 0. */
    u64 tsc_back, tsc_jump, kvmclock_back, kvmclock_jump;
    u64 pm_back, hpet_back, lapic_back;

    /* The network (net.c, tcp.c). */
    u64 card; /* 0 none, 1 on PCI, 2 mapped in memory */
    u64 frames_in, frames_out, frames_bad, frames_lost;
    u64 arp, icmp, udp;
    u64 tcp_open, tcp_opened, tcp_refused, tcp_resent, tcp_given_up;
    u64 isn; /* the newest connection's first sequence number */

    /* The disk (disk.c). */
    u64 disk; /* as `card` */
    u64 disk_writes, disk_reads, disk_flushes, disk_errors;

    u64 vcpus;       /* that run */
    u64 vcpu_turns;  /* of the slowest of the further ones, round its pages */
    u64 vcpu_errors; /* a page of theirs did not hold what was last written to it */

    u64 tsc_apart;   /* most that the TSC of one was behind that of another, in ticks */

    u64 ring; /* 0, or 3 where KVM emulates all of ring 0 */
};

#define control ((volatile struct control *)CONTROL_PAGE)
#endif
