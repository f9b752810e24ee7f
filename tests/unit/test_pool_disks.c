/* The pool's disks: they come, go, fail and are missing, while what is on the others is served. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>

#include "common/log.h"
#include "tests/unit/pool_lab.h"
#include "tests/unit/power_cut_disk.h"

#define MIB (1ull << 20)
#define DISKS 4u
#define EXTENTS 24u /* of the volume: some on every disk */

/* A pool on the first of some simulated disks; lab.disk_count of them are named when it is opened. */
struct bench {
    struct lab lab;
    struct cut_device device;
    int bad_disk; /* whose requests of this kind fail; -1: none */
    enum cut_operation bad_operation;
    uint64_t bad_offset; /* only there; 0: everywhere */
};

static int bench_fault(void *userdata, unsigned disk, enum cut_operation operation, uint64_t offset, uint64_t size)
{
    const struct bench *bench = userdata;
    bool hit = !bench->bad_offset || (offset <= bench->bad_offset && bench->bad_offset < offset + size);
    return (int)disk == bench->bad_disk && operation == bench->bad_operation && hit ? -EIO : 0;
}

static void bench_open(struct bench *bench, unsigned disks)
{
    bench->lab.disk_count = disks;
    lab_open(&bench->lab);
}

static struct bench *bench_new(unsigned disks)
{
    struct bench *bench = calloc(1, sizeof *bench);
    check(bench);
    cut_device_new(&bench->device, DISKS, 256 * MIB, 1);
    bench->device.mode = CUT_TOUCH;
    bench->device.fault = bench_fault;
    bench->device.userdata = bench;
    bench->bad_disk = -1;
    cut_device_use(&bench->device);
    bench->lab = (struct lab){.group = id_random(), .volume = id_random()};
    for (unsigned index = 0; index < DISKS; index++) {
        snprintf(bench->lab.paths[index], sizeof bench->lab.paths[index], "%s", bench->device.disks[index].path);
        bench->lab.path_list[index] = bench->lab.paths[index];
    }
    struct pool_create_options options = {
        .paths = bench->lab.path_list, .path_count = disks, .node = id_random(), .journal_bytes = 4 * MIB};
    struct err err = {0};
    struct id pool;
    assert_int_equal(pool_create(&options, &pool, &err), 0);
    bench_open(bench, disks);
    return bench;
}

static void bench_free(struct bench *bench)
{
    if (bench->lab.pool)
        lab_close(&bench->lab);
    cut_device_use(NULL);
    cut_device_free(&bench->device);
    free(bench);
}

static void volume_fill(struct bench *bench)
{
    assert_int_equal(lab_create_volume(&bench->lab, &bench->lab.volume, EXTENTS * MIB), 0);
    for (unsigned extent = 0; extent < EXTENTS; extent++)
        assert_int_equal(lab_write(&bench->lab, extent * 256, 5, extent + 1), 0);
}

static bool extent_holds(struct bench *bench, unsigned extent)
{
    return lab_holds(&bench->lab, extent * 256, 5, extent + 1) && lab_holds(&bench->lab, extent * 256 + 5, 251, 0);
}

static void volume_holds(struct bench *bench)
{
    for (unsigned extent = 0; extent < EXTENTS; extent++)
        assert_true(extent_holds(bench, extent));
    assert_int_equal(pool_volume_lost_blocks(lab_volume(&bench->lab)), 0);
}

static struct pool_disk_info disk_info(struct bench *bench, unsigned disk)
{
    struct pool_disk_info list[POOL_DISKS_MAX];
    unsigned count = pool_disk_list(bench->lab.pool, list);
    for (unsigned index = 0; index < count; index++)
        if (!strcmp(list[index].path, bench->lab.paths[disk]))
            return list[index];
    return (struct pool_disk_info){0};
}

static unsigned disk_count(struct bench *bench)
{
    struct pool_disk_info list[POOL_DISKS_MAX];
    return pool_disk_list(bench->lab.pool, list);
}

static int disk_prepare(struct bench *bench, unsigned disk, struct pool_disk_prepared **ret, const char *code)
{
    struct pool_stats stats;
    pool_get_stats(bench->lab.pool, &stats);
    struct pool_disk_prepare_options options = {
        .path = bench->lab.paths[disk], .pool = stats.id, .node = id_random(), .journal_bytes = 4 * MIB};
    struct err err = {0};
    int result = pool_disk_prepare(&options, ret, &err);
    assert_string_equal(err.code, code);
    return result;
}

