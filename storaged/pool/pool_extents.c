/* Extents: handing them out, which of their blocks were written or lost. */
#include <errno.h>
#include <isa-l/crc.h>
#include <string.h>

#include "common/check.h"
#include "common/log.h"
#include "storaged/pool/pool_internal.h"

struct pool_disk *pool_extents_disk(struct pool *pool, uint32_t extent)
{
    struct pool_disk *disk = &pool->disks[extent >> EXTENT_DISK_SHIFT];
    check((extent & EXTENT_LOCAL_MASK) < disk->extent_count);
    return disk;
}

struct format_descriptor *pool_extents_descriptor(struct pool *pool, uint32_t extent)
{
    return &pool_extents_disk(pool, extent)->descriptors[extent & EXTENT_LOCAL_MASK];
}

uint32_t *pool_extents_busy(struct pool *pool, uint32_t extent)
{
    return &pool_extents_disk(pool, extent)->busy[extent & EXTENT_LOCAL_MASK];
}

uint64_t pool_extents_offset(struct pool *pool, uint32_t extent, unsigned block)
{
    return pool_extents_disk(pool, extent)->super.data_offset + (uint64_t)(extent & EXTENT_LOCAL_MASK) * FORMAT_EXTENT +
           (uint64_t)block * FORMAT_BLOCK;
}

uint32_t pool_extents_seed(const struct id *volume)
{
    return crc32_iscsi((unsigned char *)(uintptr_t)volume->bytes, sizeof volume->bytes, UINT32_MAX);
}

uint32_t pool_extents_checksum(uint32_t seed, uint64_t block, const void *data)
{
    uint32_t crc = crc32_iscsi((unsigned char *)&block, sizeof block, seed);
    return ~crc32_iscsi((unsigned char *)(uintptr_t)data, FORMAT_BLOCK, crc);
}

/* --- bits -------------------------------------------------------------------------------------------------------- */

/* The bits of word `word` that lie in [first, first + count). */
uint64_t pool_extents_mask(unsigned word, unsigned first, unsigned count)
{
    unsigned low = word * 64, from = first > low ? first - low : 0, end = first + count;
    if (end <= low || from >= 64)
        return 0;
    unsigned upto = end - low < 64 ? end - low : 64;
    uint64_t mask = upto == 64 ? UINT64_MAX : (UINT64_C(1) << upto) - 1;
    return mask & ~((UINT64_C(1) << from) - 1);
}

static bool bits_any(const uint64_t bits[static 4])
{
    return (bits[0] | bits[1] | bits[2] | bits[3]) != 0;
}

static bool descriptor_is_empty(const struct format_descriptor *descriptor)
{
    return !bits_any(descriptor->written) && !bits_any(descriptor->dirty) && !bits_any(descriptor->lost);
}

bool pool_extents_is_written(struct pool *pool, uint32_t extent, unsigned block)
{
    return pool_extents_descriptor(pool, extent)->written[block / 64] >> (block % 64) & 1;
}

bool pool_extents_is_lost(struct pool *pool, uint32_t extent, unsigned block)
{
    return pool_extents_descriptor(pool, extent)->lost[block / 64] >> (block % 64) & 1;
}

bool pool_extents_any_content(struct pool *pool, uint32_t extent, unsigned first, unsigned count)
{
    const struct format_descriptor *descriptor = pool_extents_descriptor(pool, extent);
    for (unsigned word = 0; word < 4; word++)
        if ((descriptor->written[word] | descriptor->lost[word]) & pool_extents_mask(word, first, count))
            return true;
    return false;
}

static struct pool_volume *extent_volume(struct pool *pool, const struct format_descriptor *descriptor)
{
    struct pool_volume *volume = pool_volume_find(pool, &descriptor->volume);
    return volume && volume->life == descriptor->life && descriptor->logical < volume->extent_count ? volume : NULL;
}

static unsigned bits_count(const uint64_t bits[static 4])
{
    unsigned count = 0;
    for (unsigned word = 0; word < 4; word++)
        count += (unsigned)__builtin_popcountll(bits[word]);
    return count;
}

