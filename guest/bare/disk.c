/*
 * disk.c - virtio-blk: a sector writer that checks itself. It goes round the first sectors of the disk; each is read,
 * must hold what was last written to it, and is written anew; every so often all of it is flushed. What a sector holds
 * is made of its number and the round, so that a lost, old or misplaced write is an error.
 *
 * One request at a time, three pieces each:   header (kind, sector) -> 512 bytes -> status
 */
#include "disk.h"
#include "clocks.h"
#include "control.h"
#include "virtio.h"

#define SECTOR 512
#define SECTORS_USED 128
#define WRITES_PER_FLUSH 32
#define STEP_US 200
#define CAN_FLUSH (1u << 9)

enum kind { READ = 0, WRITE = 1, FLUSH = 4 };

struct request {
    u32 kind, unused;
    u64 sector;
    u8 bytes[SECTOR];
    u8 status;
};

static struct virtio disk;
static struct queue queue;
static struct request *const request = (struct request *)SECTORS;
static bool is_under_way;
static u64 sector, round = 1, unflushed;
static struct period step;

static u64 word_of(u64 of_round, u32 index) {
    return of_round == 0 ? 0 : (of_round << 32 | sector << 16 | index) * 0x9e3779b97f4a7c15ull;
}

static void ask(enum kind kind) {
    request->kind = kind;
    request->sector = kind == FLUSH ? 0 : sector;
    request->status = 0xff;
    u16 to_device = kind == READ ? PIECE_IS_FOR_DEVICE : 0;
    u64 at = (u64)request;
    queue.pieces[0] = (struct piece){.address = at, .bytes = 16, .flags = PIECE_FOLLOWS, .next = kind == FLUSH ? 2 : 1};
    queue.pieces[1] =
        (struct piece){.address = at + 16, .bytes = SECTOR, .flags = PIECE_FOLLOWS | to_device, .next = 2};
    queue.pieces[2] = (struct piece){.address = at + 16 + SECTOR, .bytes = 1, .flags = PIECE_IS_FOR_DEVICE};
    is_under_way = true;
    queue_offer(&queue, 0);
    queue_notify(&queue);
}

void disk_open(void) {
    control->disk = virtio_open(&disk, VIRTIO_DISK, CAN_FLUSH);
    if (!control->disk) return;
    queue_open(&queue, &disk, 0, RINGS + 2 * RING_BYTES);
    virtio_start(&disk);
    step = period_of(0);
}

static void check_and_write(void) {
    u64 *words = (u64 *)request->bytes;
    bool is_right = true;
    for (u32 i = 0; i < SECTOR / 8; i++) {
        is_right &= words[i] == word_of(round - 1, i);
        words[i] = word_of(round, i);
    }
    control->disk_reads++;
    if (!is_right) control->disk_errors++;
    ask(WRITE);
}

static void after_write(void) {
    control->disk_writes++;
    if (++sector == SECTORS_USED) {
        sector = 0;
        round++;
    }
    if (++unflushed < WRITES_PER_FLUSH) return;
    unflushed = 0;
    ask(FLUSH);
}

void disk_poll(void) {
    if (!control->disk) return;
    if (!is_under_way) {
        if (!is_over(&step)) return;
        step = period_of(STEP_US);
        return ask(READ);
    }
    if (queue_take(&queue, 0) < 0) return;
    is_under_way = false;
    if (*(volatile u8 *)&request->status != 0) {
        control->disk_errors++;
        return;
    }
    if (request->kind == READ) return check_and_write();
    if (request->kind == WRITE) return after_write();
    control->disk_flushes++;
}
