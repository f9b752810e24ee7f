/* Replay: after a crash everything that the journal holds is done again, and its uncommitted tail becomes dirty.
 *
 * Two passes. The first finds the end and, per group and session, the highest commit that any record tells of. The
 * second writes the data to its place. A session's record beyond that commit may be missing at the peer: it is dirty,
 * whichever session came later (I7: the set may be larger than what differs, never smaller). */
#include <errno.h>
#include <string.h>

#include "common/check.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "storaged/pool_internal.h"

struct replay_commit {
    struct id group, session;
    uint64_t upto;
};

struct replay {
    struct pool *pool;
    uint8_t *buffer; /* of one record */
    struct replay_commit *commits;
    size_t commit_count, commit_last;
    uint64_t lsn, records, tail_blocks;
};

static struct replay_commit *commit_find(struct replay *replay, const struct id *group, const struct id *session)
{
    /* Neighbours are mostly of the same session. */
    for (size_t step = 0; step < replay->commit_count; step++) {
        size_t index = (replay->commit_last + step) % replay->commit_count;
        struct replay_commit *commit = &replay->commits[index];
        if (!id_equal(&commit->group, group) || !id_equal(&commit->session, session))
            continue;
        replay->commit_last = index;
        return commit;
    }
    return NULL;
}

static int commit_note(struct replay *replay, const struct format_record *record)
{
    if (id_is_null(&record->commit_session))
        return 0;
    struct replay_commit *commit = commit_find(replay, &record->group, &record->commit_session);
    if (!commit) {
        struct replay_commit *more = realloc(replay->commits, (replay->commit_count + 1) * sizeof *more);
        if (!more)
            return -ENOMEM;
        replay->commits = more;
        commit = &more[replay->commit_count++];
        *commit = (struct replay_commit){.group = record->group, .session = record->commit_session};
    }
    if (record->commit_upto > commit->upto)
        commit->upto = record->commit_upto;
    return 0;
}

static bool record_is_sane(const struct pool *pool, const struct format_record *record, uint64_t lsn)
{
    struct format_record *writable = (struct format_record *)(uintptr_t)record;
    uint32_t crc = record->crc;
    if (record->magic != FORMAT_RECORD_MAGIC || !id_equal(&record->journal, &pool->journal) || record->lsn != lsn)
        return false;
    writable->crc = 0;
    bool valid = pool_crc(record, sizeof *record) == crc;
    writable->crc = crc;
    uint64_t rest = pool->journal_blocks - lsn % pool->journal_blocks;
    if (!valid || record->blocks == 0 || record->blocks > rest)
        return false;
    if (record->type == FORMAT_RECORD_WRITE)
        return record->count > 0 && record->count <= FORMAT_RECORD_BLOCKS_MAX && record->blocks == record->count + 1;
    return record->type >= FORMAT_RECORD_PAD && record->type <= FORMAT_RECORD_DIRTY;
}

/* 1: replay->buffer holds a valid record at replay->lsn; 0: the journal ends here; or an errno. */
static int record_read(struct replay *replay)
{
    struct pool *pool = replay->pool;
    const struct pool_disk *disk = &pool->disks[0];
    const struct format_record *record = (const struct format_record *)replay->buffer;
    uint64_t offset = disk->super.journal_offset + replay->lsn % pool->journal_blocks * FORMAT_BLOCK;
    if (replay->lsn - pool->tail_lsn >= pool->journal_blocks)
        return 0;
    int result = pool_read_at(disk->fd, replay->buffer, FORMAT_BLOCK, offset);
    if (result < 0)
        return result;
    if (!record_is_sane(pool, record, replay->lsn))
        return 0;
    if (record->type != FORMAT_RECORD_WRITE)
        return 1;
    uint8_t *data = replay->buffer + FORMAT_BLOCK;
    result = pool_read_at(disk->fd, data, record->count * FORMAT_BLOCK, offset + FORMAT_BLOCK);
    if (result < 0)
        return result;
    uint32_t seed = pool_extents_seed(&record->volume);
    for (uint64_t index = 0; index < record->count; index++)
        if (pool_extents_checksum(seed, record->block + index, data + index * FORMAT_BLOCK) != record->checksums[index])
            return 0;
    return 1;
}

