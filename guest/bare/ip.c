/*
 * ip.c - what comes in frames: ARP and echo requests are answered here, UDP goes to services.c and TCP to tcp.c.
 * Fragments, options and other protocols are left alone; what is damaged is counted and dropped.
 */
#include "ip.h"
#include "control.h"
#include "net.h"
#include "services.h"
#include "tcp.h"

#define TYPE_ARP 0x806
#define TYPE_IP 0x800
#define UDP_BYTES 8

u32 own_address;

u16 get16(const u8 *at) { return at[0] << 8 | at[1]; }
u32 get32(const u8 *at) { return (u32)get16(at) << 16 | get16(at + 2); }

void put16(u8 *at, u16 value) {
    at[0] = value >> 8;
    at[1] = value;
}

void put32(u8 *at, u32 value) {
    put16(at, value >> 16);
    put16(at + 2, value);
}

static u32 add_words(const u8 *at, u32 bytes, u32 sum) {
    for (; bytes > 1; bytes -= 2, at += 2) sum += get16(at);
    return bytes ? sum + (*at << 8) : sum;
}

static u16 fold(u32 sum) {
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return ~sum;
}

u16 transport_sum(const struct host *other, u8 protocol, const u8 *packet, u32 bytes) {
    u32 addresses = (own_address >> 16) + (own_address & 0xffff) + (other->address >> 16) + (other->address & 0xffff);
    return fold(add_words(packet, bytes, addresses + protocol + bytes));
}

u8 *ip_packet(void) {
    u8 *frame = net_frame();
    return frame ? frame + ETHERNET_BYTES + IP_BYTES : 0;
}

void ip_send(const struct host *to, u8 protocol, u32 bytes) {
    u8 *frame = net_frame(), *ip = frame + ETHERNET_BYTES;
    if (!frame) return;
    memcpy(frame, to->mac, 6);
    memcpy(frame + 6, own_mac, 6);
    put16(frame + 12, TYPE_IP);
    memset(ip, 0, IP_BYTES);
    ip[0] = 0x45;
    put16(ip + 2, IP_BYTES + bytes);
    put16(ip + 6, 0x4000); /* not to be cut, so it needs no number */
    ip[8] = 64;
    ip[9] = protocol;
    put32(ip + 12, own_address);
    put32(ip + 16, to->address);
    put16(ip + 10, fold(add_words(ip, IP_BYTES, 0)));
    net_send(ETHERNET_BYTES + IP_BYTES + bytes);
}

static void take_arp(const u8 *frame, u32 bytes) {
    const u8 *arp = frame + ETHERNET_BYTES;
    u8 *answer = net_frame();
    if (bytes < 42 || get16(arp + 6) != 1 || get32(arp + 24) != own_address || !answer) return;
    memcpy(answer, frame + 6, 6);
    memcpy(answer + 6, own_mac, 6);
    put16(answer + 12, TYPE_ARP);
    u8 *reply = answer + ETHERNET_BYTES;
    memcpy(reply, arp, 6);
    put16(reply + 6, 2);
    memcpy(reply + 8, own_mac, 6);
    put32(reply + 14, own_address);
    memcpy(reply + 18, arp + 8, 10);
    control->arp++;
    net_send(42);
}

static void take_icmp(const struct host *from, const u8 *packet, u32 bytes) {
    u8 *answer = ip_packet();
    if (bytes < 8 || packet[0] != 8 || fold(add_words(packet, bytes, 0)) != 0 || !answer) return;
    memcpy(answer, packet, bytes);
    answer[0] = 0;
    put16(answer + 2, 0);
    put16(answer + 2, fold(add_words(answer, bytes, 0)));
    control->icmp++;
    ip_send(from, PROTOCOL_ICMP, bytes);
}

static void take_udp(const struct host *from, const u8 *packet, u32 bytes) {
    if (bytes < UDP_BYTES || get16(packet + 4) < UDP_BYTES || get16(packet + 4) > bytes) return;
    bytes = get16(packet + 4);
    if (get16(packet + 6) != 0 && transport_sum(from, PROTOCOL_UDP, packet, bytes) != 0) {
        control->frames_bad++;
        return;
    }
    u8 *answer = ip_packet();
    if (!answer) return;
    u16 port = get16(packet + 2);
    u32 said = answer_datagram(port, packet + UDP_BYTES, bytes - UDP_BYTES, answer + UDP_BYTES);
    if (said == 0) return;
    put16(answer, port);
    put16(answer + 2, get16(packet));
    put16(answer + 4, UDP_BYTES + said);
    put16(answer + 6, 0);
    u16 sum = transport_sum(from, PROTOCOL_UDP, answer, UDP_BYTES + said);
    put16(answer + 6, sum ? sum : 0xffff);
    control->udp++;
    ip_send(from, PROTOCOL_UDP, UDP_BYTES + said);
}

void ip_take(const u8 *frame, u32 bytes) {
    const u8 *ip = frame + ETHERNET_BYTES;
    if (bytes < ETHERNET_BYTES + IP_BYTES) return;
    if (get16(frame + 12) == TYPE_ARP) return take_arp(frame, bytes);
    if (get16(frame + 12) != TYPE_IP || ip[0] != 0x45 || get32(ip + 16) != own_address) return;
    u32 total = get16(ip + 2);
    bool is_fragment = get16(ip + 6) & 0x3fff;
    if (is_fragment || total < IP_BYTES || total > bytes - ETHERNET_BYTES || total > 1500) return;
    if (fold(add_words(ip, IP_BYTES, 0)) != 0) {
        control->frames_bad++;
        return;
    }
    struct host from = {.address = get32(ip + 12)};
    memcpy(from.mac, frame + 6, 6);
    const u8 *packet = ip + IP_BYTES;
    u32 rest = total - IP_BYTES;
    if (ip[9] == PROTOCOL_ICMP) take_icmp(&from, packet, rest);
    if (ip[9] == PROTOCOL_UDP) take_udp(&from, packet, rest);
    if (ip[9] == PROTOCOL_TCP) tcp_take(&from, packet, rest);
}
