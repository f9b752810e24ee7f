/* Replay: after a crash everything that the journals hold is done again, and their uncommitted tail becomes dirty.
 *
 * First every journal is looked through for its end, for the extents that its entries name, and for the highest commit
 * that any record tells of a group and session. Then the intents: one that is not known to be settled is compared with
 * its place. Then all is applied, per disk in order. A session's entry beyond that commit may be missing at the peer:
 * it is dirty, whichever session came later (I7: the set may be larger than what differs, never smaller).
 *
 * What decides about a block is its last entry that took effect. An intent took effect if it was settled or its place
 * matches; earlier journaled data must not be written over it. One that did not was never acknowledged: what earlier
 * entries say stays, or what the table says; if the place matches neither, the write was torn in the middle of the
 * block, and what is there is taken for its content. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "storaged/pool/pool_internal.h"

#define PLACES_MAX 4096u

struct replay_commit {
    struct id group, session;
    uint64_t upto;
};

/* What is known of the blocks of an extent that intents name: numbers of entries, 1-based per disk, 0: none. */
struct replay_place {
    struct replay_place *next;
    uint32_t extent;
    struct pool_volume *volume;
    uint64_t first_block; /* of the volume */
    uint32_t named[FORMAT_EXTENT_BLOCKS];     /* the last intent */
    uint32_t effective[FORMAT_EXTENT_BLOCKS]; /* the last intent that took effect */
    uint32_t torn[FORMAT_EXTENT_BLOCKS];      /* the last intent that did not */
    uint32_t last[FORMAT_EXTENT_BLOCKS];      /* the last entry that was applied */
};

struct replay {
    struct pool *pool;
    struct pool_scan scan;
    uint8_t *place_data; /* an extent */
    struct replay_commit *commits;
    size_t commit_count, commit_last;
    struct replay_place *places[PLACES_MAX];
    uint32_t entry; /* number of the current one */
    uint64_t ends[POOL_DISKS_MAX], settled[POOL_DISKS_MAX];
    uint64_t records, tail_blocks, lost_blocks, adopted_blocks;
};

/* --- commits ------------------------------------------------------------------------------------------------------ */

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

static int commit_note(struct replay *replay, const struct format_entry *entry)
{
    if (id_is_null(&entry->commit_session))
        return 0;
    struct replay_commit *commit = commit_find(replay, &entry->group, &entry->commit_session);
    if (!commit) {
        struct replay_commit *more = realloc(replay->commits, (replay->commit_count + 1) * sizeof *more);
        if (!more)
            return -ENOMEM;
        replay->commits = more;
        commit = &more[replay->commit_count++];
        *commit = (struct replay_commit){.group = entry->group, .session = entry->commit_session};
    }
    if (entry->commit_upto > commit->upto)
        commit->upto = entry->commit_upto;
    return 0;
}

/* --- places ------------------------------------------------------------------------------------------------------- */

static struct replay_place *place_find(const struct replay *replay, uint32_t extent)
{
    struct replay_place *place = replay->places[extent % PLACES_MAX];
    while (place && place->extent != extent)
        place = place->next;
    return place;
}

static struct replay_place *place_get(struct replay *replay, struct pool_volume *volume, uint32_t extent,
                                      uint64_t block)
{
    struct replay_place *place = place_find(replay, extent);
    if (place)
        return place;
    place = calloc(1, sizeof *place);
    if (!place)
        return NULL;
    place->extent = extent;
    place->volume = volume;
    place->first_block = block / FORMAT_EXTENT_BLOCKS * FORMAT_EXTENT_BLOCKS;
    place->next = replay->places[extent % PLACES_MAX];
    replay->places[extent % PLACES_MAX] = place;
    return place;
}

static void places_free(struct replay *replay)
{
    for (unsigned index = 0; index < PLACES_MAX; index++) {
        for (struct replay_place *place = replay->places[index], *next; place; place = next) {
            next = place->next;
            free(place);
        }
    }
}

