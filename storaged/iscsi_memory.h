/* The target's share of the data thread's buffers, and the queue of those who wait for some of it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/list.h"
#include "storaged/iobuf.h"
#include "storaged/ring.h"

/* One who waits. `retry` is called from the ring's loop when there may be memory; false: not enough yet, still first. */
struct iscsi_memory_claim {
    struct list link;
    bool waiting;
    bool (*retry)(struct iscsi_memory_claim *claim);
};

struct iscsi_memory {
    struct ring *ring;
    struct iobuf_arena *arena;
    size_t limit, used;
    struct list claims;
    struct iobuf_waiter waiter;
    bool waiter_started;
    struct ring_mail mail;
    bool mail_posted, serving;
    uint64_t waits;
};

void iscsi_memory_init(struct iscsi_memory *memory, struct ring *ring, struct iobuf_arena *arena, size_t limit);
/* Nobody waits, nothing is taken. */
void iscsi_memory_close(struct iscsi_memory *memory);
/* NULL: wait by a claim. First come, first served: nobody overtakes a claim. */
void *iscsi_memory_get(struct iscsi_memory *memory, size_t size);
void iscsi_memory_put(struct iscsi_memory *memory, void *data, size_t size);
void iscsi_memory_wait(struct iscsi_memory *memory, struct iscsi_memory_claim *claim);
void iscsi_memory_cancel(struct iscsi_memory *memory, struct iscsi_memory_claim *claim); /* harmless when not waiting */
