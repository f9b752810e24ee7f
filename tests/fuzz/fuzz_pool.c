/* What a pool finds on its disk: whatever lies there, opening it either says why it cannot or gives a pool that serves,
 * and that opens again. */
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/pool_image.h"

#define DAMAGES_MAX 12u
#define BLOCKS 64u

static void each_group(void *userdata, const struct id *group, const void *blob, uint32_t size)
{
    volatile uint8_t last = size ? ((const uint8_t *)blob)[size - 1] : 0; /* all of it is there */
    (void)last;
    check(size <= POOL_GROUP_BLOB_MAX);
}

static void use_volume(struct pool_image *image, struct pool *pool, struct pool_volume *volume, uint8_t *data)
{
    uint64_t blocks = pool_volume_blocks(volume), dirty;
    for (uint64_t at = 0; at + BLOCKS <= blocks && at < 1024; at += BLOCKS)
        (void)pool_call_io(image, pool_read, pool, volume, at, BLOCKS, data, false);
    (void)pool_dirty_next(pool, volume, 0, 256, &dirty);
    check(pool_volume_lost_blocks(volume) <= blocks);
    memset(data, 0x44, BLOCKS * FORMAT_BLOCK);
    if (blocks < BLOCKS || pool_call_io(image, pool_write, pool, volume, 2, 8, data, true) < 0)
        return;
    memset(data, 0, 8 * FORMAT_BLOCK);
    check(pool_call_io(image, pool_read, pool, volume, 2, 8, data, false) == 0 || pool_failure(pool));
    check(data[0] == 0x44 || pool_failure(pool));
}

/* Nothing that the superblock says may lead beyond the disk. */
static void check_sizes(const struct pool_image *image, const struct pool *pool)
{
    struct pool_stats stats;
    pool_get_stats(pool, &stats);
    check(stats.total_bytes <= image->size && stats.journal_bytes <= image->size);
    check(stats.used_bytes <= stats.total_bytes && stats.journal_used_bytes <= stats.journal_bytes);
}

static bool use(struct pool_image *image, uint8_t *data)
{
    const char *path = image->path;
    struct pool *pool = NULL;
    struct err err = {0};
    if (pool_open(image->ring, &path, 1, &pool, &err) < 0) {
        check(err.text[0] && err.code[0]);
        return false;
    }
    check_sizes(image, pool);
    pool_group_each(pool, each_group, NULL);
    for (unsigned i = 0; i < POOL_IMAGE_VOLUMES; i++) {
        struct pool_volume *volume = pool_volume_find(pool, &image->volumes[i]);
        fuzz_planted(volume && pool_volume_lost_blocks(volume) > 0);
        if (volume)
            use_volume(image, pool, volume, data);
    }
    bool healthy = pool_failure(pool) == 0;
    pool_close(pool);
    return healthy;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pool_image *image = pool_image_of_process();
    struct fuzz_input input = {data, size};
    bool twice = fuzz_u8(&input) & 1;
    void *buffer = NULL;
    check(posix_memalign(&buffer, FORMAT_BLOCK, BLOCKS * FORMAT_BLOCK) == 0);
    pool_image_restore(image);
    for (unsigned i = 0; i < DAMAGES_MAX && input.size; i++)
        pool_image_damage(image, &input);
    if (use(image, buffer) && twice)
        check(use(image, buffer)); /* closed in order: it opens again */
    free(buffer);
    return 0;
}
