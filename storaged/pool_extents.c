/* Extents: handing them out, which of their blocks were written, which may differ from the peer, their checksums. */
#include <errno.h>
#include <isa-l/crc.h>
#include <string.h>
#include <sys/mman.h>

#include "common/check.h"
#include "storaged/pool_internal.h"

/* Address space for the whole table, memory only where it is used. */
static void *table_map(size_t size)
{
    void *table = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return table == MAP_FAILED ? NULL : table;
}

int pool_extents_new(struct pool *pool)
{
    pool->extent_count = 0;
    for (unsigned index = 0; index < pool->disk_count; index++) {
        struct pool_disk *disk = &pool->disks[index];
        disk->first_extent = disk->hint = pool->extent_count;
        disk->free_extents = disk->super.extent_count;
        pool->extent_count += disk->super.extent_count;
    }
    pool->descriptors = table_map(pool->extent_count * sizeof *pool->descriptors);
    pool->checksums = table_map(pool->extent_count * sizeof *pool->checksums);
    pool->busy = table_map(pool->extent_count * sizeof *pool->busy);
    return pool->descriptors && pool->checksums && pool->busy ? 0 : -ENOMEM;
}

void pool_extents_free(struct pool *pool)
{
    if (pool->descriptors)
        munmap(pool->descriptors, pool->extent_count * sizeof *pool->descriptors);
    if (pool->checksums)
        munmap(pool->checksums, pool->extent_count * sizeof *pool->checksums);
    if (pool->busy)
        munmap(pool->busy, pool->extent_count * sizeof *pool->busy);
}

struct pool_disk *pool_extents_disk(struct pool *pool, uint32_t extent)
{
    check(extent < pool->extent_count);
    unsigned index = pool->disk_count - 1;
    while (pool->disks[index].first_extent > extent)
        index--;
    return &pool->disks[index];
}

