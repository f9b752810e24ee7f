/* What hci-witnessd counts for /metrics and status: written by the loop, read by any thread. */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

enum counter {
    /* datagrams taken, by kind */
    COUNT_LEASE, COUNT_CAS, COUNT_RECORDS,
    /* datagrams not taken, by reason */
    COUNT_FOREIGN,   /* no cluster or node of ours, or not of this format */
    COUNT_STRANGER,  /* from an address we do not know, beyond the rate for such */
    COUNT_FORGED,    /* did not open with the node's key */
    COUNT_QUOTA,     /* beyond the node's rate */
    COUNT_REPEATED,  /* older than one taken before */
    COUNT_CHALLENGED,
    /* CAS by verdict */
    COUNT_OK, COUNT_STALE, COUNT_ADOPT, COUNT_BEHIND, COUNT_WAIT, COUNT_REFUSED, COUNT_REBOUND,
    COUNT_UNSTORED,  /* not answered: the change could not be made durable */
    COUNT_ENROLMENTS, COUNT_ENROLMENTS_REFUSED,
    COUNT_ALERTS, COUNT_ALERTS_ENDED, COUNT_ALERTS_DROPPED, COUNT_DELIVERIES, COUNT_DELIVERIES_FAILED,
    /* as they are now */
    COUNT_CLUSTERS, COUNT_NODES_HEARD, COUNT_CLUSTERS_RESTORED, COUNT_ALERTS_ACTIVE, COUNT_STORE_BYTES, COUNT_STORE_FULL,
    COUNTERS
};

#define COUNT_COMMIT_BUCKETS 10u /* up to 1, 2, 4 … 256 ms, and longer */

struct counters {
    _Atomic uint64_t values[COUNTERS];
    _Atomic uint64_t commits[COUNT_COMMIT_BUCKETS];
    _Atomic uint64_t commit_ns;
};

static inline void count_add(struct counters *counters, enum counter counter)
{
    atomic_fetch_add_explicit(&counters->values[counter], 1, memory_order_relaxed);
}

static inline void count_set(struct counters *counters, enum counter counter, uint64_t value)
{
    atomic_store_explicit(&counters->values[counter], value, memory_order_relaxed);
}

static inline uint64_t count_get(const struct counters *counters, enum counter counter)
{
    return atomic_load_explicit(&counters->values[counter], memory_order_relaxed);
}

static inline void count_commit(struct counters *counters, uint64_t took_ns)
{
    unsigned bucket = 0;
    while (bucket + 1 < COUNT_COMMIT_BUCKETS && took_ns > (UINT64_C(1000000) << bucket))
        bucket++;
    atomic_fetch_add_explicit(&counters->commits[bucket], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&counters->commit_ns, took_ns, memory_order_relaxed);
}
