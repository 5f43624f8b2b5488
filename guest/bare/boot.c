/*
 * boot.c - from boot to the loop that never ends.
 *
 * Command line: pages=N period=US    pages written in a turn, and the time from one turn to the next (0, 100000)
 *               free=0               a turn is made only when the host asks for it (control.h)
 *               beats=1              each turn ends with "beat N" on the serial console
 *               pool=PAGES           a power of two; pages that are written and read (16384: 64 MiB)
 *               vcpus=N              how many vCPUs run (1)
 *               address=N            the IPv4 address as a number (10.0.2.15)
 */
#include "clocks.h"
#include "control.h"
#include "disk.h"
#include "net.h"
#include "serial.h"
#include "tcp.h"
#include "vcpus.h"
#include "work.h"

#define COMMAND_LINE_AT 0x228
#define ADDRESS 0x0a00020f
#define POOL_PAGES 16384

static char command_line[1024];

static u64 option(const char *name, u64 otherwise) {
    for (const char *at = command_line; *at; at++)
        if ((at == command_line || at[-1] == ' ') && begins_with(at, name)) {
            const char *value = at;
            while (*value && *value != '=' && *value != ' ') value++;
            return *value == '=' ? parse_number(value + 1, 0) : otherwise;
        }
    return otherwise;
}

/*
 * Whether KVM emulates each of our instructions, as kvm_pvm does in ring 0: then a thousand of them take a millisecond
 * and more. Where this is wrong because the host was busy five times, ring 3 is as good a place.
 */
static bool is_emulated(void) {
    if (!has_kvm()) return false;
    for (u32 i = 0; i < 5; i++) {
        u64 start = read_tsc();
        for (u32 j = 0; j < 500; j++) asm volatile("" ::: "memory");
        if (read_tsc() - start < 200000) return false;
    }
    return true;
}

static void say_ready(void) {
    char buffer[256];
    struct text text = text_in(buffer, sizeof buffer);
    text_add(&text, "bare-guest ready:");
    text_field(&text, "ring", control->ring);
    text_field(&text, "card", control->card);
    text_field(&text, "disk", control->disk);
    text_field(&text, "vcpus", control->vcpus);
    text_field(&text, "ticks_per_ms", control->ticks_per_ms);
    text_add(&text, "\n");
    serial_write(&text);
}

/* `header` is that of the boot protocol, with the address of the command line in it. */
void boot(u64 header) {
    memset((void *)CONTROL_PAGE, 0, PAGE);
    const char *line = (const char *)(u64) * (u32 *)(header + COMMAND_LINE_AT);
    for (u32 i = 0; i < sizeof command_line - 1 && line[i]; i++) command_line[i] = line[i];
    serial_open();
    serial_say("bare-guest begins\n");
    kvmclock_open();
    if (is_emulated()) {
        control->ring = 3;
        to_ring3();
    }
    clocks_open();
    own_address = option("address", ADDRESS);
    control->pages = option("pages", 0);
    control->period_us = option("period", 100000);
    control->free_run = option("free", 1);
    tcp_open();
    net_open();
    disk_open();
    work_open(option("pool", POOL_PAGES), option("beats", 0));
    vcpus_open(option("vcpus", 1));
    say_ready();
    control->magic = READY;
    for (;;) {
        control->loops++;
        net_poll();
        clocks_watch();
        tcp_poll();
        work_poll();
        disk_poll();
        vcpus_poll();
    }
}
