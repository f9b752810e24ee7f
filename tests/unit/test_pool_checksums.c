/* The pool's checksum tables in memory: few frames, many extents. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "storaged/pool/pool_internal.h"
#include "tests/unit/pool_bytes_lab.h"

#define EXTENTS 60u /* 20 blocks of the checksum table */

static void begin_with_extents(struct lab *lab, unsigned disks)
{
    lab_begin(lab, disks, 0);
    for (uint64_t extent = 0; extent < EXTENTS; extent++)
        assert_int_equal(lab_write(lab, extent * 256 + extent, 3, extent + 1), 0);
}

static void extents_verify(struct lab *lab)
{
    for (uint64_t extent = 0; extent < EXTENTS; extent++)
        assert_true(lab_holds(lab, extent * 256 + extent, 3, extent + 1));
}

/* Opening reads none; a read loads the one it needs, once. */
static void loaded_when_needed(void **state)
{
    struct lab lab;
    begin_with_extents(&lab, 1);
    lab_reopen(&lab);
    assert_int_equal(lab.pool->checksums.loads, 0);
    assert_int_equal(lab.pool->checksums.used, 0);
    assert_true(lab_holds(&lab, 0, 3, 1));
    assert_int_equal(lab.pool->checksums.loads, 1);
    assert_true(lab_holds(&lab, 0, 3, 1));
    assert_true(lab_holds(&lab, 257, 3, 2)); /* of the same block */
    assert_int_equal(lab.pool->checksums.loads, 1);
    extents_verify(&lab);
    assert_int_equal(lab.pool->checksums.loads, EXTENTS / 3);
    assert_int_equal(lab.pool->checksums.evictions, 0);
    lab_end(&lab);
}

static void clean_frames_are_reused(void **state)
{
    struct lab lab;
    begin_with_extents(&lab, 2);
    lab_reopen(&lab);
    pool_checksums_limit(lab.pool, 4);
    for (unsigned round = 0; round < 3; round++)
        extents_verify(&lab);
    assert_int_equal(lab.pool->checksums.used, 4);
    assert_true(lab.pool->checksums.evictions >= EXTENTS / 3);
    assert_int_equal(lab_stats(&lab).checksum_errors, 0);
    lab_end(&lab);
}

/* What was not written since is not thrown out before what was not used since (the clock). */
static void used_frames_stay(void **state)
{
    struct lab lab;
    begin_with_extents(&lab, 1);
    lab_reopen(&lab);
    pool_checksums_limit(lab.pool, 4);
    for (uint64_t extent = 0; extent < EXTENTS; extent += 3) {
        assert_true(lab_holds(&lab, extent * 256 + extent, 3, extent + 1));
        assert_true(lab_holds(&lab, 0, 3, 1));
        assert_true(lab_holds(&lab, 0, 3, 1));
    }
    assert_true(lab.pool->checksums.loads < 2 * EXTENTS / 3);
    lab_end(&lab);
}

struct many {
    struct lab *lab;
    unsigned running;
};

static void many_done(struct pool_io *io, int result)
{
    struct many *many = io->private_data;
    assert_int_equal(result, 0);
    if (--many->running == 0)
        lab_done(many->lab, 0);
}

/* One write to every extent at once. */
static void write_all_at_once(struct lab *lab, uint32_t count, uint64_t version)
{
    static struct pool_io ios[EXTENTS];
    struct many many = {.lab = lab, .running = EXTENTS};
    for (uint64_t extent = 0; extent < EXTENTS; extent++) {
        uint64_t block = extent * 256 + extent;
        ios[extent] = (struct pool_io){.done = many_done, .volume = lab_volume(lab), .block = block, .count = count,
                                       .data = lab_buffer(count), .dirty = true, .private_data = &many};
        lab_fill_range(ios[extent].data, block, count, version + extent);
        pool_write(lab->pool, &ios[extent]);
    }
    assert_int_equal(lab_wait(lab), 0);
    for (unsigned extent = 0; extent < EXTENTS; extent++)
        free(ios[extent].data);
}

/* Dirty frames stay until a checkpoint: who needs a frame when all are dirty waits for that, small and large. */
static void dirty_frames_wait_for_a_checkpoint(void **state)
{
    struct lab lab;
    begin_with_extents(&lab, 2);
    lab_reopen(&lab);
    pool_checksums_limit(lab.pool, 2);
    uint64_t checkpoints = lab_stats(&lab).checkpoints;
    write_all_at_once(&lab, 3, 100);
    write_all_at_once(&lab, 40, 200);
    assert_true(lab_stats(&lab).checkpoints > checkpoints);
    for (unsigned round = 0; round < 2; round++) {
        for (uint64_t extent = 0; extent < EXTENTS; extent++)
            assert_true(lab_holds(&lab, extent * 256 + extent, 40, 200 + extent));
        lab_reopen(&lab);
        pool_checksums_limit(lab.pool, 3);
    }
    lab_end(&lab);
}

static void work_few_frames(struct lab *lab)
{
    pool_checksums_limit(lab->pool, 2);
    write_all_at_once(lab, 3, 300);
    write_all_at_once(lab, 2, 400);
}

static void crash_with_few_frames(void **state)
{
    struct lab lab;
    begin_with_extents(&lab, 2);
    lab_close(&lab);
    lab_crash(&lab, work_few_frames);
    lab_open(&lab);
    for (uint64_t extent = 0; extent < EXTENTS; extent++) {
        assert_true(lab_holds(&lab, extent * 256 + extent, 2, 400 + extent));
        assert_true(lab_holds(&lab, extent * 256 + extent + 2, 1, 300 + extent));
    }
    lab_end(&lab);
}

/* Without a valid copy of the table block nothing under it is believed; what is written again is. */
static void damaged_table_is_found(void **state)
{
    struct lab lab;
    uint8_t *data = lab_buffer(3);
    begin_with_extents(&lab, 1);
    lab_close(&lab);
    uint64_t offset = lab_super(&lab, 0).checksum_offset;
    lab_overwrite(&lab, 0, offset, 8192, 0x31);
    lab_open(&lab);
    assert_int_equal(lab_read(&lab, 0, 3, data), -EBADMSG);
    assert_true(lab_holds(&lab, 3 * 256 + 3, 3, 4)); /* of the next block */
    assert_int_equal(lab_write(&lab, 0, 3, 9), 0);
    lab_reopen(&lab);
    assert_true(lab_holds(&lab, 0, 3, 9));
    free(data);
    lab_end(&lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loaded_when_needed),
        cmocka_unit_test(clean_frames_are_reused),
        cmocka_unit_test(used_frames_stay),
        cmocka_unit_test(dirty_frames_wait_for_a_checkpoint),
        cmocka_unit_test(crash_with_few_frames),
        cmocka_unit_test(damaged_table_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
