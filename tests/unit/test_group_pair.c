/* Two engines over a real mirror link: what one acknowledges both have, also across cuts and restarts. */
#include <limits.h>

#include "pair_lab.h"

#define VOLUME_BYTES ((uint64_t)16 << 20)
#define BLOCKS (VOLUME_BYTES / 4096)
#define SECTORS_PER_BLOCK 8

static uint8_t *pattern(uint8_t *data, uint64_t seed, size_t size)
{
    for (size_t i = 0; i < size; i += 8) {
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        uint64_t mixed = seed ^ seed >> 29;
        memcpy(data + i, &mixed, 8);
    }
    return data;
}

struct story {
    struct lab *lab;
    struct lab_node *a, *b;
    struct id volume;
    uint8_t *data, *back; /* 1 MiB each */
};

/* A test that failed leaves its engines behind: each gets ports of its own. */
static uint16_t next_port(void)
{
    static unsigned count;
    return (uint16_t)(20000 + (getpid() * 16 + count++) % 12000);
}

static struct story begin(void)
{
    struct story story = {.lab = lab_new(next_port())};
    story.a = &story.lab->nodes[0];
    story.b = &story.lab->nodes[1];
    story.data = aligned_alloc(4096, 1 << 20);
    story.back = aligned_alloc(4096, 1 << 20);
    lab_start(story.a);
    lab_start(story.b);
    story.volume = lab_create(story.lab, 0, "vol", VOLUME_BYTES);
    lab_wait_role(story.a, "vol", AUTHORITY_PRIMARY);
    lab_wait_role(story.b, "vol", AUTHORITY_SECONDARY);
    return story;
}

static void end(struct story *story)
{
    lab_free(story->lab);
    free(story->data);
    free(story->back);
}

static void write_blocks(struct story *story, struct lab_node *node, uint64_t block, uint32_t count, uint64_t seed)
{
    pattern(story->data, seed, (size_t)count * 4096);
    assert_int_equal(lab_io_again(node, "vol", LUN_WRITE, block * SECTORS_PER_BLOCK, count * SECTORS_PER_BLOCK, story->data), LUN_OK);
}

static void expect_blocks(struct story *story, struct lab_node *node, uint64_t block, uint32_t count, uint64_t seed)
{
    pattern(story->data, seed, (size_t)count * 4096);
    memset(story->back, 0xee, (size_t)count * 4096);
    assert_int_equal(lab_io_again(node, "vol", LUN_READ, block * SECTORS_PER_BLOCK, count * SECTORS_PER_BLOCK, story->back), LUN_OK);
    assert_memory_equal(story->back, story->data, (size_t)count * 4096);
}

static void test_write_and_forward(void **state)
{
    struct story story = begin();
    write_blocks(&story, story.a, 10, 4, 1);
    expect_blocks(&story, story.a, 10, 4, 1);
    expect_blocks(&story, story.b, 10, 4, 1);
    write_blocks(&story, story.b, 12, 256, 2);
    expect_blocks(&story, story.a, 12, 256, 2);
    expect_blocks(&story, story.b, 10, 2, 1);
    assert_int_equal(lab_io(story.b, "vol", LUN_FLUSH, 0, 0, NULL), LUN_OK);
    lab_assert_equal_copies(story.lab, &story.volume, BLOCKS);
    end(&story);
}

/* R2's read-modify-write: sectors of one block, of two, unmapped ones. */
static void test_unaligned(void **state)
{
    struct story story = begin();
    uint8_t *model = calloc(1, 64 * 4096);
    write_blocks(&story, story.a, 0, 64, 3);
    pattern(model, 3, 64 * 4096);
    static const struct { uint32_t sector, sectors; } places[] = {{1, 1}, {7, 2}, {9, 30}, {0, 3}, {100, 4}, {64, 8}, {17, 200}};
    for (unsigned i = 0; i < sizeof places / sizeof places[0]; i++) {
        struct lab_node *node = i % 2 ? story.b : story.a;
        uint32_t sector = places[i].sector, sectors = places[i].sectors;
        memcpy(model + sector * 512, pattern(story.data, 50 + i, sectors * 512), sectors * 512);
        assert_int_equal(lab_io(node, "vol", LUN_WRITE, sector, sectors, story.data), LUN_OK);
        assert_int_equal(lab_io(story.a, "vol", LUN_READ, 0, 512, story.back), LUN_OK);
        assert_memory_equal(story.back, model, 64 * 4096);
    }
    memset(model + 5 * 512, 0, 300 * 512);
    assert_int_equal(lab_io(story.b, "vol", LUN_UNMAP, 5, 300, NULL), LUN_OK);
    assert_int_equal(lab_io(story.b, "vol", LUN_READ, 3, 400, story.back), LUN_OK);
    assert_memory_equal(story.back, model + 3 * 512, 400 * 512);
    lab_assert_equal_copies(story.lab, &story.volume, BLOCKS);
    free(model);
    end(&story);
}

