/* A pool's bytes on its disks, read and changed behind its back: for the tests of journal, intents and extents. */
#pragma once

#include <isa-l/crc.h>

#include "tests/unit/pool_lab.h"

static inline void lab_bytes_get(struct lab *lab, unsigned disk, uint64_t offset, void *ret, size_t size)
{
    int fd = open(lab->paths[disk], O_RDONLY);
    check(fd >= 0 && pread(fd, ret, size, (off_t)offset) == (ssize_t)size);
    close(fd);
}

static inline void lab_bytes_put(struct lab *lab, unsigned disk, uint64_t offset, const void *data, size_t size)
{
    int fd = open(lab->paths[disk], O_WRONLY);
    check(fd >= 0 && pwrite(fd, data, size, (off_t)offset) == (ssize_t)size && fsync(fd) == 0);
    close(fd);
}

/* A block with its checksum in the field `crc`. */
static inline void lab_block_seal(void *block, uint32_t *crc)
{
    *crc = 0;
    *crc = ~crc32_iscsi(block, 4096, UINT32_MAX);
}

static inline uint64_t lab_journal_offset(struct lab *lab, unsigned disk, uint64_t lsn)
{
    struct format_super super = lab_super(lab, disk);
    return super.journal_offset + lsn % super.journal_blocks * 4096;
}

/* The header of the record at `lsn`; 0: there is none. Its length in blocks. */
static inline uint32_t lab_record(struct lab *lab, unsigned disk, uint64_t lsn, struct format_record *ret)
{
    struct format_super super = lab_super(lab, disk);
    lab_bytes_get(lab, disk, lab_journal_offset(lab, disk, lsn), ret, sizeof *ret);
    bool is_one = ret->magic == FORMAT_RECORD_MAGIC && ret->lsn == lsn && id_equal(&ret->journal, &super.journal);
    return is_one ? ret->blocks : 0;
}

/* The record says from now on that only what is below `settled_lsn` had been acknowledged. */
static inline void lab_record_unsettle(struct lab *lab, uint64_t lsn, uint64_t settled_lsn)
{
    uint8_t block[4096];
    struct format_record *record = (struct format_record *)block;
    lab_bytes_get(lab, 0, lab_journal_offset(lab, 0, lsn), block, sizeof block);
    check(record->magic == FORMAT_RECORD_MAGIC && record->lsn == lsn && record->header_blocks == 1);
    record->settled_lsn = settled_lsn;
    lab_block_seal(block, &record->crc);
    lab_bytes_put(lab, 0, lab_journal_offset(lab, 0, lsn), block, sizeof block);
}

/* Where the block of the disk's extent number `extent` (in the order of being handed out) lies. */
static inline uint64_t lab_place(struct lab *lab, unsigned disk, uint32_t extent, unsigned block)
{
    return lab_super(lab, disk).data_offset + (uint64_t)extent * FORMAT_EXTENT + block * 4096ull;
}

/* Puts `count` blocks of a version into their place, behind the pool's back. */
static inline void lab_place_put(struct lab *lab, uint32_t extent, unsigned block, unsigned count, uint64_t version)
{
    uint8_t *data = lab_buffer(count);
    lab_fill_range(data, block, count, version); /* of a volume whose extents were handed out in order */
    lab_bytes_put(lab, 0, lab_place(lab, 0, extent, block), data, count * 4096ul);
    free(data);
}

/* Opening is refused with this code. */
static inline void lab_expect_refusal(struct lab *lab, const char *code)
{
    struct err err = {0};
    struct pool *pool = NULL;
    check(ring_new(64, &lab->ring) == 0);
    check(pool_open(lab->ring, lab->path_list, lab->disk_count, &pool, &err) < 0);
    if (strcmp(err.code, code) != 0)
        fprintf(stderr, "expected %s: %s\n", code, err.text);
    check(strcmp(err.code, code) == 0 && strlen(err.text) > 20);
    ring_free(lab->ring);
}

#define MIB (1ull << 20)
#define LAB_VOLUME_BYTES (64 * MIB)

static inline void lab_begin(struct lab *lab, unsigned disk_count, uint64_t journal_bytes)
{
    lab_make(lab, disk_count, journal_bytes);
    lab_open(lab);
    check(lab_create_volume(lab, &lab->volume, LAB_VOLUME_BYTES) == 0);
}

static inline void lab_end(struct lab *lab)
{
    lab_close(lab);
    lab_remove(lab);
}

static inline struct pool_stats lab_stats(const struct lab *lab)
{
    struct pool_stats stats;
    pool_get_stats(lab->pool, &stats);
    return stats;
}
