/* The pool's journals: what a record holds, where replay ends, and what is torn and what is rotten. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/pool_bytes_lab.h"

static const struct id session_one = {{1}}, session_two = {{2}};

static uint64_t tail_of(struct lab *lab, unsigned disk)
{
    return lab_super(lab, disk).tail_lsn;
}

/* Nothing of it was synced to its place. */
static void crash(struct lab *lab, void (*work)(struct lab *lab))
{
    lab_close(lab);
    lab_crash(lab, work);
}

/* --- records ------------------------------------------------------------------------------------------------------ */

struct many {
    struct lab *lab;
    unsigned running;
};

static void many_done(struct pool_io *io, int result)
{
    struct many *many = io->private_data;
    check(result == 0);
    if (--many->running == 0)
        lab_done(many->lab, 0);
}

/* Submits all at once. */
static void write_many(struct lab *lab, unsigned count, unsigned stride)
{
    struct many many = {.lab = lab, .running = count};
    struct pool_io *ios = calloc(count, sizeof *ios);
    for (unsigned index = 0; index < count; index++) {
        ios[index] = (struct pool_io){.done = many_done, .volume = lab_volume(lab), .block = index * stride, .count = 1,
                                      .data = lab_buffer(1), .unmirrored = true, .private_data = &many};
        lab_fill(ios[index].data, ios[index].block, 1);
        pool_write(lab->pool, &ios[index]);
    }
    check(lab_wait(lab) == 0);
    for (unsigned index = 0; index < count; index++)
        free(ios[index].data);
    free(ios);
}

static void work_many(struct lab *lab)
{
    write_many(lab, 200, 3);
}

/* What is submitted together goes out together: one header for 29 writes of a block. */
static void small_writes_share_records(void **state)
{
    struct lab lab;
    struct format_record record;
    lab_begin(&lab, 1, 0);
    crash(&lab, work_many);
    uint64_t lsn = tail_of(&lab, 0), entries = 0, headers = 0;
    for (uint32_t blocks; (blocks = lab_record(&lab, 0, lsn, &record)) > 0; lsn += blocks) {
        entries += record.entry_count;
        headers += record.header_blocks;
        assert_int_equal(record.blocks, record.header_blocks + record.entry_count);
        assert_int_equal(record.settled_lsn <= lsn, true);
    }
    assert_int_equal(entries, 200);
    assert_true(headers <= 8);
    lab_lose_data(&lab);
    lab_open(&lab);
    for (unsigned index = 0; index < 200; index++)
        assert_true(lab_holds(&lab, index * 3, 1, 1));
    assert_int_equal(pool_dirty_blocks(lab_volume(&lab)), 0); /* of a group that has no mirror */
    lab_end(&lab);
}

static void work_two_extents(struct lab *lab)
{
    for (uint64_t extent = 0; extent < 4; extent++)
        check(lab_write(lab, extent * 256, 1, 1) == 0);
    check(lab_write(lab, 252, 8, 2) == 0); /* over the border of two extents, on two disks */
}

/* Each disk's journal holds what lies on it. */
static void disks_have_their_own_journals(void **state)
{
    struct lab lab;
    struct format_record record;
    lab_begin(&lab, 2, 0);
    crash(&lab, work_two_extents);
    for (unsigned disk = 0; disk < 2; disk++) {
        uint64_t lsn = tail_of(&lab, disk), entries = 0;
        for (uint32_t blocks; (blocks = lab_record(&lab, disk, lsn, &record)) > 0; lsn += blocks)
            entries += record.entry_count;
        assert_int_equal(entries, 3);
    }
    lab_lose_data(&lab);
    lab_open(&lab);
    assert_true(lab_holds(&lab, 252, 8, 2));
    for (uint64_t extent = 0; extent < 4; extent++)
        assert_true(extent == 1 || lab_holds(&lab, extent * 256, 1, 1));
    lab_end(&lab);
}

static void work_laps(struct lab *lab)
{
    for (unsigned lap = 1; lap <= 200; lap++)
        check(lab_write(lab, lap * 17 % 1000, 16, lap) == 0);
}

/* More than the ring holds, with a rest at its end that no record fits. */
static void ring_goes_around(void **state)
{
    struct lab lab;
    lab_begin(&lab, 1, 4 * MIB);
    crash(&lab, work_laps);
    lab_open(&lab);
    for (unsigned lap = 190; lap <= 200; lap++)
        assert_true(lab_holds(&lab, lap * 17 % 1000, 16, lap));
    lab_end(&lab);
}

