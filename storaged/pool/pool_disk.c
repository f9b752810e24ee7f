/* One disk of a pool: where things lie on it, its superblocks, its memory, and blocking reads and writes before the
 * loop runs. */
#include <errno.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/check.h"
#include "common/cleanup.h"
#include "storaged/pool/pool_internal.h"

int pool_read_at(int fd, void *data, size_t size, uint64_t offset)
{
    for (size_t at = 0; at < size;) {
        ssize_t got = pread(fd, (uint8_t *)data + at, size - at, (off_t)(offset + at));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? -errno : -EIO;
        at += (size_t)got;
    }
    return 0;
}

int pool_write_at(int fd, const void *data, size_t size, uint64_t offset)
{
    for (size_t at = 0; at < size;) {
        ssize_t put = pwrite(fd, (const uint8_t *)data + at, size - at, (off_t)(offset + at));
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return put < 0 ? -errno : -EIO;
        at += (size_t)put;
    }
    return 0;
}

int pool_disk_size(int fd, uint64_t *ret_bytes)
{
    struct stat status;
    if (fstat(fd, &status) < 0)
        return -errno;
    if (!S_ISBLK(status.st_mode)) {
        *ret_bytes = (uint64_t)status.st_size;
        return 0;
    }
    return ioctl(fd, BLKGETSIZE64, ret_bytes) < 0 ? -errno : 0;
}

uint32_t pool_table_blocks(uint32_t extents, uint32_t per_block)
{
    return (extents + per_block - 1) / per_block;
}

static uint64_t layout_fill(uint64_t start, uint32_t extents, struct pool_layout *ret)
{
    ret->extent_count = extents;
    ret->table_offset = start;
    ret->checksum_offset = start + 2ull * FORMAT_BLOCK * pool_table_blocks(extents, FORMAT_DESCRIPTORS_PER_BLOCK);
    uint64_t end = ret->checksum_offset + 2ull * FORMAT_BLOCK * pool_table_blocks(extents, FORMAT_CHECKSUMS_PER_BLOCK);
    ret->data_offset = (end + FORMAT_EXTENT - 1) / FORMAT_EXTENT * FORMAT_EXTENT;
    return ret->data_offset + (uint64_t)extents * FORMAT_EXTENT;
}

int pool_layout_compute(uint64_t disk_bytes, uint64_t journal_bytes, struct pool_layout *ret)
{
    uint64_t start = FORMAT_GROUP_END + journal_bytes;
    if (disk_bytes <= start || (disk_bytes - start) / FORMAT_EXTENT > EXTENTS_PER_DISK_MAX)
        return -EINVAL;
    uint32_t extents = (uint32_t)((disk_bytes - start) / FORMAT_EXTENT);
    while (extents > 0 && layout_fill(start, extents, ret) > disk_bytes)
        extents--;
    return extents > 0 ? 0 : -EINVAL;
}

void pool_super_seal(struct format_super *super)
{
    super->magic = FORMAT_SUPER_MAGIC;
    super->version = FORMAT_VERSION;
    super->crc = pool_crc_sealed(super, sizeof *super, &super->crc);
}

static bool super_is_valid(const struct format_super *super)
{
    return super->magic == FORMAT_SUPER_MAGIC && pool_crc_sealed(super, sizeof *super, &super->crc) == super->crc;
}

static bool super_is_empty(const struct format_super *super)
{
    const uint8_t *bytes = (const uint8_t *)super;
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, sizeof *super - 1) == 0;
}

int pool_super_read(int fd, struct format_super *ret, unsigned *ret_slot, bool *ret_doubt)
{
    cleanup_free struct format_super *super = pool_aligned(sizeof *super);
    bool found = false, doubt = false;
    for (unsigned slot = 0; slot < 2; slot++) {
        int result = pool_read_at(fd, super, sizeof *super, FORMAT_SUPER_OFFSET(slot));
        if (result < 0)
            return result;
        if (!super_is_valid(super)) {
            doubt |= !super_is_empty(super);
            continue;
        }
        if (found && super->sequence <= ret->sequence)
            continue;
        *ret = *super;
        *ret_slot = slot;
        found = true;
    }
    *ret_doubt = doubt;
    return found ? 0 : -ENODATA;
}

/* --- its memory --------------------------------------------------------------------------------------------------- */

static int table_new(struct pool_table *table, enum format_table_kind kind, uint64_t offset, uint32_t extents)
{
    table->kind = kind;
    table->offset = offset;
    table->per_block = kind == FORMAT_DESCRIPTORS ? FORMAT_DESCRIPTORS_PER_BLOCK : FORMAT_CHECKSUMS_PER_BLOCK;
    table->block_count = pool_table_blocks(extents, table->per_block);
    table->flags = calloc(table->block_count, 1);
    return table->flags ? 0 : -ENOMEM;
}

static size_t empty_bytes(uint32_t extents)
{
    return (extents / 64 + 1) * sizeof(uint64_t);
}

int pool_disk_init(struct pool *pool, struct pool_disk *disk)
{
    const struct format_super *super = &disk->super;
    uint32_t count = super->extent_count;
    disk->pool = pool;
    disk->index = super->disk_index;
    list_init(&disk->requeue);
    disk->extent_count = disk->free_extents = count;
    disk->hint = 0;
    disk->descriptors = pool_table_map(count * sizeof *disk->descriptors);
    disk->busy = pool_table_map(count * sizeof *disk->busy);
    disk->empty = calloc(1, empty_bytes(count));
    disk->frames = calloc(pool_table_blocks(count, FORMAT_CHECKSUMS_PER_BLOCK), sizeof *disk->frames);
    pool_journal_init(disk);
    pool_checkpoint_init(disk);
    if (!disk->descriptors || !disk->busy || !disk->empty || !disk->frames ||
        table_new(&disk->tables[0], FORMAT_DESCRIPTORS, super->table_offset, count) < 0 ||
        table_new(&disk->tables[1], FORMAT_CHECKSUMS, super->checksum_offset, count) < 0)
        return -ENOMEM;
    pool->extent_count += count;
    return 0;
}

void pool_disk_free(struct pool_disk *disk)
{
    if (disk->journal.records[0].header) { /* not of a disk that is missing */
        pool_journal_free(disk);
        for (unsigned index = 0; index < TABLE_WRITES_MAX; index++)
            free(disk->checkpoint.writes[index].buffer);
    }
    if (disk->descriptors)
        munmap(disk->descriptors, disk->extent_count * sizeof *disk->descriptors);
    if (disk->busy)
        munmap(disk->busy, disk->extent_count * sizeof *disk->busy);
    free(disk->empty);
    free(disk->frames);
    free(disk->tables[0].flags);
    free(disk->tables[1].flags);
    free(disk->path);
    if (disk->fd >= 0)
        close(disk->fd); /* and with it the lock */
    *disk = (struct pool_disk){.fd = -1};
}
