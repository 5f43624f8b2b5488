/* net.h - the network card. */
#ifndef NET_H
#define NET_H
#include "machine.h"

#define FRAME_BYTES_MAX 1514

void net_open(void);
/* Takes what has come and hands each frame to ip_take; true when there was something. */
bool net_poll(void);
/* Where the next frame to send is to be written; 0 when the card has not sent enough of those before. */
u8 *net_frame(void);
/* Sends what was written there. */
void net_send(u32 bytes);
extern u8 own_mac[6];
#endif
