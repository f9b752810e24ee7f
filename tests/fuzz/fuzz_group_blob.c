/* What a node keeps of a group, and changes of its metadata as the peer sends them. */
#include <stdlib.h>
#include <string.h>

#include "storaged/group/group_blob.h"
#include "storaged/pool/pool.h"
#include "tests/fuzz/fuzz.h"

static void blob_both_ways(const uint8_t *data, size_t size)
{
    static uint8_t again[POOL_GROUP_BLOB_MAX];
    struct group_blob blob, twice;
    memset(&blob, 0, sizeof(blob));
    memset(&twice, 0, sizeof(twice));
    int r = group_blob_decode(data, (uint32_t)size, &blob);
    if (r == 0) {
        int written = group_blob_encode(&blob, again, sizeof(again));
        check(written > 0 && group_blob_decode(again, (uint32_t)written, &twice) == 0);
        check(twice.volume_count == blob.volume_count && twice.metadata.count == blob.metadata.count);
        metadata_clear(&twice.metadata);
        fuzz_planted(blob.volume_count > 1 && blob.metadata.count > 0);
    }
    metadata_clear(&blob.metadata);
}

static void changes(const uint8_t *data, size_t size)
{
    struct metadata_changes wanted = {0};
    struct metadata before = {0}, after = {0};
    struct bytes_reader reader = bytes_reader_of(data, size);
    if (metadata_changes_decode(&reader, &wanted) == 0) {
        check(metadata_set(&before, "owner", "a") == 0 && metadata_set(&before, "chap", "b") == 0);
        if (metadata_apply(&before, &wanted, &after) == 0)
            check(after.version == before.version + 1);
        metadata_clear(&before);
        metadata_clear(&after);
    }
    metadata_changes_clear(&wanted);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    bool as_changes = fuzz_u8(&input) & 1;
    uint8_t *copy = fuzz_copy(input.data, input.size);
    if (as_changes)
        changes(copy, input.size);
    else
        blob_both_ways(copy, input.size);
    free(copy);
    return 0;
}
