/* Private to the mirror link: one TCP connection with TLS, its frames in and out. */
#pragma once

#include "storaged/mirror/mirror_link.h"

#define CONNECTION_STAGE_SIZE (64u * 1024)

enum connection_state {
    CONNECTION_CONNECTING, /* TCP */
    CONNECTION_SHAKING,    /* TLS */
    CONNECTION_GREETING,   /* HELLO sent, the peer's is awaited */
    CONNECTION_READY,
    CONNECTION_BROKEN,     /* is closed at the end of the batch */
};

struct mirror_connection;
struct connection_callbacks {
    void (*established)(struct mirror_connection *connection); /* TLS is up */
    const char *(*message)(struct mirror_connection *connection, const struct mirror_message *message, uint8_t *data);
    void (*broken)(struct mirror_connection *connection); /* call connection_free */
};

struct mirror_connection {
    void *owner;
    const struct connection_callbacks *callbacks;
    struct ring *ring;
    struct iobuf_arena *receive;
    const struct tls_identity *identity;
    int fd;
    bool is_server;
    struct tls *tls;
    enum connection_state state;
    char reason[256]; /* why it broke */
    char address[SITE_ADDRESS_MAX];
    struct ring_watch watch;
    struct ring_timer deadline; /* until READY */
    struct ring_mail closing, flushing, resuming;
    bool flush_deferred, resume_deferred, close_deferred;
    uint64_t heard_ms;
    bool paused; /* does not read */

    struct list queue; /* of mirror_send */
    unsigned queued;
    size_t stage_size, stage_offset;

    struct mirror_head head;
    struct mirror_message message;
    enum { RECEIVE_HEAD, RECEIVE_BODY, RECEIVE_DATA } phase;
    size_t got;
    uint8_t *data;
    struct iobuf_waiter waiter;
    bool waiting; /* for memory */

    uint64_t messages_sent, messages_received, bytes_sent, bytes_received;
    uint8_t bytes[MIRROR_BODY_MAX];
    uint8_t stage[CONNECTION_STAGE_SIZE];
};

/* Takes `fd`, which is connecting (client) or accepted (server). NULL without memory (fd is closed). */
struct mirror_connection *connection_new(const struct mirror_link_options *options, int fd, bool is_server, const char *address,
                                         const struct connection_callbacks *callbacks, void *owner);
void connection_send(struct mirror_connection *connection, struct mirror_send *send, const struct mirror_message *message, const void *data);
bool connection_cancel(struct mirror_connection *connection, struct mirror_send *send);
/* `broken` follows at the end of the batch. */
void connection_break(struct mirror_connection *connection, const char *format, ...) __attribute__((format(printf, 2, 3)));
void connection_pause(struct mirror_connection *connection, bool paused);
/* Gives every queued send back, closes. */
void connection_free(struct mirror_connection *connection);