/* --- its end ------------------------------------------------------------------------------------------------------ */

static void work_two_records(struct lab *lab)
{
    check(lab_write(lab, 10, 1, 1) == 0);
    check(lab_write(lab, 20, 1, 1) == 0);
}

static void work_one_record(struct lab *lab)
{
    check(lab_write(lab, 10, 1, 2) == 0);
}

/* The last record is torn: it never was acknowledged, everything before it was. */
static void torn_record_ends_the_journal(void **state)
{
    struct lab lab;
    lab_begin(&lab, 1, 0);
    crash(&lab, work_two_records);
    lab_overwrite(&lab, 0, lab_journal_offset(&lab, 0, tail_of(&lab, 0) + 3) + 1000, 8, 0x11); /* the second's data */
    lab_lose_data(&lab);
    lab_open(&lab);
    assert_true(lab_holds(&lab, 10, 1, 1));
    assert_true(lab_holds(&lab, 20, 1, 0));
    assert_int_equal(lab_write(&lab, 20, 1, 5), 0);
    lab_reopen(&lab);
    assert_true(lab_holds(&lab, 20, 1, 5));
    assert_int_equal(pool_volume_lost_blocks(lab_volume(&lab)), 0);
    lab_end(&lab);
}

/* Two journal writes under way, only the second reached the disk: its record must not follow on what the next run puts
 * into the hole. */
static void record_behind_a_hole_stays_lost(void **state)
{
    struct lab lab;
    lab_begin(&lab, 1, 0);
    crash(&lab, work_two_records);
    uint64_t tail = tail_of(&lab, 0);
    lab_overwrite(&lab, 0, lab_journal_offset(&lab, 0, tail), 4096, 0);
    lab_record_unsettle(&lab, tail + 2, tail);
    lab_crash(&lab, work_one_record);
    lab_open(&lab);
    assert_true(lab_holds(&lab, 10, 1, 2));
    assert_true(lab_holds(&lab, 20, 1, 0));
    lab_end(&lab);
}

/* The same, but the second record says that the first had been acknowledged. */
static void rotten_header_is_refused(void **state)
{
    struct lab lab;
    lab_begin(&lab, 1, 0);
    crash(&lab, work_two_records);
    lab_overwrite(&lab, 0, lab_journal_offset(&lab, 0, tail_of(&lab, 0)) + 200, 1, 0x77);
    lab_expect_refusal(&lab, "damaged");
    lab_remove(&lab);
}

/* Of a record whose header is whole only the rotten block is lost, and it says so until it is written again. */
static void rotten_data_is_lost(void **state)
{
    struct lab lab;
    uint8_t *data = lab_buffer(1);
    lab_begin(&lab, 1, 0);
    crash(&lab, work_two_records);
    lab_overwrite(&lab, 0, lab_journal_offset(&lab, 0, tail_of(&lab, 0) + 1) + 100, 1, 0x77);
    lab_open(&lab);
    for (unsigned round = 0; round < 2; round++) {
        assert_int_equal(lab_read(&lab, 10, 1, data), -EBADMSG);
        assert_int_equal(lab.bad_block, 10);
        assert_int_equal(pool_volume_lost_blocks(lab_volume(&lab)), 1);
        assert_true(lab_holds(&lab, 20, 1, 1));
        lab_reopen(&lab);
    }
    assert_int_equal(lab_write(&lab, 10, 1, 3), 0);
    assert_int_equal(pool_volume_lost_blocks(lab_volume(&lab)), 0);
    lab_reopen(&lab);
    assert_true(lab_holds(&lab, 10, 1, 3));
    free(data);
    lab_end(&lab);
}

/* --- superblocks -------------------------------------------------------------------------------------------------- */

static void work_checkpoint_and_write(struct lab *lab)
{
    check(lab_write(lab, 10, 1, 1) == 0);
    check(lab_checkpoint(lab) == 0);
    check(lab_write(lab, 20, 1, 1) == 0);
}

static void newest_super_spoil(struct lab *lab)
{
    struct format_super supers[2];
    for (unsigned slot = 0; slot < 2; slot++)
        lab_bytes_get(lab, 0, FORMAT_SUPER_OFFSET(slot), &supers[slot], sizeof supers[slot]);
    lab_overwrite(lab, 0, FORMAT_SUPER_OFFSET(supers[1].sequence > supers[0].sequence) + 600, 512, 0x77);
}

