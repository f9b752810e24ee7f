/* The pool: does it keep what it acknowledged, in order, and know what may differ from the peer? */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/pool_lab.h"

#define MIB (1ull << 20)
#define JOURNAL_SMALL (4 * MIB)
#define VOLUME_BYTES (64 * MIB)

static void lab_start(struct lab *lab, unsigned disk_count, uint64_t journal_bytes)
{
    lab_make(lab, disk_count, journal_bytes);
    lab_open(lab);
    assert_int_equal(lab_create_volume(lab, &lab->volume, VOLUME_BYTES), 0);
}

static void lab_stop(struct lab *lab)
{
    lab_close(lab);
    lab_remove(lab);
}

static struct pool_stats stats_of(const struct lab *lab)
{
    struct pool_stats stats;
    pool_get_stats(lab->pool, &stats);
    return stats;
}

/* --- data --------------------------------------------------------------------------------------------------------- */

static void data_survives_reopen(void **state)
{
    struct lab lab;
    lab_start(&lab, 3, 0);
    assert_true(lab_holds(&lab, 0, 257, 0)); /* never written: zeros */
    assert_int_equal(lab_write(&lab, 0, 1, 1), 0);
    assert_int_equal(lab_write(&lab, 200, 257, 2), 0); /* over the border of two extents */
    assert_int_equal(lab_write(&lab, 16383, 1, 3), 0); /* the last block */
    assert_int_equal(lab_write(&lab, 300, 10, 4), 0);
    assert_int_equal(lab_zero(&lab, 250, 20), 0);      /* over the border */
    for (unsigned round = 0; round < 3; round++) {
        assert_true(lab_holds(&lab, 0, 1, 1));
        assert_true(lab_holds(&lab, 1, 199, 0));
        assert_true(lab_holds(&lab, 200, 50, 2));
        assert_true(lab_holds(&lab, 250, 20, 0));
        assert_true(lab_holds(&lab, 270, 30, 2));
        assert_true(lab_holds(&lab, 300, 10, 4));
        assert_true(lab_holds(&lab, 310, 147, 2));
        assert_true(lab_holds(&lab, 457, 100, 0));
        assert_true(lab_holds(&lab, 16383, 1, 3));
        assert_int_equal(pool_volume_used_bytes(lab_volume(&lab)), 3 * MIB);
        lab_reopen(&lab);
    }
    assert_int_equal(stats_of(&lab).disk_count, 3);
    assert_int_equal(stats_of(&lab).reserved_bytes, VOLUME_BYTES);
    assert_int_equal(stats_of(&lab).checksum_errors, 0);
    lab_stop(&lab);
}

static void extents_come_back(void **state)
{
    struct lab lab;
    lab_start(&lab, 2, JOURNAL_SMALL);
    for (uint64_t extent = 0; extent < 20; extent++)
        assert_int_equal(lab_write(&lab, extent * 256, 2, 1), 0);
    assert_int_equal(stats_of(&lab).used_bytes, 20 * MIB);
    for (uint64_t extent = 0; extent < 20; extent += 2)
        assert_int_equal(lab_zero(&lab, extent * 256, 256), 0);
    pool_dirty_clear(lab.pool, lab_volume(&lab), 0, VOLUME_BYTES / 4096);
    assert_int_equal(lab_checkpoint(&lab), 0);
    assert_int_equal(stats_of(&lab).used_bytes, 10 * MIB);
    assert_int_equal(lab_write(&lab, 0, 1, 2), 0);
    lab_reopen(&lab);
    assert_int_equal(stats_of(&lab).used_bytes, 11 * MIB);
    assert_true(lab_holds(&lab, 0, 1, 2));
    assert_true(lab_holds(&lab, 1, 1, 0));
    assert_true(lab_holds(&lab, 256, 2, 1));
    assert_true(lab_holds(&lab, 512, 2, 0));
    lab_stop(&lab);
}