static int write_place(struct replay *replay, struct pool_volume *volume, const struct format_record *record)
{
    struct pool *pool = replay->pool;
    const struct pool_op span = {.block = record->block, .count = record->count};
    for (unsigned index = 0; index < 2; index++) {
        uint64_t block;
        uint32_t logical;
        unsigned first, count = pool_io_split(&span, index, &block, &logical, &first);
        if (!count)
            continue;
        uint64_t at = block - record->block;
        uint32_t extent = (uint32_t)pool_extents_of(volume, logical, true);
        int result = pool_write_at(pool_extents_disk(pool, extent)->fd, replay->buffer + (at + 1) * FORMAT_BLOCK,
                                   (size_t)count * FORMAT_BLOCK, pool_extents_offset(pool, extent, first));
        if (result < 0)
            return result;
        pool_extents_set_written(pool, extent, first, count, &record->checksums[at]);
    }
    return 0;
}

static void zero_place(struct replay *replay, struct pool_volume *volume, const struct format_record *record)
{
    const struct pool_op span = {.block = record->block, .count = record->count};
    for (unsigned index = 0; index < 2; index++) {
        uint64_t block;
        uint32_t logical;
        unsigned first, count = pool_io_split(&span, index, &block, &logical, &first);
        int64_t extent = count ? pool_extents_of(volume, logical, false) : -1;
        if (extent >= 0)
            pool_extents_set_zero(replay->pool, (uint32_t)extent, first, count);
    }
}

static bool record_is_dirty(struct replay *replay, const struct format_record *record)
{
    if (record->type == FORMAT_RECORD_DIRTY || (record->flags & FORMAT_RECORD_IS_DIRTY))
        return true;
    const struct replay_commit *commit = commit_find(replay, &record->group, &record->session);
    return !commit || record->sequence > commit->upto;
}

static int record_apply(struct replay *replay)
{
    const struct format_record *record = (const struct format_record *)replay->buffer;
    if (record->type == FORMAT_RECORD_PAD)
        return 0;
    if (!id_is_null(&record->session) && !(record->flags & FORMAT_RECORD_IS_COPY))
        pool_session_saw(replay->pool, &record->group, &record->session, record->sequence);
    const struct replay_commit *commit = commit_find(replay, &record->group, &record->session);
    struct pool_session *slot = pool_session_find(replay->pool, &record->group);
    if (commit && slot)
        pool_session_knows(slot, &record->session, commit->upto);
    struct pool_volume *volume = pool_volume_find(replay->pool, &record->volume);
    if (!volume || record->lsn < volume->created_lsn)
        return 0; /* of a volume that was deleted since */
    if (record->block > volume->blocks || record->count > volume->blocks - record->block)
        return -EUCLEAN;
    int result = 0;
    if (record->type == FORMAT_RECORD_WRITE)
        result = write_place(replay, volume, record);
    else if (record->type == FORMAT_RECORD_ZERO)
        zero_place(replay, volume, record);
    if (record_is_dirty(replay, record)) {
        pool_extents_set_dirty(volume, record->block, record->count);
        replay->tail_blocks += record->count;
    }
    return result;
}

static int replay_pass(struct replay *replay, bool apply)
{
    int result;
    replay->records = 0;
    for (replay->lsn = replay->pool->tail_lsn; (result = record_read(replay)) > 0; replay->records++) {
        const struct format_record *record = (const struct format_record *)replay->buffer;
        result = apply ? record_apply(replay) : commit_note(replay, record);
        if (result < 0)
            break;
        replay->lsn += record->blocks;
    }
    return result;
}

int pool_replay_run(struct pool *pool, struct err *err)
{
    struct replay replay = {.pool = pool};
    cleanup_free uint8_t *buffer = pool_aligned((FORMAT_RECORD_BLOCKS_MAX + 1) * FORMAT_BLOCK);
    replay.buffer = buffer;
    int result = replay_pass(&replay, false);
    if (result == 0)
        result = replay_pass(&replay, true);
    free(replay.commits);
    if (result < 0)
        return err_set(err, result, "io",
                       "disk %s: replaying the journal: %s; check the disk, or restore this node from its peer",
                       pool->disks[0].path, strerror(-result));
    pool->head_lsn = replay.lsn;
    if (replay.records)
        log_notice(
            "pool: the journal held %llu records, all in their place now; %llu of their blocks may differ from the peer",
            (unsigned long long)replay.records, (unsigned long long)replay.tail_blocks);
    return 0;
}
