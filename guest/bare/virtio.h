/* virtio.h - finding virtio devices, and their queues. */
#ifndef VIRTIO_H
#define VIRTIO_H
#include "machine.h"

enum { VIRTIO_NET = 1, VIRTIO_DISK = 2 };

struct virtio {
    u16 port;                 /* of a device on PCI */
    volatile u32 *registers;  /* of one that is mapped in memory */
};

#define PIECE_FOLLOWS 1
#define PIECE_IS_FOR_DEVICE 2 /* to write */

struct piece {
    u64 address;
    u32 bytes;
    u16 flags, next;
};

struct queue {
    const struct virtio *device;
    u16 number, size;
    u16 seen; /* of `used` */
    struct piece *pieces;
    volatile u16 *offered, *used;
};

u32 pci_read(u32 device, u32 function, u32 offset);

/* Finds a device and takes it over; how it is reached: 0 there is none, 1 on PCI, 2 mapped in memory. */
int virtio_open(struct virtio *device, u32 kind, u32 features);
void virtio_start(const struct virtio *device);
u8 virtio_config(const struct virtio *device, u32 offset);

void queue_open(struct queue *queue, const struct virtio *device, u16 number, u64 memory);
void queue_offer(struct queue *queue, u16 piece);
void queue_notify(const struct queue *queue);
/* Takes what the device has done with: the number of its first piece, or -1. */
int queue_take(struct queue *queue, u32 *bytes);
/* How many of those that were offered the device still has. */
u16 queue_pending(const struct queue *queue);
#endif