/* A byte rots on the disk: the read says so and where; a write heals it. */
static void rot_is_found(void **state)
{
    struct lab lab;
    lab_start(&lab, 1, 0);
    assert_int_equal(lab_write(&lab, 0, 8, 1), 0);
    lab_close(&lab);
    struct format_super super = lab_super(&lab, 0);
    lab_overwrite(&lab, 0, super.data_offset + 5 * 4096 + 77, 1, 0xee);
    lab_open(&lab);
    uint8_t *data = lab_buffer(8);
    assert_int_equal(lab_read(&lab, 0, 8, data), -EBADMSG);
    assert_int_equal(lab.bad_block, 5);
    assert_int_equal(stats_of(&lab).checksum_errors, 1);
    assert_true(lab_holds(&lab, 0, 5, 1));
    assert_true(lab_holds(&lab, 6, 2, 1));
    assert_int_equal(lab_write(&lab, 5, 1, 1), 0);
    assert_true(lab_holds(&lab, 0, 8, 1));
    free(data);
    lab_stop(&lab);
}

/* Many writes to few blocks without a pause in between: reads and the end see the last of each. */
struct chain {
    struct pool_io io;
    struct lab *lab;
    unsigned left, *running;
    uint64_t version;
};

static void chain_next(struct chain *chain)
{
    chain->version++;
    lab_fill_range(chain->io.data, chain->io.block, chain->io.count, chain->version);
    pool_write(chain->lab->pool, &chain->io);
}

static void chain_done(struct pool_io *io, int result)
{
    struct chain *chain = (struct chain *)io;
    assert_int_equal(result, 0);
    memset(io->data, 0xdd, io->count * 4096);
    if (--chain->left)
        chain_next(chain);
    else if (--*chain->running == 0)
        lab_done(chain->lab, 0);
}

static void overwrites_keep_their_order(void **state)
{
    enum { CHAINS = 8, WRITES = 250 };
    struct lab lab;
    lab_start(&lab, 2, JOURNAL_SMALL);
    struct chain chains[CHAINS];
    unsigned running = CHAINS;
    for (unsigned index = 0; index < CHAINS; index++) {
        chains[index] = (struct chain){.lab = &lab, .left = WRITES, .running = &running};
        chains[index].io = (struct pool_io){.done = chain_done, .volume = lab_volume(&lab), .block = 240 + index * 4,
                                            .count = 4, .data = lab_buffer(4), .dirty = true};
        chain_next(&chains[index]);
    }
    assert_int_equal(lab_wait(&lab), 0);
    for (unsigned index = 0; index < CHAINS; index++)
        assert_true(lab_holds(&lab, 240 + index * 4, 4, WRITES)); /* although most are not in their place yet */
    assert_true(stats_of(&lab).journal_records >= CHAINS * WRITES);
    assert_true(stats_of(&lab).journal_writes < CHAINS * WRITES);
    assert_true(stats_of(&lab).checkpoints > 1); /* it went around the ring */
    lab_reopen(&lab);
    for (unsigned index = 0; index < CHAINS; index++) {
        assert_true(lab_holds(&lab, 240 + index * 4, 4, WRITES));
        free(chains[index].io.data);
    }
    lab_stop(&lab);
}

/* More than the ring and the arena hold at once: they wait, none fails. */
static void large_writes_wait_for_space(void **state)
{
    enum { COUNT = 40 };
    struct lab lab;
    lab_start(&lab, 1, JOURNAL_SMALL);
    static struct chain chains[COUNT];
    unsigned running = COUNT;
    for (unsigned index = 0; index < COUNT; index++) {
        chains[index] = (struct chain){.lab = &lab, .left = 3, .running = &running};
        chains[index].io = (struct pool_io){.done = chain_done, .volume = lab_volume(&lab), .block = 7 + index * 257,
                                            .count = 257, .data = lab_buffer(257), .dirty = true};
        chain_next(&chains[index]);
    }
    assert_int_equal(lab_wait(&lab), 0);
    lab_reopen(&lab);
    for (unsigned index = 0; index < COUNT; index++) {
        assert_true(lab_holds(&lab, 7 + index * 257, 257, 3));
        free(chains[index].io.data);
    }
    lab_stop(&lab);
}

/* --- crashes: see test_pool_crash for random ones ------------------------------------------------------------------
 */

static void work_acknowledged(struct lab *lab)
{
    for (uint64_t block = 0; block < 600; block += 3)
        check(lab_write(lab, block, 3, 1) == 0);
    check(lab_zero(lab, 100, 200) == 0);
    check(lab_write(lab, 150, 1, 2) == 0);
}

