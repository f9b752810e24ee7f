/* A disk that fails while the pool serves: it is taken out, and the pool goes on with the others.
 *
 * QUIET   nothing more is sent to it; what is under way comes back. Requests to its extents wait.
 * STRIKE  the others' superblocks say that it is lost, before anything goes on without it: whoever opens the pool
 *         later must not take its old content for the newest.
 * SETTLE  each of its extents is another one now, whose blocks are lost; what was acknowledged and is still in memory
 *         is written there, what nobody was told of is done again there. A checkpoint makes that durable. Until it has,
 *         an opening counts all holes of all volumes as lost (FORMAT_DISK_LOST).
 * FLAG    where there was no room, the catalogue says of the volume that its holes are lost.
 * GONE    the others' superblocks say that all this has happened. */
#include <errno.h>
#include <string.h>

#include "common/check.h"
#include "common/log.h"
#include "storaged/pool/pool_internal.h"

void pool_disk_begin(struct pool_disk *disk)
{
    disk->pool->busy_count++;
    disk->flights++;
}

void pool_disk_end(struct pool_disk *disk)
{
    check(disk->flights > 0 && disk->pool->busy_count > 0);
    disk->pool->busy_count--;
    if (--disk->flights == 0 && disk->failing == FAILING_QUIET)
        pool_wake(disk->pool);
}

static void step_take(struct pool_disk *disk, enum pool_failing step)
{
    check(step == disk->failing + 1u);
    disk->failing = step;
}

void pool_disk_fail(struct pool_disk *disk, int error, const char *what)
{
    struct pool *pool = disk->pool;
    unsigned others = 0;
    disk->write_errors++;
    if (pool->failure || !POOL_DISK_IS_ALIVE(disk))
        return;
    pool_for_each_disk(pool, other) others += other != disk && !other->joining;
    if (others == 0) {
        pool_fail(pool, error, what, disk->path);
        return;
    }
    log_error("disk %s failed while %s: %s; the pool goes on with its other disks, what only this one held is lost: "
              "replace it",
              disk->path, what, strerror(-error));
    disk->state = POOL_DISK_FAILED;
    pool_disks_keep_last(pool);
    pool->extent_count = pool_members_capacity(pool, NULL);
    step_take(disk, FAILING_QUIET);
    pool_drain_disk_failed(disk);
    if (disk->removal)
        pool_op_finish(pool, disk->removal, error); /* there is nothing to drain any more */
    disk->removal = NULL;
    pool_members_tell(disk);
    pool_wake(pool);
}

bool pool_failure_is_striking(const struct pool *pool)
{
    for (unsigned index = 0; index < POOL_DISKS_MAX; index++)
        if (pool->disks[index].failing == FAILING_QUIET || pool->disks[index].failing == FAILING_STRIKE)
            return true;
    return false;
}

bool pool_failure_is_busy(const struct pool *pool)
{
    for (unsigned index = 0; index < POOL_DISKS_MAX && !pool->failure; index++)
        if (pool->disks[index].failing != FAILING_NOT && pool->disks[index].failing != FAILING_DONE)
            return true;
    return false;
}

/* Takes a part that was to go to this disk and that nobody was told of; its extent is chosen anew. */
void pool_failure_requeue(struct pool_part *part)
{
    struct pool_disk *disk = part->disk;
    if (part->kind == PART_MOVE_FROM || part->kind == PART_MOVE_TO) {
        pool_drain_part_lost(part);
        return;
    }
    pool_checksums_unpin(part);
    if (part->extent != EXTENT_NONE)
        --*pool_extents_busy(disk->pool, part->extent);
    list_append(&disk->requeue, &part->link);
    pool_wake(disk->pool);
}

/* --- what is still in memory -------------------------------------------------------------------------------------- */

static void resume(struct pool *pool);

/* An acknowledged write that had not reached its place: once more, from our copy, as the write it was. */
static void rescue_done(void *userdata, int result)
{
    struct pool_part *old = userdata;
    struct pool *pool = old->op->pool;
    pool_op_release(pool, old->op);
    if (--pool->rescues == 0)
        resume(pool);
}

