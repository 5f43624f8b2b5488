/*
 * tcp.c - a small TCP: passive connections, one segment after the other, no reassembly (what comes out of order is
 * asked for again), no options but the segment size. What was sent and is not acknowledged in time is sent again from
 * there.
 *
 *   CLOSED --SYN--> OPENING --ACK--> OPEN --FIN, all answered, FIN acknowledged--> CLOSED
 *   RST, or nobody answers: CLOSED
 *
 * The first number of a connection is drawn from the TSC: two copies of this guest choose differently, as two real ones
 * do. Limits: 32 connections; beyond, a SYN is dropped unless one has been silent for a minute. 32 KiB in flight.
 */
#include "tcp.h"
#include "control.h"
#include "services.h"

#define CONNECTIONS 32
#define SEGMENT_MAX 1460
#define IN_FLIGHT_MAX 32768
#define HEADER 20
#define AGAIN_US 300000
#define AGAIN_US_MAX 3000000
#define TRIES_MAX 50
#define IDLE_US 60000000
#define LOOK_US 1000

enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };

static struct connection connections[CONNECTIONS];
static struct period look;

static u32 least(u32 a, u32 b) { return a < b ? a : b; }

void tcp_open(void) {
    for (u32 i = 0; i < CONNECTIONS; i++) connections[i].bytes = (u8 *)(CONNECTION_BYTES + i * ANSWER_BYTES_MAX);
    look = period_of(LOOK_US);
}

/* A segment as it is sent: where it goes, its ports, numbers, flags and window. */
struct segment {
    struct host to;
    u16 own_port, port;
    u32 number, acknowledges;
    u8 flags;
    u16 window;
};

/* Finishes a packet whose payload is in place. */
static void send_segment(u8 *packet, const struct segment *segment, u32 header_bytes, u32 payload_bytes) {
    put16(packet, segment->own_port);
    put16(packet + 2, segment->port);
    put32(packet + 4, segment->number);
    put32(packet + 8, segment->acknowledges);
    packet[12] = header_bytes / 4 << 4;
    packet[13] = segment->flags;
    put16(packet + 14, segment->window);
    put32(packet + 16, 0);
    put16(packet + 16, transport_sum(&segment->to, PROTOCOL_TCP, packet, header_bytes + payload_bytes));
    ip_send(&segment->to, PROTOCOL_TCP, header_bytes + payload_bytes);
}

static struct segment segment_of(struct connection *of, u32 number, u8 flags) {
    of->told_window = least(of->service->room(of), 65535);
    return (struct segment){
        .to = of->host,
        .own_port = of->own_port,
        .port = of->port,
        .number = number,
        .acknowledges = of->expected,
        .flags = flags,
        .window = of->told_window,
    };
}

static void answer_syn(struct connection *to) {
    u8 *packet = ip_packet();
    if (!packet) return;
    struct segment segment = segment_of(to, to->first, SYN | ACK);
    packet[HEADER] = 2;
    packet[HEADER + 1] = 4;
    put16(packet + HEADER + 2, SEGMENT_MAX);
    send_segment(packet, &segment, HEADER + 4, 0);
}

/* Bytes of what was answered, from `offset`; false when the card is full. */
static bool send_bytes(struct connection *to, u32 offset, u32 count, u8 flags) {
    u8 *packet = ip_packet();
    if (!packet) return false;
    if (count) to->service->read(to, offset, packet + HEADER, count);
    struct segment segment = segment_of(to, to->first + 1 + offset, ACK | flags | (count ? PSH : 0));
    send_segment(packet, &segment, HEADER, count);
    return true;
}

static void send_ack(struct connection *to) { send_bytes(to, to->sent, 0, 0); }

static void refuse(const struct host *from, const u8 *in, u32 payload_bytes) {
    u8 *packet = ip_packet();
    if (!packet) return;
    u32 length = payload_bytes + (in[13] & SYN ? 1 : 0) + (in[13] & FIN ? 1 : 0);
    struct segment segment = {.to = *from, .own_port = get16(in + 2), .port = get16(in)};
    segment.flags = in[13] & ACK ? RST : RST | ACK;
    segment.number = in[13] & ACK ? get32(in + 8) : 0;
    segment.acknowledges = in[13] & ACK ? 0 : get32(in + 4) + length;
    control->tcp_refused++;
    send_segment(packet, &segment, HEADER, 0);
}

