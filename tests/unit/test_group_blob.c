/* A group's blob and its metadata: round trips, every truncation, limits, compare-and-swap. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "storaged/group/group_blob.h"
#include "storaged/pool/pool.h"

static struct group_blob example(void)
{
    struct group_blob blob = {
        .record = {.epoch = 41, .members = 1, .pending = 42, .incomplete = true, .founding = AUTHORITY_CREATOR, .was_primary = true,
                   .session = {{5}}, .previous_session = {{6}}},
        .name = "web",
        .volume_count = 2,
        .volumes = {{{{7}}, "web-system", 1 << 20}, {{{8}}, "web-data", 2 << 20}},
    };
    blob.metadata.version = 9;
    assert_int_equal(metadata_set(&blob.metadata, "owner", "{\"node\":\"x\"}"), 0);
    assert_int_equal(metadata_set(&blob.metadata, "guest", ""), 0);
    return blob;
}

static void test_round_trip(void **state)
{
    static uint8_t bytes[POOL_GROUP_BLOB_MAX];
    struct group_blob blob = example(), back;
    int size = group_blob_encode(&blob, bytes, sizeof bytes);
    assert_true(size > 0);
    assert_int_equal(group_blob_decode(bytes, (uint32_t)size, &back), 0);
    assert_int_equal(back.record.epoch, 41);
    assert_int_equal(back.record.pending, 42);
    assert_int_equal(back.record.founding, AUTHORITY_CREATOR);
    assert_true(back.record.incomplete && back.record.was_primary);
    assert_memory_equal(&back.record.session, &blob.record.session, sizeof(struct id));
    assert_memory_equal(&back.record.previous_session, &blob.record.previous_session, sizeof(struct id));
    assert_int_equal(back.volume_count, 2);
    assert_string_equal(back.volumes[1].name, "web-data");
    assert_int_equal(back.volumes[1].size_bytes, 2 << 20);
    assert_int_equal(back.metadata.version, 9);
    assert_string_equal(metadata_get(&back.metadata, "owner"), "{\"node\":\"x\"}");
    assert_string_equal(metadata_get(&back.metadata, "guest"), "");
    assert_null(metadata_get(&back.metadata, "chap"));
    metadata_clear(&back.metadata);
    metadata_clear(&blob.metadata);
}

static void test_truncated(void **state)
{
    static uint8_t bytes[POOL_GROUP_BLOB_MAX];
    struct group_blob blob = example(), back;
    int size = group_blob_encode(&blob, bytes, sizeof bytes);
    for (int length = 0; length < size; length++) {
        uint8_t *cut = malloc((size_t)length + 1);
        memcpy(cut, bytes, (size_t)length);
        assert_int_equal(group_blob_decode(cut, (uint32_t)length, &back), -EBADMSG);
        assert_int_equal(group_blob_encode(&blob, cut, (uint32_t)length), -ENOSPC);
        free(cut);
    }
    bytes[size] = 0;
    assert_int_equal(group_blob_decode(bytes, (uint32_t)size + 1, &back), -EBADMSG); /* something left over */
    metadata_clear(&blob.metadata);
}

/* The largest group there may be fits the pool's blob. */
static void test_largest_fits(void **state)
{
    static uint8_t bytes[POOL_GROUP_BLOB_MAX];
    struct group_blob blob = {.name = "big", .volume_count = GROUP_VOLUMES_MAX}, back;
    for (unsigned i = 0; i < GROUP_VOLUMES_MAX; i++)
        snprintf(blob.volumes[i].name, GROUP_NAME_SIZE, "volume%u", i);
    char key[METADATA_KEY_SIZE], value[METADATA_BYTES_MAX / METADATA_ENTRIES_MAX - 7];
    memset(value, 'v', sizeof value - 1);
    value[sizeof value - 1] = 0;
    for (unsigned i = 0; i < METADATA_ENTRIES_MAX; i++) {
        snprintf(key, sizeof key, "key%u", i);
        assert_int_equal(metadata_set(&blob.metadata, key, value), 0);
    }
    assert_int_equal(metadata_set(&blob.metadata, "one-more", "x"), -ENOSPC);
    assert_int_equal(metadata_set(&blob.metadata, "key0", value), 0);
    int size = group_blob_encode(&blob, bytes, sizeof bytes);
    assert_true(size > 0);
    assert_int_equal(group_blob_decode(bytes, (uint32_t)size, &back), 0);
    assert_int_equal(back.metadata.count, METADATA_ENTRIES_MAX);
    metadata_clear(&back.metadata);
    metadata_clear(&blob.metadata);
}

static void test_swap(void **state)
{
    struct metadata map = {.version = 3}, next = {0};
    struct metadata_changes changes = {0};
    assert_int_equal(metadata_set(&map, "a", "1"), 0);
    assert_int_equal(metadata_set(&map, "b", "2"), 0);
    assert_int_equal(metadata_changes_add(&changes, "a", "1", NULL), 0);
    assert_int_equal(metadata_changes_add(&changes, "c", NULL, "3"), 0);
    assert_int_equal(metadata_apply(&map, &changes, &next), 0);
    assert_int_equal(next.version, 4);
    assert_null(metadata_get(&next, "a"));
    assert_string_equal(metadata_get(&next, "b"), "2");
    assert_string_equal(metadata_get(&next, "c"), "3");
    struct metadata same = {0};
    assert_int_equal(metadata_apply(&next, &changes, &same), -ESTALE); /* a is gone, c is there */
    assert_int_equal(same.count, 0);
    uint8_t bytes[256];
    struct bytes_writer writer = bytes_writer_of(bytes, sizeof bytes);
    metadata_changes_encode(&changes, &writer);
    assert_false(writer.failed);
    for (size_t length = 0; length <= bytes_written(&writer); length++) {
        struct metadata_changes back = {0};
        struct bytes_reader reader = bytes_reader_of(bytes, length);
        assert_int_equal(metadata_changes_decode(&reader, &back), length == bytes_written(&writer) ? 0 : -EBADMSG);
        if (back.count)
            assert_null(back.items[0].value);
        metadata_changes_clear(&back);
    }
    metadata_changes_clear(&changes);
    metadata_clear(&map);
    metadata_clear(&next);
}

static void test_keys(void **state)
{
    struct metadata map = {0};
    char key[METADATA_KEY_SIZE + 1];
    memset(key, 'k', sizeof key - 1);
    key[METADATA_KEY_SIZE] = 0;
    assert_int_equal(metadata_set(&map, "", "x"), -EINVAL);
    assert_int_equal(metadata_set(&map, key, "x"), -EINVAL);
    assert_int_equal(metadata_set(&map, key + 1, "x"), 0);
    assert_int_equal(metadata_set(&map, key + 1, NULL), 0);
    assert_int_equal(map.count, 0);
    metadata_clear(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_truncated), cmocka_unit_test(test_largest_fits),
        cmocka_unit_test(test_swap),       cmocka_unit_test(test_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