static bool is_rescue(const struct pool_part *part)
{
    return part->op->done == rescue_done;
}

static void part_rescue(struct pool_part *old)
{
    const struct pool_op *from = old->op;
    struct pool_op *op = pool_op_new(from->pool, OP_WRITE);
    op->done = rescue_done;
    from->pool->rescues++;
    op->userdata = old;
    op->volume = from->volume;
    op->block = old->block;
    op->count = old->count;
    op->dirty = from->dirty || old->renewed; /* the later one may not be committed yet */
    op->copy = true; /* the journals have seen its number before, perhaps of a session that is over */
    op->unmirrored = from->unmirrored && !old->renewed;
    op->session = from->session;
    op->sequence = from->sequence;
    op->session_slot = from->session_slot;
    struct pool_part *part = &op->parts[op->parts_left++];
    part->kind = PART_WRITE;
    part->block = old->block;
    part->first = old->first;
    part->count = old->count;
    part->data = part->buffer = old->buffer; /* no copy: memory may be what everybody waits for */
    old->buffer = NULL;
    uint32_t extent = pool_extents_of(op->volume, (uint32_t)(old->block / FORMAT_EXTENT_BLOCKS), false);
    if (pool_extents_disk(op->pool, extent)->failing < FAILING_SETTLE) {
        pool_part_again(part, extent);
        return;
    }
    iobuf_put(op->pool->arena, part->buffer); /* no room: it is lost */
    part->buffer = NULL;
    pool_part_done(part, -ENOSPC);
}

static bool part_is_undone(const struct pool_part *part)
{
    return !part->durable || (part->kind == PART_INTENT && !part->placed);
}

static bool part_is_rescued(const struct pool_part *part)
{
    return !part_is_undone(part) && part->kind == PART_WRITE && part->buffer && part->op->volume;
}

/* What later acknowledged writes and UNMAPs say of its blocks: none of them may be seen as it was before. */
static void part_renew(struct pool_part *part, struct list *end)
{
    for (const struct list *item = part->link.next; item != end; item = item->next) {
        const struct pool_part *later = list_entry(item, struct pool_part, link);
        bool is_zero = later->kind == PART_ZERO && later->durable;
        if (later->extent != part->extent || !(is_zero || part_is_rescued(later)))
            continue;
        for (unsigned block = 0; block < part->count; block++) {
            unsigned place = part->first + block;
            uint8_t *data = part->buffer + (size_t)block * FORMAT_BLOCK;
            if (place < later->first || place >= later->first + later->count)
                continue;
            part->renewed |= !later->op->unmirrored;
            if (is_zero)
                memset(data, 0, FORMAT_BLOCK);
            else
                memcpy(data, later->buffer + (size_t)(place - later->first) * FORMAT_BLOCK, FORMAT_BLOCK);
        }
    }
}

/* Out of the journal's memory. True: its op stays held, for the caller. */
static void part_withdraw(struct pool_disk *disk, struct pool_part *part)
{
    struct pool *pool = disk->pool;
    list_remove(&part->link);
    pool_io_leave(part);
    bool is_undone = part_is_undone(part);
    if (part_is_rescued(part)) {
        --*pool_extents_busy(pool, part->extent);
        list_append(&disk->journal.live, &part->link); /* to be rescued, in order */
        return;
    }
    if (!is_undone && part->op->volume &&
        pool_session_covers(part->op)) /* its record goes, and nobody will commit it */
        pool_dirty_set(part->op->volume, part->block, part->count);
    if (!part->buffer || part->buffer != part->data) { /* else it is being rescued for the second time */
        iobuf_put(pool->arena, part->buffer);
        part->buffer = NULL;
    }
    if (is_undone)
        pool_failure_requeue(part);
    else if (part->extent != EXTENT_NONE)
        --*pool_extents_busy(pool, part->extent);
    pool_op_release(pool, part->op);
}