static int disk_add(struct bench *bench, unsigned disk)
{
    struct pool_disk_prepared *prepared;
    assert_int_equal(disk_prepare(bench, disk, &prepared, ""), 0);
    pool_disk_add(bench->lab.pool, prepared, lab_done, &bench->lab);
    return lab_wait(&bench->lab);
}

static int disk_remove(struct bench *bench, const struct id *disk, bool lost)
{
    pool_disk_remove(bench->lab.pool, disk, lost, lab_done, &bench->lab);
    return lab_wait(&bench->lab);
}

static int disk_drain(struct bench *bench, unsigned disk)
{
    struct id id = disk_info(bench, disk).id;
    return disk_remove(bench, &id, false);
}

/* --- coming and going --------------------------------------------------------------------------------------------- */

static void disk_gives_room(void **state)
{
    struct bench *bench = bench_new(1);
    struct id second = id_random();
    volume_fill(bench);
    assert_int_equal(lab_create_volume(&bench->lab, &second, 400 * MIB), -ENOSPC);
    assert_int_equal(disk_add(bench, 1), 0);
    assert_int_equal(disk_count(bench), 2);
    assert_int_equal(lab_create_volume(&bench->lab, &second, 400 * MIB), 0);
    volume_holds(bench);
    lab_close(&bench->lab);
    bench_open(bench, 2);
    assert_int_equal(disk_count(bench), 2);
    volume_holds(bench);
    assert_non_null(pool_volume_find(bench->lab.pool, &second));
    bench_free(bench);
}

static void wrong_disk_is_not_added(void **state)
{
    struct bench *bench = bench_new(1);
    struct pool_disk_prepared *prepared;
    assert_true(disk_prepare(bench, 0, &prepared, "busy") < 0); /* the pool's own */
    assert_int_equal(disk_prepare(bench, 1, &prepared, ""), 0);
    pool_disk_prepared_free(prepared); /* and forgotten: nothing has happened */
    lab_close(&bench->lab);
    bench_open(bench, 3); /* the prepared one and an empty one are named, and left alone */
    assert_int_equal(disk_count(bench), 1);
    assert_true(disk_prepare(bench, 1, &prepared, "in_use") < 0);
    bench_free(bench);
}

static void drained_disk_is_free(void **state)
{
    struct bench *bench = bench_new(3);
    volume_fill(bench);
    assert_true(disk_info(bench, 1).used_bytes > 0);
    assert_int_equal(disk_drain(bench, 1), 0);
    assert_int_equal(disk_count(bench), 2);
    volume_holds(bench);
    lab_close(&bench->lab);
    assert_int_equal(lab_super(&bench->lab, 1).magic, 0);
    bench_open(bench, 3);
    assert_int_equal(disk_count(bench), 2);
    volume_holds(bench);
    bench_free(bench);
}

static void drain_is_refused(void **state)
{
    struct bench *bench = bench_new(2);
    struct id id = disk_info(bench, 0).id, unknown = id_random();
    assert_int_equal(disk_remove(bench, &unknown, false), -ENOENT);
    assert_int_equal(lab_create_volume(&bench->lab, &bench->lab.volume, 300 * MIB), 0);
    assert_int_equal(disk_remove(bench, &id, false), -ENOSPC);
    assert_int_equal(disk_add(bench, 2), 0);
    assert_int_equal(disk_remove(bench, &id, false), 0);
    assert_int_equal(disk_count(bench), 2);
    bench_free(bench);
    bench = bench_new(1);
    id = disk_info(bench, 0).id;
    assert_int_equal(disk_remove(bench, &id, false), -EINVAL);
    bench_free(bench);
}

static void drain_goes_on_after_restart(void **state)
{
    struct bench *bench = bench_new(2);
    volume_fill(bench);
    struct id id = disk_info(bench, 0).id;
    pool_disk_remove(bench->lab.pool, &id, false, lab_done, &bench->lab);
    while (disk_info(bench, 0).state != POOL_DISK_DRAINING)
        ring_run(bench->lab.ring);
    assert_int_equal(lab_checkpoint(&bench->lab), 0); /* may be the removal's end as well */
    bench->lab.done = false;
    lab_close(&bench->lab);
    bench_open(bench, 2);
    for (unsigned turn = 0; turn < 1000 && disk_count(bench) > 1; turn++)
        assert_int_equal(lab_checkpoint(&bench->lab), 0);
    assert_int_equal(disk_count(bench), 1);
    volume_holds(bench);
    bench_free(bench);
}

static void removed(void *userdata, int result)
{
    assert_int_equal(result, 0);
    *(bool *)userdata = true;
}