static int place_read(struct replay *replay, uint32_t extent, unsigned first, unsigned count)
{
    return pool_read_at(replay->scan.disk->fd, replay->place_data, (size_t)count * FORMAT_BLOCK,
                        pool_extents_offset(replay->pool, extent, first));
}

/* --- entries ------------------------------------------------------------------------------------------------------ */

static uint32_t entry_extent(const struct replay *replay, const struct format_entry *entry)
{
    return entry->extent == FORMAT_NO_EXTENT ? EXTENT_NONE
                                             : replay->scan.disk->index << EXTENT_DISK_SHIFT | entry->extent;
}

/* The volume it is of; NULL: that was deleted since, or its extent was taken over. */
static struct pool_volume *entry_volume(const struct replay *replay, const struct format_entry *entry)
{
    struct pool_volume *volume = pool_volume_find(replay->pool, &entry->volume);
    if (!volume || volume->life != entry->life || entry->block > volume->blocks ||
        entry->count > volume->blocks - entry->block)
        return NULL;
    return volume;
}

static bool extent_is_its(const struct pool_volume *volume, const struct format_entry *entry, uint32_t extent)
{
    return volume->map[entry->block / FORMAT_EXTENT_BLOCKS] == extent + 1;
}

static int entry_note(struct replay *replay, const struct format_entry *entry)
{
    int result = commit_note(replay, entry);
    struct pool_volume *volume = entry_volume(replay, entry);
    uint32_t extent = entry_extent(replay, entry);
    if (result == 0 && volume && extent != EXTENT_NONE)
        pool_extents_claim(volume, (uint32_t)(entry->block / FORMAT_EXTENT_BLOCKS), extent, entry->birth);
    return result;
}

static bool entry_is_settled(const struct replay *replay)
{
    return replay->scan.lsn < replay->settled[replay->scan.disk->index];
}

static int intent_compare(struct replay *replay, const struct format_entry *entry)
{
    struct pool_volume *volume = entry_volume(replay, entry);
    uint32_t extent = entry_extent(replay, entry);
    if (entry->kind != FORMAT_ENTRY_INTENT || !volume || !extent_is_its(volume, entry, extent))
        return 0;
    struct replay_place *place = place_get(replay, volume, extent, entry->block);
    if (!place)
        return -ENOMEM;
    unsigned first = (unsigned)(entry->block % FORMAT_EXTENT_BLOCKS);
    bool settled = entry_is_settled(replay);
    int result = settled ? 0 : place_read(replay, extent, first, entry->count);
    const uint32_t *checksums = (const uint32_t *)(entry + 1);
    for (unsigned index = 0; index < entry->count && result == 0; index++) {
        const uint8_t *data = replay->place_data + (size_t)index * FORMAT_BLOCK;
        unsigned block = first + index;
        if (place->named[block]) /* two overlapping writes are never under way at once: that one was acknowledged */
            place->effective[block] = place->named[block];
        place->named[block] = replay->entry;
        if (settled || pool_extents_checksum(volume->seed, entry->block + index, data) == checksums[index])
            place->effective[block] = replay->entry;
    }
    return result;
}

/* The checksums of an extent; dirty frames are written to their tables when there are too many. */
static int checksums_get(struct replay *replay, uint32_t extent, uint32_t **ret)
{
    int result = 0;
    struct pool_frame *frame = pool_checksums_load_now(replay->pool, extent, &result);
    if (!frame && result == -ENOBUFS) {
        result = 0;
        pool_for_each_disk(replay->pool, disk)
            if (result == 0)
                result = pool_checkpoint_flush_now(disk);
        if (result == 0)
            frame = pool_checksums_load_now(replay->pool, extent, &result);
    }
    if (!frame)
        return result;
    *ret = pool_checksums_of(replay->pool, frame, extent);
    pool_tables_touch(replay->pool, extent, FORMAT_CHECKSUMS);
    return 0;
}

/* How many of the entry's blocks from `index` on are alike: to be skipped, for a later intent took effect; rotten; or
 * good. */
enum run_kind { RUN_SKIP, RUN_LOST, RUN_WRITE };