static void journal_alone_brings_everything_back(void **state)
{
    struct lab lab;
    lab_start(&lab, 2, 0);
    lab_close(&lab);
    lab_crash(&lab, work_acknowledged);
    lab_lose_data(&lab); /* nothing of it was synced to its place */
    for (unsigned round = 0; round < 2; round++) {
        lab_open(&lab);
        assert_true(lab_holds(&lab, 0, 100, 1));
        assert_true(lab_holds(&lab, 100, 50, 0));
        assert_true(lab_holds(&lab, 150, 1, 2));
        assert_true(lab_holds(&lab, 151, 149, 0));
        assert_true(lab_holds(&lab, 300, 257, 1));
        assert_int_equal(pool_dirty_blocks(lab_volume(&lab)), 600);
        lab_close(&lab);
    }
    lab_remove(&lab);
}

static void work_checkpointed(struct lab *lab)
{
    check(lab_write(lab, 0, 256, 1) == 0);
    check(lab_checkpoint(lab) == 0);
    check(lab_write(lab, 10, 1, 2) == 0);
    check(lab_write(lab, 5000, 1, 2) == 0);
    check(lab_checkpoint(lab) == 0);
}

/* The newest copy of a table block or of the superblock is torn: the older one and the journal know the rest. */
static void torn_tables_fall_back(void **state)
{
    struct lab lab;
    lab_start(&lab, 1, 0);
    lab_close(&lab);
    lab_crash(&lab, work_checkpointed);
    struct format_super super = lab_super(&lab, 0);
    unsigned newest = super.sequence % 2 ? 0 : 1; /* create wrote sequence 1 to slot 0 */
    struct format_super other;
    int fd = open(lab.paths[0], O_RDONLY);
    assert_true(pread(fd, &other, sizeof other, (off_t)FORMAT_SUPER_OFFSET(newest)) == sizeof other);
    if (other.sequence != super.sequence)
        newest ^= 1;
    struct format_table_header headers[2];
    for (unsigned slot = 0; slot < 2; slot++)
        assert_true(pread(fd, &headers[slot], sizeof headers[slot], (off_t)(super.table_offset + slot * 4096)) ==
                    sizeof headers[slot]);
    close(fd);
    lab_overwrite(&lab, 0, FORMAT_SUPER_OFFSET(newest) + 512, 3584, 0x77);
    lab_overwrite(&lab, 0, super.table_offset + (headers[1].sequence > headers[0].sequence) * 4096u + 100, 2000, 0x77);
    lab_open(&lab);
    assert_true(lab_holds(&lab, 0, 10, 1));
    assert_true(lab_holds(&lab, 10, 1, 2));
    assert_true(lab_holds(&lab, 11, 245, 1));
    assert_true(lab_holds(&lab, 5000, 1, 2));
    lab_stop(&lab);
}

/* --- what may differ from the peer ----------------------------------------------------------------------------------
 */

static const struct id session_one = {{1}}, session_two = {{2}};

static void work_tail(struct lab *lab)
{
    pool_session_begin(lab->pool, &lab->group, &session_one);
    for (uint64_t sequence = 1; sequence <= 10; sequence++) {
        check(lab_write_session(lab, sequence * 10, 2, 1, &session_one, sequence) == 0);
        if (sequence == 7)
            pool_session_commit(lab->pool, &lab->group, 5);
    }
}

static void work_committed(struct lab *lab)
{
    work_tail(lab);
    pool_session_commit(lab->pool, &lab->group, 10);
    check(lab_checkpoint(lab) == 0);
}

/* A second session: its first record says nothing of the first session's tail. */
static void work_two_sessions(struct lab *lab)
{
    work_tail(lab);
    pool_session_begin(lab->pool, &lab->group, &session_two);
    check(lab_write_session(lab, 1000, 1, 1, &session_two, 1) == 0);
    pool_session_commit(lab->pool, &lab->group, 1);
    check(lab_write_session(lab, 2000, 1, 1, &session_two, 2) == 0);
}

static uint64_t dirty_next(struct lab *lab, uint64_t block, uint32_t *ret_count)
{
    uint64_t found = UINT64_MAX;
    *ret_count = pool_dirty_next(lab->pool, lab_volume(lab), block, 1000, &found);
    return found;
}