/* UNMAP empties what moves, and checkpoints want to give it back meanwhile; guests take the last free extents. */
static void drain_while_guests_work(void **state)
{
    struct bench *bench = bench_new(3);
    unsigned room = (unsigned)(disk_info(bench, 0).total_bytes / MIB) * 2;
    bool gone = false;
    struct id id = disk_info(bench, 2).id;
    assert_int_equal(lab_create_volume(&bench->lab, &bench->lab.volume, room * MIB), 0);
    for (unsigned extent = 0; extent < room - 40; extent++)
        assert_int_equal(lab_write(&bench->lab, extent * 256, 1, extent + 1), 0);
    pool_disk_remove(bench->lab.pool, &id, false, removed, &gone);
    unsigned turn = 0;
    while (!gone) {
        unsigned extent = room - 40 + turn % 40;
        if (turn++ % 2) {
            assert_int_equal(lab_zero(&bench->lab, extent * 256, 256), 0);
            pool_dirty_clear(bench->lab.pool, lab_volume(&bench->lab), extent * 256, 256);
        } else {
            assert_int_equal(lab_write(&bench->lab, extent * 256, 1, 7), 0);
        }
        assert_int_equal(lab_checkpoint(&bench->lab), 0);
    }
    for (unsigned extent = 0; extent < room - 40; extent++)
        assert_true(lab_holds(&bench->lab, extent * 256, 1, extent + 1));
    bench_free(bench);
}

/* --- failure ------------------------------------------------------------------------------------------------------ */

static unsigned lost_extents(struct bench *bench)
{
    uint8_t *data = lab_buffer(5);
    unsigned lost = 0;
    for (unsigned extent = 0; extent < EXTENTS; extent++) {
        int result = lab_read(&bench->lab, extent * 256, 5, data);
        if (result == 0)
            assert_true(lab_holds(&bench->lab, extent * 256, 5, extent + 1));
        else
            assert_int_equal(result, -EBADMSG);
        lost += result < 0;
    }
    free(data);
    return lost;
}

/* A failing write is made again elsewhere; what a failing flush leaves behind is lost. */
static void failed_disk_costs_its_extents(enum cut_operation operation)
{
    bool is_write = operation == CUT_OP_WRITE;
    struct bench *bench = bench_new(3);
    volume_fill(bench);
    assert_int_equal(lab_checkpoint(&bench->lab), 0);
    unsigned extents = (unsigned)(disk_info(bench, 1).used_bytes / MIB);
    assert_true(extents > 0 && extents < EXTENTS);
    struct id id = disk_info(bench, 1).id;
    bench->bad_disk = 1;
    bench->bad_operation = operation;
    for (unsigned extent = 0; extent < EXTENTS; extent++) /* the failure is none of the guests' business */
        assert_int_equal(lab_write(&bench->lab, extent * 256 + 100, 1, 77), 0);
    assert_int_equal(lab_checkpoint(&bench->lab), 0);
    assert_int_equal(lab_checkpoint(&bench->lab), 0);
    assert_int_equal(disk_info(bench, 1).state, POOL_DISK_FAILED);
    for (unsigned extent = 0; extent < EXTENTS; extent++)
        assert_true(lab_holds(&bench->lab, extent * 256 + 100, 1, 77) || (!is_write && bench->lab.result == -EBADMSG));
    assert_int_equal(lost_extents(bench), extents);
    assert_int_equal(pool_volume_lost_blocks(lab_volume(&bench->lab)), extents * (is_write ? 5 : 6));
    bench->bad_disk = -1;
    for (unsigned round = 0; round < 2; round++) { /* it is back, but nobody takes it for good */
        lab_close(&bench->lab);
        bench_open(bench, 3);
        assert_int_equal(lost_extents(bench), extents);
        assert_int_equal(disk_count(bench), 3);
    }
    assert_int_equal(disk_remove(bench, &id, false), -EIO);
    assert_int_equal(disk_remove(bench, &id, true), 0);
    assert_int_equal(disk_count(bench), 2);
    for (unsigned extent = 0; extent < EXTENTS; extent++) {
        assert_int_equal(lab_write(&bench->lab, extent * 256, 5, extent + 1), 0);
        assert_int_equal(lab_zero(&bench->lab, extent * 256 + 100, 1), 0);
    }
    assert_int_equal(lost_extents(bench), 0);
    assert_int_equal(pool_volume_lost_blocks(lab_volume(&bench->lab)), 0);
    bench_free(bench);
}

static void write_error(void **state)
{
    failed_disk_costs_its_extents(CUT_OP_WRITE);
}

static void sync_error(void **state)
{
    failed_disk_costs_its_extents(CUT_OP_SYNC);
}

