/* tcp.h - TCP connections that others open, and what the services of services.c see of them. */
#ifndef TCP_H
#define TCP_H
#include "clocks.h"
#include "ip.h"

#define ANSWER_BYTES_MAX 16384 /* that wait to be acknowledged; a power of two */

struct connection;

struct service {
    u16 port;
    /* How many more bytes it would take now. */
    u32 (*room)(const struct connection *of);
    /* Takes bytes of the client, as many as it returns; the client sends the others again. */
    u32 (*take)(struct connection *of, const u8 *bytes, u32 count);
    /* Writes bytes of what was answered, from `offset`, that are not acknowledged yet. */
    void (*read)(const struct connection *of, u32 offset, u8 *to, u32 count);
};

enum state { CLOSED, OPENING, OPEN };

struct connection {
    enum state state;
    struct host host;
    u16 port, own_port;
    const struct service *service;

    /* Our bytes: `first` is the number of the SYN, the others count from the byte behind it, and wrap. */
    u32 first, acknowledged, sent, sent_most, answered;
    /* Theirs: the number of the next one. */
    u32 expected;
    u32 their_window, told_window, segment_max;
    bool has_ended, end_is_sent, is_refused;

    u32 again_us, tries, same_acks;
    bool is_waiting;
    struct period wait, idle;

    /* What the service keeps. */
    u8 *bytes; /* ANSWER_BYTES_MAX, where it keeps what it answers */
    u32 line_number;
    bool is_in_line;
    char request[160];
    u32 request_bytes, header_bytes, body_start;
    char header[80];
};

void tcp_open(void);
void tcp_take(const struct host *from, const u8 *packet, u32 bytes);
/* Sends again what nobody has acknowledged; called in every turn of the loop. */
void tcp_poll(void);
#endif
