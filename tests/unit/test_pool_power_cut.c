/* The pool under power cuts: at thousands of places in the stream of its writes and flushes, whatever a device may then
 * have kept or lost, everything it acknowledged is there. HCI_SEED chooses other stories (0: new ones each time), HCI_ROUNDS
 * more of them. */
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
#define CUTS 40u

/* All that is special about a story follows from its seed: HCI_SEED then repeats it as the first one. */
struct variant {
    unsigned disks, lab_disks, tear_bytes, rounds;
    bool unmirrored, disks_change, lossy;
};

static void story_survives(const struct variant *variant, uint64_t seed)
{
    struct load_story story;
    load_story_new(&story, variant->disks, variant->lab_disks, seed);
    story.lab.tear_bytes = variant->tear_bytes;
    story.unmirrored = variant->unmirrored;
    story.disks_change = variant->disks_change;
    story.lossy = variant->lossy;
    if (load_story_run(&story, variant->rounds, CUTS, 1))
        fail_msg("repeat with HCI_SEED=%llu", (unsigned long long)seed);
    print_message("seed %llu: %u images\n", (unsigned long long)seed, story.lab.image_count);
    load_story_free(&story);
}

static void acknowledged_survives_torn_sectors(void **state)
{
    uint64_t seed = load_seed();
    for (uint64_t end = seed + STORIES; seed < end; seed++) {
        unsigned disks = 1 + (unsigned)(seed % 3);
        story_survives(&(struct variant){disks, disks, CUT_SECTOR, load_rounds(ROUNDS), seed % 2, false, false}, seed);
    }
}

static void acknowledged_survives_torn_blocks(void **state)
{
    uint64_t seed = load_seed();
    for (uint64_t end = seed + STORIES / 2; seed < end; seed++) {
        unsigned disks = 1 + (unsigned)(seed % 3);
        story_survives(&(struct variant){disks, disks, 4096, load_rounds(ROUNDS), seed % 2, false, false}, seed);
    }
}

static void disks_come_and_go(void **state)
{
    uint64_t seed = load_seed();
    for (uint64_t end = seed + STORIES / 2; seed < end; seed++) {
        unsigned disks = 1 + (unsigned)(seed % 3);
        story_survives(&(struct variant){disks, 4, CUT_SECTOR, load_rounds(ROUNDS), false, true, false}, seed);
    }
}

/* A disk fails under way, the power some time after: what is left may be lost, never wrong, never silently zeros. Every
 * second time disks come and go as well. */
static void disks_fail(void **state)
{
    uint64_t seed = load_seed();
    for (uint64_t end = seed + STORIES; seed < end; seed++)
        story_survives(&(struct variant){4, 4 + (unsigned)(seed % 2), CUT_SECTOR, 3, false, seed % 2, true}, seed);
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
