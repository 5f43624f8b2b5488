/*
 * clocks.c - the clocks: TSC, kvmclock, ACPI PM timer, HPET, local APIC's timer, PIT, real-time clock.
 *
 * A machine that is stopped, saved and loaded elsewhere must go on with all of them, at one time. They are read close
 * together, on request, and TSC and kvmclock in every turn of the loop: their largest steps in both directions are
 * kept.
 */
#include "clocks.h"
#include "control.h"
#include "virtio.h"

#define PIT_HZ 1193182
#define HPET 0xfed00000ul
#define LAPIC 0xfee00000ul

/* What KVM writes for a guest that asked for it: the time at `tsc`, and how to get from ticks to nanoseconds. */
struct kvmclock {
    u32 version, unused;
    u64 tsc, ns;
    u32 multiplier;
    signed char shift;
    u8 flags, unused_too[2];
} __attribute__((packed, aligned(64)));

static volatile struct kvmclock page;
static bool has_kvmclock;
static u16 pm_port;
static volatile u64 *hpet;
static volatile u32 *lapic;

bool has_kvm(void) {
    struct cpuid at = read_cpuid(0x40000000);
    return at.b == 0x4b4d564b && at.c == 0x564b4d56 && at.d == 0x4d;
}

void kvmclock_open(void) {
    if (!has_kvm() || !(read_cpuid(0x40000001).a & 8)) return;
    write_msr(0x4b564d01, (u64)&page | 1);
    has_kvmclock = true;
}

static u64 kvmclock(void) {
    if (!has_kvmclock) return 0;
    for (;;) {
        u32 version = page.version;
        barrier();
        u64 ticks = read_tsc() - page.tsc;
        u64 ns = page.ns;
        u32 multiplier = page.multiplier;
        int shift = page.shift;
        barrier();
        if ((version & 1) || version != page.version) continue;
        ticks = shift < 0 ? ticks >> -shift : ticks << shift;
        return ns + (u64)(((unsigned __int128)ticks * multiplier) >> 32);
    }
}

static u16 pit(void) {
    out8(0x43, 0);
    u16 low = in8(0x40);
    return low | in8(0x40) << 8;
}

/* Ticks of the TSC in 10 ms of the PIT. A host that is busy makes some tries too long, so the shortest counts. */
static u64 measure_ticks_per_ms(void) {
    u64 best = ~0ull;
    for (u32 i = 0; i < 5; i++) {
        u16 first = pit(), passed = 0;
        u64 start = read_tsc(), ticks = 0;
        for (u32 tries = 0; passed < PIT_HZ / 100 && tries < 1000000; tries++) {
            passed = first - pit();
            ticks = read_tsc() - start;
        }
        if (passed == 0) continue;
        u64 per_ms = ticks * PIT_HZ / 1000 / passed;
        if (per_ms < best) best = per_ms;
    }
    return best == ~0ull || best == 0 ? 1000000 : best;
}

static u64 kvmclock_ticks_per_ms(void) {
    u64 ticks = (1000000ull << 32) / page.multiplier;
    return page.shift < 0 ? ticks << -page.shift : ticks >> page.shift;
}

/* The PM timer of the chip sets that QEMU emulates: PIIX4 (pc) and ICH9 (q35) name its port in the same register. */
static u16 find_pm_timer(void) {
    if (pci_read(1, 3, 0) == 0x71138086) return (pci_read(1, 3, 0x40) & 0xff80) + 8;
    if (pci_read(31, 0, 0) == 0x29188086) return (pci_read(31, 0, 0x40) & 0xff80) + 8;
    return 0;
}

static u8 cmos(u8 index) {
    out8(0x70, index | 0x80);
    return in8(0x71);
}

/*
 * Seconds of the day; 0 without such a clock, as on a microvm under KVM, where every port that nobody has reads 0xff.
 */
static u64 rtc_seconds(void) {
    if (cmos(10) == 0xff) return 0;
    for (u32 tries = 0; tries < 2000 && (cmos(10) & 0x80); tries++) barrier();
    u8 second = cmos(0), minute = cmos(2), hour = cmos(4);
    bool is_binary = cmos(11) & 4;
    u64 seconds = 0;
    u8 parts[3] = {hour, minute, second};
    for (u32 i = 0; i < 3; i++) {
        u32 part = is_binary ? parts[i] : (parts[i] >> 4) * 10 + (parts[i] & 15);
        seconds = seconds * 60 + part;
    }
    return seconds;
}