static void read_error_costs_its_block(void **state)
{
    struct bench *bench = bench_new(2);
    volume_fill(bench);
    lab_close(&bench->lab);
    bench_open(bench, 2);
    uint8_t *data = lab_buffer(1);
    struct format_super super = lab_super(&bench->lab, 0);
    bench->bad_disk = 0;
    bench->bad_operation = CUT_OP_READ;
    bench->bad_offset = super.data_offset; /* the first block of the first extent of disk 0 */
    unsigned bad = 0;
    for (unsigned extent = 0; extent < EXTENTS; extent++)
        bad += lab_read(&bench->lab, extent * 256, 1, data) == -EBADMSG;
    assert_int_equal(bad, 1);
    assert_int_equal(disk_info(bench, 0).state, POOL_DISK_OK);
    assert_true(disk_info(bench, 0).read_errors >= 1);
    assert_int_equal(disk_drain(bench, 0), 0); /* what cannot be read is lost, nothing else */
    assert_int_equal(pool_volume_lost_blocks(lab_volume(&bench->lab)), 1);
    assert_int_equal(lost_extents(bench), 1);
    free(data);
    bench_free(bench);
}

static void last_disk_is_the_pool(void **state)
{
    struct bench *bench = bench_new(1);
    volume_fill(bench);
    bench->bad_disk = 0;
    bench->bad_operation = CUT_OP_WRITE;
    assert_int_equal(lab_write(&bench->lab, 0, 1, 9), -EIO);
    assert_int_equal(pool_failure(bench->lab.pool), -EIO);
    bench_free(bench);
}

static void no_room_for_the_lost(void **state)
{
    struct bench *bench = bench_new(2);
    assert_int_equal(lab_create_volume(&bench->lab, &bench->lab.volume, 400 * MIB), 0);
    for (unsigned extent = 0; extent < 400; extent++)
        assert_int_equal(lab_write(&bench->lab, extent * 256, 1, extent + 1), 0);
    assert_int_equal(lab_checkpoint(&bench->lab), 0);
    bench->bad_disk = 1;
    bench->bad_operation = CUT_OP_WRITE;
    for (unsigned extent = 0; extent < 2; extent++)
        lab_write(&bench->lab, extent * 256, 1, extent + 1);
    for (unsigned turn = 0; turn < 5; turn++)
        assert_int_equal(lab_checkpoint(&bench->lab), 0);
    bench->bad_disk = -1;
    struct pool_stats stats;
    struct id more = id_random();
    pool_get_stats(bench->lab.pool, &stats);
    assert_true(stats.reserved_bytes > stats.total_bytes); /* and it says so */
    assert_int_equal(lab_create_volume(&bench->lab, &more, MIB), -ENOSPC);
    for (unsigned round = 0; round < 2; round++) {
        unsigned lost = 0;
        uint8_t *data = lab_buffer(1);
        for (unsigned extent = 0; extent < 400; extent++) {
            int result = lab_read(&bench->lab, extent * 256, 1, data);
            assert_true(result == 0 ? lab_holds(&bench->lab, extent * 256, 1, extent + 1) : result == -EBADMSG);
            lost += result < 0;
        }
        assert_true(lost > 150 && lost < 250);
        free(data);
        lab_close(&bench->lab);
        bench_open(bench, 2); /* what had no room is lost after a restart, too */
    }
    assert_int_equal(disk_add(bench, 2), 0);
    for (unsigned extent = 0; extent < 400; extent++)
        assert_int_equal(lab_write(&bench->lab, extent * 256, 256, 5), 0);
    assert_int_equal(pool_volume_lost_blocks(lab_volume(&bench->lab)), 0);
    bench_free(bench);
}

static int volume_grow(struct bench *bench, uint64_t bytes)
{
    pool_volume_grow(bench->lab.pool, lab_volume(&bench->lab), bytes, lab_done, &bench->lab);
    return lab_wait(&bench->lab);
}

/* --- missing ------------------------------------------------------------------------------------------------------ */

