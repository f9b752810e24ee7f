/* Reading a journal: which records are there, where it ends, and whether what is not valid is torn or rotten. */
#include <errno.h>
#include <string.h>

#include "common/check.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "storaged/pool/pool_internal.h"

#define AHEAD_BLOCKS 256u

static uint64_t ring_offset(const struct pool_disk *disk, uint64_t lsn)
{
    return disk->super.journal_offset + lsn % disk->journal.blocks * FORMAT_BLOCK;
}

/* The block looks like the beginning of a record at `lsn`; its checksum is another matter. */
static bool header_is_sane(const struct pool_disk *disk, const struct format_record *record, uint64_t lsn)
{
    uint64_t rest = disk->journal.blocks - lsn % disk->journal.blocks;
    if (record->magic != FORMAT_RECORD_MAGIC || record->lsn != lsn || record->blocks == 0 || record->blocks > rest ||
        record->header_blocks == 0 || record->header_blocks > FORMAT_RECORD_HEADER_MAX ||
        record->header_blocks > record->blocks || record->blocks - record->header_blocks > disk->journal.blocks)
        return false;
    if (record->type == FORMAT_RECORD_PAD)
        return record->header_blocks == 1 && record->entry_count == 0;
    return record->type == FORMAT_RECORD_ENTRIES && record->blocks - record->header_blocks <= FORMAT_RECORD_DATA_MAX &&
           record->entries_bytes <= record->header_blocks * FORMAT_BLOCK - sizeof *record;
}

static uint32_t entry_checksums(const struct format_entry *entry)
{
    if (entry->kind == FORMAT_ENTRY_MOVE)
        return FORMAT_MOVE_WORDS;
    return entry->kind == FORMAT_ENTRY_WRITE || entry->kind == FORMAT_ENTRY_INTENT ? entry->count : 0;
}

static bool entry_is_sane(const struct pool_disk *disk, const struct format_record *record,
                          const struct format_entry *entry, uint32_t bytes_left)
{
    uint32_t data = record->blocks - record->header_blocks;
    if (entry->kind < FORMAT_ENTRY_WRITE || entry->kind > FORMAT_ENTRY_MOVE || entry->count == 0 ||
        entry->block % FORMAT_EXTENT_BLOCKS + entry->count > FORMAT_EXTENT_BLOCKS)
        return false;
    if (FORMAT_ENTRY_BYTES(entry_checksums(entry)) > bytes_left)
        return false;
    if (entry->extent >= disk->extent_count && !(entry->extent == FORMAT_NO_EXTENT && entry->kind == FORMAT_ENTRY_ZERO))
        return false;
    return entry->kind != FORMAT_ENTRY_WRITE || (entry->data <= data && entry->count <= data - entry->data);
}

/* The first entry when `previous` is NULL; NULL: there are no more. */
const struct format_entry *pool_scan_entry(const struct format_record *record, const struct format_entry *previous)
{
    const uint8_t *end = (const uint8_t *)(record + 1) + record->entries_bytes;
    const uint8_t *next = (const uint8_t *)(record + 1);
    if (previous)
        next = (const uint8_t *)previous + FORMAT_ENTRY_BYTES(entry_checksums(previous));
    return next < end && record->type == FORMAT_RECORD_ENTRIES ? (const struct format_entry *)next : NULL;
}

static bool entries_are_sane(const struct pool_disk *disk, const struct format_record *record)
{
    uint32_t count = 0;
    const uint8_t *end = (const uint8_t *)(record + 1) + record->entries_bytes;
    for (const struct format_entry *entry = NULL; (entry = pool_scan_entry(record, entry)); count++) {
        if ((size_t)(end - (const uint8_t *)entry) < sizeof *entry ||
            !entry_is_sane(disk, record, entry, (uint32_t)(end - (const uint8_t *)entry)))
            return false;
    }
    return count == record->entry_count;
}

/* Reads what is left of the header and checks it; 1: whole, 0: not, or an errno. */
static int header_read(const struct pool_disk *disk, uint8_t *buffer, uint64_t lsn)
{
    const struct format_record *record = (const struct format_record *)buffer;
    if (!header_is_sane(disk, record, lsn))
        return 0;
    size_t more = (size_t)(record->header_blocks - 1) * FORMAT_BLOCK;
    int result = more ? pool_read_at(disk->fd, buffer + FORMAT_BLOCK, more, ring_offset(disk, lsn) + FORMAT_BLOCK) : 0;
    if (result < 0)
        return result;
    return pool_crc_sealed(buffer, (size_t)record->header_blocks * FORMAT_BLOCK, &record->crc) == record->crc &&
           entries_are_sane(disk, record);
}

/* Marks the data blocks that are not what their checksums say; how many. */
static unsigned data_verify(struct pool_scan *scan)
{
    const struct format_record *record = (const struct format_record *)scan->buffer;
    const uint8_t *data = scan->buffer + (size_t)record->header_blocks * FORMAT_BLOCK;
    unsigned count = 0;
    memset(scan->bad, 0, sizeof scan->bad);
    for (const struct format_entry *entry = NULL; (entry = pool_scan_entry(record, entry));) {
        if (entry->kind != FORMAT_ENTRY_WRITE)
            continue;
        const uint32_t *checksums = (const uint32_t *)(entry + 1);
        uint32_t seed = pool_extents_seed(&entry->volume);
        for (uint32_t index = 0; index < entry->count; index++) {
            const uint8_t *block = data + (size_t)(entry->data + index) * FORMAT_BLOCK;
            if (pool_extents_checksum(seed, entry->block + index, block) == checksums[index])
                continue;
            scan->bad[entry->data + index] = true;
            count++;
        }
    }
    return count;
}

