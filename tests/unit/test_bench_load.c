/* The judge of the block tests: what does it call right, what wrong, and how exact are its latencies? */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/bench/load.h"

#define BLOCKS 16u
#define FIRST 100u

static const struct load_options blank = {.offset_bytes = FIRST * LOAD_BLOCK, .seed = 7, .blank = true};
static _Alignas(8) uint8_t disk[BLOCKS][LOAD_BLOCK];

static struct load_table *table_new(const struct load_options *options)
{
    struct load_table *table = load_table_new(options, BLOCKS);
    assert_non_null(table);
    return table;
}

static void write_block(struct load_table *table, unsigned index)
{
    assert_true(load_table_take(table, FIRST + index, 1));
    load_table_stamp(table, FIRST + index, 1, disk[index]);
    load_table_acknowledge(table, FIRST + index, 1);
}

static int set_up(void **state)
{
    memset(disk, 0, sizeof disk);
    *state = table_new(&blank);
    return 0;
}

static int tear_down(void **state)
{
    load_table_free(*state);
    return 0;
}

static void acknowledged_is_right(void **state)
{
    write_block(*state, 3);
    write_block(*state, 3);
    assert_int_equal(load_table_compare(*state, FIRST, BLOCKS, disk), 0);
    assert_int_equal(load_table_written(*state), 1);
    assert_int_equal(load_table_in_doubt(*state), 0);
}

static void lost_write_is_wrong(void **state)
{
    uint8_t old[LOAD_BLOCK];
    write_block(*state, 3);
    memcpy(old, disk[3], sizeof old);
    write_block(*state, 3);
    memcpy(disk[3], old, sizeof old);
    assert_int_equal(load_table_compare(*state, FIRST, BLOCKS, disk), 1);
    memset(disk[3], 0, LOAD_BLOCK);
    assert_int_equal(load_table_compare(*state, FIRST, BLOCKS, disk), 1);
}

static void misplaced_and_torn_are_wrong(void **state)
{
    write_block(*state, 3);
    write_block(*state, 4);
    memcpy(disk[4], disk[3], LOAD_BLOCK);
    assert_int_equal(load_table_compare(*state, FIRST, BLOCKS, disk), 1);
    write_block(*state, 4);
    disk[4][LOAD_BLOCK - 5] ^= 1;
    disk[3][2000] ^= 0x80;
    assert_int_equal(load_table_compare(*state, FIRST, BLOCKS, disk), 2);
}

static void foreign_data_in_a_blank_block_is_wrong(void **state)
{
    disk[0][17] = 1;
    assert_int_equal(load_table_compare(*state, FIRST, 1, disk), 1);
    struct load_options any = blank;
    any.blank = false;
    struct load_table *table = table_new(&any);
    assert_int_equal(load_table_compare(table, FIRST, 1, disk), 0);
    load_table_free(table);
}

/* A write that was never answered: old or new are both right, and nobody may write there until that is settled. */
static void doubt_allows_both(void **state)
{
    _Alignas(8) uint8_t old[LOAD_BLOCK], new[LOAD_BLOCK];
    write_block(*state, 3);
    memcpy(old, disk[3], sizeof old);
    assert_true(load_table_take(*state, FIRST + 3, 1));
    load_table_stamp(*state, FIRST + 3, 1, new);
    assert_int_equal(load_table_in_doubt(*state), 1);
    assert_false(load_table_take(*state, FIRST + 2, 2));
    assert_int_equal(load_table_compare(*state, FIRST + 3, 1, old), 0);
    assert_int_equal(load_table_compare(*state, FIRST + 3, 1, new), 0);
    new[100] ^= 1;
    assert_int_equal(load_table_compare(*state, FIRST + 3, 1, new), 1);
}

/* Through the state file: a check settles the doubt by what is there, and from then on only that is right. */
static void check_settles_doubt(void **state)
{
    char path[] = "/tmp/hci-load-state-XXXXXX";
    _Alignas(8) uint8_t old[LOAD_BLOCK], new[LOAD_BLOCK];
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    write_block(*state, 3);
    memcpy(old, disk[3], sizeof old);
    assert_true(load_table_take(*state, FIRST + 3, 1));
    load_table_stamp(*state, FIRST + 3, 1, new);
    assert_int_equal(load_table_save(*state, path), 0);

    struct load_options again = blank;
    again.state = path;
    again.check = true;
    struct load_table *table = table_new(&again);
    assert_int_equal(load_table_in_doubt(table), 1);
    assert_int_equal(load_table_compare(table, FIRST + 3, 1, new), 0);
    assert_int_equal(load_table_in_doubt(table), 0);
    assert_int_equal(load_table_compare(table, FIRST + 3, 1, old), 1);
    assert_int_equal(load_table_compare(table, FIRST + 3, 1, new), 0);
    load_table_free(table);

    again.offset_bytes = 0;
    assert_null(load_table_new(&again, BLOCKS)); /* of another span */
    unlink(path);
}

static void latencies_are_within_a_percent(void **state)
{
    static struct load_histogram histogram;
    memset(&histogram, 0, sizeof histogram);
    assert_int_equal(load_histogram_at(&histogram, 0.5), 0);
    for (uint64_t ns = 1000; ns <= 1000000; ns += 1000)
        load_histogram_add(&histogram, ns);
    const struct {
        double share, ns;
    } expected[] = {{0.5, 500000}, {0.9, 900000}, {0.99, 990000}};
    for (unsigned i = 0; i < 3; i++) {
        double got = (double)load_histogram_at(&histogram, expected[i].share);
        assert_true(got > expected[i].ns * 0.99 && got < expected[i].ns * 1.01);
    }
    assert_int_equal(load_histogram_at(&histogram, 1), 1000000);
    load_histogram_add(&histogram, UINT64_MAX);
    assert_true(histogram.max_ns == UINT64_MAX);
    assert_int_equal(load_histogram_at(&histogram, 0), 1002); /* the middle of 1000 … 1003 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(acknowledged_is_right, set_up, tear_down),
        cmocka_unit_test_setup_teardown(lost_write_is_wrong, set_up, tear_down),
        cmocka_unit_test_setup_teardown(misplaced_and_torn_are_wrong, set_up, tear_down),
        cmocka_unit_test_setup_teardown(foreign_data_in_a_blank_block_is_wrong, set_up, tear_down),
        cmocka_unit_test_setup_teardown(doubt_allows_both, set_up, tear_down),
        cmocka_unit_test_setup_teardown(check_settles_doubt, set_up, tear_down),
        cmocka_unit_test(latencies_are_within_a_percent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