static void tail_is_dirty_after_crash(void **state)
{
    struct lab lab;
    uint32_t count;
    lab_start(&lab, 1, 0);
    lab_close(&lab);
    lab_crash(&lab, work_tail);
    lab_open(&lab); /* commit 5 was told by records 8 to 10 */
    assert_int_equal(pool_dirty_blocks(lab_volume(&lab)), 10);
    assert_int_equal(dirty_next(&lab, 0, &count), 60);
    assert_int_equal(count, 2);
    assert_int_equal(dirty_next(&lab, 62, &count), 70);
    assert_int_equal(dirty_next(&lab, 102, &count), UINT64_MAX);
    assert_int_equal(count, 0);
    assert_int_equal(pool_session_highest(lab.pool, &lab.group, &session_one), 10);
    lab_reopen(&lab);
    assert_int_equal(pool_dirty_blocks(lab_volume(&lab)), 10);
    assert_int_equal(pool_session_highest(lab.pool, &lab.group, &session_one), 10);
    lab_stop(&lab);
}

static void committed_is_not_dirty(void **state)
{
    struct lab lab;
    lab_start(&lab, 1, 0);
    lab_close(&lab);
    lab_crash(&lab, work_committed);
    lab_open(&lab);
    assert_int_equal(pool_dirty_blocks(lab_volume(&lab)), 0);
    assert_int_equal(pool_session_highest(lab.pool, &lab.group, &session_one), 10);
    assert_true(lab_holds(&lab, 100, 2, 1));
    lab_stop(&lab);
}

static void older_session_keeps_its_tail(void **state)
{
    struct lab lab;
    uint32_t count;
    lab_start(&lab, 1, 0);
    lab_close(&lab);
    lab_crash(&lab, work_two_sessions);
    lab_open(&lab);
    assert_int_equal(pool_dirty_blocks(lab_volume(&lab)), 11);
    assert_int_equal(dirty_next(&lab, 200, &count), 2000);
    assert_int_equal(pool_session_highest(lab.pool, &lab.group, &session_two), 2);
    assert_int_equal(pool_session_highest(lab.pool, &lab.group, &session_one), 0); /* another was seen since */
    lab_stop(&lab);
}

static void session_end_marks_the_tail(void **state)
{
    struct lab lab;
    lab_start(&lab, 1, 0);
    work_tail(&lab);
    assert_int_equal(pool_dirty_blocks(lab_volume(&lab)), 0);
    pool_session_commit(lab.pool, &lab.group, 8);
    pool_session_end(lab.pool, &lab.group);
    pool_session_end(lab.pool, &lab.group);
    assert_int_equal(pool_dirty_blocks(lab_volume(&lab)), 4);
    /* A write of a session that is over has no second copy. */
    assert_int_equal(lab_write_session(&lab, 3000, 1, 1, &session_one, 11), 0);
    assert_int_equal(pool_dirty_blocks(lab_volume(&lab)), 5);
    assert_int_equal(lab_checkpoint(&lab), 0);
    assert_int_equal(stats_of(&lab).journal_used_bytes, 0);
    lab_reopen(&lab);
    assert_int_equal(pool_dirty_blocks(lab_volume(&lab)), 5);
    lab_stop(&lab);
}

/* A live session's uncommitted records are not reclaimed. */
static void checkpoint_keeps_the_tail(void **state)
{
    struct lab lab;
    lab_start(&lab, 1, 0);
    work_tail(&lab);
    assert_int_equal(lab_checkpoint(&lab), 0);
    assert_int_equal(stats_of(&lab).journal_used_bytes, 5 * 3 * 4096);
    pool_session_commit(lab.pool, &lab.group, 9);
    assert_int_equal(lab_checkpoint(&lab), 0);
    assert_int_equal(stats_of(&lab).journal_used_bytes, 3 * 4096);
    lab_reopen(&lab); /* closing ends no session: its tail is dirty */
    assert_int_equal(pool_dirty_blocks(lab_volume(&lab)), 2);
    lab_stop(&lab);
}

/* A journal full of what the peer never confirms does not stop writes for ever. */
static void uncommitted_journal_goes_on(void **state)
{
    struct lab lab;
    lab_start(&lab, 1, JOURNAL_SMALL);
    pool_session_begin(lab.pool, &lab.group, &session_one);
    for (uint64_t sequence = 1; sequence <= 70; sequence++)
        assert_int_equal(lab_write_session(&lab, sequence * 16, 16, 1, &session_one, sequence), 0);
    assert_true(pool_dirty_blocks(lab_volume(&lab)) >= 256);
    lab_stop(&lab);
}