static void journal_withdraw(struct pool_disk *disk)
{
    struct pool_journal *journal = &disk->journal;
    struct list all;
    list_init(&all);
    list_for_each(item, &journal->live) if (part_is_rescued(pool_part_of(item)))
        part_renew(pool_part_of(item), &journal->live);
    while (!list_is_empty(&journal->live)) {
        struct list *item = journal->live.next;
        list_remove(item);
        list_append(&all, item);
    }
    journal->reclaim = journal->settled = &journal->live;
    while (!list_is_empty(&all))
        part_withdraw(disk, pool_part_of(all.next));
    while (!list_is_empty(&journal->accept)) {
        struct pool_part *part = pool_part_of(journal->accept.next);
        list_remove(&part->link);
        pool_failure_requeue(part);
    }
}

/* Reads that wait for writes which will not happen here, and parts that wait for a frame. */
static void waiting_withdraw(struct pool_disk *disk)
{
    struct pool *pool = disk->pool;
    for (unsigned index = 0; index < BUCKET_COUNT; index++) {
        list_for_each_safe(item, after, &pool->buckets[index])
        {
            struct pool_part *part = list_entry(item, struct pool_part, bucket);
            if (part->disk != disk || part->kind != PART_READ)
                continue;
            pool_io_leave(part);
            pool_failure_requeue(part);
        }
    }
    list_for_each_safe(item, after, &pool->checksums.starved)
    {
        struct pool_part *part = pool_part_of(item);
        if (part->disk != disk)
            continue;
        list_remove(&part->link);
        pool_failure_requeue(part);
    }
}

/* --- its extents -------------------------------------------------------------------------------------------------- */

static void extent_give_up(struct pool_volume *volume, uint32_t logical)
{
    struct pool *pool = volume->pool;
    struct format_descriptor *old = pool_extents_descriptor(pool, volume->map[logical] - 1);
    struct format_descriptor bits = *old;
    for (unsigned word = 0; word < 4; word++) {
        bits.lost[word] |= bits.written[word];
        bits.written[word] = 0;
    }
    uint32_t extent = pool_extents_find_free(pool);
    if (extent != EXTENT_NONE) {
        pool_extents_replace(volume, logical, extent, &bits);
        return;
    }
    for (unsigned word = 0; word < 4; word++)
        volume->lost_blocks += (uint64_t)__builtin_popcountll(bits.lost[word] & ~old->lost[word]);
    *old = bits;
    volume->ghosts++;
    volume->haunted = true;
}

static void extents_give_up(struct pool_disk *disk)
{
    struct pool *pool = disk->pool;
    for (unsigned index = 0; index < POOL_VOLUMES_MAX; index++) {
        struct pool_volume *volume = pool->volumes[index];
        for (uint32_t logical = 0; volume && logical < volume->extent_count; logical++)
            if (volume->map[logical] && pool_extents_disk(pool, volume->map[logical] - 1) == disk)
                extent_give_up(volume, logical);
    }
}

/* What is being rescued for the second time first, everything else behind all that is rescued. */
static void requeue_run(struct pool_disk *disk, bool rescues)
{
    struct pool *pool = disk->pool;
    struct list all;
    list_init(&all);
    list_for_each_safe(item, after, &disk->requeue)
    {
        if (is_rescue(pool_part_of(item)) != rescues)
            continue;
        list_remove(item);
        list_append(&all, item);
    }
    while (!list_is_empty(&all)) {
        struct pool_part *part = pool_part_of(all.next);
        list_remove(&part->link);
        uint32_t logical = (uint32_t)(part->block / FORMAT_EXTENT_BLOCKS);
        bool has_extent = part->extent != EXTENT_NONE;
        uint32_t extent =
            has_extent ? pool_extents_of(part->op->volume, logical, part->kind != PART_READ) : EXTENT_NONE;
        bool is_ghost = extent != EXTENT_NONE && pool_extents_disk(pool, extent)->failing >= FAILING_SETTLE;
        if (part->kind == PART_READ && is_ghost) {
            part->op->io->bad_block = part->block;
            ++*pool_extents_busy(pool, part->extent);
            pool_part_done(part, -EBADMSG);
        } else if (has_extent && (extent == EXTENT_NONE || is_ghost)) {
            pool_part_done(part, -ENOSPC);
        } else {
            pool_part_again(part, extent);
        }
    }
}

