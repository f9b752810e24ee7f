/* The pool's extents: whose they are after anything, and what all disks hold alike. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/pool_bytes_lab.h"

static const struct id session_one = {{1}};

/* --- giving back -------------------------------------------------------------------------------------------------- */

/* An emptied extent stays its volume's as long as a record names it: after a crash that record is applied to it. */
static void named_extent_is_not_given_back(void **state)
{
    struct lab lab;
    lab_begin(&lab, 1, 0);
    pool_session_begin(lab.pool, &lab.group, &session_one);
    assert_int_equal(lab_write_session(&lab, 0, 1, 1, &session_one, 1), 0);
    struct pool_io io = {.done = lab_io_done, .volume = lab_volume(&lab), .count = 1, .session = session_one,
                         .sequence = 2, .private_data = &lab};
    pool_zero(lab.pool, &io);
    assert_int_equal(lab_wait(&lab), 0);
    assert_int_equal(lab_checkpoint(&lab), 0);
    assert_int_equal(lab_stats(&lab).used_bytes, MIB); /* uncommitted: the records are still there */
    pool_session_commit(lab.pool, &lab.group, 2);
    assert_int_equal(lab_checkpoint(&lab), 0);
    assert_int_equal(lab_stats(&lab).used_bytes, 0);
    assert_true(lab_holds(&lab, 0, 1, 0));
    lab_end(&lab);
}

static const struct id other_volume = {{0x99}};

static void volume_write(struct lab *lab, const struct id *volume, uint64_t block, uint64_t version)
{
    struct id own = lab->volume;
    lab->volume = *volume;
    check(lab_write(lab, block, 1, version) == 0);
    lab->volume = own;
}

static bool volume_holds(struct lab *lab, const struct id *volume, uint64_t block, uint64_t version)
{
    struct id own = lab->volume;
    lab->volume = *volume;
    bool holds = lab_holds(lab, block, 1, version);
    lab->volume = own;
    return holds;
}

static void work_change_owner(struct lab *lab)
{
    check(lab_write(lab, 0, 1, 1) == 0);
    check(lab_zero(lab, 0, 1) == 0);
    pool_dirty_clear(lab->pool, lab_volume(lab), 0, 256);
    check(lab_checkpoint(lab) == 0);
    check(lab_stats(lab).used_bytes == 0);
    volume_write(lab, &other_volume, 512, 2); /* gets the same extent, the other's descriptor may still be on disk */
    check(lab_write(lab, 0, 1, 3) == 0);      /* and this one another */
}

static void new_owner_counts(void **state)
{
    struct lab lab;
    lab_begin(&lab, 1, 0);
    assert_int_equal(lab_create_volume(&lab, &other_volume, 16 * MIB), 0);
    lab_close(&lab);
    lab_crash(&lab, work_change_owner);
    for (unsigned round = 0; round < 2; round++) {
        lab_open(&lab);
        assert_int_equal(lab_stats(&lab).used_bytes, 2 * MIB);
        assert_true(volume_holds(&lab, &other_volume, 512, 2));
        assert_true(lab_holds(&lab, 0, 1, 3));
        lab_close(&lab);
    }
    lab_remove(&lab);
}

/* Of two extents that say they are the same place of a volume, the one handed out last is. */
static void last_birth_counts(void **state)
{
    struct lab lab;
    struct format_descriptor_block block;
    lab_begin(&lab, 1, 0);
    assert_int_equal(lab_write(&lab, 0, 1, 1), 0);
    lab_close(&lab);
    uint64_t offset = lab_super(&lab, 0).table_offset;
    for (unsigned slot = 0; slot < 2; slot++) {
        lab_bytes_get(&lab, 0, offset + slot * 4096, &block, sizeof block);
        if (!block.header.magic)
            continue;
        block.descriptors[5] = block.descriptors[0];
        block.descriptors[5].birth++;
        memset(block.descriptors[5].written, 0, sizeof block.descriptors[5].written);
        lab_block_seal(&block, &block.header.crc);
        lab_bytes_put(&lab, 0, offset + slot * 4096, &block, sizeof block);
    }
    lab_open(&lab);
    assert_true(lab_holds(&lab, 0, 1, 0));
    assert_int_equal(lab_stats(&lab).used_bytes, MIB);
    lab_end(&lab);
}

