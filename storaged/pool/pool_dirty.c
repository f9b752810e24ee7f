/* Which blocks may differ from the peer's copy: bits in the extents' descriptors. */
#include "common/check.h"
#include "storaged/pool/pool_internal.h"

static void dirty_change(struct pool_volume *volume, uint32_t extent, unsigned first, unsigned count, bool value)
{
    struct format_descriptor *descriptor = pool_extents_descriptor(volume->pool, extent);
    bool changed = false;
    for (unsigned word = 0; word < 4; word++) {
        uint64_t old = descriptor->dirty[word], mask = pool_extents_mask(word, first, count);
        uint64_t new = value ? old | mask : old & ~mask;
        volume->dirty_blocks += (uint64_t)__builtin_popcountll(new) - (uint64_t)__builtin_popcountll(old);
        descriptor->dirty[word] = new;
        changed |= new != old;
    }
    if (!changed)
        return;
    pool_tables_touch(volume->pool, extent, FORMAT_DESCRIPTORS);
    if (!value)
        pool_extents_may_be_empty(volume->pool, extent);
}

static void dirty_change_range(struct pool_volume *volume, uint64_t block, uint64_t count, bool value)
{
    check(block <= volume->blocks && count <= volume->blocks - block);
    for (uint64_t end = block + count; block < end;) {
        unsigned first = (unsigned)(block % FORMAT_EXTENT_BLOCKS);
        uint64_t most = end - block;
        unsigned part = most < FORMAT_EXTENT_BLOCKS - first ? (unsigned)most : FORMAT_EXTENT_BLOCKS - first;
        uint32_t logical = (uint32_t)(block / FORMAT_EXTENT_BLOCKS);
        uint32_t extent = volume->map[logical] ? volume->map[logical] - 1 : pool_extents_of(volume, logical, value);
        if (extent != EXTENT_NONE)
            dirty_change(volume, extent, first, part, value);
        block += part;
    }
}

void pool_dirty_set(struct pool_volume *volume, uint64_t block, uint64_t count)
{
    dirty_change_range(volume, block, count, true);
}

void pool_dirty_clear(struct pool *pool, struct pool_volume *volume, uint64_t block, uint64_t count)
{
    check(volume->pool == pool);
    dirty_change_range(volume, block, count, false);
}

/* First block at or after `from` whose bit is `value`; 256: none. */
static unsigned dirty_find(const struct format_descriptor *descriptor, unsigned from, bool value)
{
    for (unsigned word = from / 64; word < 4; word++) {
        uint64_t marked = descriptor->dirty[word] | descriptor->lost[word];
        uint64_t bits = value ? marked : ~marked;
        if (word == from / 64)
            bits &= ~UINT64_C(0) << (from % 64);
        if (bits)
            return word * 64 + (unsigned)__builtin_ctzll(bits);
    }
    return FORMAT_EXTENT_BLOCKS;
}

static uint32_t hole_run(const struct pool_volume *volume, uint32_t logical, unsigned from, uint32_t most,
                         uint64_t *ret_block)
{
    *ret_block = (uint64_t)logical * FORMAT_EXTENT_BLOCKS + from;
    uint64_t run = FORMAT_EXTENT_BLOCKS - from, left = volume->blocks - *ret_block;
    run = run < left ? run : left;
    return run < most ? (uint32_t)run : most;
}

/* A block whose content is lost differs from the peer's copy as well, whatever its mark says. */
uint32_t pool_dirty_next(struct pool *pool, struct pool_volume *volume, uint64_t block, uint32_t most,
                         uint64_t *ret_block)
{
    bool holes_count = pool_extents_hole_is_lost(volume);
    if ((!volume->dirty_blocks && !volume->lost_blocks && !holes_count) || block >= volume->blocks || !most)
        return 0;
    unsigned from = (unsigned)(block % FORMAT_EXTENT_BLOCKS);
    for (uint32_t logical = (uint32_t)(block / FORMAT_EXTENT_BLOCKS); logical < volume->extent_count;
         logical++, from = 0) {
        if (!volume->map[logical] && holes_count)
            return hole_run(volume, logical, from, most, ret_block);
        if (!volume->map[logical])
            continue;
        const struct format_descriptor *descriptor = pool_extents_descriptor(pool, volume->map[logical] - 1);
        unsigned first = dirty_find(descriptor, from, true);
        if (first == FORMAT_EXTENT_BLOCKS)
            continue;
        unsigned run = dirty_find(descriptor, first, false) - first; /* ends with the extent: the next call goes on */
        *ret_block = (uint64_t)logical * FORMAT_EXTENT_BLOCKS + first;
        return run < most ? run : most;
    }
    return 0;
}

uint64_t pool_dirty_blocks(const struct pool_volume *volume)
{
    return volume->dirty_blocks + pool_volume_lost_blocks(volume); /* a block that is both counts twice */
}