static void work_marks(struct lab *lab)
{
    pool_dirty_mark(lab->pool, lab_volume(lab), 1000, 5000, lab_done, lab);
    check(lab_wait(lab) == 0);
    pool_dirty_mark(lab->pool, lab_volume(lab), 9, 1, lab_done, lab);
    check(lab_wait(lab) == 0);
}

static void marks_survive(void **state)
{
    struct lab lab;
    uint32_t count;
    lab_start(&lab, 2, 0);
    lab_close(&lab);
    lab_crash(&lab, work_marks);
    lab_open(&lab);
    assert_int_equal(pool_dirty_blocks(lab_volume(&lab)), 5001);
    assert_true(lab_holds(&lab, 1000, 257, 0));
    assert_int_equal(dirty_next(&lab, 0, &count), 9);
    assert_int_equal(count, 1);
    uint64_t found, total = 0;
    for (uint64_t at = 10; (count = pool_dirty_next(lab.pool, lab_volume(&lab), at, 100, &found)) > 0;
         at = found + count) {
        assert_true(count <= 100 && found == 1000 + total);
        total += count;
    }
    assert_int_equal(total, 5000);
    pool_dirty_clear(lab.pool, lab_volume(&lab), 1000, 4999);
    assert_int_equal(pool_dirty_blocks(lab_volume(&lab)), 2);
    lab_reopen(&lab);
    assert_int_equal(pool_dirty_blocks(lab_volume(&lab)), 2);
    assert_int_equal(dirty_next(&lab, 10, &count), 5999);
    assert_int_equal(stats_of(&lab).used_bytes, 2 * MIB); /* extents that hold nothing went back */
    lab_stop(&lab);
}

/* --- volumes and groups ----------------------------------------------------------------------------------------------
 */

static void volumes_are_reserved(void **state)
{
    struct lab lab;
    lab_start(&lab, 1, 0);
    struct pool_stats stats = stats_of(&lab);
    uint64_t left = stats.total_bytes - stats.reserved_bytes;
    struct id second = id_random(), third = id_random();
    assert_int_equal(lab_create_volume(&lab, &second, left + 1), -ENOSPC);
    assert_int_equal(lab_create_volume(&lab, &lab.volume, MIB), -EEXIST);
    assert_int_equal(lab_create_volume(&lab, &second, 0), -EINVAL);
    assert_int_equal(lab_create_volume(&lab, &second, left), 0);
    assert_int_equal(lab_create_volume(&lab, &third, 1), -ENOSPC);
    lab_reopen(&lab);
    assert_int_equal(lab_create_volume(&lab, &third, 1), -ENOSPC);
    assert_int_equal(pool_volume_blocks(pool_volume_find(lab.pool, &second)), left / 4096);
    lab_stop(&lab);
}

static void work_delete(struct lab *lab)
{
    for (uint64_t block = 0; block < 1000; block += 100)
        check(lab_write(lab, block, 100, 1) == 0);
    pool_session_begin(lab->pool, &lab->group, &session_one); /* uncommitted: these records stay in the journal */
    check(lab_write_session(lab, 4000, 1, 1, &session_one, 1) == 0);
    pool_volume_delete(lab->pool, lab_volume(lab), lab_done, lab);
    check(lab_wait(lab) == 0);
    check(!lab_volume(lab));
    check(lab_create_volume(lab, &lab->volume, VOLUME_BYTES) == 0);
    check(lab_write(lab, 50, 1, 9) == 0);
}

/* The same id again: nothing of its earlier life shines through, not even after a crash. */
static void deleted_volume_is_gone(void **state)
{
    struct lab lab;
    lab_start(&lab, 2, 0);
    lab_close(&lab);
    lab_crash(&lab, work_delete);
    lab_open(&lab);
    assert_true(lab_holds(&lab, 0, 50, 0));
    assert_true(lab_holds(&lab, 50, 1, 9));
    assert_true(lab_holds(&lab, 4000, 1, 0));
    assert_int_equal(stats_of(&lab).used_bytes, MIB);
    pool_volume_delete(lab.pool, lab_volume(&lab), lab_done, &lab);
    assert_int_equal(lab_wait(&lab), 0);
    assert_int_equal(stats_of(&lab).used_bytes, 0);
    assert_int_equal(stats_of(&lab).reserved_bytes, 0);
    lab_reopen(&lab);
    assert_null(lab_volume(&lab));
    lab_stop(&lab);
}

