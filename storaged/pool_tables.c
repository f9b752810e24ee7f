/* The descriptor and checksum tables on disk: two slots per block, the newest valid one counts (format.h). */
#include <errno.h>
#include <string.h>

#include "common/check.h"
#include "common/cleanup.h"
#include "storaged/pool_internal.h"

#define LOAD_BLOCKS 128u /* slot pairs read at once: 1 MiB */

void pool_tables_touch(struct pool *pool, uint32_t extent, enum format_table_kind kind)
{
    struct pool_disk *disk = pool_extents_disk(pool, extent);
    struct pool_table *table = &disk->tables[kind == FORMAT_CHECKSUMS];
    uint8_t *flags = &table->flags[(extent - disk->first_extent) / table->per_block];
    if (*flags & TABLE_DIRTY)
        return;
    *flags |= TABLE_DIRTY;
    pool->tables_dirty++;
}

uint64_t pool_tables_offset(const struct pool_table *table, uint32_t block, unsigned slot)
{
    return table->offset + ((uint64_t)block * 2 + slot) * FORMAT_BLOCK;
}

/* How many extents block `block` describes, and the first of them. */
static uint32_t block_extents(const struct pool_disk *disk, const struct pool_table *table, uint32_t block,
                              uint32_t *ret_first)
{
    uint32_t local = block * table->per_block, left = disk->super.extent_count - local;
    *ret_first = disk->first_extent + local;
    return left < table->per_block ? left : table->per_block;
}

void pool_tables_encode(struct pool *pool, unsigned disk_index, unsigned table_index, uint32_t block, uint64_t sequence,
                        void *ret)
{
    const struct pool_disk *disk = &pool->disks[disk_index];
    const struct pool_table *table = &disk->tables[table_index];
    uint32_t first, count = block_extents(disk, table, block, &first);
    memset(ret, 0, FORMAT_BLOCK);
    struct format_table_header *header = ret;
    *header = (struct format_table_header){.magic = FORMAT_TABLE_MAGIC, .kind = table->kind, .pool = pool->id,
                                           .index = block, .sequence = sequence, .disk_index = disk_index};
    if (table->kind == FORMAT_DESCRIPTORS) {
        struct format_descriptor_block *descriptors = ret;
        memcpy(descriptors->descriptors, &pool->descriptors[first], count * sizeof descriptors->descriptors[0]);
    } else {
        struct format_checksum_block *checksums = ret;
        memcpy(checksums->checksums, pool->checksums[first], count * sizeof checksums->checksums[0]);
    }
    header->crc = pool_crc(ret, FORMAT_BLOCK);
}

static bool block_is_valid(const struct pool *pool, unsigned disk_index, const struct pool_table *table, uint32_t block,
                           uint8_t *data)
{
    struct format_table_header *header = (struct format_table_header *)data;
    if (header->magic != FORMAT_TABLE_MAGIC || header->kind != table->kind || !id_equal(&header->pool, &pool->id) ||
        header->index != block || header->disk_index != disk_index)
        return false;
    uint32_t crc = header->crc;
    header->crc = 0;
    return pool_crc(data, FORMAT_BLOCK) == crc;
}

static bool block_is_zero(const uint8_t *data)
{
    return data[0] == 0 && memcmp(data, data + 1, FORMAT_BLOCK - 1) == 0;
}

/* Of the pair at `data` the slot that counts, 0 or 1; -1: empty; -EUCLEAN: damaged. */
static int pair_choose(const struct pool *pool, unsigned disk, const struct pool_table *table, uint32_t block,
                       uint8_t *data)
{
    bool empty = block_is_zero(data) || block_is_zero(data + FORMAT_BLOCK);
    bool valid[2] = {block_is_valid(pool, disk, table, block, data),
                     block_is_valid(pool, disk, table, block, data + FORMAT_BLOCK)};
    const struct format_table_header *first = (void *)data, *second = (void *)(data + FORMAT_BLOCK);
    if (valid[0] && valid[1])
        return second->sequence > first->sequence;
    if (valid[0] || valid[1])
        return valid[1];
    return empty || table->kind == FORMAT_CHECKSUMS ? -1 : -EUCLEAN;
}

static void pair_take(struct pool *pool, const struct pool_disk *disk, const struct pool_table *table, uint32_t block,
                      const void *data)
{
    uint32_t first, count = block_extents(disk, table, block, &first);
    if (table->kind == FORMAT_DESCRIPTORS) {
        const struct format_descriptor_block *descriptors = data;
        memcpy(&pool->descriptors[first], descriptors->descriptors, count * sizeof descriptors->descriptors[0]);
    } else {
        const struct format_checksum_block *checksums = data;
        memcpy(pool->checksums[first], checksums->checksums, count * sizeof checksums->checksums[0]);
    }
}

/* Of two descriptors for the same place of a volume, one is left over from before a checkpoint that a crash cut off.
 * Either is right after replay; the newer spares work. */