static enum run_kind run_kind(const struct replay *replay, const struct format_entry *entry,
                              const struct replay_place *place, unsigned index)
{
    unsigned first = (unsigned)(entry->block % FORMAT_EXTENT_BLOCKS);
    if (place && place->effective[first + index] > replay->entry)
        return RUN_SKIP;
    return replay->scan.bad[entry->data + index] ? RUN_LOST : RUN_WRITE;
}

static int run_apply(struct replay *replay, const struct format_entry *entry, uint32_t extent, unsigned index,
                     unsigned count, uint32_t *checksums)
{
    struct pool *pool = replay->pool;
    const struct format_record *record = (const struct format_record *)replay->scan.buffer;
    unsigned first = (unsigned)(entry->block % FORMAT_EXTENT_BLOCKS) + index;
    const uint8_t *data = replay->scan.buffer +
                          (size_t)(record->header_blocks + entry->data + index) * FORMAT_BLOCK;
    memcpy(&checksums[first], (const uint32_t *)(entry + 1) + index, count * sizeof *checksums);
    pool_extents_set_written(pool, extent, first, count);
    return pool_write_at(replay->scan.disk->fd, data, (size_t)count * FORMAT_BLOCK,
                         pool_extents_offset(pool, extent, first));
}

static int write_apply(struct replay *replay, const struct format_entry *entry, uint32_t extent)
{
    struct replay_place *place = place_find(replay, extent);
    unsigned first = (unsigned)(entry->block % FORMAT_EXTENT_BLOCKS), run;
    uint32_t *checksums;
    int result = checksums_get(replay, extent, &checksums);
    for (unsigned index = 0; index < entry->count && result == 0; index += run) {
        enum run_kind kind = run_kind(replay, entry, place, index);
        for (run = 1; index + run < entry->count && run_kind(replay, entry, place, index + run) == kind; run++)
            ;
        if (kind == RUN_SKIP)
            continue;
        for (unsigned block = first + index; place && block < first + index + run; block++)
            place->last[block] = replay->entry;
        if (kind == RUN_WRITE) {
            result = run_apply(replay, entry, extent, index, run, checksums);
            continue;
        }
        pool_extents_set_lost(replay->pool, extent, first + index, run);
        replay->lost_blocks += run;
    }
    return result;
}

static int intent_apply(struct replay *replay, const struct format_entry *entry, uint32_t extent)
{
    struct replay_place *place = place_find(replay, extent);
    unsigned first = (unsigned)(entry->block % FORMAT_EXTENT_BLOCKS);
    uint32_t *checksums;
    int result = checksums_get(replay, extent, &checksums);
    for (unsigned index = 0; index < entry->count && result == 0; index++) {
        unsigned block = first + index;
        if (place->effective[block] < replay->entry)
            place->torn[block] = replay->entry;
        if (place->effective[block] != replay->entry)
            continue;
        checksums[block] = ((const uint32_t *)(entry + 1))[index];
        pool_extents_set_written(replay->pool, extent, block, 1);
        place->last[block] = replay->entry;
    }
    return result;
}

static void zero_apply(struct replay *replay, const struct format_entry *entry, uint32_t extent)
{
    struct replay_place *place = place_find(replay, extent);
    unsigned first = (unsigned)(entry->block % FORMAT_EXTENT_BLOCKS);
    for (unsigned index = 0; index < entry->count; index++) {
        if (place && place->effective[first + index] > replay->entry)
            continue;
        pool_extents_set_zero(replay->pool, extent, first + index, 1);
        if (place)
            place->last[first + index] = replay->entry;
    }
}

