/* What of the pool goes to its place, in which order, on a disk that finishes requests late and out of order. That no
 * two overlapping ones are ever at the disk together is checked by the simulated disk itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/pool_lab.h"
#include "tests/unit/power_cut_disk.h"

#define WRITES 200u

struct place_lab {
    struct lab lab;
    struct cut_device device;
};

static void begin(struct place_lab *place, uint64_t seed)
{
    struct lab *lab = &place->lab;
    *lab = (struct lab){.disk_count = 1, .group = {{1}}, .volume = {{2}}};
    cut_device_new(&place->device, 1, LAB_DISK_BYTES, seed);
    place->device.mode = CUT_TOUCH;
    cut_device_use(&place->device);
    lab->path_list[0] = place->device.disks[0].path;
    struct pool_create_options options = {.paths = lab->path_list, .path_count = 1, .node = {{3}}};
    struct id id;
    struct err err = {0};
    check(pool_create(&options, &id, &err) == 0);
    lab_open(lab);
    check(lab_create_volume(lab, &lab->volume, 16 << 20) == 0);
    check(lab_write(lab, 0, 1, 1) == 0); /* its extent */
    check(lab_checkpoint(lab) == 0);
    place->device.mode = CUT_RECORD;
}

static void end(struct place_lab *place)
{
    lab_close(&place->lab);
    cut_device_use(NULL);
    cut_device_free(&place->device);
}

static uint64_t data_offset(const struct place_lab *place)
{
    const struct format_super *super = (const void *)place->device.disks[0].image;
    return super->data_offset;
}

/* Writes that reached blocks [first, first + count) of the volume's first extent. */
static unsigned places_count(const struct place_lab *place, unsigned first, unsigned count)
{
    uint64_t from = data_offset(place) + first * 4096ull, upto = from + count * 4096ull;
    unsigned found = 0;
    for (uint32_t index = 0; index < place->device.log->event_count; index++) {
        const struct cut_event *event = &place->device.log->events[index];
        found += event->kind == CUT_WRITE && event->offset < upto && event->offset + event->size > from;
    }
    return found;
}

static bool place_holds(const struct place_lab *place, unsigned block, uint64_t version)
{
    uint8_t expected[4096];
    lab_fill(expected, block, version);
    return memcmp(place->device.disks[0].image + data_offset(place) + block * 4096ull, expected, 4096) == 0;
}

/* The same blocks again and again, each write as soon as the one before is done. */
struct chain {
    struct pool_io io;
    struct lab *lab;
    uint64_t version;
};

static void chain_next(struct pool_io *io, int result)
{
    struct chain *chain = (struct chain *)io;
    check(result == 0);
    if (chain->version == WRITES) {
        lab_done(chain->lab, 0);
        return;
    }
    chain->version++;
    lab_fill_range(io->data, io->block, io->count, chain->version);
    pool_write(chain->lab->pool, io);
}

static void overwritten_data_are_placed_once(void **state)
{
    struct place_lab place;
    begin(&place, 1);
    struct chain chain = {.lab = &place.lab};
    chain.io = (struct pool_io){.done = chain_next, .volume = lab_volume(&place.lab), .block = 8, .count = 4,
                                .data = lab_buffer(4), .dirty = true};
    chain_next(&chain.io, 0);
    assert_int_equal(lab_wait(&place.lab), 0);
    assert_true(lab_holds(&place.lab, 8, 4, WRITES)); /* although it may not be in its place yet */
    assert_int_equal(lab_checkpoint(&place.lab), 0);
    unsigned count = places_count(&place, 8, 4);
    assert_true(count >= 1 && count < WRITES);
    for (unsigned block = 8; block < 12; block++)
        assert_true(place_holds(&place, block, WRITES));
    free(chain.io.data);
    end(&place);
}

struct row {
    struct lab *lab;
    unsigned running;
};

static void row_done(struct pool_io *io, int result)
{
    struct row *row = io->private_data;
    check(result == 0);
    if (--row->running == 0)
        lab_done(row->lab, 0);
}

static void neighbours_go_together(void **state)
{
    enum { COUNT = 32 };
    static struct pool_io ios[COUNT];
    struct place_lab place;
    begin(&place, 2);
    struct row row = {.lab = &place.lab, .running = COUNT};
    for (unsigned index = 0; index < COUNT; index++) {
        ios[index] = (struct pool_io){.done = row_done, .volume = lab_volume(&place.lab), .block = 100 + index,
                                      .count = 1, .data = lab_buffer(1), .dirty = true, .private_data = &row};
        lab_fill(ios[index].data, 100 + index, 5);
        pool_write(place.lab.pool, &ios[index]);
    }
    assert_int_equal(lab_wait(&place.lab), 0);
    assert_int_equal(lab_checkpoint(&place.lab), 0);
    assert_int_equal(places_count(&place, 100, COUNT), COUNT / 16);
    for (unsigned index = 0; index < COUNT; index++) {
        assert_true(place_holds(&place, 100 + index, 5));
        free(ios[index].data);
    }
    end(&place);
}

/* Small and large writes over each other: a later one is never under an earlier one that was still on its way. */
static void later_writes_come_later(void **state)
{
    static const uint32_t counts[] = {1, 100, 4, 40, 16, 17, 2, 64};
    for (uint64_t seed = 10; seed < 30; seed++) {
        struct place_lab place;
        begin(&place, seed);
        for (uint64_t version = 1; version <= 60; version++)
            assert_int_equal(lab_write(&place.lab, 20 - version % 20, counts[version % 8] + 20, version), 0);
        for (uint64_t version = 61; version <= 100; version++)
            assert_int_equal(lab_write(&place.lab, 20, counts[version % 8], version), 0);
        assert_true(lab_holds(&place.lab, 20, 4, 100));
        assert_int_equal(lab_checkpoint(&place.lab), 0);
        for (unsigned block = 20; block < 24; block++) /* version 100 has 16 blocks */
            assert_true(place_holds(&place, block, 100));
        assert_true(place_holds(&place, 36, 99)); /* 40 blocks */
        assert_true(place_holds(&place, 60, 97)); /* 100 blocks */
        end(&place);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(overwritten_data_are_placed_once),
        cmocka_unit_test(neighbours_go_together),
        cmocka_unit_test(later_writes_come_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
