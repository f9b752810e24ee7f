/* The buffer arena: aligned, disjoint, bounded, and waiters are served in order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/list.h"
#include "storaged/iobuf.h"

#define MIB (1u << 20)

static struct iobuf_arena *arena_make(size_t size)
{
    struct iobuf_arena *arena = NULL;
    assert_int_equal(iobuf_arena_new(size, &arena), 0);
    return arena;
}

static void buffers_are_disjoint(void **state)
{
    enum { COUNT = 200 };
    struct iobuf_arena *arena = arena_make(8 * MIB);
    struct { uint8_t *data; size_t size; } held[COUNT] = {0};
    srandom(1);
    for (unsigned step = 0; step < 20000; step++) {
        unsigned index = (unsigned)random() % COUNT;
        if (held[index].data) {
            for (size_t at = 0; at < held[index].size; at += 512)
                assert_int_equal(held[index].data[at], (uint8_t)index);
            iobuf_put(arena, held[index].data);
            held[index].data = NULL;
            continue;
        }
        held[index].size = 1 + (size_t)random() % (random() % 8 ? 8192 : MIB + 8192);
        held[index].data = iobuf_get(arena, held[index].size);
        if (!held[index].data)
            continue;
        assert_int_equal((uintptr_t)held[index].data % 4096, 0);
        memset(held[index].data, (int)index, held[index].size);
    }
    for (unsigned index = 0; index < COUNT; index++)
        iobuf_put(arena, held[index].data);
    iobuf_arena_free(arena); /* checks that all came back */
}

/* All of it can be handed out, and a large one fits again once it is back. */
static void bounded_and_whole(void **state)
{
    struct iobuf_arena *arena = arena_make(4 * MIB);
    void *small[1024];
    for (unsigned index = 0; index < 1024; index++) {
        small[index] = iobuf_get(arena, 4096);
        assert_non_null(small[index]);
    }
    assert_null(iobuf_get(arena, 1));
    for (unsigned index = 0; index < 1024; index++)
        iobuf_put(arena, small[index]);
    void *large = iobuf_get(arena, MIB + 8192);
    assert_non_null(large);
    iobuf_put(arena, large);
    iobuf_arena_free(arena);
}

struct waiter {
    struct iobuf_waiter waiter;
    struct iobuf_arena *arena;
    size_t size;
    void *data;
    unsigned calls;
    unsigned *order, served;
};

static void waiter_retry(struct iobuf_waiter *base)
{
    struct waiter *waiter = list_entry(base, struct waiter, waiter);
    waiter->calls++;
    waiter->data = iobuf_get(waiter->arena, waiter->size);
    if (waiter->data)
        waiter->served = ++*waiter->order;
    else
        iobuf_wait(waiter->arena, base);
}

static void waiters_in_order(void **state)
{
    struct iobuf_arena *arena = arena_make(2 * MIB);
    void *first = iobuf_get(arena, MIB), *second = iobuf_get(arena, MIB);
    assert_non_null(second);
    unsigned order = 0;
    size_t sizes[4] = {MIB, 4096, 4096, MIB / 2};
    struct waiter waiters[4];
    for (unsigned index = 0; index < 4; index++) {
        waiters[index] = (struct waiter){
            .waiter.retry = waiter_retry, .arena = arena, .size = sizes[index], .order = &order};
        assert_null(iobuf_get(arena, sizes[index]));
        iobuf_wait(arena, &waiters[index].waiter);
    }
    iobuf_wait_cancel(arena, &waiters[2].waiter);
    iobuf_put(arena, first);
    assert_int_equal(waiters[0].served, 1); /* takes all that came back: */
    assert_null(waiters[1].data);           /* the next one was tried and waits, first in the queue */
    iobuf_put(arena, second);
    assert_int_equal(waiters[1].served, 2);
    assert_int_equal(waiters[2].calls, 0);
    assert_int_equal(waiters[3].served, 3);
    iobuf_put(arena, waiters[0].data);
    iobuf_put(arena, waiters[1].data);
    iobuf_put(arena, waiters[3].data);
    iobuf_arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buffers_are_disjoint),
        cmocka_unit_test(bounded_and_whole),
        cmocka_unit_test(waiters_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
