/* The one connection to the other node: TCP and TLS 1.3 over whichever link works, framed messages (mirror_wire.h) in
 * order, a bounded send queue. On the data thread. Node index 0 listens on all its links, node index 1 connects.
 *
 * Life: (connect or accept, TLS, HELLO) → `opened` → messages → `closed` → mirror_link_release by the engine, once
 * everything of the old connection is drained → the next `opened`. So a message of an old connection is never mixed
 * with those of a new one (iscsi.md, ghost writes). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/site.h"
#include "common/tls.h"
#include "storaged/iobuf.h"
#include "storaged/mirror/mirror_wire.h"
#include "storaged/ring.h"

#define MIRROR_PING_MS 100u
#define MIRROR_SILENCE_MS 2000u /* nothing heard for so long: the link is dead */
#define MIRROR_RETRY_MS 200u
#define MIRROR_OPENING_MS 2000u /* connect, TLS and HELLO must be over by then */
#define MIRROR_QUEUE_MAX 8192u  /* messages waiting to be sent */

struct mirror_link;

/* A message on its way out. Embedded by the caller and kept, with its data, until `done` or a successful cancel. */
struct mirror_send {
    void (*done)(struct mirror_send *send); /* handed to the connection, or dropped with it */
    /* private */
    struct list link;
    bool queued;
    uint8_t frame[MIRROR_FRAME_MAX];
    size_t frame_size, data_size, copied;
    const uint8_t *data;
};

struct mirror_link_callbacks {
    void (*opened)(void *userdata);
    /* `data` (message->data_size bytes from the receive arena, NULL when 0) becomes the callee's: iobuf_put to `arena`.
     * A sentence (not 0) refuses the message: the connection is closed for that reason. */
    const char *(*message)(void *userdata, const struct mirror_message *message, uint8_t *data);
    /* Every send was given back before. No `opened` follows before mirror_link_release. */
    void (*closed)(void *userdata, const char *reason);
};

struct mirror_link_options {
    struct ring *ring;
    struct iobuf_arena *receive; /* its own: received mirror writes must never wait for memory that waits for them */
    const struct site *site;     /* borrowed for the link's life, like the identity */
    const struct tls_identity *identity;
    struct id boot;
    struct mirror_link_callbacks callbacks;
    void *userdata;
};

int mirror_link_new(const struct mirror_link_options *options, struct mirror_link **ret, struct err *err);
/* Closes without callbacks. */
void mirror_link_free(struct mirror_link *link);
/* The peer is heard by quorumd (true) or suspect: then the connection is closed and none is opened (R4). */
void mirror_link_allow(struct mirror_link *link, bool allowed, const char *reason);
bool mirror_link_is_open(const struct mirror_link *link);
/* Sends in order. False (and `done` is not called) when there is no open connection. */
bool mirror_link_send(struct mirror_link *link, struct mirror_send *send, const struct mirror_message *message, const void *data);
/* Takes back a send of which nothing was handed on yet: true, and `done` is not called. */
bool mirror_link_cancel(struct mirror_link *link, struct mirror_send *send);
/* The same for small messages: copied, nothing to keep. */
void mirror_link_post(struct mirror_link *link, const struct mirror_message *message, const void *data);
/* From the end of the present batch on. */
void mirror_link_close(struct mirror_link *link, const char *reason);
void mirror_link_release(struct mirror_link *link);

struct mirror_link_stats {
    uint64_t messages_sent, messages_received, bytes_sent, bytes_received, opened;
    unsigned queued;
    char address[SITE_ADDRESS_MAX]; /* the peer's, while open */
};
void mirror_link_get_stats(const struct mirror_link *link, struct mirror_link_stats *ret);