/* Sets `lost` to the bits' value; true: something changed. */
static bool lost_change(struct pool *pool, struct format_descriptor *descriptor, unsigned first, unsigned count,
                        bool value)
{
    bool changed = false;
    for (unsigned word = 0; word < 4; word++) {
        uint64_t mask = pool_extents_mask(word, first, count), old = descriptor->lost[word];
        uint64_t new = value ? old | mask : old & ~mask;
        if (new == old)
            continue;
        struct pool_volume *volume = extent_volume(pool, descriptor);
        if (volume)
            volume->lost_blocks += (uint64_t)__builtin_popcountll(new) - (uint64_t)__builtin_popcountll(old);
        descriptor->lost[word] = new;
        changed = true;
    }
    return changed;
}

void pool_extents_set_written(struct pool *pool, uint32_t extent, unsigned first, unsigned count)
{
    struct format_descriptor *descriptor = pool_extents_descriptor(pool, extent);
    bool changed = lost_change(pool, descriptor, first, count, false);
    for (unsigned word = 0; word < 4; word++) {
        uint64_t mask = pool_extents_mask(word, first, count);
        changed |= (descriptor->written[word] & mask) != mask;
        descriptor->written[word] |= mask;
    }
    if (changed)
        pool_tables_touch(pool, extent, FORMAT_DESCRIPTORS);
}

void pool_extents_set_zero(struct pool *pool, uint32_t extent, unsigned first, unsigned count)
{
    struct format_descriptor *descriptor = pool_extents_descriptor(pool, extent);
    lost_change(pool, descriptor, first, count, false);
    for (unsigned word = 0; word < 4; word++)
        descriptor->written[word] &= ~pool_extents_mask(word, first, count);
    pool_extents_may_be_empty(pool, extent);
    pool_tables_touch(pool, extent, FORMAT_DESCRIPTORS);
}

void pool_extents_set_lost(struct pool *pool, uint32_t extent, unsigned first, unsigned count)
{
    if (lost_change(pool, pool_extents_descriptor(pool, extent), first, count, true))
        pool_tables_touch(pool, extent, FORMAT_DESCRIPTORS);
}

/* --- handing out and giving back --------------------------------------------------------------------------------- */

/* After a disk was lost with extents that nothing else tells of. */
bool pool_extents_hole_is_lost(const struct pool_volume *volume)
{
    return volume->flags & FORMAT_VOLUME_HOLES_LOST;
}

static void extent_take(struct pool_volume *volume, uint32_t extent)
{
    struct pool *pool = volume->pool;
    const struct format_descriptor *descriptor = pool_extents_descriptor(pool, extent);
    check(!volume->map[descriptor->logical]);
    volume->map[descriptor->logical] = extent + 1;
    volume->used_extents++;
    volume->dirty_blocks += bits_count(descriptor->dirty);
    volume->lost_blocks += bits_count(descriptor->lost);
    pool->used_extents++;
    pool_extents_disk(pool, extent)->free_extents--;
    pool_extents_may_be_empty(pool, extent);
}

static void extent_release(struct pool_volume *volume, uint32_t extent)
{
    struct pool *pool = volume->pool;
    struct pool_disk *disk = pool_extents_disk(pool, extent);
    struct format_descriptor *descriptor = pool_extents_descriptor(pool, extent);
    uint32_t local = extent & EXTENT_LOCAL_MASK;
    check(descriptor->birth && volume->map[descriptor->logical] == extent + 1);
    volume->map[descriptor->logical] = 0;
    volume->used_extents--;
    volume->dirty_blocks -= bits_count(descriptor->dirty);
    volume->lost_blocks -= bits_count(descriptor->lost);
    pool->used_extents--;
    disk->free_extents++;
    disk->empty[local / 64] &= ~(UINT64_C(1) << (local % 64));
    if (local < disk->hint)
        disk->hint = local;
    memset(descriptor, 0, sizeof *descriptor);
    pool_tables_touch(pool, extent, FORMAT_DESCRIPTORS);
}