static int swap(struct lab_node *node, const char *key, const char *expected, const char *value, uint64_t *ret_version)
{
    struct lab_call waiting = {.call = {.kind = ENGINE_META_SWAP, .group_name = "vol"}};
    assert_int_equal(metadata_changes_add(&waiting.call.changes, key, expected, value), 0);
    int result = lab_call(node, &waiting);
    if (ret_version)
        *ret_version = waiting.call.version;
    metadata_changes_clear(&waiting.call.changes);
    metadata_clear(&waiting.call.metadata);
    return result;
}

static void expect_meta(struct lab_node *node, const char *key, const char *value)
{
    for (unsigned attempt = 0;; attempt++) {
        struct lab_call waiting = {.call = {.kind = ENGINE_META_GET, .group_name = "vol"}};
        assert_int_equal(lab_call(node, &waiting), 0);
        const char *text = metadata_get(&waiting.call.metadata, key);
        bool equal = text && strcmp(text, value) == 0;
        metadata_clear(&waiting.call.metadata);
        if (equal)
            return;
        if (attempt == 100)
            fail_msg("node %c: key %s is not %s", 'a' + (int)node->index, key, value);
        usleep(10000);
    }
}

/* SBC-4 §5.3: at the primary and, forwarded, at the other node; the result is on both. */
static void test_compare_and_write(void **state)
{
    struct story story = begin();
    uint8_t *model = calloc(1, 4 * 4096);
    write_blocks(&story, story.a, 0, 4, 21);
    pattern(model, 21, 4 * 4096);
    for (unsigned i = 0; i < 2; i++) {
        struct lab_node *node = i ? story.b : story.a;
        uint32_t sector = 5 + i, sectors = 11;
        size_t size = sectors * 512;
        memcpy(story.data, model + sector * 512, size);
        pattern(story.data + size, 30 + i, size);
        struct lab_io io = {.volume = "vol", .request = {.opcode = LUN_COMPARE_WRITE, .sector = sector, .sectors = sectors, .data = story.data}};
        lab_do(node, lab_io_run, &io, 40);
        assert_int_equal(io.status, LUN_OK);
        memcpy(model + sector * 512, story.data + size, size);
        lab_do(node, lab_io_run, &io, 40); /* what it compares with is there no more */
        assert_int_equal(io.status, LUN_MISCOMPARE);
        assert_int_equal(io.request.miscompare_offset, 0);
        memcpy(story.data, model + sector * 512, size);
        story.data[1234] ^= 1;
        lab_do(node, lab_io_run, &io, 40);
        assert_int_equal(io.status, LUN_MISCOMPARE);
        assert_int_equal(io.request.miscompare_offset, 1234);
        assert_int_equal(lab_io(story.a, "vol", LUN_READ, 0, 32, story.back), LUN_OK);
        assert_memory_equal(story.back, model, 4 * 4096);
    }
    lab_assert_equal_copies(story.lab, &story.volume, BLOCKS);
    free(model);
    end(&story);
}

static void test_or_write(void **state)
{
    struct story story = begin();
    uint8_t *model = calloc(1, 64 * 4096);
    write_blocks(&story, story.a, 0, 64, 40);
    pattern(model, 40, 64 * 4096);
    static const struct { uint32_t sector, sectors; } places[] = {{0, 8}, {3, 1}, {6, 4}, {9, 400}};
    for (unsigned i = 0; i < 8; i++) {
        uint32_t sector = places[i / 2].sector, sectors = places[i / 2].sectors;
        pattern(story.data, 50 + i, sectors * 512);
        for (size_t at = 0; at < sectors * 512; at++)
            model[sector * 512 + at] |= story.data[at];
        assert_int_equal(lab_io(i % 2 ? story.b : story.a, "vol", LUN_OR_WRITE, sector, sectors, story.data), LUN_OK);
        assert_int_equal(lab_io(story.b, "vol", LUN_READ, 0, 512, story.back), LUN_OK);
        assert_memory_equal(story.back, model, 64 * 4096);
    }
    lab_assert_equal_copies(story.lab, &story.volume, BLOCKS);
    free(model);
    end(&story);
}

