/* The target's own state, for the iscsi_*.c files only. */
#pragma once

#include "common/list.h"
#include "storaged/iscsi_memory.h"
#include "storaged/iscsi_portal.h"
#include "storaged/iscsi_target.h"

struct iscsi_target {
    struct ring *ring;
    struct lun_table *table;
    struct iscsi_memory memory;
    struct iscsi_target_options options;
    struct iscsi_portal portals[ISCSI_PORTALS_MAX];
    unsigned portal_count;
    struct list connections, sessions;
    unsigned connection_count, unauthenticated_count, session_count;
    uint16_t last_tsih;
    struct iscsi_target_stats stats; /* the counters only */
};