static void forget(struct connection *connection) {
    connection->state = CLOSED;
    control->tcp_open--;
}

static void reset(struct connection *connection) {
    send_bytes(connection, connection->sent, 0, RST);
    control->tcp_refused++;
    forget(connection);
}

static struct connection *find(const struct host *from, u16 port, u16 own_port) {
    for (struct connection *each = connections; each < connections + CONNECTIONS; each++)
        if (each->state != CLOSED && each->host.address == from->address && each->port == port &&
            each->own_port == own_port)
            return each;
    return 0;
}

static bool owes(const struct connection *of) {
    return of->state == OPENING || of->acknowledged != of->answered || of->has_ended;
}

static struct connection *find_free(void) {
    for (struct connection *each = connections; each < connections + CONNECTIONS; each++)
        if (each->state == CLOSED) return each;
    for (struct connection *each = connections; each < connections + CONNECTIONS; each++) {
        if (owes(each) || !is_over(&each->idle)) continue;
        reset(each);
        return each;
    }
    return 0;
}

static u32 segment_size_in(const u8 *packet, u32 header_bytes) {
    for (u32 at = HEADER; at + 1 < header_bytes && packet[at] != 0;) {
        if (packet[at] == 1) {
            at++;
            continue;
        }
        u32 length = packet[at + 1];
        if (length < 2 || at + length > header_bytes) break;
        if (packet[at] == 2 && length == 4) return get16(packet + at + 2);
        at += length;
    }
    return 536;
}

static void open(const struct host *from, const u8 *packet, u32 header_bytes) {
    const struct service *service = service_at(get16(packet + 2));
    if (!service) return refuse(from, packet, 0);
    struct connection *new = find_free();
    if (!new) return;
    u8 *bytes = new->bytes;
    u32 size = segment_size_in(packet, header_bytes);
    *new = (struct connection){
        .state = OPENING,
        .host = *from,
        .port = get16(packet),
        .own_port = get16(packet + 2),
        .service = service,
        .first = read_tsc() * 2654435761u,
        .expected = get32(packet + 4) + 1,
        .their_window = get16(packet + 14),
        .segment_max = size < 64 ? 64 : least(size, SEGMENT_MAX),
        .again_us = AGAIN_US,
        .idle = period_of(IDLE_US),
        .bytes = bytes,
    };
    control->isn = new->first;
    control->tcp_open++;
    control->tcp_opened++;
    answer_syn(new);
}

/* Sends what the client has room for; true when something went. */
static bool push(struct connection *to) {
    bool spoke = false;
    for (;;) {
        u32 in_flight = to->sent - to->acknowledged, ready = to->answered - to->sent;
        u32 window = least(to->their_window, IN_FLIGHT_MAX);
        u32 room = window > in_flight ? window - in_flight : 0;
        u32 count = least(least(ready, room), to->segment_max);
        bool is_end = to->has_ended && count == ready && !to->end_is_sent;
        bool is_crumb = count < ready && count < to->segment_max && in_flight > 0;
        if ((count == 0 && !is_end) || is_crumb) return spoke;
        if (!send_bytes(to, to->sent, count, is_end ? FIN : 0)) return spoke;
        to->sent += count;
        if ((s32)(to->sent - to->sent_most) > 0) to->sent_most = to->sent;
        to->end_is_sent |= is_end;
        spoke = true;
    }
}

static void again(struct connection *to) {
    control->tcp_resent++;
    if (++to->tries > TRIES_MAX) {
        control->tcp_given_up++;
        return reset(to);
    }
    to->again_us = least(to->again_us * 2, AGAIN_US_MAX);
    if (to->state == OPENING) return answer_syn(to);
    /* At least one byte: a window of none is asked for its end. */
    u32 left = to->answered - to->acknowledged;
    u32 count = least(least(left, to->segment_max), to->their_window ? to->their_window : 1);
    bool is_end = to->has_ended && count == left;
    if (!send_bytes(to, to->acknowledged, count, is_end ? FIN : 0)) return;
    to->sent = to->acknowledged + count;
    if ((s32)(to->sent - to->sent_most) > 0) to->sent_most = to->sent;
    to->end_is_sent = is_end;
}