static void expect_map(struct lab_node *node, uint64_t sector, uint32_t sectors, bool mapped, uint64_t run_sectors)
{
    struct lab_io io = {.volume = "vol", .request = {.opcode = LUN_MAP, .sector = sector, .sectors = sectors}};
    lab_do(node, lab_io_run, &io, 40);
    assert_int_equal(io.status, LUN_OK);
    assert_int_equal(io.request.mapped, mapped);
    assert_int_equal(io.request.run_sectors, run_sectors);
}

static void test_map(void **state)
{
    struct story story = begin();
    write_blocks(&story, story.a, 8, 8, 60);
    for (unsigned i = 0; i < 2; i++) {
        struct lab_node *node = i ? story.b : story.a;
        expect_map(node, 0, 64, false, 64);
        expect_map(node, 3, 500, false, 61);
        expect_map(node, 66, 500, true, 62);
        expect_map(node, 66, 5, true, 5);
        expect_map(node, 128, BLOCKS * SECTORS_PER_BLOCK - 128, false, BLOCKS * SECTORS_PER_BLOCK - 128);
    }
    end(&story);
}

/* Two nodes count in one sector by COMPARE AND WRITE, as cluster software takes its locks: no count is lost. */
struct counter {
    struct lab_node *node;
    unsigned goal, won;
    _Atomic bool stop;
};

static void *count_up(void *argument)
{
    struct counter *counter = argument;
    uint8_t *data = aligned_alloc(4096, 4096);
    uint64_t value = 0;
    while (counter->won < counter->goal && !counter->stop) {
        memset(data, 0, 1024);
        uint64_t next = value + 1;
        memcpy(data, &value, 8);
        memcpy(data + 512, &next, 8);
        int status = lab_io_again(counter->node, "vol", LUN_COMPARE_WRITE, 77, 1, data);
        counter->won += status == LUN_OK;
        if (status != LUN_OK && status != LUN_MISCOMPARE)
            break;
        if (lab_io_again(counter->node, "vol", LUN_READ, 77, 1, data) != LUN_OK)
            break;
        memcpy(&value, data, 8);
    }
    free(data);
    return NULL;
}

static void test_compare_and_write_is_atomic(void **state)
{
    struct story story = begin();
    struct counter counters[3] = {{.node = story.a, .goal = 50}, {.node = story.b, .goal = 50}, {.node = story.b, .goal = 50}};
    pthread_t threads[3];
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_up, &counters[i]), 0);
    for (unsigned i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(lab_io(story.a, "vol", LUN_READ, 77, 1, story.back), LUN_OK);
    uint64_t value;
    memcpy(&value, story.back, 8);
    assert_int_equal(value, 150);
    lab_assert_equal_copies(story.lab, &story.volume, BLOCKS);
    end(&story);
}

/* R4: one that is held and carried out anew may find that its first attempt had written. It has succeeded, once. */
static void test_compare_and_write_across_cuts(void **state)
{
    struct story story = begin();
    struct counter counter = {.node = story.a, .goal = UINT_MAX};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, count_up, &counter), 0);
    for (unsigned round = 0; round < 8; round++) {
        usleep(50000);
        lab_cut(story.lab, true);
        lab_wait_role(story.a, "vol", AUTHORITY_SOLE);
        lab_cut(story.lab, false);
        lab_wait_role(story.a, "vol", AUTHORITY_PRIMARY);
    }
    counter.stop = true;
    pthread_join(thread, NULL);
    assert_int_equal(lab_io(story.a, "vol", LUN_READ, 77, 1, story.back), LUN_OK);
    uint64_t value;
    memcpy(&value, story.back, 8);
    assert_true(value > 8);
    assert_int_equal(value, counter.won);
    end(&story);
}

static void test_metadata(void **state)
{
    struct story story = begin();
    uint64_t version;
    assert_int_equal(swap(story.a, "guest", NULL, "one", &version), 0);
    assert_int_equal(version, 1);
    expect_meta(story.b, "guest", "one");
    assert_int_equal(swap(story.b, "guest", "one", "two", &version), 0);
    assert_int_equal(version, 2);
    expect_meta(story.a, "guest", "two");
    assert_int_equal(swap(story.b, "guest", "one", "three", NULL), -ESTALE);
    assert_int_equal(swap(story.a, "guest", NULL, "three", NULL), -ESTALE);
    lab_cut(story.lab, true);
    lab_wait_role(story.a, "vol", AUTHORITY_SOLE);
    assert_int_equal(swap(story.a, "guest", "two", "four", &version), 0);
    lab_cut(story.lab, false);
    lab_wait_role(story.a, "vol", AUTHORITY_PRIMARY);
    expect_meta(story.b, "guest", "four");
    end(&story);
}

