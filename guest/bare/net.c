/* net.c - virtio-net: whole frames, one piece of memory each, behind a header of ten bytes that says nothing. */
#include "net.h"
#include "control.h"
#include "ip.h"
#include "virtio.h"

#define HEADER 10
#define BUFFER 2048
#define BUFFERS 256
#define FRAME_BYTES_MIN 60
#define HAS_MAC (1u << 5)

u8 own_mac[6];
static struct virtio card;
static struct queue in, out;
static u16 next_out;

static u8 *buffer_in(u16 id) { return (u8 *)(FRAMES_IN + id * BUFFER); }
static u8 *buffer_out(u16 id) { return (u8 *)(FRAMES_OUT + id * BUFFER); }

static void give(u16 id) {
    in.pieces[id] = (struct piece){.address = (u64)buffer_in(id), .bytes = BUFFER, .flags = PIECE_IS_FOR_DEVICE};
    queue_offer(&in, id);
}

void net_open(void) {
    control->card = virtio_open(&card, VIRTIO_NET, HAS_MAC);
    if (!control->card) return;
    for (u32 i = 0; i < 6; i++) own_mac[i] = virtio_config(&card, i);
    queue_open(&in, &card, 0, RINGS);
    queue_open(&out, &card, 1, RINGS + RING_BYTES);
    virtio_start(&card);
    for (u16 id = 0; id < in.size && id < BUFFERS; id++) give(id);
    queue_notify(&in);
}

bool net_poll(void) {
    if (!control->card) return false;
    u32 bytes;
    int id, count = 0;
    for (; count < 64 && (id = queue_take(&in, &bytes)) >= 0; count++) {
        control->frames_in++;
        if (bytes > HEADER && bytes <= BUFFER) ip_take(buffer_in(id) + HEADER, bytes - HEADER);
        give(id);
    }
    if (count > 0) queue_notify(&in);
    return count > 0;
}

u8 *net_frame(void) {
    if (queue_pending(&out) < out.size && queue_pending(&out) < BUFFERS) return buffer_out(next_out) + HEADER;
    control->frames_lost++;
    return 0;
}

void net_send(u32 bytes) {
    u8 *buffer = buffer_out(next_out);
    memset(buffer, 0, HEADER);
    if (bytes < FRAME_BYTES_MIN) {
        memset(buffer + HEADER + bytes, 0, FRAME_BYTES_MIN - bytes);
        bytes = FRAME_BYTES_MIN;
    }
    out.pieces[next_out] = (struct piece){.address = (u64)buffer, .bytes = bytes + HEADER};
    queue_offer(&out, next_out);
    next_out = (next_out + 1) % (out.size < BUFFERS ? out.size : BUFFERS);
    control->frames_out++;
    queue_notify(&out);
}