void pool_extents_may_be_empty(struct pool *pool, uint32_t extent)
{
    struct pool_disk *disk = pool_extents_disk(pool, extent);
    uint32_t local = extent & EXTENT_LOCAL_MASK;
    if (!descriptor_is_empty(&disk->descriptors[local]))
        return;
    disk->empty[local / 64] |= UINT64_C(1) << (local % 64);
    disk->may_be_empty = true;
}

/* Extents that hold nothing any more go back, but only those that no record from the tail on names: after a crash each
 * extent that a record names is that record's again, or was handed out later (format.h, `birth`). */
static bool extent_release_empty(struct pool_disk *disk, uint32_t local)
{
    struct pool *pool = disk->pool;
    const struct format_descriptor *descriptor = &disk->descriptors[local];
    if (!descriptor->birth || !descriptor_is_empty(descriptor)) {
        disk->empty[local / 64] &= ~(UINT64_C(1) << (local % 64));
        return true;
    }
    uint32_t extent = disk->index << EXTENT_DISK_SHIFT | local;
    bool is_free = !disk->busy[local] && !pool_drain_holds(pool, extent); /* one that moves has a place to come to */
    struct pool_volume *volume = is_free ? extent_volume(pool, descriptor) : NULL;
    if (!volume)
        return false; /* next time */
    if (pool_extents_hole_is_lost(volume)) {
        disk->empty[local / 64] &= ~(UINT64_C(1) << (local % 64)); /* it is what tells that its blocks are not lost */
        return true;
    }
    extent_release(volume, extent);
    return true;
}

void pool_extents_release_empty(struct pool_disk *disk)
{
    bool wanted = disk->may_be_empty;
    disk->may_be_empty = false;
    for (uint32_t word = 0; wanted && word <= disk->extent_count / 64; word++) {
        for (uint64_t bits = disk->empty[word]; bits; bits &= bits - 1)
            if (!extent_release_empty(disk, word * 64 + (uint32_t)__builtin_ctzll(bits)))
                disk->may_be_empty = true;
    }
}

/* Whatever of it is in the journals is of a life that is over. */
void pool_extents_release_volume(struct pool_volume *volume)
{
    for (uint32_t logical = 0; logical < volume->extent_count; logical++)
        if (volume->map[logical])
            extent_release(volume, volume->map[logical] - 1);
}

/* The next disk in turn that has room. */
uint32_t pool_extents_find_free(struct pool *pool)
{
    for (unsigned turn = 0; turn < POOL_DISKS_MAX; turn++) {
        struct pool_disk *disk = &pool->disks[pool->next_disk];
        pool->next_disk = (pool->next_disk + 1) % POOL_DISKS_MAX;
        if (!POOL_DISK_IS_ALIVE(disk) || disk->state != POOL_DISK_OK || disk->joining ||
            disk->free_extents == (pool_drain_targets(disk) ? 1 : 0))
            continue;
        uint32_t base = disk->index << EXTENT_DISK_SHIFT;
        while (disk->hint < disk->extent_count &&
               (disk->descriptors[disk->hint].birth || pool_drain_is_target(pool, base | disk->hint)))
            disk->hint++;
        check(disk->hint < disk->extent_count);
        return disk->index << EXTENT_DISK_SHIFT | disk->hint;
    }
    return EXTENT_NONE;
}

static void extent_give(struct pool_volume *volume, uint32_t logical, uint32_t extent, uint64_t birth)
{
    struct format_descriptor *descriptor = pool_extents_descriptor(volume->pool, extent);
    *descriptor = (struct format_descriptor){
        .volume = volume->id, .logical = logical, .life = volume->life, .birth = birth};
    uint64_t left = volume->blocks - (uint64_t)logical * FORMAT_EXTENT_BLOCKS;
    unsigned count = left < FORMAT_EXTENT_BLOCKS ? (unsigned)left : FORMAT_EXTENT_BLOCKS;
    for (unsigned word = 0; word < 4 && pool_extents_hole_is_lost(volume); word++)
        descriptor->lost[word] = pool_extents_mask(word, 0, count);
    extent_take(volume, extent);
    pool_tables_touch(volume->pool, extent, FORMAT_DESCRIPTORS);
}