struct seen_groups {
    unsigned count;
    uint32_t size;
    uint8_t first;
};

static void group_seen(void *userdata, const struct id *group, const void *blob, uint32_t size)
{
    struct seen_groups *seen = userdata;
    seen->count++;
    seen->size = size;
    seen->first = size ? *(const uint8_t *)blob : 0;
}

static int group_save(struct lab *lab, const struct id *group, uint8_t byte, uint32_t size)
{
    uint8_t *blob = malloc(size + 1);
    memset(blob, byte, size);
    pool_group_save(lab->pool, group, blob, size, lab_done, lab);
    free(blob); /* it was copied */
    return lab_wait(lab);
}

static void group_records(void **state)
{
    struct lab lab;
    lab_start(&lab, 1, 0);
    for (uint8_t byte = 1; byte <= 5; byte++)
        assert_int_equal(group_save(&lab, &lab.group, byte, byte == 5 ? POOL_GROUP_BLOB_MAX : 10u * byte), 0);
    struct id others[POOL_GROUPS_MAX];
    for (unsigned index = 0; index < POOL_GROUPS_MAX - 1; index++) {
        others[index] = id_random();
        assert_int_equal(group_save(&lab, &others[index], 7, 7), 0);
    }
    struct id one_more = id_random();
    assert_int_equal(group_save(&lab, &one_more, 7, 7), -ENOSPC);
    for (unsigned index = 0; index < POOL_GROUPS_MAX - 1; index++) {
        pool_group_delete(lab.pool, &others[index], lab_done, &lab);
        assert_int_equal(lab_wait(&lab), 0);
    }
    pool_group_delete(lab.pool, &lab.group, lab_done, &lab);
    assert_int_equal(lab_wait(&lab), -EBUSY); /* its volume is there */
    lab_reopen(&lab);
    struct seen_groups seen = {0};
    pool_group_each(lab.pool, group_seen, &seen);
    assert_int_equal(seen.count, 1);
    assert_int_equal(seen.size, POOL_GROUP_BLOB_MAX);
    assert_int_equal(seen.first, 5);
    /* The newest copy is torn: the one before it counts. Five saves: the fifth is in slot 1. */
    lab_close(&lab);
    lab_overwrite(&lab, 0, FORMAT_GROUP_OFFSET(0, 1) + 30000, 100, 0);
    lab_open(&lab);
    seen = (struct seen_groups){0};
    pool_group_each(lab.pool, group_seen, &seen);
    assert_int_equal(seen.first, 4);
    assert_int_equal(seen.size, 40);
    lab_stop(&lab);
}

/* --- sentences for what is wrong
 * -------------------------------------------------------------------------------------- */

static void expect_open(struct lab *lab, const char *const *paths, unsigned count, const char *code)
{
    struct pool *pool = NULL;
    struct err err = {0};
    assert_true(pool_open(lab->ring, paths, count, &pool, &err) < 0);
    assert_string_equal(err.code, code);
    assert_true(strlen(err.text) > 20);
    assert_null(pool);
}

static void wrong_disks_are_refused(void **state)
{
    struct lab lab, other;
    lab_make(&lab, 2, 0);
    lab_make(&other, 2, 0);
    lab_open(&lab);
    const char *copy[] = {lab.paths[0], lab.paths[1]};
    expect_open(&lab, copy, 2, "busy"); /* held by the open pool */
    pool_close(lab.pool);
    expect_open(&lab, copy, 1, "missing_disks"); /* half of the disks is not enough */
    expect_open(&lab, copy + 1, 1, "missing_disks");
    expect_open(&lab, (const char *[]){"/tmp/no-such-disk"}, 1, "missing");
    expect_open(&lab, (const char *[]){lab.paths[0], other.paths[1]}, 2, "foreign");
    expect_open(&lab, (const char *[]){lab.paths[0], other.paths[0]}, 2, "foreign");
    expect_open(&lab, (const char *[]){lab.paths[0], lab.paths[0]}, 2, "busy");
    expect_open(&lab, copy, 0, "invalid");
    for (unsigned slot = 0; slot < 2; slot++)
        lab_overwrite(&other, 0, FORMAT_SUPER_OFFSET(slot), 4096, 0);
    expect_open(&lab, (const char *[]){other.paths[0], other.paths[1]}, 2, "missing_disks");
    for (unsigned slot = 0; slot < 2; slot++)
        lab_overwrite(&lab, 1, lab_super(&lab, 1).table_offset + slot * 4096, 4096, 0x31);
    expect_open(&lab, copy, 2, "damaged");
    assert_int_equal(truncate(lab.paths[1], 100 << 20), 0);
    expect_open(&lab, copy, 2, "damaged");
    ring_free(lab.ring);
    lab_remove(&lab);
    lab_remove(&other);
}

