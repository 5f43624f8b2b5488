/* services.h - what the guest serves. */
#ifndef SERVICES_H
#define SERVICES_H
#include "tcp.h"

/* The service behind a TCP port; 0 when there is none. */
const struct service *service_at(u16 port);
/* Answers a datagram to a UDP port; how many bytes the answer has, 0 when there is none. */
u32 answer_datagram(u16 port, const u8 *bytes, u32 count, u8 *answer);
#endif