void clocks_open(void) {
    out8(0x43, 0x34); /* The PIT's first counter: over and over, from 65536. */
    out8(0x40, 0);
    out8(0x40, 0);
    pm_port = find_pm_timer();
    u64 capabilities = *(volatile u64 *)HPET;
    u64 femtoseconds = capabilities >> 32;
    if ((capabilities >> 16 & 0xffff) == 0x8086 && femtoseconds > 0 && femtoseconds <= 100000000) {
        hpet = (volatile u64 *)HPET;
        hpet[0x10 / 8] |= 1;
        control->hpet_fs = femtoseconds;
    }
    lapic = (volatile u32 *)LAPIC;
    lapic[0xf0 / 4] = 0x1ff;         /* on, */
    lapic[0x320 / 4] = 0x20000 | 32; /* over and over, without interrupts, */
    lapic[0x3e0 / 4] = 0xb;          /* at full speed, */
    lapic[0x380 / 4] = 0xffffffff;   /* down from here. */
    control->ticks_per_ms = has_kvmclock ? kvmclock_ticks_per_ms() : measure_ticks_per_ms();
    control->tsc = read_tsc();
    control->kvmclock_ns = kvmclock();
}

static void note_step(u64 before, u64 now, volatile u64 *back, volatile u64 *jump) {
    s64 step = now - before;
    if (step < 0 && (u64)-step > *back) *back = -step;
    if (step > 0 && (u64)step > *jump) *jump = step;
}

void clocks_watch(void) {
    u64 tsc = read_tsc(), ns = kvmclock();
    note_step(control->tsc, tsc, &control->tsc_back, &control->tsc_jump);
    note_step(control->kvmclock_ns, ns, &control->kvmclock_back, &control->kvmclock_jump);
    control->tsc = tsc;
    control->kvmclock_ns = ns;
    if (control->clock_done == control->clock_request) return;
    clocks_read();
    control->clock_done = control->clock_request;
}

/* The largest step back of a counter of so many bits that wraps: more than half of its way forward is back. */
static void note_back(u64 before, u64 now, u32 bits, volatile u64 *back) {
    u64 step = (before - now) & ((1ull << bits) - 1);
    if (before != 0 && step < 1ull << (bits - 1) && step > *back) *back = step;
}

void clocks_read(void) {
    static u64 pm_before, hpet_before, lapic_before;
    control->tsc = read_tsc();
    control->kvmclock_ns = kvmclock();
    if (pm_port) control->pm_timer = in32(pm_port) & 0xffffff;
    if (hpet) control->hpet = hpet[0xf0 / 8];
    control->lapic = lapic[0x390 / 4];
    control->pit = pit();
    u64 tsc = read_tsc();
    control->rtc_s = rtc_seconds();
    note_back(pm_before, control->pm_timer, 24, &control->pm_back);
    note_back(hpet_before, control->hpet, 63, &control->hpet_back);
    note_back(control->lapic, lapic_before, 32, &control->lapic_back);
    pm_before = control->pm_timer;
    hpet_before = control->hpet;
    lapic_before = control->lapic;
    /* In the middle of the readings. */
    control->tsc = control->tsc + (tsc - control->tsc) / 2;
}

void clocks_tell(struct text *text) {
    text_field(text, "tsc", control->tsc);
    text_field(text, "kvmclock_ns", control->kvmclock_ns);
    text_field(text, "pm_timer", control->pm_timer);
    text_field(text, "hpet", control->hpet);
    text_field(text, "hpet_fs", control->hpet_fs);
    text_field(text, "lapic", control->lapic);
    text_field(text, "pit", control->pit);
    text_field(text, "rtc_s", control->rtc_s);
    text_field(text, "ticks_per_ms", control->ticks_per_ms);
}

struct period period_of(u64 microseconds) {
    return (struct period){.start = read_tsc(), .ticks = microseconds * control->ticks_per_ms / 1000};
}

bool is_over(const struct period *period) { return read_tsc() - period->start >= period->ticks; }
