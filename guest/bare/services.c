/*
 * services.c - what the guest serves, so that a client can tell whether anything was lost, repeated or made up.
 *
 *   TCP 7   bytes come back as they are
 *   TCP 8   lines come back, each behind its number on this connection, which is kept in memory here
 *   TCP 13  each line is answered with the TSC, which no other copy of this guest would say
 *   TCP 80  "GET /BYTES": that many known bytes (byte_at; knownBytes of guest.ts), over and over on one connection
 *   UDP 7   datagrams come back    UDP 8   behind their number since boot    UDP 9   commands (ask.c)
 */
#include "services.h"
#include "ask.h"
#include "control.h"

#define DATAGRAM_BYTES_MAX 1400
#define NUMBER_BYTES_MAX 24
#define BODY_BYTES_MAX (1u << 30)

/* ---- answers that are kept until they are acknowledged ---- */

static u32 free_bytes(const struct connection *of) { return ANSWER_BYTES_MAX - (of->answered - of->acknowledged); }

static void answer_byte(struct connection *to, u8 byte) { to->bytes[to->answered++ % ANSWER_BYTES_MAX] = byte; }

static void read_kept(const struct connection *of, u32 offset, u8 *to, u32 count) {
    for (u32 i = 0; i < count; i++) to[i] = of->bytes[(offset + i) % ANSWER_BYTES_MAX];
}

static void answer_text(struct connection *to, const struct text *text) {
    for (const char *at = text->start; at < text->at; at++) answer_byte(to, *at);
}

/* ---- echo ---- */

static u32 take_echo(struct connection *of, const u8 *bytes, u32 count) {
    if (count > free_bytes(of)) count = free_bytes(of);
    for (u32 i = 0; i < count; i++) answer_byte(of, bytes[i]);
    return count;
}

/* ---- numbered lines, and the time for each line ---- */

/* Every line may become longer by its number, and an empty one is one byte. */
static u32 room_for_lines(const struct connection *of) { return free_bytes(of) / (NUMBER_BYTES_MAX + 1); }

static u32 take_lines(struct connection *of, const u8 *bytes, u32 count) {
    u32 taken = 0;
    for (; taken < count && free_bytes(of) > NUMBER_BYTES_MAX; taken++) {
        if (!of->is_in_line) {
            char buffer[NUMBER_BYTES_MAX];
            struct text number = text_in(buffer, sizeof buffer);
            text_number(&number, ++of->line_number);
            text_add(&number, " ");
            answer_text(of, &number);
        }
        answer_byte(of, bytes[taken]);
        of->is_in_line = bytes[taken] != '\n';
    }
    return taken;
}

static u32 take_times(struct connection *of, const u8 *bytes, u32 count) {
    u32 taken = 0;
    for (; taken < count && free_bytes(of) > NUMBER_BYTES_MAX; taken++) {
        if (bytes[taken] != '\n') continue;
        char buffer[NUMBER_BYTES_MAX];
        struct text time = text_in(buffer, sizeof buffer);
        text_number(&time, read_tsc());
        text_add(&time, "\n");
        answer_text(of, &time);
    }
    return taken;
}

/* ---- known bytes over HTTP ---- */

static u64 word_at(u64 index) {
    u64 word = (index + 1) * 0x9e3779b97f4a7c15ull;
    return word ^ word >> 32;
}

static void write_body(u32 at, u8 *to, u32 count) {
    u64 word = 0;
    for (u32 i = 0; i < count; i++, at++) {
        if (i == 0 || at % 8 == 0) word = word_at(at / 8) >> at % 8 * 8;
        to[i] = word;
        word >>= 8;
    }
}

static void read_web(const struct connection *of, u32 offset, u8 *to, u32 count) {
    u32 at = offset - of->body_start;
    /* The header stands before the body: there the difference is below 0. */
    for (; count > 0 && (s32)at < 0; count--, at++) *to++ = of->header[at + of->header_bytes];
    write_body(at, to, count);
}

static u32 room_for_request(const struct connection *of) { return of->acknowledged == of->answered ? 4096 : 1024; }

static void answer_request(struct connection *of) {
    of->request[of->request_bytes] = 0;
    of->request_bytes = 0;
    const char *end;
    u64 bytes = parse_number(of->request + 5, &end);
    if (!begins_with(of->request, "GET /") || *end != ' ' || bytes > BODY_BYTES_MAX) {
        of->is_refused = true;
        return;
    }
    struct text header = text_in(of->header, sizeof of->header);
    text_add(&header, "HTTP/1.1 200 OK\r\nContent-Length: ");
    text_number(&header, bytes);
    text_add(&header, "\r\n\r\n");
    of->header_bytes = text_length(&header);
    of->body_start = of->answered + of->header_bytes;
    of->answered += of->header_bytes + bytes;
}

/* One request at a time: the next one is taken when the answer before has arrived. */
static u32 take_request(struct connection *of, const u8 *bytes, u32 count) {
    if (of->acknowledged != of->answered) return 0;
    for (u32 taken = 0; taken < count;) {
        if (of->request_bytes == sizeof of->request - 1) {
            of->is_refused = true;
            return taken;
        }
        of->request[of->request_bytes++] = bytes[taken++];
        if (of->request_bytes < 4 || !begins_with(of->request + of->request_bytes - 4, "\r\n\r\n")) continue;
        answer_request(of);
        return taken;
    }
    return count;
}

static const struct service services[] = {
    {.port = 7, .room = free_bytes, .take = take_echo, .read = read_kept},
    {.port = 8, .room = room_for_lines, .take = take_lines, .read = read_kept},
    {.port = 13, .room = room_for_lines, .take = take_times, .read = read_kept},
    {.port = 80, .room = room_for_request, .take = take_request, .read = read_web},
};

const struct service *service_at(u16 port) {
    for (u32 i = 0; i < sizeof services / sizeof *services; i++)
        if (services[i].port == port) return &services[i];
    return 0;
}

/* ---- datagrams ---- */

static u32 answer_numbered(const u8 *bytes, u32 count, u8 *answer) {
    static u64 datagrams;
    struct text text = text_in(answer, NUMBER_BYTES_MAX);
    text_number(&text, ++datagrams);
    text_add(&text, " ");
    memcpy(answer + text_length(&text), bytes, count);
    return text_length(&text) + count;
}

u32 answer_datagram(u16 port, const u8 *bytes, u32 count, u8 *answer) {
    if (count > DATAGRAM_BYTES_MAX) return 0;
    if (port == 8) return answer_numbered(bytes, count, answer);
    if (port == 9) return answer_command(bytes, count, answer, DATAGRAM_BYTES_MAX);
    if (port != 7) return 0;
    memcpy(answer, bytes, count);
    return count;
}