static void test_cut_and_resync(void **state)
{
    struct story story = begin();
    for (unsigned i = 0; i < 8; i++)
        write_blocks(&story, story.a, i * 256, 256, 100 + i);
    lab_cut(story.lab, true);
    lab_wait_role(story.a, "vol", AUTHORITY_SOLE);
    write_blocks(&story, story.a, 300, 3, 7);
    write_blocks(&story, story.a, 1000, 1, 8);
    expect_blocks(&story, story.a, 300, 3, 7);
    lab_cut(story.lab, false);
    lab_wait_role(story.a, "vol", AUTHORITY_PRIMARY);
    lab_wait_role(story.b, "vol", AUTHORITY_SECONDARY);
    assert_int_equal(lab_group(story.a, "vol").state.epoch, 3);
    assert_int_equal(story.a->resyncs_done, 1);
    assert_int_equal(story.a->resync_copied, 4 * 4096); /* only what differs */
    lab_assert_equal_copies(story.lab, &story.volume, BLOCKS);
    expect_blocks(&story, story.b, 300, 3, 7);
    end(&story);
}

struct writer {
    struct story *story;
    struct lab_node *node;
    uint64_t first;
    _Atomic bool stop;
    _Atomic unsigned written;
    uint64_t seeds[64];
};

static void *write_on(void *argument)
{
    struct writer *writer = argument;
    uint8_t *data = aligned_alloc(4096, 4096);
    for (uint64_t i = 0; !writer->stop; i++) {
        uint64_t slot = i * 7 % 64, seed = writer->first * 100000 + i;
        pattern(data, seed, 4096);
        if (lab_io_again(writer->node, "vol", LUN_WRITE, (writer->first + slot) * SECTORS_PER_BLOCK, SECTORS_PER_BLOCK, data) != LUN_OK)
            break;
        writer->seeds[slot] = seed;
        writer->written++;
    }
    free(data);
    return NULL;
}

static void expect_written(struct story *story, struct lab_node *node, const struct writer *writer)
{
    for (unsigned i = 0; i < 64; i++)
        if (writer->seeds[i])
            expect_blocks(story, node, writer->first + i, 1, writer->seeds[i]);
}

/* Writers at both nodes while the link breaks again and again: nothing acknowledged is lost, the copies end equal. */
static void test_cuts_under_load(void **state)
{
    struct story story = begin();
    struct writer writers[3] = {
        {.story = &story, .node = story.a, .first = 0}, {.story = &story, .node = story.b, .first = 512}, {.story = &story, .node = story.a, .first = 1024}};
    pthread_t threads[3];
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_on, &writers[i]), 0);
    for (unsigned round = 0; round < 5; round++) {
        usleep(150000);
        lab_cut(story.lab, true);
        lab_wait_role(story.a, "vol", AUTHORITY_SOLE);
        usleep(150000);
        lab_cut(story.lab, false);
        lab_wait_role(story.a, "vol", AUTHORITY_PRIMARY);
    }
    for (unsigned i = 0; i < 3; i++)
        writers[i].stop = true;
    for (unsigned i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        print_message("writer %u: %u writes\n", i, writers[i].written);
        assert_true(writers[i].written > 20);
    }
    for (unsigned i = 0; i < 3; i++) {
        expect_written(&story, story.a, &writers[i]);
        expect_written(&story, story.b, &writers[i]);
    }
    lab_assert_equal_copies(story.lab, &story.volume, BLOCKS);
    end(&story);
}

/* R6: both stop with what they had in flight; either order of start; no witness needed. */
static void test_both_restart(void **state)
{
    struct story story = begin();
    for (unsigned i = 0; i < 4; i++)
        write_blocks(&story, story.a, i * 64, 64, 200 + i);
    assert_int_equal(swap(story.a, "guest", NULL, "kept", NULL), 0);
    unsigned asked = story.lab->asked;
    lab_stop(story.a);
    lab_stop(story.b);
    story.lab->witness_silent = true;
    lab_start(story.b);
    lab_start(story.a);
    lab_wait_role(story.a, "vol", AUTHORITY_PRIMARY);
    assert_int_equal(story.lab->asked, asked);
    assert_int_equal(lab_group(story.a, "vol").state.epoch, 1);
    for (unsigned i = 0; i < 4; i++)
        expect_blocks(&story, story.b, i * 64, 64, 200 + i);
    expect_meta(story.b, "guest", "kept");
    lab_assert_equal_copies(story.lab, &story.volume, BLOCKS);
    end(&story);
}

