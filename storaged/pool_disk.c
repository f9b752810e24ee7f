/* One disk of a pool: where things lie on it, its superblocks, and blocking reads and writes before the loop runs. */
#include <errno.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/check.h"
#include "common/cleanup.h"
#include "storaged/pool_internal.h"

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

int pool_layout_compute(uint64_t disk_bytes, bool first, uint64_t journal_bytes, struct pool_layout *ret)
{
    uint64_t start = first ? FORMAT_GROUP_END + journal_bytes : FORMAT_EXTENT;
    if (disk_bytes <= start || disk_bytes / FORMAT_EXTENT > UINT32_MAX / 2)
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
    super->crc = 0;
    super->crc = pool_crc(super, sizeof *super);
}

static bool super_is_valid(const struct format_super *super)
{
    struct format_super copy = *super;
    copy.crc = 0;
    return super->magic == FORMAT_SUPER_MAGIC && pool_crc(&copy, sizeof copy) == super->crc;
}

int pool_super_read(int fd, struct format_super *ret, unsigned *ret_slot)
{
    cleanup_free struct format_super *super = pool_aligned(sizeof *super);
    bool found = false;
    for (unsigned slot = 0; slot < 2; slot++) {
        int result = pool_read_at(fd, super, sizeof *super, FORMAT_SUPER_OFFSET(slot));
        if (result < 0)
            return result;
        if (!super_is_valid(super) || (found && super->sequence <= ret->sequence))
            continue;
        *ret = *super;
        *ret_slot = slot;
        found = true;
    }
    return found ? 0 : -ENODATA;
}