uint64_t pool_extents_offset(struct pool *pool, uint32_t extent, unsigned block)
{
    const struct pool_disk *disk = pool_extents_disk(pool, extent);
    return disk->super.data_offset + (uint64_t)(extent - disk->first_extent) * FORMAT_EXTENT +
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
static uint64_t word_mask(unsigned word, unsigned first, unsigned count)
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

bool pool_extents_is_written(const struct pool *pool, uint32_t extent, unsigned block)
{
    return pool->descriptors[extent].written[block / 64] >> (block % 64) & 1;
}

bool pool_extents_any_written(const struct pool *pool, uint32_t extent, unsigned first, unsigned count)
{
    for (unsigned word = 0; word < 4; word++)
        if (pool->descriptors[extent].written[word] & word_mask(word, first, count))
            return true;
    return false;
}

void pool_extents_set_written(struct pool *pool, uint32_t extent, unsigned first, unsigned count,
                              const uint32_t *checksums)
{
    struct format_descriptor *descriptor = &pool->descriptors[extent];
    bool changed = false;
    for (unsigned word = 0; word < 4; word++) {
        uint64_t mask = word_mask(word, first, count);
        changed |= (descriptor->written[word] & mask) != mask;
        descriptor->written[word] |= mask;
    }
    memcpy(&pool->checksums[extent][first], checksums, count * sizeof *checksums);
    pool_tables_touch(pool, extent, FORMAT_CHECKSUMS);
    if (changed)
        pool_tables_touch(pool, extent, FORMAT_DESCRIPTORS);
}

void pool_extents_set_zero(struct pool *pool, uint32_t extent, unsigned first, unsigned count)
{
    struct format_descriptor *descriptor = &pool->descriptors[extent];
    for (unsigned word = 0; word < 4; word++)
        descriptor->written[word] &= ~word_mask(word, first, count);
    pool->may_be_empty = true;
    pool_tables_touch(pool, extent, FORMAT_DESCRIPTORS);
}

/* --- handing out ------------------------------------------------------------------------------------------------- */

static void extent_release(struct pool_volume *volume, uint32_t extent)
{
    struct pool *pool = volume->pool;
    struct pool_disk *disk = pool_extents_disk(pool, extent);
    struct format_descriptor *descriptor = &pool->descriptors[extent];
    check(descriptor->state == FORMAT_EXTENT_USED && pool->busy[extent] == 0);
    volume->map[descriptor->logical] = 0;
    volume->used_extents--;
    pool->used_extents--;
    disk->free_extents++;
    if (extent < disk->hint)
        disk->hint = extent;
    memset(descriptor, 0, sizeof *descriptor);
    pool_tables_touch(pool, extent, FORMAT_DESCRIPTORS);
}

/* Extents that hold nothing any more go back. Their descriptor on disk may be older than a new owner's data: replay
 * then repeats what emptied it (the tail has not passed that) and the new owner's writes as well. */
void pool_extents_release_empty(struct pool *pool)
{
    bool wanted = pool->may_be_empty;
    pool->may_be_empty = false;
    for (unsigned index = 0; wanted && index < POOL_VOLUMES_MAX; index++) {
        struct pool_volume *volume = pool->volumes[index];
        for (uint32_t logical = 0; volume && logical < volume->extent_count; logical++) {
            uint32_t extent = volume->map[logical] - 1;
            if (!volume->map[logical] || bits_any(pool->descriptors[extent].written) ||
                bits_any(pool->descriptors[extent].dirty))
                continue;
            if (pool->busy[extent])
                pool->may_be_empty = true; /* next time */
            else
                extent_release(volume, extent);
        }
    }
}

void pool_extents_release_volume(struct pool_volume *volume)
{
    for (uint32_t logical = 0; logical < volume->extent_count; logical++)
        if (volume->map[logical])
            extent_release(volume, volume->map[logical] - 1);
}

/* The next disk in turn that has room. */
static int64_t extent_find_free(struct pool *pool)
{
    for (unsigned turn = 0; turn < pool->disk_count; turn++) {
        struct pool_disk *disk = &pool->disks[pool->next_disk];
        pool->next_disk = (pool->next_disk + 1) % pool->disk_count;
        if (!disk->free_extents)
            continue;
        while (pool->descriptors[disk->hint].state != FORMAT_EXTENT_FREE)
            disk->hint++;
        check(disk->hint < disk->first_extent + disk->super.extent_count);
        return disk->hint;
    }
    return -1;
}

static void extent_take(struct pool_volume *volume, uint32_t logical, uint32_t extent)
{
    struct pool *pool = volume->pool;
    volume->map[logical] = extent + 1;
    volume->used_extents++;
    pool->used_extents++;
    pool_extents_disk(pool, extent)->free_extents--;
}

int64_t pool_extents_of(struct pool_volume *volume, uint32_t logical, bool allocate)
{
    struct pool *pool = volume->pool;
    check(logical < volume->extent_count);
    if (volume->map[logical] || !allocate)
        return (int64_t)volume->map[logical] - 1;
    int64_t extent = extent_find_free(pool);
    check(extent >= 0); /* volumes are reserved in full */
    pool->descriptors[extent] = (struct format_descriptor){
        .volume = volume->id, .logical = logical, .state = FORMAT_EXTENT_USED};
    extent_take(volume, logical, (uint32_t)extent);
    pool_tables_touch(pool, (uint32_t)extent, FORMAT_DESCRIPTORS);
    return extent;
}

static unsigned dirty_count(const struct format_descriptor *descriptor)
{
    unsigned count = 0;
    for (unsigned word = 0; word < 4; word++)
        count += (unsigned)__builtin_popcountll(descriptor->dirty[word]);
    return count;
}

bool pool_extents_adopt(struct pool *pool, uint32_t extent)
{
    const struct format_descriptor *descriptor = &pool->descriptors[extent];
    struct pool_volume *volume = pool_volume_find(pool, &descriptor->volume);
    if (!volume || descriptor->logical >= volume->extent_count || volume->map[descriptor->logical])
        return false;
    extent_take(volume, descriptor->logical, extent);
    volume->dirty_blocks += dirty_count(descriptor);
    return true;
}

void pool_extents_forget(struct pool *pool, uint32_t extent)
{
    struct format_descriptor *descriptor = &pool->descriptors[extent];
    struct pool_volume *volume = pool_volume_find(pool, &descriptor->volume);
    if (volume && descriptor->logical < volume->extent_count && volume->map[descriptor->logical] == extent + 1) {
        volume->dirty_blocks -= dirty_count(descriptor);
        extent_release(volume, extent);
        return;
    }
    memset(descriptor, 0, sizeof *descriptor);
    pool_tables_touch(pool, extent, FORMAT_DESCRIPTORS);
}

/* --- what may differ from the peer ------------------------------------------------------------------------------- */

static void dirty_change(struct pool_volume *volume, uint32_t extent, unsigned first, unsigned count, bool value)
{
    struct format_descriptor *descriptor = &volume->pool->descriptors[extent];
    bool changed = false;
    for (unsigned word = 0; word < 4; word++) {
        uint64_t old = descriptor->dirty[word], mask = word_mask(word, first, count);
        uint64_t new = value ? old | mask : old & ~mask;
        volume->dirty_blocks += (uint64_t)__builtin_popcountll(new) - (uint64_t)__builtin_popcountll(old);
        descriptor->dirty[word] = new;
        changed |= new != old;
    }
    if (changed)
        pool_tables_touch(volume->pool, extent, FORMAT_DESCRIPTORS);
}

static void dirty_change_range(struct pool_volume *volume, uint64_t block, uint64_t count, bool value)
{
    check(block <= volume->blocks && count <= volume->blocks - block);
    for (uint64_t end = block + count; block < end;) {
        unsigned first = (unsigned)(block % FORMAT_EXTENT_BLOCKS);
        uint64_t most = end - block;
        unsigned part = most < FORMAT_EXTENT_BLOCKS - first ? (unsigned)most : FORMAT_EXTENT_BLOCKS - first;
        int64_t extent = pool_extents_of(volume, (uint32_t)(block / FORMAT_EXTENT_BLOCKS), value);
        if (extent >= 0)
            dirty_change(volume, (uint32_t)extent, first, part, value);
        block += part;
    }
}

void pool_extents_set_dirty(struct pool_volume *volume, uint64_t block, uint64_t count)
{
    dirty_change_range(volume, block, count, true);
}

void pool_dirty_clear(struct pool *pool, struct pool_volume *volume, uint64_t block, uint64_t count)
{
    dirty_change_range(volume, block, count, false);
    pool->may_be_empty = true;
}

/* First block at or after `from` whose bit is `value`; 256: none. */
static unsigned dirty_find(const struct format_descriptor *descriptor, unsigned from, bool value)
{
    for (unsigned word = from / 64; word < 4; word++) {
        uint64_t bits = value ? descriptor->dirty[word] : ~descriptor->dirty[word];
        if (word == from / 64)
            bits &= ~UINT64_C(0) << (from % 64);
        if (bits)
            return word * 64 + (unsigned)__builtin_ctzll(bits);
    }
    return FORMAT_EXTENT_BLOCKS;
}

uint32_t pool_dirty_next(struct pool *pool, struct pool_volume *volume, uint64_t block, uint32_t most,
                         uint64_t *ret_block)
{
    if (!volume->dirty_blocks || block >= volume->blocks || !most)
        return 0;
    unsigned from = (unsigned)(block % FORMAT_EXTENT_BLOCKS);
    for (uint32_t logical = (uint32_t)(block / FORMAT_EXTENT_BLOCKS); logical < volume->extent_count;
         logical++, from = 0) {
        if (!volume->map[logical])
            continue;
        const struct format_descriptor *descriptor = &pool->descriptors[volume->map[logical] - 1];
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
    return volume->dirty_blocks;
}
