/* When people must be told about a site, as a pure decision: from what was heard and what the records say now.
 * No clock, no system call, no allocation, no log. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum alert_kind {
    ALERT_SITE_DARK,   /* no node of the cluster is heard */
    ALERT_NODE_LOST_A, /* node 0 is not heard, the other is */
    ALERT_NODE_LOST_B,
    ALERT_DEGRADED,    /* a group has had one member for long */
    ALERT_KINDS
};

struct alert_config {
    uint32_t dark_s, lost_s, degraded_s; /* the condition must have lasted so long; > 0 */
    uint32_t settle_s;                   /* it must be gone for so long before its end is told */
    uint32_t repeat_s;                   /* the same alert of the same site is not told again sooner */
};

/* Zero at the start. */
struct alert_site {
    uint64_t degraded_since_ns;        /* 0: no group is */
    uint64_t gone_since_ns[ALERT_KINDS]; /* of an active alert: its condition has not held since; 0: it holds */
    uint64_t since_ns[ALERT_KINDS];    /* of an active alert: when what it tells of began */
    uint64_t told_ns[ALERT_KINDS];     /* when it was last raised; 0: never */
    uint8_t active;                    /* bits by kind */
};

struct alert_facts {
    uint64_t now_ns;
    uint64_t start_ns;     /* since when the witness has listened for this cluster */
    uint64_t heard_ns[2];  /* 0: not since then */
    unsigned groups;       /* with at least one member */
    unsigned single[2];    /* of them: with node i as the only member */
};

struct alert_change {
    enum alert_kind kind;
    bool raised;       /* else ended */
    uint64_t since_ns; /* when what it tells of began */
};

/* How many changes were written to `ret`. */
unsigned alert_step(struct alert_site *site, const struct alert_config *config, const struct alert_facts *facts,
                    struct alert_change ret[static ALERT_KINDS]);
/* "site_dark", "node_lost", "degraded" */
const char *alert_kind_name(enum alert_kind kind);