uint32_t pool_extents_of(struct pool_volume *volume, uint32_t logical, bool allocate)
{
    struct pool *pool = volume->pool;
    check(logical < volume->extent_count);
    uint32_t mapped = volume->map[logical] - 1; /* EXTENT_NONE when there is none */
    bool is_ghost = mapped != EXTENT_NONE && pool_extents_disk(pool, mapped)->failing >= FAILING_SETTLE;
    if (!allocate || (mapped != EXTENT_NONE && !is_ghost))
        return mapped;
    uint32_t extent = pool_extents_find_free(pool);
    if (extent == EXTENT_NONE)
        return EXTENT_NONE; /* volumes are reserved in full, but a disk was lost */
    if (is_ghost)
        pool_extents_replace(volume, logical, extent, pool_extents_descriptor(pool, mapped));
    else
        extent_give(volume, logical, extent, ++pool->birth);
    return extent;
}

void pool_extents_replace(struct pool_volume *volume, uint32_t logical, uint32_t extent,
                          const struct format_descriptor *bits)
{
    struct pool *pool = volume->pool;
    uint32_t old = volume->map[logical] - 1;
    struct format_descriptor copy = *bits;
    copy.volume = volume->id;
    copy.logical = logical;
    copy.life = volume->life;
    copy.birth = ++pool->birth;
    if (pool_extents_disk(pool, old)->failing >= FAILING_SETTLE)
        volume->ghosts--;
    extent_release(volume, old);
    *pool_extents_descriptor(pool, extent) = copy;
    extent_take(volume, extent);
    pool_tables_touch(pool, extent, FORMAT_DESCRIPTORS);
}

/* --- at opening --------------------------------------------------------------------------------------------------- */

void pool_extents_forget(struct pool *pool, uint32_t extent)
{
    struct format_descriptor *descriptor = pool_extents_descriptor(pool, extent);
    struct pool_volume *volume = extent_volume(pool, descriptor);
    if (volume && volume->map[descriptor->logical] == extent + 1) {
        extent_release(volume, extent);
        return;
    }
    memset(descriptor, 0, sizeof *descriptor);
    pool_tables_touch(pool, extent, FORMAT_DESCRIPTORS);
}

void pool_extents_adopt(struct pool *pool, uint32_t extent)
{
    const struct format_descriptor *descriptor = pool_extents_descriptor(pool, extent);
    if (descriptor->birth > pool->birth)
        pool->birth = descriptor->birth;
    struct pool_volume *volume = extent_volume(pool, descriptor);
    uint32_t other = volume ? volume->map[descriptor->logical] : 0;
    if (!volume || (other && pool_extents_descriptor(pool, other - 1)->birth >= descriptor->birth)) {
        pool_extents_forget(pool, extent);
        return;
    }
    if (other)
        pool_extents_forget(pool, other - 1);
    extent_take(volume, extent);
}

bool pool_extents_claim(struct pool_volume *volume, uint32_t logical, uint32_t extent, uint64_t birth)
{
    struct pool *pool = volume->pool;
    if (birth > pool->birth)
        pool->birth = birth;
    uint32_t mapped = volume->map[logical];
    if (mapped == extent + 1)
        return true;
    const struct format_descriptor *descriptor = pool_extents_descriptor(pool, extent);
    if (descriptor->birth >= birth || (mapped && pool_extents_descriptor(pool, mapped - 1)->birth >= birth))
        return false;
    if (descriptor->birth)
        pool_extents_forget(pool, extent);
    if (mapped)
        pool_extents_forget(pool, mapped - 1);
    extent_give(volume, logical, extent, birth);
    return true;
}