/* The extent as it was when it came to this disk. */
static int move_apply(struct replay *replay, const struct format_entry *entry, struct pool_volume *volume,
                      uint32_t extent)
{
    struct replay_place *place = place_find(replay, extent);
    const uint32_t *words = (const uint32_t *)(entry + 1);
    const uint64_t *written = (const uint64_t *)(words + FORMAT_EXTENT_BLOCKS), *dirty = written + 4, *lost = dirty + 4;
    uint32_t *checksums;
    int result = checksums_get(replay, extent, &checksums);
    for (unsigned block = 0; block < entry->count && result == 0; block++) {
        uint64_t bit = UINT64_C(1) << (block % 64);
        if (dirty[block / 64] & bit)
            pool_dirty_set(volume, entry->block + block, 1);
        if (place && place->effective[block] > replay->entry)
            continue;
        checksums[block] = words[block];
        if (written[block / 64] & bit)
            pool_extents_set_written(replay->pool, extent, block, 1);
        else
            pool_extents_set_zero(replay->pool, extent, block, 1);
        if (lost[block / 64] & bit)
            pool_extents_set_lost(replay->pool, extent, block, 1);
        if (place)
            place->last[block] = replay->entry;
    }
    return result;
}

static bool entry_is_dirty(struct replay *replay, const struct format_entry *entry)
{
    if (entry->flags & FORMAT_ENTRY_IS_UNMIRRORED)
        return false;
    if (entry->kind == FORMAT_ENTRY_DIRTY || (entry->flags & FORMAT_ENTRY_IS_DIRTY))
        return true;
    const struct replay_commit *commit = commit_find(replay, &entry->group, &entry->session);
    return !commit || entry->sequence > commit->upto;
}

static void session_apply(struct replay *replay, const struct format_entry *entry)
{
    if (!id_is_null(&entry->session) && !(entry->flags & FORMAT_ENTRY_IS_COPY))
        pool_session_saw(replay->pool, &entry->group, &entry->session, entry->order, entry->sequence);
    const struct replay_commit *commit = commit_find(replay, &entry->group, &entry->session);
    struct pool_session *slot = pool_session_find(replay->pool, &entry->group);
    if (commit && slot)
        pool_session_knows(slot, &entry->session, commit->upto);
}

static int entry_apply(struct replay *replay, const struct format_entry *entry)
{
    session_apply(replay, entry);
    struct pool_volume *volume = entry_volume(replay, entry);
    if (!volume)
        return 0; /* of a volume that was deleted since */
    uint32_t extent = entry_extent(replay, entry);
    bool is_its = extent != EXTENT_NONE && extent_is_its(volume, entry, extent);
    int result = 0;
    if (is_its && entry->kind == FORMAT_ENTRY_WRITE)
        result = write_apply(replay, entry, extent);
    else if (is_its && entry->kind == FORMAT_ENTRY_INTENT)
        result = intent_apply(replay, entry, extent);
    else if (is_its && entry->kind == FORMAT_ENTRY_ZERO)
        zero_apply(replay, entry, extent);
    else if (is_its && entry->kind == FORMAT_ENTRY_MOVE)
        result = move_apply(replay, entry, volume, extent);
    if (entry_is_dirty(replay, entry)) {
        pool_dirty_set(volume, entry->block, entry->count);
        replay->tail_blocks += entry->count;
    }
    return result;
}

/* --- passes ------------------------------------------------------------------------------------------------------- */

typedef int replay_step(struct replay *replay, const struct format_entry *entry);

static int disk_pass(struct replay *replay, struct pool_disk *disk, replay_step *step, struct err *err)
{
    struct pool_scan *scan = &replay->scan;
    *scan = (struct pool_scan){.disk = disk, .buffer = scan->buffer, .lsn = disk->journal.tail_lsn};
    scan->end = replay->ends[disk->index];
    scan->settled = replay->settled[disk->index];
    scan->looked_ahead = scan->end != 0;
    replay->entry = 0;
    int result;
    while ((result = pool_scan_read(scan, err)) > 0) {
        const struct format_record *record = (const struct format_record *)scan->buffer;
        replay->records += step == entry_apply;
        for (const struct format_entry *entry = NULL; (entry = pool_scan_entry(record, entry));) {
            replay->entry++;
            result = step(replay, entry);
            if (result < 0)
                return err_set(err, result, "io",
                               "disk %s: replaying the journal: %s; check the disk, or restore this node from its peer",
                               disk->path, strerror(-result));
        }
        scan->lsn += record->blocks;
    }
    if (result == 0) {
        replay->ends[disk->index] = scan->lsn;
        replay->settled[disk->index] = scan->settled;
    }
    return result;
}