/* The newest superblock rots; a record knows that it was whole. The older one would replay too little, or too much. */
static void rotten_superblock_is_refused(void **state)
{
    struct lab lab;
    lab_begin(&lab, 1, 0);
    crash(&lab, work_checkpoint_and_write);
    newest_super_spoil(&lab);
    lab_expect_refusal(&lab, "damaged");
    lab_remove(&lab);
}

/* A disk that was closed in order has nothing to look for; an open one does not say so. */
static void closed_disk_is_clean(void **state)
{
    struct lab lab;
    lab_begin(&lab, 2, 0);
    assert_int_equal(lab_super(&lab, 1).flags & FORMAT_SUPER_CLEAN, 0);
    work_two_extents(&lab);
    lab_close(&lab);
    for (unsigned disk = 0; disk < 2; disk++)
        assert_int_equal(lab_super(&lab, disk).flags & FORMAT_SUPER_CLEAN, FORMAT_SUPER_CLEAN);
    lab_open(&lab);
    assert_true(lab_holds(&lab, 252, 8, 2));
    assert_int_equal(lab_super(&lab, 0).flags & FORMAT_SUPER_CLEAN, 0);
    lab_end(&lab);
}

static void other_versions_are_refused(void **state)
{
    struct lab lab;
    uint8_t block[4096];
    struct format_super *super = (struct format_super *)block;
    lab_make(&lab, 1, 0);
    for (unsigned slot = 0; slot < 2; slot++) {
        lab_bytes_get(&lab, 0, FORMAT_SUPER_OFFSET(slot), block, sizeof block);
        super->version = 1;
        lab_block_seal(block, &super->crc);
        lab_bytes_put(&lab, 0, FORMAT_SUPER_OFFSET(slot), block, sizeof block);
    }
    lab_expect_refusal(&lab, "version");
    lab_remove(&lab);
}

/* --- sessions over several disks ---------------------------------------------------------------------------------- */

static void work_commit_elsewhere(struct lab *lab)
{
    pool_session_begin(lab->pool, &lab->group, &session_one);
    check(lab_write_session(lab, 0, 1, 1, &session_one, 1) == 0);
    pool_session_commit(lab->pool, &lab->group, 1);
    check(lab_write_session(lab, 256, 1, 1, &session_one, 2) == 0); /* on the other disk */
}

static void commit_counts_for_all_disks(void **state)
{
    struct lab lab;
    uint64_t found;
    lab_begin(&lab, 2, 0);
    crash(&lab, work_commit_elsewhere);
    lab_open(&lab);
    assert_int_equal(pool_dirty_next(lab.pool, lab_volume(&lab), 0, 1000, &found), 1);
    assert_int_equal(found, 256);
    assert_int_equal(pool_dirty_blocks(lab_volume(&lab)), 1);
    assert_int_equal(pool_session_highest(lab.pool, &lab.group, &session_one), 2);
    assert_true(pool_session_committed(lab.pool, &lab.group, &session_one) >= 1);
    lab_end(&lab);
}

static void work_second_session_on_one_disk(struct lab *lab)
{
    work_commit_elsewhere(lab);
    pool_session_begin(lab->pool, &lab->group, &session_two);
    check(lab_write_session(lab, 1, 1, 1, &session_two, 1) == 0);
}

/* The other disk's journal knows only the first session: it is the older one all the same. */
static void last_session_is_known_by_its_order(void **state)
{
    struct lab lab;
    lab_begin(&lab, 2, 0);
    crash(&lab, work_second_session_on_one_disk);
    for (unsigned round = 0; round < 2; round++) {
        lab_open(&lab);
        assert_int_equal(pool_session_highest(lab.pool, &lab.group, &session_one), 0);
        assert_int_equal(pool_session_highest(lab.pool, &lab.group, &session_two), 1);
        lab_close(&lab);
    }
    lab_remove(&lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_writes_share_records),
        cmocka_unit_test(disks_have_their_own_journals),
        cmocka_unit_test(ring_goes_around),
        cmocka_unit_test(torn_record_ends_the_journal),
        cmocka_unit_test(record_behind_a_hole_stays_lost),
        cmocka_unit_test(rotten_header_is_refused),
        cmocka_unit_test(rotten_data_is_lost),
        cmocka_unit_test(rotten_superblock_is_refused),
        cmocka_unit_test(closed_disk_is_clean),
        cmocka_unit_test(other_versions_are_refused),
        cmocka_unit_test(commit_counts_for_all_disks),
        cmocka_unit_test(last_session_is_known_by_its_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
