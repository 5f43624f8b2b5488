/*
 * machine.h - what every file of the guest may use: types, the processor's instructions, and the map of memory.
 *
 *   0x00008000  where further vCPUs start
 *   0x00010000  the boot protocol's header     0x00020000  the command line
 *   0x00100000  code and constants             0x00200000  variables, page tables, stack
 *   0x00400000  the control page (control.h)   0x00600000  virtio rings, 64 KiB each
 *   0x00680000  frames that come               0x00700000  frames that go
 *   0x00800000  bytes of connections           0x00900000  sectors of the disk
 *   0x01000000  pages of further vCPUs (vcpus.c)
 *   0x02000000  the pool: pages that are written and checked (work.c)
 */
#ifndef MACHINE_H
#define MACHINE_H
#include <stdbool.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t s32;
typedef int64_t s64;

#define VCPU_START 0x8000ul
#define CONTROL_PAGE 0x400000ul
#define RINGS 0x600000ul
#define RING_BYTES 0x10000ul
#define FRAMES_IN 0x680000ul
#define FRAMES_OUT 0x700000ul
#define CONNECTION_BYTES 0x800000ul
#define SECTORS 0x900000ul
#define VCPU_PAGES 0x1000000ul
#define POOL 0x2000000ul
#define PAGE 4096ul

static inline void out8(u16 port, u8 value) { asm volatile("outb %0, %1" ::"a"(value), "Nd"(port) : "memory"); }
static inline void out16(u16 port, u16 value) { asm volatile("outw %0, %1" ::"a"(value), "Nd"(port) : "memory"); }
static inline void out32(u16 port, u32 value) { asm volatile("outl %0, %1" ::"a"(value), "Nd"(port) : "memory"); }

static inline u8 in8(u16 port) {
    u8 value;
    asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline u16 in16(u16 port) {
    u16 value;
    asm volatile("inw %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline u32 in32(u16 port) {
    u32 value;
    asm volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline u64 read_tsc(void) {
    u32 low, high;
    asm volatile("rdtsc" : "=a"(low), "=d"(high)::"memory");
    return (u64)high << 32 | low;
}

static inline void write_msr(u32 msr, u64 value) {
    asm volatile("wrmsr" ::"c"(msr), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}

struct cpuid {
    u32 a, b, c, d;
};

static inline struct cpuid read_cpuid(u32 leaf) {
    struct cpuid of;
    asm volatile("cpuid" : "=a"(of.a), "=b"(of.b), "=c"(of.c), "=d"(of.d) : "a"(leaf), "c"(0));
    return of;
}

/* The compiler moves no access of memory over this; the processor keeps the order of writes by itself. */
static inline void barrier(void) { asm volatile("" ::: "memory"); }

/* The compiler calls these for copies of structs, too. */
void *memcpy(void *to, const void *from, unsigned long count);
void *memset(void *to, int value, unsigned long count);

void to_ring3(void);
#endif
