/* The target's own state, for the iscsi_*.c files only. */
#pragma once

#include "common/list.h"
#include "storaged/iscsi/iscsi_memory.h"
#include "storaged/iscsi/iscsi_portal.h"
#include "storaged/iscsi/iscsi_target.h"

#define ISCSI_BUCKETS 256u

struct iscsi_target {
    struct ring *ring;
    struct lun_table *table;
    struct iscsi_memory memory;
    struct ring_timer stall_timer; /* runs while somebody waits for memory */
    struct iscsi_target_options options;
    struct iscsi_portal portals[ISCSI_PORTALS_MAX];
    unsigned portal_count;
    struct list connections, sessions;
    unsigned connection_count, session_count;
    unsigned discovery_count; /* of session_count */
    uint16_t last_tsih;
    struct list strangers; /* connections that have not logged in, oldest first */
    unsigned unauthenticated_count;
    uint16_t buckets[ISCSI_BUCKETS]; /* strangers by a hash of their address */
    uint64_t log_period_ms;
    unsigned log_count; /* refused logins in this period */
    struct iscsi_target_stats stats; /* the counters only */
};
