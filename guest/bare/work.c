/*
 * work.c - the page writer, which checks itself: before a page is written again it must hold what was last written to
 * it, and a number that each turn makes from the one before must be the same in the control page and in a variable. A
 * page that a checkpoint missed, or that came from another one, is an error here.
 *
 * The pages of a turn lie scattered over the pool: the same step, odd and large, from one to the next, round and round.
 */
#include "work.h"
#include "clocks.h"
#include "control.h"
#include "serial.h"

#define SCATTER 40503u

static u64 pool_pages, position, round = 1, chain = 1;
static bool tells_turns;
static struct period turn;

static volatile u64 *page_at(u64 index) { return (volatile u64 *)(POOL + (index & (pool_pages - 1)) * PAGE); }

void work_open(u64 pages, bool tells) {
    pool_pages = pages;
    tells_turns = tells;
    for (u64 i = 0; i < pages; i++) *page_at(i) = 0;
    control->pool_pages = pages;
    control->chain = chain;
    turn = period_of(0);
}

void work_turn(u64 pages) {
    if (control->chain != chain) control->chain_errors++;
    u64 start = read_tsc();
    for (u64 i = 0; i < pages; i++) {
        volatile u64 *page = page_at(position * SCATTER);
        if (*page != round - 1) control->page_errors++;
        *page = round;
        if (++position == pool_pages) {
            position = 0;
            round++;
        }
    }
    control->turn_ticks = read_tsc() - start;
    control->writes += pages;
    control->turns++;
    chain = chain * 6364136223846793005ull + 1442695040888963407ull;
    control->chain = chain;
}

void work_read(void) {
    u64 sum = 0, start = read_tsc();
    for (u64 i = 0; i < pool_pages; i++) sum += *page_at(i);
    control->read_ticks = read_tsc() - start;
    asm volatile("" ::"r"(sum));
}

static void tell_turn(void) {
    char buffer[32];
    struct text text = text_in(buffer, sizeof buffer);
    text_add(&text, "beat ");
    text_number(&text, control->turns);
    text_add(&text, "\n");
    serial_write(&text);
}

void work_poll(void) {
    if (control->read_done != control->read_request) {
        work_read();
        control->read_done = control->read_request;
    }
    u64 wanted = control->turn_request;
    if (control->free_run ? !is_over(&turn) : control->turn_done == wanted) return;
    turn = period_of(control->period_us);
    work_turn(control->pages);
    control->turn_done = wanted;
    if (tells_turns) tell_turn();
}