static void descriptors_adopt(struct pool *pool, const struct pool_disk *disk, const struct pool_table *table,
                              uint32_t block, uint64_t sequence, uint64_t *sequences)
{
    uint32_t first, count = block_extents(disk, table, block, &first);
    for (uint32_t extent = first; extent < first + count; extent++) {
        const struct format_descriptor *descriptor = &pool->descriptors[extent];
        if (descriptor->state != FORMAT_EXTENT_USED || pool_extents_adopt(pool, extent)) {
            sequences[extent] = sequence;
            continue;
        }
        struct pool_volume *volume = pool_volume_find(pool, &descriptor->volume);
        if (volume && descriptor->logical < volume->extent_count) {
            uint32_t other = volume->map[descriptor->logical] - 1;
            if (sequences[other] < sequence) {
                pool_extents_forget(pool, other);
                check(pool_extents_adopt(pool, extent));
                sequences[extent] = sequence;
                continue;
            }
        }
        pool_extents_forget(pool, extent);
    }
}

/* Checksums are of use only where an extent is in use. */
static bool block_is_needed(const struct pool *pool, const struct pool_disk *disk, const struct pool_table *table,
                            uint32_t block)
{
    if (table->kind == FORMAT_DESCRIPTORS)
        return true;
    uint32_t first, count = block_extents(disk, table, block, &first);
    for (uint32_t extent = first; extent < first + count; extent++)
        if (pool->descriptors[extent].state == FORMAT_EXTENT_USED)
            return true;
    return false;
}

struct table_loader {
    struct pool *pool;
    unsigned disk;
    struct pool_table *table;
    uint8_t *data;
    uint64_t *sequences; /* per extent: of the block its descriptor came from */
    uint64_t highest;
};

static int load_block(struct table_loader *loader, uint32_t block, uint8_t *pair, struct err *err)
{
    struct pool *pool = loader->pool;
    const struct pool_disk *disk = &pool->disks[loader->disk];
    int slot = pair_choose(pool, loader->disk, loader->table, block, pair);
    if (slot == -EUCLEAN)
        return err_set(
            err, -EUCLEAN, "damaged",
            "disk %s: both copies of block %u of the extent table are damaged; restore this node from its peer",
            disk->path, block);
    if (slot < 0)
        return 0;
    uint8_t *data = pair + slot * FORMAT_BLOCK;
    uint64_t sequence = ((struct format_table_header *)data)->sequence;
    if (sequence > loader->highest)
        loader->highest = sequence;
    if (slot)
        loader->table->flags[block] |= TABLE_SLOT;
    pair_take(pool, disk, loader->table, block, data);
    if (loader->table->kind == FORMAT_DESCRIPTORS)
        descriptors_adopt(pool, disk, loader->table, block, sequence, loader->sequences);
    return 0;
}

static int load_table(struct table_loader *loader, struct err *err)
{
    const struct pool_disk *disk = &loader->pool->disks[loader->disk];
    for (uint32_t block = 0; block < loader->table->block_count; block += LOAD_BLOCKS) {
        uint32_t left = loader->table->block_count - block, count = left < LOAD_BLOCKS ? left : LOAD_BLOCKS;
        bool needed = false;
        for (uint32_t index = 0; index < count && !needed; index++)
            needed = block_is_needed(loader->pool, disk, loader->table, block + index);
        if (!needed)
            continue; /* whichever slot the next write takes, its sequence is the highest */
        int result = pool_read_at(disk->fd, loader->data, (size_t)count * 2 * FORMAT_BLOCK,
                                  pool_tables_offset(loader->table, block, 0));
        if (result < 0)
            return err_set(err, result, "io", "disk %s: reading its tables: %s; check the disk", disk->path,
                           strerror(-result));
        for (uint32_t index = 0; index < count && result == 0; index++)
            result = load_block(loader, block + index, loader->data + (size_t)index * 2 * FORMAT_BLOCK, err);
        if (result < 0)
            return result;
    }
    return 0;
}

int pool_tables_load(struct pool *pool, uint64_t *ret_sequence, struct err *err)
{
    struct table_loader loader = {.pool = pool};
    cleanup_free uint8_t *data = pool_aligned((size_t)LOAD_BLOCKS * 2 * FORMAT_BLOCK);
    cleanup_free uint64_t *sequences = calloc(pool->extent_count, sizeof *sequences);
    loader.data = data;
    loader.sequences = sequences;
    check(sequences);
    for (unsigned kind = 0; kind < 2; kind++) { /* all descriptors first */
        for (loader.disk = 0; loader.disk < pool->disk_count; loader.disk++) {
            loader.table = &pool->disks[loader.disk].tables[kind];
            int result = load_table(&loader, err);
            if (result < 0)
                return result;
        }
    }
    *ret_sequence = loader.highest;
    return 0;
}