static void missing_disk_is_struck(void **state)
{
    struct bench *bench = bench_new(3);
    volume_fill(bench);
    uint8_t *data = lab_buffer(1);
    lab_close(&bench->lab);
    bench_open(bench, 2); /* the third is not named */
    unsigned lost = lost_extents(bench);
    assert_true(lost > 0 && lost < EXTENTS);
    assert_int_equal(disk_count(bench), 3);
    struct pool_disk_info list[POOL_DISKS_MAX];
    pool_disk_list(bench->lab.pool, list);
    assert_int_equal(list[2].state, POOL_DISK_MISSING);
    for (unsigned extent = 0; extent < EXTENTS; extent++) {
        int first = lab_read(&bench->lab, extent * 256, 1, data),
            other = lab_read(&bench->lab, extent * 256 + 9, 1, data);
        assert_int_equal(first, other); /* a hole of which nothing is known is no zeros */
    }
    assert_true(pool_volume_lost_blocks(lab_volume(&bench->lab)) >= lost * 256);
    lab_close(&bench->lab);
    bench_open(bench, 3); /* too late */
    assert_int_equal(lost_extents(bench), lost);
    assert_int_equal(disk_remove(bench, &list[2].id, true), 0);
    assert_int_equal(disk_count(bench), 2);
    lab_close(&bench->lab);
    bench_open(bench, 3);
    assert_int_equal(lost_extents(bench), lost); /* what it took along stays lost, */
    for (unsigned extent = 0; extent < EXTENTS; extent++)
        assert_int_equal(lab_zero(&bench->lab, extent * 256, 256), 0);
    assert_int_equal(pool_volume_lost_blocks(lab_volume(&bench->lab)), 0); /* until it is written, or UNMAPped */
    lab_close(&bench->lab);
    bench_open(bench, 3);
    assert_true(lab_holds(&bench->lab, 0, 256, 0));
    pool_dirty_clear(bench->lab.pool, lab_volume(&bench->lab), 0, EXTENTS * 256);
    while (pool_volume_used_bytes(lab_volume(&bench->lab)) > 0) /* and then it is a volume like others: empty */
        assert_int_equal(lab_checkpoint(&bench->lab), 0);
    assert_int_equal(volume_grow(bench, (EXTENTS + 1) * MIB), 0);
    free(data);
    bench_free(bench);
}

static void half_is_not_enough(void **state)
{
    struct bench *bench = bench_new(2);
    struct pool *pool = NULL;
    struct err err = {0};
    volume_fill(bench);
    struct id id = disk_info(bench, 1).id;
    pool_close(bench->lab.pool);
    assert_int_equal(pool_open(bench->lab.ring, bench->lab.path_list, 1, &pool, &err), -ENODEV);
    assert_string_equal(err.code, "missing_disks");
    assert_int_equal(pool_open_without(bench->lab.ring, bench->lab.path_list, 1, &id, 1, &bench->lab.pool, &err), 0);
    unsigned lost = lost_extents(bench);
    assert_true(lost > 0 && lost < EXTENTS);
    lab_close(&bench->lab);
    bench_open(bench, 2);
    assert_int_equal(lost_extents(bench), lost);
    bench_free(bench);
}

/* --- growth ------------------------------------------------------------------------------------------------------- */

static void volume_grows(void **state)
{
    struct bench *bench = bench_new(2);
    volume_fill(bench);
    assert_int_equal(volume_grow(bench, EXTENTS * MIB), -EINVAL);
    assert_int_equal(volume_grow(bench, 4000 * MIB), -ENOSPC);
    assert_int_equal(volume_grow(bench, (EXTENTS + 10) * MIB + 4096), 0);
    for (unsigned round = 0; round < 2; round++) {
        assert_int_equal(pool_volume_blocks(lab_volume(&bench->lab)), (EXTENTS + 10) * 256 + 1);
        volume_holds(bench);
        assert_true(lab_holds(&bench->lab, EXTENTS * 256, 257, 0));
        lab_close(&bench->lab);
        bench_open(bench, 2);
    }
    assert_int_equal(lab_write(&bench->lab, (EXTENTS + 10) * 256, 1, 3), 0);
    struct pool_stats stats;
    pool_get_stats(bench->lab.pool, &stats);
    assert_int_equal(stats.reserved_bytes, (EXTENTS + 11) * MIB);
    bench_free(bench);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    log_init("disks", getenv("HCI_LOG") ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR - 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(disk_gives_room),
        cmocka_unit_test(wrong_disk_is_not_added),
        cmocka_unit_test(drained_disk_is_free),
        cmocka_unit_test(drain_is_refused),
        cmocka_unit_test(drain_goes_on_after_restart),
        cmocka_unit_test(drain_while_guests_work),
        cmocka_unit_test(write_error),
        cmocka_unit_test(sync_error),
        cmocka_unit_test(read_error_costs_its_block),
        cmocka_unit_test(last_disk_is_the_pool),
        cmocka_unit_test(no_room_for_the_lost),
        cmocka_unit_test(missing_disk_is_struck),
        cmocka_unit_test(half_is_not_enough),
        cmocka_unit_test(volume_grows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