/* --- the same on all disks ---------------------------------------------------------------------------------------- */

struct seen {
    unsigned count;
    uint8_t first;
};

static void group_seen(void *userdata, const struct id *group, const void *blob, uint32_t size)
{
    struct seen *seen = userdata;
    seen->count++;
    seen->first = *(const uint8_t *)blob;
}

static void group_save(struct lab *lab, uint8_t byte)
{
    pool_group_save(lab->pool, &lab->group, &byte, 1, lab_done, lab);
    check(lab_wait(lab) == 0);
}

/* Any one disk's copies of the catalogue and of the group records may be gone: they are there again after opening. */
static void catalogue_and_groups_are_on_all_disks(void **state)
{
    struct lab lab;
    lab_begin(&lab, 3, 0);
    for (uint8_t byte = 1; byte <= 3; byte++)
        group_save(&lab, byte);
    lab_close(&lab);
    for (unsigned disk = 0; disk < 3; disk++) {
        lab_overwrite(&lab, disk, FORMAT_CATALOGUE_OFFSET(0), 2 * FORMAT_SLOT, 0x21);
        lab_overwrite(&lab, disk, FORMAT_GROUP_OFFSET(0, 0), 2 * FORMAT_SLOT, 0x21);
        struct seen seen = {0};
        lab_open(&lab);
        pool_group_each(lab.pool, group_seen, &seen);
        assert_int_equal(seen.count, 1);
        assert_int_equal(seen.first, 3);
        assert_non_null(lab_volume(&lab));
        lab_close(&lab);
    }
    lab_remove(&lab);
}

/* A crash between the disks: the newest copy counts, wherever it is. */
static void newest_copy_counts(void **state)
{
    struct lab lab;
    static uint8_t slot[FORMAT_SLOT];
    lab_begin(&lab, 2, 0);
    group_save(&lab, 1);
    group_save(&lab, 2);
    lab_close(&lab);
    lab_bytes_get(&lab, 0, FORMAT_GROUP_OFFSET(0, 0), slot, sizeof slot);
    assert_int_equal(((struct format_slot *)slot)->sequence, 2);
    lab_overwrite(&lab, 0, FORMAT_GROUP_OFFSET(0, 0), FORMAT_SLOT, 0); /* the first disk has only the older */
    for (unsigned round = 0; round < 2; round++) {
        struct seen seen = {0};
        lab_open(&lab);
        pool_group_each(lab.pool, group_seen, &seen);
        assert_int_equal(seen.first, 2);
        lab_close(&lab);
        lab_overwrite(&lab, 1, FORMAT_GROUP_OFFSET(0, 0), 2 * FORMAT_SLOT, 0); /* the first has it again */
    }
    lab_remove(&lab);
}

static void all_copies_damaged_is_refused(void **state)
{
    struct lab lab;
    lab_begin(&lab, 2, 0);
    lab_close(&lab);
    for (unsigned disk = 0; disk < 2; disk++)
        lab_overwrite(&lab, disk, FORMAT_CATALOGUE_OFFSET(0) + 20, FORMAT_SLOT + 4096, 0x21);
    lab_expect_refusal(&lab, "damaged");
    lab_remove(&lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(named_extent_is_not_given_back),
        cmocka_unit_test(new_owner_counts),
        cmocka_unit_test(last_birth_counts),
        cmocka_unit_test(catalogue_and_groups_are_on_all_disks),
        cmocka_unit_test(newest_copy_counts),
        cmocka_unit_test(all_copies_damaged_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
