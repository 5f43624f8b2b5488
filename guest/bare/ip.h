/* ip.h - Ethernet, ARP, IPv4, ICMP and UDP. */
#ifndef IP_H
#define IP_H
#include "machine.h"

#define PROTOCOL_ICMP 1
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17
#define ETHERNET_BYTES 14
#define IP_BYTES 20

/* Another host, as its frames name it: answers go where the question came from. */
struct host {
    u8 mac[6];
    u32 address;
};

extern u32 own_address;

/* Takes a frame of the card. */
void ip_take(const u8 *frame, u32 bytes);
/* Where the payload of a packet to send is to be written, at most 1480 bytes; 0 when there is no room. */
u8 *ip_packet(void);
/* Sends what was written there. */
void ip_send(const struct host *to, u8 protocol, u32 bytes);
/* The sum of a TCP or UDP packet between this host and another; 0 of one that came and is whole. */
u16 transport_sum(const struct host *other, u8 protocol, const u8 *packet, u32 bytes);

u16 get16(const u8 *at);
u32 get32(const u8 *at);
void put16(u8 *at, u16 value);
void put32(u8 *at, u32 value);
#endif
