/* Aligned I/O buffers from one bounded arena: taken at start, never from the heap on the data path. */
#pragma once

#include <stddef.h>

struct iobuf_arena;

/* `total_bytes` bounds everything in flight on the data thread. Memory is mapped, not touched, at start. */
int iobuf_arena_new(size_t total_bytes, struct iobuf_arena **ret);
void iobuf_arena_free(struct iobuf_arena *arena); /* check()s that all came back */
/* 4096-aligned, at least `size` bytes (at most LUN_REQUEST_MAX + 8192), contents undefined; NULL when the arena is
 * used up: the caller waits (back-pressure) and is told by the callback registered below. */
void *iobuf_get(struct iobuf_arena *arena, size_t size);
void iobuf_put(struct iobuf_arena *arena, void *data); /* NULL is fine */
/* A waiter is called once when memory came back after a failed get. */
struct iobuf_waiter {
    void (*retry)(struct iobuf_waiter *waiter);
    struct iobuf_waiter *next; /* private */
};
void iobuf_wait(struct iobuf_arena *arena, struct iobuf_waiter *waiter);
void iobuf_wait_cancel(struct iobuf_arena *arena, struct iobuf_waiter *waiter);