/* --- further on --------------------------------------------------------------------------------------------------- */

/* Calls `found` for every whole header in the ring's blocks [from, from + count); `any`: of whatever journal and LSN,
 * as long as that belongs to its place. */
static int ring_search(struct pool_disk *disk, uint64_t from, uint64_t count, bool any,
                       void (*found)(void *userdata, const struct format_record *record), void *userdata)
{
    cleanup_free uint8_t *blocks = pool_aligned(AHEAD_BLOCKS * FORMAT_BLOCK);
    cleanup_free uint8_t *header = pool_aligned(FORMAT_RECORD_HEADER_MAX * FORMAT_BLOCK);
    for (uint64_t lsn = from, end = from + count; lsn < end;) {
        uint64_t rest = disk->journal.blocks - lsn % disk->journal.blocks, part = end - lsn;
        part = part < rest ? part : rest;
        part = part < AHEAD_BLOCKS ? part : AHEAD_BLOCKS;
        int result = pool_read_at(disk->fd, blocks, part * FORMAT_BLOCK, ring_offset(disk, lsn));
        for (uint64_t index = 0; index < part && result == 0; index++) {
            const struct format_record *record = (const void *)(blocks + index * FORMAT_BLOCK);
            uint64_t at = any && record->lsn % disk->journal.blocks == (lsn + index) % disk->journal.blocks
                              ? record->lsn : lsn + index;
            if (record->magic != FORMAT_RECORD_MAGIC || (!any && !id_equal(&record->journal, &disk->journal.id)))
                continue;
            memcpy(header, record, FORMAT_BLOCK);
            int whole = header_read(disk, header, at);
            if (whole > 0)
                found(userdata, (const struct format_record *)header);
            result = whole < 0 ? whole : 0;
        }
        if (result < 0)
            return result;
        lsn += part;
    }
    return 0;
}

static void settled_note(void *userdata, const struct format_record *record)
{
    struct pool_scan *scan = userdata;
    if (record->settled_lsn > scan->settled)
        scan->settled = record->settled_lsn;
}

/* Something at scan->lsn is not valid: what do later records say of it? Looked for once. */
static int look_ahead(struct pool_scan *scan)
{
    struct pool_disk *disk = scan->disk;
    uint64_t upto = disk->journal.tail_lsn + disk->journal.blocks;
    if (scan->looked_ahead)
        return 0;
    scan->looked_ahead = true;
    return ring_search(disk, scan->lsn + 1, upto - scan->lsn - 1, false, settled_note, scan);
}

struct newest {
    uint64_t super_sequence;
};

static void super_sequence_note(void *userdata, const struct format_record *record)
{
    struct newest *newest = userdata;
    if (record->super_sequence > newest->super_sequence)
        newest->super_sequence = record->super_sequence;
}

int pool_scan_is_rotten(struct pool_disk *disk, bool *ret_rotten)
{
    struct newest newest = {0};
    uint64_t first = disk->journal.tail_lsn / disk->journal.blocks * disk->journal.blocks;
    int result = ring_search(disk, first, disk->journal.blocks, true, super_sequence_note, &newest);
    *ret_rotten = newest.super_sequence > disk->super.sequence;
    return result;
}

/* --- one after the other ------------------------------------------------------------------------------------------ */

static int scan_error(const struct pool_scan *scan, int result, struct err *err)
{
    return err_set(err, result, "io",
                   "disk %s: reading its journal: %s; check the disk, or restore this node from its peer", scan->disk->path, strerror(-result));
}

/* The record at scan->lsn cannot be used as it is: 0: it is the torn end; 1: it is whole but for rotten data; an errno:
 * what had been acknowledged is gone. */
static int record_judge(struct pool_scan *scan, bool header_is_whole, struct err *err)
{
    int result = look_ahead(scan);
    if (result < 0)
        return scan_error(scan, result, err);
    if (scan->settled <= scan->lsn)
        return 0;
    if (header_is_whole)
        return 1;
    return err_set(err, -EUCLEAN, "damaged",
                   "disk %s: block %llu of its journal is damaged, and acknowledged writes are gone with it; "
                   "restore this node from its peer",
                   scan->disk->path, (unsigned long long)(scan->lsn % scan->disk->journal.blocks));
}

int pool_scan_read(struct pool_scan *scan, struct err *err)
{
    struct pool_disk *disk = scan->disk;
    const struct format_record *record = (const struct format_record *)scan->buffer;
    if (scan->lsn - disk->journal.tail_lsn >= disk->journal.blocks || (scan->end && scan->lsn >= scan->end))
        return 0;
    int result = pool_read_at(disk->fd, scan->buffer, FORMAT_BLOCK, ring_offset(disk, scan->lsn));
    if (result == 0)
        result = id_equal(&record->journal, &disk->journal.id) ? header_read(disk, scan->buffer, scan->lsn) : 0;
    if (result < 0)
        return scan_error(scan, result, err);
    if (result == 0)
        return record_judge(scan, false, err);
    uint32_t data_blocks = record->type == FORMAT_RECORD_PAD ? 0 : record->blocks - record->header_blocks;
    if (data_blocks) {
        uint64_t offset = ring_offset(disk, scan->lsn) + (uint64_t)record->header_blocks * FORMAT_BLOCK;
        result = pool_read_at(disk->fd, scan->buffer + (size_t)record->header_blocks * FORMAT_BLOCK,
                              (size_t)data_blocks * FORMAT_BLOCK, offset);
        if (result < 0)
            return scan_error(scan, result, err);
    }
    if (data_verify(scan) > 0)
        return record_judge(scan, true, err);
    settled_note(scan, record);
    return 1;
}
