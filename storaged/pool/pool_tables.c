/* The descriptor and checksum tables on disk: two slots per block, the newest valid one counts (format.h). */
#include <errno.h>
#include <string.h>

#include "common/check.h"
#include "common/cleanup.h"
#include "storaged/pool/pool_internal.h"

#define LOAD_BLOCKS 512u /* slot pairs read at once: 4 MiB */

void pool_tables_touch(struct pool *pool, uint32_t extent, enum format_table_kind kind)
{
    struct pool_disk *disk = pool_extents_disk(pool, extent);
    struct pool_table *table = &disk->tables[kind == FORMAT_CHECKSUMS];
    uint8_t *flags = &table->flags[(extent & EXTENT_LOCAL_MASK) / table->per_block];
    if (*flags & TABLE_DIRTY)
        return;
    *flags |= TABLE_DIRTY;
    disk->tables_dirty++;
}

uint64_t pool_tables_offset(const struct pool_table *table, uint32_t block, unsigned slot)
{
    return table->offset + ((uint64_t)block * 2 + slot) * FORMAT_BLOCK;
}

/* How many extents block `block` describes, and the first of them on the disk. */
static uint32_t block_extents(const struct pool_disk *disk, const struct pool_table *table, uint32_t block,
                              uint32_t *ret_first)
{
    uint32_t first = block * table->per_block, left = disk->extent_count - first;
    *ret_first = first;
    return left < table->per_block ? left : table->per_block;
}

void pool_tables_encode(struct pool_disk *disk, struct pool_table *table, uint32_t block, void *ret)
{
    uint32_t first, count = block_extents(disk, table, block, &first);
    struct format_table_header *header = ret;
    if (table->kind == FORMAT_DESCRIPTORS) {
        struct format_descriptor_block *descriptors = ret;
        memset(ret, 0, FORMAT_BLOCK);
        memcpy(descriptors->descriptors, &disk->descriptors[first], count * sizeof descriptors->descriptors[0]);
    } else {
        const struct pool_checksums *checksums = &disk->pool->checksums;
        check(disk->frames[block]); /* what is dirty stays in memory */
        memcpy(ret, &checksums->blocks[disk->frames[block] - 1], FORMAT_BLOCK);
    }
    *header = (struct format_table_header){.magic = FORMAT_TABLE_MAGIC,
                                           .kind = table->kind,
                                           .pool = disk->pool->id,
                                           .index = block,
                                           .sequence = disk->checkpoint.sequence,
                                           .disk_index = disk->index};
    header->crc = pool_crc(ret, FORMAT_BLOCK);
}

static bool block_is_valid(const struct pool_disk *disk, const struct pool_table *table, uint32_t block,
                           const uint8_t *data)
{
    const struct format_table_header *header = (const struct format_table_header *)data;
    return header->magic == FORMAT_TABLE_MAGIC && header->kind == table->kind &&
           id_equal(&header->pool, &disk->pool->id) && header->index == block && header->disk_index == disk->index &&
           pool_crc_sealed(data, FORMAT_BLOCK, &header->crc) == header->crc;
}

static bool block_is_zero(const uint8_t *data)
{
    return data[0] == 0 && memcmp(data, data + 1, FORMAT_BLOCK - 1) == 0;
}

int pool_tables_choose(const struct pool_disk *disk, const struct pool_table *table, uint32_t block, uint8_t *data)
{
    bool valid[2] = {block_is_valid(disk, table, block, data), block_is_valid(disk, table, block, data + FORMAT_BLOCK)};
    const struct format_table_header *first = (void *)data, *second = (void *)(data + FORMAT_BLOCK);
    if (valid[0] && valid[1])
        return second->sequence > first->sequence;
    if (valid[0] || valid[1])
        return valid[1];
    bool empty = block_is_zero(data) || block_is_zero(data + FORMAT_BLOCK);
    return empty || table->kind == FORMAT_CHECKSUMS ? -1 : -EUCLEAN;
}

void pool_tables_note(struct pool_disk *disk, struct pool_table *table, uint32_t block, int slot, uint64_t sequence)
{
    if (slot)
        table->flags[block] |= TABLE_SLOT;
    else
        table->flags[block] &= (uint8_t)~TABLE_SLOT;
    if (sequence >= disk->checkpoint.sequence)
        disk->checkpoint.sequence = sequence + 1;
}

static int load_block(struct pool_disk *disk, uint32_t block, uint8_t *pair, struct err *err)
{
    struct pool_table *table = &disk->tables[0];
    int slot = pool_tables_choose(disk, table, block, pair);
    if (slot == -EUCLEAN)
        return err_set(
            err, -EUCLEAN, "damaged",
            "disk %s: both copies of block %u of the extent table are damaged; restore this node from its peer",
            disk->path, block);
    if (slot < 0)
        return 0;
    const struct format_descriptor_block *data = (const void *)(pair + slot * FORMAT_BLOCK);
    pool_tables_note(disk, table, block, slot, data->header.sequence);
    uint32_t first, count = block_extents(disk, table, block, &first);
    for (uint32_t index = 0; index < count; index++) {
        if (!data->descriptors[index].birth)
            continue; /* memory only for what is used */
        disk->descriptors[first + index] = data->descriptors[index];
        pool_extents_adopt(disk->pool, disk->index << EXTENT_DISK_SHIFT | (first + index));
    }
    return 0;
}

int pool_tables_load(struct pool_disk *disk, struct err *err)
{
    const struct pool_table *table = &disk->tables[0];
    cleanup_free uint8_t *data = pool_aligned((size_t)LOAD_BLOCKS * 2 * FORMAT_BLOCK);
    int result = 0;
    for (uint32_t block = 0; block < table->block_count && result == 0; block += LOAD_BLOCKS) {
        uint32_t left = table->block_count - block, count = left < LOAD_BLOCKS ? left : LOAD_BLOCKS;
        result = pool_read_at(disk->fd, data, (size_t)count * 2 * FORMAT_BLOCK, pool_tables_offset(table, block, 0));
        if (result < 0)
            return err_set(err, result, "io", "disk %s: reading its tables: %s; check the disk", disk->path,
                           strerror(-result));
        for (uint32_t index = 0; index < count && result == 0; index++)
            result = load_block(disk, block + index, data + (size_t)index * 2 * FORMAT_BLOCK, err);
    }
    return result;
}
