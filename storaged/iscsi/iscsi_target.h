/* The iSCSI target of a node: listens on portals and serves the logical units of a table (RFC 7143). All on the data
 * thread, unless said otherwise. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "storaged/iobuf.h"
#include "storaged/lun.h"
#include "storaged/ring.h"

#define ISCSI_PORTALS_MAX 8u
#define ISCSI_SESSIONS_MAX 256u
#define ISCSI_DISCOVERIES_MAX 16u     /* discovery sessions beside them; the oldest goes for a new one */
#define ISCSI_UNAUTHENTICATED_MAX 512u
/* Descriptors that the target may have open at once: closed connections go in the next turn of the ring. */
#define ISCSI_CONNECTIONS_MAX (ISCSI_SESSIONS_MAX + 2 * ISCSI_DISCOVERIES_MAX + 2 * ISCSI_UNAUTHENTICATED_MAX)
#define ISCSI_LOGIN_MS 10000u
#define ISCSI_STALL_MS 5000u

struct iscsi_target;

struct iscsi_target_options {
    uint16_t port_group;  /* target portal group tag of this node: its index + 1 */
    size_t memory_bytes;  /* most that is taken from the arena at once, at least 4 MiB: the rest is the groups' own */
    uint32_t login_ms;    /* a login must be over by then; 0: ISCSI_LOGIN_MS */
    uint32_t stall_ms;    /* who stands still so long while others wait for its memory is closed; 0: ISCSI_STALL_MS */
};

struct iscsi_target_stats {
    unsigned connections, unauthenticated, sessions;
    size_t memory_bytes;   /* taken from the arena now */
    uint64_t logins, logins_refused, commands, bytes_read, bytes_written;
    uint64_t protocol_errors, memory_waits;
};

/* `ring`, `arena` and `table` are borrowed and outlive the target. */
int iscsi_target_new(struct ring *ring, struct iobuf_arena *arena, struct lun_table *table,
                     const struct iscsi_target_options *options, struct iscsi_target **ret);
/* Starts listening on "ADDR:PORT" or "[V6]:PORT"; port 0 takes a free one. Before ring_run or on its thread. */
int iscsi_target_listen(struct iscsi_target *target, const char *address, struct err *err);
/* The port that the index-th listen got; 0 past the last. */
uint16_t iscsi_target_port(const struct iscsi_target *target, unsigned index);
/* Closes portals, asks initiators to log out, and closes within a second who does not. Sessions are gone once their
 * requests came back: see the stats' sessions and connections, and run the ring until both are 0. */
void iscsi_target_stop(struct iscsi_target *target);
/* After iscsi_target_stop, when no session and no connection is left. */
void iscsi_target_free(struct iscsi_target *target);
void iscsi_target_get_stats(const struct iscsi_target *target, struct iscsi_target_stats *ret);
