/* The heartbeat sockets: one UDP socket bound to each of this node's link addresses. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "common/err.h"
#include "common/site.h"

struct links;
typedef void links_received(unsigned link, const uint8_t *data, size_t size, void *userdata);

/* `received` is called from the loop for every datagram; `data` is borrowed for the call. */
int links_new(sd_event *event, const struct site *site, links_received *received, void *userdata, struct links **ret,
              struct err *err);
void links_free(struct links *links);
/* To the peer's address of the same link. 0 or a negative errno (the cable is out, the address is not up yet). */
int links_send(struct links *links, unsigned link, const uint8_t *data, size_t size);
