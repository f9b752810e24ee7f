/* Large writes of the pool, which go straight to their place: what is there after a crash in the middle of them? */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/pool_bytes_lab.h"

#define COUNT 100u /* blocks of a large write, from block 0 on */

static const struct id session_one = {{1}};

static void begin_with(struct lab *lab, uint64_t version)
{
    lab_begin(lab, 1, 0);
    if (version)
        check(lab_write(lab, 0, 256, version) == 0);
    check(lab_checkpoint(lab) == 0);
    lab_close(lab);
}

static void work_large(struct lab *lab)
{
    check(lab_write(lab, 0, COUNT, 7) == 0);
}

static uint8_t *read_all(struct lab *lab)
{
    uint8_t *data = lab_buffer(256);
    check(lab_read(lab, 0, 256, data) == 0);
    return data;
}

/* --- without a crash ---------------------------------------------------------------------------------------------- */

static void large_write_is_not_journaled(void **state)
{
    struct lab lab;
    lab_begin(&lab, 1, 0);
    assert_int_equal(lab_write(&lab, 200, 257, 1), 0); /* 56 blocks, 201 blocks */
    assert_int_equal(lab_stats(&lab).journal_used_bytes, 4096);
    assert_int_equal(lab_write(&lab, 255, 257, 2), 0); /* 1 block is journaled, 256 are not */
    assert_int_equal(lab_stats(&lab).journal_used_bytes, 3 * 4096);
    assert_true(lab_holds(&lab, 200, 55, 1));
    assert_true(lab_holds(&lab, 255, 257, 2));
    lab_reopen(&lab);
    assert_true(lab_holds(&lab, 200, 55, 1));
    assert_true(lab_holds(&lab, 255, 257, 2));
    lab_end(&lab);
}

static void work_mixed(struct lab *lab)
{
    check(lab_write(lab, 0, COUNT, 1) == 0);
    check(lab_write(lab, 10, 4, 2) == 0);
    check(lab_zero(lab, 20, 4) == 0);
    check(lab_write(lab, 30, 20, 3) == 0);
    check(lab_write(lab, 40, 16, 4) == 0);
}

/* Small and large writes and UNMAP over each other. */
static void order_is_kept_after_a_crash(void **state)
{
    struct lab lab;
    begin_with(&lab, 0);
    lab_crash(&lab, work_mixed);
    for (unsigned round = 0; round < 2; round++) {
        lab_open(&lab);
        assert_true(lab_holds(&lab, 0, 10, 1));
        assert_true(lab_holds(&lab, 10, 4, 2));
        assert_true(lab_holds(&lab, 20, 4, 0));
        assert_true(lab_holds(&lab, 24, 6, 1));
        assert_true(lab_holds(&lab, 30, 10, 3));
        assert_true(lab_holds(&lab, 40, 16, 4));
        assert_true(lab_holds(&lab, 56, COUNT - 56, 1));
        lab_close(&lab);
    }
    lab_remove(&lab);
}

/* --- the intent is there, its data are not, or partly ------------------------------------------------------------- */

static void untouched_place_keeps_the_old(void **state)
{
    struct lab lab;
    begin_with(&lab, 1);
    lab_crash(&lab, work_large);
    lab_place_put(&lab, 0, 0, COUNT, 1);
    lab_open(&lab);
    assert_true(lab_holds(&lab, 0, 256, 1));
    assert_int_equal(pool_dirty_blocks(lab_volume(&lab)), 256);
    lab_end(&lab);
}

static void some_blocks_may_be_new(void **state)
{
    struct lab lab;
    begin_with(&lab, 1);
    lab_crash(&lab, work_large);
    lab_place_put(&lab, 0, 30, COUNT - 30, 1);
    lab_open(&lab);
    assert_true(lab_holds(&lab, 0, 30, 7));
    assert_true(lab_holds(&lab, 30, 226, 1));
    lab_end(&lab);
}

/* Torn in the middle of a block: nobody was told of it, so it must be readable, whatever it is; and be marked. */
static void torn_block_is_adopted(void **state)
{
    struct lab lab;
    uint8_t old[4096], expected[4096];
    begin_with(&lab, 1);
    lab_crash(&lab, work_large);
    lab_fill(old, 5, 1);
    lab_fill(expected, 5, 7);
    memcpy(expected + 1024, old + 1024, 1024);
    lab_bytes_put(&lab, 0, lab_place(&lab, 0, 0, 5), expected, sizeof expected);
    for (unsigned round = 0; round < 2; round++) {
        lab_open(&lab);
        uint8_t *data = read_all(&lab);
        assert_memory_equal(data + 5 * 4096, expected, 4096);
        free(data);
        assert_true(lab_holds(&lab, 6, COUNT - 6, 7));
        assert_int_equal(lab_stats(&lab).checksum_errors, 0);
        uint64_t found;
        assert_int_equal(pool_dirty_next(lab.pool, lab_volume(&lab), 5, 1, &found), 1);
        assert_int_equal(found, 5);
        lab_close(&lab);
    }
    lab_remove(&lab);
}

