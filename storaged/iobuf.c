/* A page allocator over one mapping: small buffers from the low end, large ones from the high end, so that the small
 * and short-lived do not cut up what the large ones need. */
#include "storaged/iobuf.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "common/check.h"
#include "storaged/lun.h"

#define PAGE 4096u
#define BUFFER_MAX (LUN_REQUEST_MAX + 8192u)
#define SMALL_PAGES 16u /* 64 KiB */

struct iobuf_arena {
    uint8_t *memory;
    size_t page_count, free_pages;
    uint64_t *used;   /* a bit per page */
    uint16_t *length; /* of the buffer that starts at a page; 0: none does */
    struct iobuf_waiter *waiters, **waiters_end;
    struct iobuf_waiter *woken; /* the one being called; compared, never followed */
    bool waking;
    bool failed; /* a get failed since memory came back */
};

int iobuf_arena_new(size_t total_bytes, struct iobuf_arena **ret)
{
    check(total_bytes >= BUFFER_MAX);
    struct iobuf_arena *arena = calloc(1, sizeof *arena);
    if (!arena)
        return -ENOMEM;
    arena->page_count = arena->free_pages = total_bytes / PAGE;
    arena->waiters_end = &arena->waiters;
    arena->used = calloc(arena->page_count / 64 + 1, sizeof *arena->used);
    arena->length = calloc(arena->page_count, sizeof *arena->length);
    arena->memory = mmap(NULL, arena->page_count * PAGE, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!arena->used || !arena->length || arena->memory == MAP_FAILED) {
        if (arena->memory != MAP_FAILED)
            munmap(arena->memory, arena->page_count * PAGE);
        free(arena->used);
        free(arena->length);
        free(arena);
        return -ENOMEM;
    }
    *ret = arena;
    return 0;
}

void iobuf_arena_free(struct iobuf_arena *arena)
{
    if (!arena)
        return;
    check(arena->free_pages == arena->page_count);
    check(!arena->waiters);
    munmap(arena->memory, arena->page_count * PAGE);
    free(arena->used);
    free(arena->length);
    free(arena);
}

static bool page_is_used(const struct iobuf_arena *arena, size_t page)
{
    return arena->used[page / 64] >> (page % 64) & 1;
}

static void pages_mark(struct iobuf_arena *arena, size_t page, size_t count, bool used)
{
    for (size_t end = page + count; page < end; page++) {
        check(page_is_used(arena, page) != used);
        arena->used[page / 64] ^= UINT64_C(1) << (page % 64);
    }
}

/* First run of `count` free pages from the low end; page_count: none. */
static size_t run_find_low(const struct iobuf_arena *arena, size_t count)
{
    size_t run = 0;
    for (size_t page = 0; page < arena->page_count; page++) {
        if (page % 64 == 0 && arena->used[page / 64] == UINT64_MAX) {
            run = 0;
            page += 63;
        } else if (page_is_used(arena, page)) {
            run = 0;
        } else if (++run == count) {
            return page + 1 - count;
        }
    }
    return arena->page_count;
}

/* The same from the high end. */
static size_t run_find_high(const struct iobuf_arena *arena, size_t count)
{
    size_t run = 0;
    for (size_t page = arena->page_count; page-- > 0;) {
        if (page % 64 == 63 && arena->used[page / 64] == UINT64_MAX) {
            run = 0;
            page -= 63;
        } else if (page_is_used(arena, page)) {
            run = 0;
        } else if (++run == count) {
            return page;
        }
    }
    return arena->page_count;
}

void *iobuf_get(struct iobuf_arena *arena, size_t size)
{
    check(size > 0 && size <= BUFFER_MAX);
    size_t count = (size + PAGE - 1) / PAGE;
    size_t page = arena->page_count;
    if (count <= arena->free_pages)
        page = count <= SMALL_PAGES ? run_find_low(arena, count) : run_find_high(arena, count);
    if (page == arena->page_count) {
        arena->failed = true;
        return NULL;
    }
    pages_mark(arena, page, count, true);
    arena->length[page] = (uint16_t)count;
    arena->free_pages -= count;
    return arena->memory + page * PAGE;
}

/* Calls waiters in the order of waiting, until one of them did not get its memory; that one is first again. */
static void waiters_wake(struct iobuf_arena *arena)
{
    if (arena->waking)
        return;
    arena->waking = true;
    for (size_t most = arena->page_count; arena->waiters && !arena->failed && most > 0; most--) {
        arena->woken = arena->waiters;
        iobuf_wait_cancel(arena, arena->woken);
        arena->woken->retry(arena->woken);
    }
    arena->woken = NULL;
    arena->waking = false;
}

void iobuf_put(struct iobuf_arena *arena, void *data)
{
    if (!data)
        return;
    size_t offset = (size_t)((uint8_t *)data - arena->memory);
    size_t page = offset / PAGE;
    check((uint8_t *)data >= arena->memory && offset % PAGE == 0 && page < arena->page_count);
    size_t count = arena->length[page];
    check(count > 0);
    arena->length[page] = 0;
    pages_mark(arena, page, count, false);
    arena->free_pages += count;
    arena->failed = false;
    waiters_wake(arena);
}

void iobuf_wait(struct iobuf_arena *arena, struct iobuf_waiter *waiter)
{
    bool first = waiter == arena->woken || !arena->waiters;
    struct iobuf_waiter **at = first ? &arena->waiters : arena->waiters_end;
    waiter->next = *at;
    *at = waiter;
    if (!waiter->next)
        arena->waiters_end = &waiter->next;
}

void iobuf_wait_cancel(struct iobuf_arena *arena, struct iobuf_waiter *waiter)
{
    for (struct iobuf_waiter **at = &arena->waiters; *at; at = &(*at)->next) {
        if (*at != waiter)
            continue;
        *at = waiter->next;
        if (!waiter->next)
            arena->waiters_end = at;
        waiter->next = NULL;
        return;
    }
}
