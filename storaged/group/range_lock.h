/* Who may touch which blocks of a volume now (R2: overlapping writes never run at once; reads that overlap an
 * uncommitted write wait). Fair: what came first goes first, whatever is asked for. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/list.h"

struct range_lock {
    struct list entries; /* granted and waiting ones, in order of arrival */
};

/* Embedded by the caller and kept until released. Zeroed memory is an entry that was never taken. */
struct range_lock_entry {
    uint64_t block, count;
    bool exclusive; /* a write; shared ones may overlap each other */
    /* Called when a wait is over, from within the release of the last one in the way; may take and release. */
    void (*granted)(struct range_lock_entry *entry);
    /* private */
    unsigned blockers; /* earlier entries in conflict with this one */
    bool taken;
    struct list link, ready;
};

void range_lock_init(struct range_lock *lock);
/* True: granted at once, `granted` is not called. False: it will be. */
bool range_lock_take(struct range_lock *lock, struct range_lock_entry *entry);
/* Gives back what was granted, or stops waiting. Harmless when not taken. */
void range_lock_release(struct range_lock *lock, struct range_lock_entry *entry);
bool range_lock_is_free(const struct range_lock *lock);