static void checkpoint_withdraw(struct pool_disk *disk)
{
    struct list *lists[] = {&disk->checkpoint.waiting, &disk->checkpoint.covered};
    for (unsigned index = 0; index < 2; index++) {
        while (!list_is_empty(lists[index])) {
            struct pool_op *op = list_entry(lists[index]->next, struct pool_op, link);
            list_remove(&op->link);
            pool_op_finish(disk->pool, op, disk->pool->failure); /* the others are what counts */
        }
    }
}

/* The disk is struck. */
static void evacuate(struct pool_disk *disk)
{
    step_take(disk, FAILING_SETTLE);
    checkpoint_withdraw(disk); /* not earlier: what it did not make durable does not count only from here on */
    waiting_withdraw(disk);
    journal_withdraw(disk);
    pool_checksums_forget(disk);
    extents_give_up(disk);
    list_for_each_safe(item, after, &disk->journal.live)
    {
        list_remove(item);
        part_rescue(pool_part_of(item)); /* its op goes when that is done */
    }
    requeue_run(disk, true);
    disk->resuming = true;
}

/* --- the steps ---------------------------------------------------------------------------------------------------- */

static void gone(void *userdata, int result)
{
    struct pool_disk *disk = userdata;
    if (result < 0)
        return; /* the whole pool has failed */
    step_take(disk, FAILING_DONE);
    log_notice("disk %s is out of the pool; what it held reads as errors until it is written again", disk->path);
    pool_members_tell(disk);
    pool_wake(disk->pool);
}

static void flagged(void *userdata, int result)
{
    struct pool_disk *disk = userdata;
    if (result < 0)
        return;
    step_take(disk, FAILING_GONE);
    disk->is_settled = true;
    pool_members_commit(disk->pool, gone, disk);
}

static void settled(void *userdata, int result)
{
    struct pool_disk *disk = userdata;
    if (result < 0)
        return;
    step_take(disk, FAILING_FLAG);
    pool_catalogue_save(disk->pool, flagged, disk);
}

static void blobs_release(struct pool *pool)
{
    while (!list_is_empty(&pool->blobs_held) && (pool->failure || !pool_failure_is_striking(pool))) {
        struct pool_blob *blob = list_entry(pool->blobs_held.next, struct pool_blob, link);
        list_remove(&blob->link);
        blob->written(blob);
    }
}

static void struck(void *userdata, int result)
{
    struct pool_disk *disk = userdata;
    if (result < 0)
        return;
    evacuate(disk);
    if (!disk->pool->rescues)
        resume(disk->pool);
}

/* All that was acknowledged is where it belongs now: what came later goes on. */
static void resume(struct pool *pool)
{
    if (pool->failure)
        return;
    for (unsigned index = 0; index < POOL_DISKS_MAX; index++) {
        struct pool_disk *disk = &pool->disks[index];
        if (!disk->resuming)
            continue;
        disk->resuming = false;
        requeue_run(disk, false);
        pool_checkpoint(pool, settled, disk);
    }
    blobs_release(pool);
    pool_request_release(pool);
}

static void all_fail(struct pool *pool)
{
    blobs_release(pool);
    for (unsigned index = 0; index < POOL_DISKS_MAX; index++) {
        struct pool_disk *disk = &pool->disks[index];
        if (disk->failing)
            checkpoint_withdraw(disk);
        while (disk->failing && !list_is_empty(&disk->requeue)) {
            struct pool_part *part = pool_part_of(disk->requeue.next);
            list_remove(&part->link);
            if (part->kind == PART_READ && part->extent != EXTENT_NONE)
                ++*pool_extents_busy(pool, part->extent);
            pool_part_done(part, pool->failure);
        }
    }
    pool_request_release(pool);
}

void pool_failure_pump(struct pool *pool)
{
    if (pool->failure) {
        all_fail(pool);
        return;
    }
    for (unsigned index = 0; index < POOL_DISKS_MAX; index++) {
        struct pool_disk *disk = &pool->disks[index];
        if (disk->failing != FAILING_QUIET || disk->flights || pool_drain_needs(disk))
            continue;
        step_take(disk, FAILING_STRIKE);
        pool_members_commit(pool, struck, disk);
    }
}
