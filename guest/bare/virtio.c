/*
 * virtio.c - virtio devices in the legacy form of the standard, which QEMU's devices on PCI and in memory both speak by
 * default. Nothing interrupts: `offered` says that no interrupts are wanted, and the guest looks at `used` itself.
 *
 *   on PCI, ports from base address 0        mapped in memory, 24 windows of 512 bytes at 0xfeb00000 (microvm)
 *   0 features  4 taken  8 ring  12 size     0 "virt"  4 version  8 kind  0x10 features  0x20 taken  0x28 page size
 *   14 select  16 notify  18 status  20 ...  0x30 select  0x34 size  0x3c align  0x40 ring  0x50 notify  0x70 status
 */
#include "virtio.h"

#define WINDOWS 0xfeb00000ul
#define WINDOW_COUNT 24
#define WINDOW_BYTES 512
#define QUEUE_SIZE_MAX 256

enum { ACKNOWLEDGED = 1, DRIVER = 2, DRIVER_OK = 4 };

static u32 pci_address(u32 device, u32 function, u32 offset) {
    return 0x80000000u | device << 11 | function << 8 | offset;
}

u32 pci_read(u32 device, u32 function, u32 offset) {
    out32(0xcf8, pci_address(device, function, offset));
    return in32(0xcfc);
}

static void pci_write(u32 device, u32 function, u32 offset, u32 value) {
    out32(0xcf8, pci_address(device, function, offset));
    out32(0xcfc, value);
}

static u16 find_on_pci(u32 kind) {
    for (u32 device = 0; device < 32; device++) {
        if (pci_read(device, 0, 0) != (0x0fff1af4u + (kind << 16))) continue;
        pci_write(device, 0, 4, pci_read(device, 0, 4) | 5); /* its ports answer, and it may reach memory */
        return pci_read(device, 0, 0x10) & ~3u;
    }
    return 0;
}

static volatile u32 *find_in_memory(u32 kind) {
    if (pci_read(0, 0, 0) != 0xffffffff) return 0;
    for (u32 i = 0; i < WINDOW_COUNT; i++) {
        volatile u32 *at = (volatile u32 *)(WINDOWS + i * WINDOW_BYTES);
        if (at[0] == 0x74726976 && at[1] == 1 && at[2] == kind) return at;
    }
    return 0;
}

static void set_status(const struct virtio *device, u8 status) {
    if (device->registers)
        device->registers[0x70 / 4] = status;
    else
        out8(device->port + 18, status);
}

int virtio_open(struct virtio *device, u32 kind, u32 features) {
    device->port = find_on_pci(kind);
    device->registers = device->port ? 0 : find_in_memory(kind);
    if (!device->port && !device->registers) return 0;
    set_status(device, 0);
    set_status(device, ACKNOWLEDGED);
    set_status(device, ACKNOWLEDGED | DRIVER);
    if (device->port) {
        out32(device->port + 4, in32(device->port) & features);
        return 1;
    }
    device->registers[0x14 / 4] = 0;
    device->registers[0x24 / 4] = 0;
    device->registers[0x20 / 4] = device->registers[0x10 / 4] & features;
    device->registers[0x28 / 4] = PAGE;
    return 2;
}

void virtio_start(const struct virtio *device) { set_status(device, ACKNOWLEDGED | DRIVER | DRIVER_OK); }

u8 virtio_config(const struct virtio *device, u32 offset) {
    return device->registers ? ((volatile u8 *)device->registers)[0x100 + offset] : in8(device->port + 20 + offset);
}

static u16 select_queue(const struct virtio *device, u16 number) {
    if (device->registers) {
        device->registers[0x30 / 4] = number;
        u32 size = device->registers[0x34 / 4];
        if (size > QUEUE_SIZE_MAX) size = QUEUE_SIZE_MAX;
        device->registers[0x38 / 4] = size;
        device->registers[0x3c / 4] = PAGE;
        return size;
    }
    out16(device->port + 14, number);
    return in16(device->port + 12);
}

void queue_open(struct queue *queue, const struct virtio *device, u16 number, u64 memory) {
    u16 size = select_queue(device, number);
    u64 offered = memory + size * sizeof(struct piece);
    u64 used = (offered + 6 + 2 * size + PAGE - 1) & ~(PAGE - 1);
    *queue = (struct queue){
        .device = device,
        .number = number,
        .size = size,
        .pieces = (struct piece *)memory,
        .offered = (u16 *)offered,
        .used = (u16 *)used,
    };
    memset((void *)memory, 0, RING_BYTES);
    queue->offered[0] = 1; /* no interrupts */
    if (device->registers)
        device->registers[0x40 / 4] = memory / PAGE;
    else
        out32(device->port + 8, memory / PAGE);
}

void queue_offer(struct queue *queue, u16 piece) {
    u16 count = queue->offered[1];
    queue->offered[2 + count % queue->size] = piece;
    barrier();
    queue->offered[1] = count + 1;
    barrier();
}

void queue_notify(const struct queue *queue) {
    if (queue->device->registers)
        queue->device->registers[0x50 / 4] = queue->number;
    else
        out16(queue->device->port + 16, queue->number);
}

int queue_take(struct queue *queue, u32 *bytes) {
    if (queue->seen == queue->used[1]) return -1;
    barrier();
    volatile u32 *entry = (volatile u32 *)(queue->used + 2) + 2 * (queue->seen % queue->size);
    queue->seen++;
    if (bytes) *bytes = entry[1];
    return entry[0];
}

u16 queue_pending(const struct queue *queue) { return queue->offered[1] - queue->used[1]; }