static int pass(struct replay *replay, replay_step *step, struct err *err)
{
    int result = 0;
    pool_for_each_disk(replay->pool, disk) {
        bool is_empty = disk->super.flags & FORMAT_SUPER_CLEAN ||
                        (step != entry_note && replay->ends[disk->index] == disk->journal.tail_lsn);
        if (is_empty)
            replay->ends[disk->index] = disk->journal.tail_lsn;
        else if (result == 0)
            result = disk_pass(replay, disk, step, err);
    }
    return result;
}

/* --- torn in the middle of a block -------------------------------------------------------------------------------- */

static int place_resolve(struct replay *replay, const struct replay_place *place, unsigned block)
{
    struct pool *pool = replay->pool;
    uint32_t *checksums;
    if (!pool_extents_is_written(pool, place->extent, block) || pool_extents_is_lost(pool, place->extent, block))
        return 0;
    replay->scan.disk = pool_extents_disk(pool, place->extent);
    int result = checksums_get(replay, place->extent, &checksums);
    if (result == 0)
        result = place_read(replay, place->extent, block, 1);
    if (result < 0)
        return result;
    uint32_t checksum = pool_extents_checksum(place->volume->seed, place->first_block + block, replay->place_data);
    if (checksum == checksums[block])
        return 0;
    checksums[block] = checksum;
    replay->adopted_blocks++;
    return 0;
}

static int places_resolve(struct replay *replay, struct err *err)
{
    for (unsigned index = 0; index < PLACES_MAX; index++) {
        for (const struct replay_place *place = replay->places[index]; place; place = place->next) {
            for (unsigned block = 0; block < FORMAT_EXTENT_BLOCKS; block++) {
                int result = place->torn[block] > place->last[block] ? place_resolve(replay, place, block) : 0;
                if (result < 0)
                    return err_set(err, result, "io", "disk %s: reading what a crash cut off: %s; check the disk",
                                   pool_extents_disk(replay->pool, place->extent)->path, strerror(-result));
            }
        }
    }
    return 0;
}

static void replay_tell(const struct replay *replay)
{
    if (replay->records)
        log_notice(
            "pool: the journals held %llu records, all in their place now; %llu of their blocks may differ from the "
            "peer",
            (unsigned long long)replay->records, (unsigned long long)replay->tail_blocks);
    if (replay->adopted_blocks)
        log_notice("pool: %llu blocks were being written when the crash came, and hold some of the old and some of "
                   "the new",
                   (unsigned long long)replay->adopted_blocks);
    if (replay->lost_blocks)
        log_error("pool: %llu blocks of the journals are damaged, their content is lost; they read as errors until "
                  "they are written again",
                  (unsigned long long)replay->lost_blocks);
}

int pool_replay_run(struct pool *pool, struct err *err)
{
    cleanup_free uint8_t *buffer = pool_aligned((FORMAT_RECORD_DATA_MAX + FORMAT_RECORD_HEADER_MAX) * FORMAT_BLOCK);
    cleanup_free uint8_t *place_data = pool_aligned(FORMAT_EXTENT);
    cleanup_free struct replay *replay = calloc(1, sizeof *replay);
    check(replay);
    replay->pool = pool;
    replay->scan.buffer = buffer;
    replay->place_data = place_data;
    int result = pass(replay, entry_note, err);
    if (result == 0)
        result = pass(replay, intent_compare, err);
    if (result == 0)
        result = pass(replay, entry_apply, err);
    if (result == 0)
        result = places_resolve(replay, err);
    places_free(replay);
    free(replay->commits);
    if (result < 0)
        return result;
    pool_for_each_disk(pool, disk)
        disk->journal.head_lsn = replay->ends[disk->index];
    replay_tell(replay);
    return 0;
}
