/* The pool under power cuts: at thousands of places in the stream of its writes and flushes, whatever a device may then
 * have kept or lost, everything it acknowledged is there. HCI_SEED repeats a run, HCI_ROUNDS makes it longer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#include "common/log.h"
#include "tests/unit/power_cut_load.h"

#define STORIES 6u
#define ROUNDS 4u
#define CUTS 60u

static void story_survives(unsigned disk_count, unsigned tear_bytes, bool unmirrored, uint64_t seed)
{
    struct load_story story;
    load_story_new(&story, disk_count, disk_count, seed);
    story.lab.tear_bytes = tear_bytes;
    story.unmirrored = unmirrored;
    unsigned fails = load_story_run(&story, load_rounds(ROUNDS), CUTS, 1);
    if (fails)
        fail_msg("repeat with HCI_SEED=%llu", (unsigned long long)seed);
    print_message("seed %llu: %u images\n", (unsigned long long)seed, story.lab.image_count);
    load_story_free(&story);
}

static void acknowledged_survives_torn_sectors(void **state)
{
    for (unsigned index = 0; index < STORIES; index++)
        story_survives(1 + index % 3, CUT_SECTOR, index % 2, load_seed() + index);
}

static void acknowledged_survives_torn_blocks(void **state)
{
    for (unsigned index = 0; index < STORIES / 2; index++)
        story_survives(3 - index % 3, 4096, index % 2, load_seed() + index);
}

static void disks_come_and_go(void **state)
{
    for (unsigned index = 0; index < STORIES / 2; index++) {
        struct load_story story;
        uint64_t seed = load_seed() + index;
        load_story_new(&story, 1 + index % 3, 4, seed);
        story.disks_change = true;
        if (load_story_run(&story, load_rounds(ROUNDS), CUTS, 1))
            fail_msg("repeat with HCI_SEED=%llu", (unsigned long long)seed);
        print_message("seed %llu: %u images\n", (unsigned long long)seed, story.lab.image_count);
        load_story_free(&story);
    }
}

/* A disk fails under way, the power some time after: what is left may be lost, never wrong, never silently zeros. */
static void disks_fail(void **state)
{
    for (unsigned index = 0; index < STORIES; index++) {
        struct load_story story;
        uint64_t seed = load_seed() + index;
        load_story_new(&story, 4, 4, seed);
        story.lossy = true;
        if (load_story_run(&story, 3, CUTS, 1))
            fail_msg("repeat with HCI_SEED=%llu", (unsigned long long)seed);
        print_message("seed %llu: %u images\n", (unsigned long long)seed, story.lab.image_count);
        load_story_free(&story);
    }
}

/* The test itself: it must see a pool whose writes or flushes are not durable. */
static void sabotage_is_seen(void **state)
{
    static const enum cut_sabotage kinds[] = {CUT_WRITES_LIE, CUT_FLUSHES_LIE};
    for (unsigned index = 0; index < 2; index++) {
        struct load_story story;
        load_story_new(&story, 2, 2, load_seed());
        story.lab.sabotage = kinds[index];
        story.lab.quiet = true;
        assert_true(load_story_run(&story, 4, CUTS, 1) > 0);
        load_story_free(&story);
    }
}

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    log_init("power-cut", LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(acknowledged_survives_torn_sectors),
        cmocka_unit_test(acknowledged_survives_torn_blocks),
        cmocka_unit_test(disks_come_and_go),
        cmocka_unit_test(disks_fail),
        cmocka_unit_test(sabotage_is_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