static void expect_create(const char *const *paths, unsigned count, uint64_t file_bytes, uint64_t journal_bytes,
                          bool force, const char *code)
{
    struct pool_create_options options = {
        .paths = paths, .path_count = count, .file_bytes = file_bytes, .journal_bytes = journal_bytes, .force = force};
    struct id pool;
    struct err err = {0};
    int result = pool_create(&options, &pool, &err);
    assert_string_equal(err.code, code);
    assert_int_equal(result == 0, code[0] == 0);
}

static void wrong_creations_are_refused(void **state)
{
    struct lab lab;
    lab_make(&lab, 2, 0);
    char path[128], link_path[128], folder[128];
    snprintf(path, sizeof path, "%s/new", lab.folder);
    snprintf(link_path, sizeof link_path, "%s/link", lab.folder);
    snprintf(folder, sizeof folder, "%s/", lab.folder);
    const char *new[] = {path, link_path};
    expect_create(new, 0, LAB_DISK_BYTES, 0, false, "invalid");
    expect_create(new, 1, 0, 0, false, "missing");
    expect_create(new, 1, 10 * MIB, 0, false, "too_small");
    expect_create(new, 1, LAB_DISK_BYTES, 1 * MIB, false, "invalid");
    expect_create(new, 1, LAB_DISK_BYTES, 300 * MIB, false, "too_small");
    expect_create(new, 1, UINT64_MAX / 4, 0, false, "no_space");
    assert_int_not_equal(access(path, F_OK), 0); /* nothing is left of what failed */
    expect_create((const char *[]){folder}, 1, 0, 0, false, "invalid");
    expect_create(lab.path_list, 1, 0, 0, false, "in_use");
    lab_open(&lab);
    expect_create(lab.path_list, 1, 0, 0, true, "busy"); /* --force does not take what is in use */
    lab_close(&lab);
    /* A file system: libblkid knows the swap signature. */
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    assert_int_equal(posix_fallocate(fd, 0, (off_t)LAB_DISK_BYTES), 0);
    uint32_t swap[7] = {1, 65535};
    assert_int_equal(pwrite(fd, swap, sizeof swap, 1024), sizeof swap);
    assert_int_equal(pwrite(fd, "SWAPSPACE2", 10, 4086), 10);
    close(fd);
    expect_create(new, 1, 0, 0, false, "signature");
    assert_int_equal(symlink(path, link_path), 0);
    expect_create(new, 2, 0, 0, true, "twice");
    expect_create(new, 1, 0, 0, true, "");
    expect_create(new, 1, 0, 0, false, "in_use");
    unlink(path);
    unlink(link_path);
    lab_remove(&lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(data_survives_reopen),
        cmocka_unit_test(extents_come_back),
        cmocka_unit_test(rot_is_found),
        cmocka_unit_test(overwrites_keep_their_order),
        cmocka_unit_test(large_writes_wait_for_space),
        cmocka_unit_test(journal_alone_brings_everything_back),
        cmocka_unit_test(torn_tables_fall_back),
        cmocka_unit_test(tail_is_dirty_after_crash),
        cmocka_unit_test(committed_is_not_dirty),
        cmocka_unit_test(older_session_keeps_its_tail),
        cmocka_unit_test(session_end_marks_the_tail),
        cmocka_unit_test(checkpoint_keeps_the_tail),
        cmocka_unit_test(uncommitted_journal_goes_on),
        cmocka_unit_test(marks_survive),
        cmocka_unit_test(volumes_are_reserved),
        cmocka_unit_test(deleted_volume_is_gone),
        cmocka_unit_test(group_records),
        cmocka_unit_test(wrong_disks_are_refused),
        cmocka_unit_test(wrong_creations_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
