/*
 * vcpus.c - the further vCPUs: each goes round pages of its own, for ever, and checks them as work.c does. So a machine
 * with several running vCPUs can be captured and loaded, and any of them that lost a write, or stands still, is seen.
 * All of them read the TSC, too: one that reads less than another one has read before has a TSC that is not theirs.
 *
 *   vCPU 0: INIT, STARTUP ──► local APIC of vCPU n: page 8 (start.S) ──► vcpu_begin(n)
 */
#include "vcpus.h"
#include "clocks.h"
#include "control.h"

#define VCPUS_MAX 16
#define PAGES_EACH 64
#define LAPIC 0xfee00000ul
#define COMMAND_LOW 0x300
#define COMMAND_HIGH 0x310
#define INIT 0x4500
#define STARTUP 0x4600
#define START_TIMEOUT_US 5000000
#define START_AGAIN_US 20000

struct vcpu {
    volatile u64 turns, errors;
};

/* From start.S: the first instructions, and the number of the vCPU that is being started. */
extern const u8 vcpu_start[], vcpu_start_end[];
volatile u32 vcpu_number;

static struct vcpu vcpus[VCPUS_MAX];
static u32 running;

static volatile u64 tsc_read;

static void compare_tsc(void) {
    u64 before = tsc_read;
    asm volatile("lfence" ::: "memory");
    u64 now = read_tsc();
    if (now < before && before - now > control->tsc_apart) control->tsc_apart = before - now;
    tsc_read = now;
}

static volatile u64 *page_of(u64 number, u64 index) {
    return (volatile u64 *)(VCPU_PAGES + (number * PAGES_EACH + index) * PAGE);
}

/* Called by start.S on the vCPU's own stack; never returns. */
void vcpu_begin(u64 number) {
    if (control->ring == 3) to_ring3();
    struct vcpu *own = &vcpus[number];
    for (u64 round = 1;; round++) {
        for (u64 i = 0; i < PAGES_EACH; i++) {
            if (*page_of(number, i) != round - 1) own->errors++;
            *page_of(number, i) = round;
            compare_tsc();
        }
        own->turns = round;
    }
}

static void send(u32 number, u32 command) {
    volatile u32 *lapic = (volatile u32 *)LAPIC;
    lapic[COMMAND_HIGH / 4] = number << 24;
    lapic[COMMAND_LOW / 4] = command;
}

static void start(u32 number) {
    vcpu_number = number;
    send(number, INIT);
    struct period all = period_of(START_TIMEOUT_US), next = period_of(START_AGAIN_US);
    /* A vCPU that has started takes no notice of another start. */
    while (vcpus[number].turns == 0 && !is_over(&all))
        if (is_over(&next)) {
            send(number, STARTUP | VCPU_START / PAGE);
            next = period_of(START_AGAIN_US);
        }
    if (vcpus[number].turns != 0) running = number + 1;
}

void vcpus_open(u64 count) {
    memcpy((void *)VCPU_START, vcpu_start, vcpu_start_end - vcpu_start);
    running = 1;
    for (u32 number = 1; number < count && number < VCPUS_MAX && running == number; number++) start(number);
    control->vcpus = running;
}

void vcpus_poll(void) {
    if (running < 2) return;
    compare_tsc();
    u64 least = ~0ull, errors = 0;
    for (u32 number = 1; number < running; number++) {
        if (vcpus[number].turns < least) least = vcpus[number].turns;
        errors += vcpus[number].errors;
    }
    control->vcpu_turns = least;
    control->vcpu_errors = errors;
}