/* The survivor serves, restarts alone, serves on; the other is then brought up to date. */
static void test_sole_restart(void **state)
{
    struct story story = begin();
    write_blocks(&story, story.a, 0, 32, 300);
    lab_stop(story.a);
    lab_hear(story.b, false);
    lab_wait_role(story.b, "vol", AUTHORITY_SOLE);
    write_blocks(&story, story.b, 16, 32, 301);
    lab_stop(story.b);
    lab_start(story.b);
    lab_wait_role(story.b, "vol", AUTHORITY_SOLE);
    write_blocks(&story, story.b, 100, 1, 302);
    lab_start(story.a);
    lab_wait_role(story.b, "vol", AUTHORITY_PRIMARY);
    lab_wait_role(story.a, "vol", AUTHORITY_SECONDARY);
    expect_blocks(&story, story.a, 0, 16, 300);
    expect_blocks(&story, story.a, 16, 32, 301);
    expect_blocks(&story, story.a, 100, 1, 302);
    lab_assert_equal_copies(story.lab, &story.volume, BLOCKS);
    end(&story);
}

/* R1: a lease that lapsed stops completions at once; a new generation needs a new session. */
static void test_lease_lapse(void **state)
{
    struct story story = begin();
    write_blocks(&story, story.a, 0, 1, 400);
    atomic_store(&story.a->page->witness_until_ns, 0);
    usleep(200000);
    assert_false(lab_group(story.a, "vol").state.serving);
    atomic_fetch_add(&story.a->page->generation, 1);
    atomic_store(&story.a->page->witness_until_ns, UINT64_MAX);
    expect_blocks(&story, story.b, 0, 1, 400);
    write_blocks(&story, story.a, 0, 1, 401);
    expect_blocks(&story, story.b, 0, 1, 401);
    end(&story);
}

static void test_create_and_delete(void **state)
{
    struct story story = begin();
    struct lab_call again = {.call = {.kind = ENGINE_VOLUME_CREATE, .size_bytes = 1 << 20, .name = "vol"}};
    assert_int_equal(lab_call(story.a, &again), -EEXIST);
    struct lab_call big = {.call = {.kind = ENGINE_VOLUME_CREATE, .size_bytes = (uint64_t)1 << 40, .name = "big"}};
    assert_int_equal(lab_call(story.b, &big), -ENOSPC);
    struct lab_call second = {.call = {.kind = ENGINE_VOLUME_CREATE, .size_bytes = 1 << 20, .name = "second", .group_name = "vol"}};
    if (lab_call(story.a, &second) < 0)
        fail_msg("%s", second.call.err.text);
    assert_int_equal(lab_group(story.b, "vol").volume_count, 2);
    assert_int_equal(lab_io(story.b, "second", LUN_READ, 0, 8, story.back), LUN_OK);
    struct lab_call used = {.call = {.kind = ENGINE_VOLUME_DELETE, .name = "second"}};
    assert_int_equal(lab_call(story.b, &used), -EBUSY);
    lab_close_nexus(story.b);
    struct lab_call gone = {.call = {.kind = ENGINE_VOLUME_DELETE, .name = "second"}};
    if (lab_call(story.b, &gone) < 0)
        fail_msg("%s", gone.call.err.text);
    assert_int_equal(lab_group(story.a, "vol").volume_count, 1);
    struct lab_call all = {.call = {.kind = ENGINE_VOLUME_DELETE, .name = "vol"}};
    if (lab_call(story.a, &all) < 0)
        fail_msg("%s", all.call.err.text);
    assert_int_equal(lab_group(story.a, "vol").volume_count, 0);
    assert_int_equal(lab_group(story.b, "vol").volume_count, 0);
    lab_create(story.lab, 1, "vol", VOLUME_BYTES);
    end(&story);
}

int main(void)
{
    log_init("pair", getenv("PAIR_DEBUG") ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_write_and_forward), cmocka_unit_test(test_unaligned),       cmocka_unit_test(test_metadata),
        cmocka_unit_test(test_cut_and_resync),    cmocka_unit_test(test_cuts_under_load), cmocka_unit_test(test_both_restart),
        cmocka_unit_test(test_sole_restart),      cmocka_unit_test(test_lease_lapse),     cmocka_unit_test(test_create_and_delete),
        cmocka_unit_test(test_compare_and_write), cmocka_unit_test(test_or_write),        cmocka_unit_test(test_map),
        cmocka_unit_test(test_compare_and_write_is_atomic), cmocka_unit_test(test_compare_and_write_across_cuts),
    };
    cmocka_set_test_filter(getenv("PAIR_TEST"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
