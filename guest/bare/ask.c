/*
 * ask.c - commands in datagrams to UDP port 9, each answered with one line of " name=value":
 *
 *   clocks            every clock, read close together
 *   read              reads one word of every page of the pool, and says how long it took
 *   write PAGES       makes one turn of so many pages, and says how long it took
 *   work PAGES US     from now on, a turn of so many pages in every period
 *   status            what was done so far, and what went wrong
 */
#include "ask.h"
#include "clocks.h"
#include "control.h"
#include "work.h"

static void tell_status(struct text *text) {
    text_field(text, "turns", control->turns);
    text_field(text, "writes", control->writes);
    text_field(text, "page_errors", control->page_errors);
    text_field(text, "chain_errors", control->chain_errors);
    text_field(text, "disk_errors", control->disk_errors);
    text_field(text, "disk_writes", control->disk_writes);
    text_field(text, "disk_flushes", control->disk_flushes);
    text_field(text, "vcpu_errors", control->vcpu_errors);
    text_field(text, "frames_bad", control->frames_bad);
    text_field(text, "tcp_open", control->tcp_open);
    text_field(text, "tcp_opened", control->tcp_opened);
    text_field(text, "tcp_resent", control->tcp_resent);
    text_field(text, "tcp_refused", control->tcp_refused);
    text_field(text, "tcp_given_up", control->tcp_given_up);
    text_field(text, "isn", control->isn);
    text_field(text, "ring", control->ring);
}

static void tell_ticks(struct text *text, u64 ticks, u64 pages) {
    text_field(text, "ticks", ticks);
    text_field(text, "pages", pages);
    text_field(text, "ticks_per_ms", control->ticks_per_ms);
}

u32 answer_command(const u8 *bytes, u32 count, u8 *answer, u32 answer_bytes_max) {
    char command[64];
    struct text text = text_in(answer, answer_bytes_max);
    if (count >= sizeof command) count = sizeof command - 1;
    memcpy(command, bytes, count);
    command[count] = 0;
    const char *rest;
    if (begins_with(command, "clocks")) {
        clocks_read();
        clocks_tell(&text);
    } else if (begins_with(command, "read")) {
        work_read();
        tell_ticks(&text, control->read_ticks, control->pool_pages);
    } else if (begins_with(command, "write ")) {
        u64 pages = parse_number(command + 6, 0);
        work_turn(pages);
        tell_ticks(&text, control->turn_ticks, pages);
    } else if (begins_with(command, "work ")) {
        control->pages = parse_number(command + 5, &rest);
        control->period_us = *rest == ' ' ? parse_number(rest + 1, 0) : control->period_us;
        control->free_run = 1;
        text_field(&text, "pages", control->pages);
    } else if (begins_with(command, "status")) {
        tell_status(&text);
    } else {
        text_add(&text, "unknown");
    }
    text_add(&text, "\n");
    return text_length(&text);
}
