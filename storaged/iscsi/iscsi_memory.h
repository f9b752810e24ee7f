/* The target's part of the data thread's buffers, each session's share of it, and the queue of those who wait. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/list.h"
#include "storaged/iobuf.h"
#include "storaged/ring.h"

/* What one session holds. With N sessions that hold something nobody takes more than an (N+1)th of all, so that the next
 * one finds room at once, however much the others would like to have. Whoever holds nothing gets what it asks for. */
struct iscsi_memory_account {
    size_t used;
    unsigned waiting;  /* its claims: nothing of it overtakes them */
    uint64_t passed_by; /* the pass of the queue in which it was found to have its share */
};

/* One who waits. `retry` is called from the ring's loop when there may be memory; false: not enough yet, still first. */
struct iscsi_memory_claim {
    struct list link;
    struct iscsi_memory_account *account;
    bool waiting;
    bool (*retry)(struct iscsi_memory_claim *claim);
};

struct iscsi_memory {
    struct ring *ring;
    struct iobuf_arena *arena;
    size_t limit, used;
    unsigned holders; /* accounts that hold something */
    struct list claims;
    struct iobuf_waiter waiter;
    bool waiter_started;
    struct ring_mail mail;
    bool mail_posted, serving;
    bool lacking;   /* the last who asked found no memory: the queue stands, whoever is first */
    uint64_t passes;
    uint64_t waits;
};

void iscsi_memory_init(struct iscsi_memory *memory, struct ring *ring, struct iobuf_arena *arena, size_t limit);
/* Nobody waits, nothing is taken. */
void iscsi_memory_close(struct iscsi_memory *memory);
/* NULL: wait by a claim. First come, first served, but for those who have their share. `urgent`: beyond the share, too. */
void *iscsi_memory_get(struct iscsi_memory *memory, struct iscsi_memory_account *account, size_t size, bool urgent);
void iscsi_memory_put(struct iscsi_memory *memory, struct iscsi_memory_account *account, void *data, size_t size);
void iscsi_memory_wait(struct iscsi_memory *memory, struct iscsi_memory_account *account, struct iscsi_memory_claim *claim);
void iscsi_memory_cancel(struct iscsi_memory *memory, struct iscsi_memory_claim *claim); /* harmless when not waiting */