/* Where nothing was written before: old is zeros, whatever lies there. */
static void hole_stays_zeros(void **state)
{
    struct lab lab;
    begin_with(&lab, 0);
    lab_crash(&lab, work_large);
    lab_place_put(&lab, 0, 0, 50, 99);
    lab_open(&lab);
    assert_true(lab_holds(&lab, 0, 50, 0));
    assert_true(lab_holds(&lab, 50, COUNT - 50, 7));
    lab_end(&lab);
}

static void work_small_then_large(struct lab *lab)
{
    check(lab_write(lab, 10, 4, 2) == 0);
    work_large(lab);
}

/* What the journal has of before comes back when the large write did not arrive, and stays away when it did. */
static void earlier_journaled_data(void **state)
{
    struct lab lab;
    for (unsigned arrived = 0; arrived < 2; arrived++) {
        begin_with(&lab, 1);
        lab_crash(&lab, work_small_then_large);
        if (!arrived)
            lab_place_put(&lab, 0, 0, COUNT, 1);
        lab_open(&lab);
        assert_true(lab_holds(&lab, 10, 4, arrived ? 7 : 2));
        assert_true(lab_holds(&lab, 14, COUNT - 14, arrived ? 7 : 1));
        lab_end(&lab);
    }
}

static void work_large_twice(struct lab *lab)
{
    check(lab_write(lab, 0, COUNT, 6) == 0);
    work_large(lab);
}

/* The second of two large writes was torn: the first had been acknowledged, although nothing says so. */
static void acknowledged_large_write_stays(void **state)
{
    struct lab lab;
    uint8_t mixed[4096], old[4096];
    begin_with(&lab, 0);
    lab_crash(&lab, work_large_twice);
    lab_record_unsettle(&lab, lab_super(&lab, 0).tail_lsn + 1, lab_super(&lab, 0).tail_lsn);
    lab_place_put(&lab, 0, 0, 50, 6);
    lab_fill(mixed, 60, 7);
    lab_fill(old, 60, 6);
    memcpy(mixed + 512, old + 512, 512);
    lab_bytes_put(&lab, 0, lab_place(&lab, 0, 0, 60), mixed, sizeof mixed);
    lab_open(&lab);
    assert_true(lab_holds(&lab, 0, 50, 6));
    assert_true(lab_holds(&lab, 50, 10, 7));
    uint8_t *data = read_all(&lab);
    assert_memory_equal(data + 60 * 4096, mixed, 4096);
    free(data);
    lab_end(&lab);
}

static void work_large_then_small(struct lab *lab)
{
    work_large(lab);
    check(lab_write(lab, 20, 1, 8) == 0);
}

/* A place that rots after its write was settled is not taken for a torn one: it fails its check, except where a later
 * journaled write brings it back. */
static void rot_is_not_adopted(void **state)
{
    struct lab lab;
    begin_with(&lab, 1);
    lab_crash(&lab, work_large_then_small);
    lab_place_put(&lab, 0, 19, 3, 50);
    lab_open(&lab);
    uint8_t *data = lab_buffer(1);
    assert_int_equal(lab_read(&lab, 19, 1, data), -EBADMSG);
    assert_true(lab_holds(&lab, 20, 1, 8));
    assert_int_equal(lab_read(&lab, 21, 1, data), -EBADMSG);
    assert_true(lab_holds(&lab, 22, COUNT - 22, 7));
    free(data);
    lab_end(&lab);
}

/* --- what may differ from the peer -------------------------------------------------------------------------------- */

static void work_large_in_session(struct lab *lab)
{
    pool_session_begin(lab->pool, &lab->group, &session_one);
    check(lab_write_session(lab, 0, COUNT, 1, &session_one, 1) == 0);
    pool_session_commit(lab->pool, &lab->group, 1);
    check(lab_write_session(lab, 300, COUNT, 1, &session_one, 2) == 0);
}

static void uncommitted_large_write_is_dirty(void **state)
{
    struct lab lab;
    uint64_t found;
    lab_begin(&lab, 1, 0);
    lab_close(&lab);
    lab_crash(&lab, work_large_in_session);
    lab_open(&lab);
    assert_int_equal(pool_dirty_blocks(lab_volume(&lab)), COUNT);
    assert_int_equal(pool_dirty_next(lab.pool, lab_volume(&lab), 0, 1000, &found), COUNT);
    assert_int_equal(found, 300);
    lab_end(&lab);
}

static void session_end_marks_large_writes(void **state)
{
    struct lab lab;
    lab_begin(&lab, 1, 0);
    work_large_in_session(&lab);
    assert_int_equal(pool_dirty_blocks(lab_volume(&lab)), 0);
    pool_session_end(lab.pool, &lab.group);
    assert_int_equal(pool_dirty_blocks(lab_volume(&lab)), COUNT);
    lab_end(&lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(large_write_is_not_journaled),
        cmocka_unit_test(order_is_kept_after_a_crash),
        cmocka_unit_test(untouched_place_keeps_the_old),
        cmocka_unit_test(some_blocks_may_be_new),
        cmocka_unit_test(torn_block_is_adopted),
        cmocka_unit_test(hole_stays_zeros),
        cmocka_unit_test(earlier_journaled_data),
        cmocka_unit_test(acknowledged_large_write_stays),
        cmocka_unit_test(rot_is_not_adopted),
        cmocka_unit_test(uncommitted_large_write_is_dirty),
        cmocka_unit_test(session_end_marks_large_writes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