/* The client has everything up to here; false when the connection is over. */
static bool take_ack(struct connection *of, const u8 *packet, u32 payload_bytes) {
    u32 upto = get32(packet + 8) - of->first - 1;
    u32 most = of->sent_most - of->acknowledged, more = upto - of->acknowledged;
    bool ends = of->has_ended && of->sent_most == of->answered && more == most + 1;
    if (ends) {
        forget(of);
        return false;
    }
    if (more > most) return true; /* old, or of something that was never sent */
    bool is_same = more == 0 && payload_bytes == 0 && of->sent != of->acknowledged &&
                   of->their_window == get16(packet + 14);
    of->their_window = get16(packet + 14);
    of->same_acks = is_same ? of->same_acks + 1 : 0;
    if (of->same_acks == 3) again(of);
    if (more == 0) return of->state != CLOSED;
    of->acknowledged = upto;
    if ((s32)(of->sent - upto) < 0) of->sent = upto;
    of->is_waiting = false;
    of->again_us = AGAIN_US;
    of->tries = 0;
    return true;
}

/* True when the client is to be told how far we are. */
static bool take_bytes(struct connection *of, const u8 *packet, u32 header_bytes, u32 count) {
    bool is_end = packet[13] & FIN;
    if (count == 0 && !is_end) return false;
    u32 known = of->expected - get32(packet + 4);
    if (known > count || of->has_ended) return true; /* wholly known, or one before it is missing */
    u32 taken = of->service->take(of, packet + header_bytes + known, count - known);
    of->expected += taken;
    if (is_end && known + taken == count) {
        of->expected++;
        of->has_ended = true;
    }
    return true;
}

static void take_on(struct connection *of, const struct host *from, const u8 *packet, u32 header_bytes, u32 count) {
    u32 ahead = get32(packet + 4) - of->expected;
    if (packet[13] & RST) {
        if (ahead <= of->told_window) forget(of);
        return;
    }
    if (packet[13] & SYN) return of->state == OPENING ? answer_syn(of) : send_ack(of);
    if (!(packet[13] & ACK)) return;
    if (of->state == OPENING) {
        if (get32(packet + 8) != of->first + 1) return refuse(from, packet, count);
        of->state = OPEN;
        of->is_waiting = false;
        of->tries = 0;
        of->again_us = AGAIN_US;
    }
    of->host = *from;
    of->idle = period_of(IDLE_US);
    u32 told = of->told_window;
    if (!take_ack(of, packet, count)) return;
    bool must_tell = take_bytes(of, packet, header_bytes, count);
    if (of->is_refused) return reset(of);
    bool has_room_again = told < SEGMENT_MAX && of->service->room(of) >= 2 * SEGMENT_MAX;
    if (!push(of) && (must_tell || has_room_again)) send_ack(of);
}

void tcp_take(const struct host *from, const u8 *packet, u32 bytes) {
    u32 header_bytes = bytes < HEADER ? 0 : (packet[12] >> 4) * 4u;
    if (header_bytes < HEADER || header_bytes > bytes) return;
    if (transport_sum(from, PROTOCOL_TCP, packet, bytes) != 0) {
        control->frames_bad++;
        return;
    }
    u32 count = bytes - header_bytes;
    struct connection *known = find(from, get16(packet), get16(packet + 2));
    if (known) return take_on(known, from, packet, header_bytes, count);
    if (packet[13] & RST) return;
    if ((packet[13] & (SYN | ACK)) == SYN) return open(from, packet, header_bytes);
    refuse(from, packet, count);
}

void tcp_poll(void) {
    if (!is_over(&look)) return;
    look = period_of(LOOK_US);
    for (struct connection *each = connections; each < connections + CONNECTIONS; each++) {
        if (each->state == CLOSED || !owes(each)) continue;
        if (!each->is_waiting) {
            each->is_waiting = true;
            each->wait = period_of(each->again_us);
        } else if (is_over(&each->wait)) {
            again(each);
            each->wait = period_of(each->again_us);
        }
    }
}
