/* Checkpoints: data in place synced, tables durable, then the tail moves. Writes go on meanwhile.
 *
 * A table block may tell more than the tail covers: it never tells what is not durable in the journal, and replay from
 * the old tail arrives at the same state again. */
#include <errno.h>
#include <string.h>

#include "common/check.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "storaged/pool_internal.h"

#define STUCK_TICKS 2u

/* --- where the tail may go ---------------------------------------------------------------------------------------- */

static bool op_is_reclaimable(const struct pool_op *op)
{
    return op->placed && !pool_session_covers(op);
}

static uint64_t reclaim_lsn(struct pool *pool)
{
    while (pool->reclaim != &pool->live && op_is_reclaimable(list_entry(pool->reclaim, struct pool_op, link)))
        pool->reclaim = pool->reclaim->next;
    return pool->reclaim == &pool->live ? pool->head_lsn : list_entry(pool->reclaim, struct pool_op, link)->lsn;
}

static void live_drop(struct pool *pool, uint64_t upto)
{
    while (!list_is_empty(&pool->live)) {
        struct pool_op *op = list_entry(pool->live.next, struct pool_op, link);
        if (op->lsn >= upto)
            break;
        check(op->placed);
        list_remove(&op->link);
        pool_op_free(pool, op);
    }
}

/* --- the steps ---------------------------------------------------------------------------------------------------- */

static void checkpoint_sync(struct pool *pool);
static void tables_pump(struct pool *pool);

static void super_fill(struct pool *pool, uint64_t upto, uint64_t sequence, struct format_super *ret)
{
    *ret = pool->disks[0].super;
    ret->sequence = sequence;
    ret->tail_lsn = upto;
    ret->journal = pool->journal;
    memset(ret->seen, 0, sizeof ret->seen);
    memset(ret->committed, 0, sizeof ret->committed);
    for (unsigned index = 0; index < POOL_GROUPS_MAX; index++) {
        const struct pool_session *slot = &pool->sessions[index];
        if (!slot->used || id_is_null(&slot->seen))
            continue;
        ret->seen[index] = (struct format_seen){slot->group, slot->seen, slot->highest};
        ret->committed[index] = slot->committed;
    }
    pool_super_seal(ret);
}

static void checkpoint_finish(struct pool *pool)
{
    struct pool_checkpoint *checkpoint = &pool->checkpoint;
    checkpoint->state = CHECKPOINT_IDLE;
    list_for_each_safe(item, after, &checkpoint->covered) {
        list_remove(item);
        pool_op_finish(pool, list_entry(item, struct pool_op, link), pool->failure);
    }
    pool_wake(pool);
}

static void super_taken(struct pool *pool, const struct format_super *super)
{
    struct pool_disk *disk = &pool->disks[0];
    disk->super = *super;
    disk->super_slot ^= 1;
    pool->tail_lsn = super->tail_lsn;
    pool->stats.checkpoints++;
    live_drop(pool, pool->tail_lsn);
}

static void super_completed(struct ring_io *io, int result)
{
    struct checkpoint_io *write = list_entry(io, struct checkpoint_io, io);
    struct pool *pool = write->pool;
    pool->busy_count--;
    if (result != (int)FORMAT_BLOCK)
        pool_fail(pool, result < 0 ? result : -EIO, "writing its superblock", pool->disks[0].path);
    else
        super_taken(pool, (const struct format_super *)write->buffer);
    checkpoint_finish(pool);
}

static void super_write(struct pool *pool)
{
    struct pool_checkpoint *checkpoint = &pool->checkpoint;
    struct checkpoint_io *write = &checkpoint->writes[0];
    const struct pool_disk *disk = &pool->disks[0];
    checkpoint->state = CHECKPOINT_SUPER;
    super_fill(pool, checkpoint->upto, checkpoint->sequence, (struct format_super *)write->buffer);
    write->io.done = super_completed;
    pool->busy_count++;
    ring_write(pool->ring, &write->io, disk->fd, write->buffer, FORMAT_BLOCK, FORMAT_SUPER_OFFSET(!disk->super_slot),
               true);
}

static void sync_completed(struct ring_io *io, int result)
{
    struct checkpoint_io *sync = list_entry(io, struct checkpoint_io, io);
    struct pool *pool = sync->pool;
    pool->busy_count--;
    if (result < 0)
        pool_fail(pool, result, "syncing", pool->disks[sync - pool->checkpoint.writes].path);
    if (--pool->checkpoint.left)
        return;
    if (pool->failure)
        checkpoint_finish(pool);
    else if (pool->checkpoint.state == CHECKPOINT_SYNC_TABLES)
        super_write(pool);
    else
        tables_pump(pool);
}

static void checkpoint_sync(struct pool *pool)
{
    static_assert(TABLE_WRITES_MAX >= POOL_DISKS_MAX, "a slot for each disk's sync");
    pool->checkpoint.left = pool->disk_count;
    for (unsigned index = 0; index < pool->disk_count; index++) {
        struct checkpoint_io *sync = &pool->checkpoint.writes[index];
        sync->io.done = sync_completed;
        pool->busy_count++;
        ring_sync(pool->ring, &sync->io, pool->disks[index].fd);
    }
}

/* The next dirty table block at or behind the cursor, no longer dirty; false: there is none. What becomes dirty before
 * the cursor from now on is the next checkpoint's. */
static bool table_next(struct pool *pool, unsigned *ret_disk, unsigned *ret_table, uint32_t *ret_block)
{
    struct pool_checkpoint *at = &pool->checkpoint;
    for (; at->disk < pool->disk_count && pool->tables_dirty; at->disk++, at->table = 0) {
        for (; at->table < 2; at->table++, at->block = 0) {
            struct pool_table *table = &pool->disks[at->disk].tables[at->table];
            while (at->block < table->block_count && !(table->flags[at->block] & TABLE_DIRTY))
                at->block++;
            if (at->block == table->block_count)
                continue;
            table->flags[at->block] &= (uint8_t)~TABLE_DIRTY;
            pool->tables_dirty--;
            *ret_disk = at->disk;
            *ret_table = at->table;
            *ret_block = at->block++;
            return true;
        }
    }
    return false;
}

/* Encodes the block into `buffer` and tells where it goes: over the older slot, which becomes the newest. */
static uint64_t table_take(struct pool *pool, unsigned disk, unsigned table_index, uint32_t block, uint8_t *buffer)
{
    struct pool_table *table = &pool->disks[disk].tables[table_index];
    pool_tables_encode(pool, disk, table_index, block, pool->checkpoint.sequence, buffer);
    table->flags[block] ^= TABLE_SLOT;
    return pool_tables_offset(table, block, table->flags[block] & TABLE_SLOT ? 1 : 0);
}

static void table_completed(struct ring_io *io, int result)
{
    struct checkpoint_io *write = list_entry(io, struct checkpoint_io, io);
    struct pool *pool = write->pool;
    pool->busy_count--;
    write->busy = false;
    pool->checkpoint.left--;
    if (result != (int)FORMAT_BLOCK)
        pool_fail(pool, result < 0 ? result : -EIO, "writing an extent table", "of its disks");
    tables_pump(pool);
}

static void tables_pump(struct pool *pool)
{
    struct pool_checkpoint *checkpoint = &pool->checkpoint;
    checkpoint->state = CHECKPOINT_TABLES;
    for (unsigned index = 0; index < TABLE_WRITES_MAX && !pool->failure; index++) {
        struct checkpoint_io *write = &checkpoint->writes[index];
        unsigned disk, table;
        uint32_t block;
        if (write->busy)
            continue;
        if (!table_next(pool, &disk, &table, &block))
            break;
        uint64_t offset = table_take(pool, disk, table, block, write->buffer);
        write->busy = true;
        write->io.done = table_completed;
        checkpoint->left++;
        pool->busy_count++;
        ring_write(pool->ring, &write->io, pool->disks[disk].fd, write->buffer, FORMAT_BLOCK, offset, false);
    }
    if (checkpoint->left)
        return;
    if (pool->failure) {
        checkpoint_finish(pool);
        return;
    }
    checkpoint->state = CHECKPOINT_SYNC_TABLES;
    checkpoint_sync(pool);
}

static void checkpoint_begin(struct pool *pool)
{
    struct pool_checkpoint *checkpoint = &pool->checkpoint;
    checkpoint->state = CHECKPOINT_SYNC_DATA;
    checkpoint->upto = reclaim_lsn(pool);
    checkpoint->sequence++;
    checkpoint->idle_wanted = false;
    checkpoint->disk = checkpoint->table = 0;
    checkpoint->block = 0;
    checkpoint->left = 0;
    list_for_each_safe(item, after, &checkpoint->waiting) {
        list_remove(item);
        list_append(&checkpoint->covered, item);
    }
    pool_extents_release_empty(pool);
}

/* --- when to begin one -------------------------------------------------------------------------------------------- */

/* Everything that was in the journal when the last waiting caller asked is in its place. */
static bool waiting_is_ready(struct pool *pool)
{
    if (list_is_empty(&pool->checkpoint.waiting))
        return false;
    const struct pool_op *last = list_entry(pool->checkpoint.waiting.previous, struct pool_op, link);
    list_for_each(item, &pool->live) {
        const struct pool_op *op = list_entry(item, struct pool_op, link);
        if (op->lsn >= last->block)
            break;
        if (!op->placed)
            return false;
    }
    return true;
}

static bool journal_is_full(struct pool *pool)
{
    uint64_t reclaimable = reclaim_lsn(pool) - pool->tail_lsn;
    if (pool->space_waiting)
        return reclaimable > 0;
    return pool->head_lsn - pool->tail_lsn > pool->journal_blocks / 2 && reclaimable >= pool->journal_blocks / 8;
}

void pool_checkpoint_consider(struct pool *pool)
{
    struct pool_checkpoint *checkpoint = &pool->checkpoint;
    if (checkpoint->state != CHECKPOINT_IDLE)
        return;
    if (pool->failure) {
        list_for_each_safe(item, after, &checkpoint->waiting) {
            list_remove(item);
            pool_op_finish(pool, list_entry(item, struct pool_op, link), pool->failure);
        }
        return;
    }
    if (!checkpoint->idle_wanted && !journal_is_full(pool) && !waiting_is_ready(pool))
        return;
    checkpoint_begin(pool);
    checkpoint_sync(pool);
}

/* Writes wait for space that only a commit would free, and the writes may be what the commit waits for. To call the
 * uncommitted blocks dirty is safe: the set may be larger than what differs (I7). */
static void unstick(struct pool *pool)
{
    unsigned count = 0;
    list_for_each(item, &pool->live) {
        struct pool_op *op = list_entry(item, struct pool_op, link);
        if (!op->placed || !pool_session_covers(op))
            continue;
        if (op->volume)
            pool_extents_set_dirty(op->volume, op->block, op->count);
        op->dirty = true;
        count++;
    }
    log_warning(
        "pool: the journal is full of %u writes that the peer did not confirm; "
        "to go on, their blocks are marked as different from the peer's",
        count);
}

void pool_checkpoint_tick(struct ring_timer *timer)
{
    struct pool *pool = list_entry(timer, struct pool, tick);
    struct pool_checkpoint *checkpoint = &pool->checkpoint;
    bool idle = pool->tick_head == pool->head_lsn && list_is_empty(&pool->accept);
    pool->tick_head = pool->head_lsn;
    if (idle && (pool->tables_dirty || pool->may_be_empty || reclaim_lsn(pool) != pool->tail_lsn))
        checkpoint->idle_wanted = true;
    bool stuck = pool->space_waiting && checkpoint->state == CHECKPOINT_IDLE && reclaim_lsn(pool) == pool->tail_lsn &&
                 pool->reclaim != &pool->live && list_entry(pool->reclaim, struct pool_op, link)->placed;
    checkpoint->stuck_ticks = stuck ? checkpoint->stuck_ticks + 1 : 0;
    if (checkpoint->stuck_ticks >= STUCK_TICKS)
        unstick(pool);
    ring_timer_start(pool->ring, &pool->tick, TICK_MS);
    pool_wake(pool);
}

void pool_checkpoint(struct pool *pool, pool_done *done, void *userdata)
{
    struct pool_op *op = pool_op_new(pool, OP_CHECKPOINT);
    op->done = done;
    op->userdata = userdata;
    op->block = pool->head_lsn;
    list_append(&pool->checkpoint.waiting, &op->link);
    pool_wake(pool);
}

/* --- the same, blocking --------------------------------------------------------------------------------------------
 */

static int disks_sync(struct pool *pool)
{
    for (unsigned index = 0; index < pool->disk_count; index++)
        if (fdatasync(pool->disks[index].fd) < 0)
            return -errno;
    return 0;
}

int pool_checkpoint_write_now(struct pool *pool)
{
    cleanup_free uint8_t *buffer = pool_aligned(FORMAT_BLOCK);
    unsigned disk, table;
    uint32_t block;
    checkpoint_begin(pool);
    int result = disks_sync(pool);
    while (result == 0 && table_next(pool, &disk, &table, &block)) {
        uint64_t offset = table_take(pool, disk, table, block, buffer);
        result = pool_write_at(pool->disks[disk].fd, buffer, FORMAT_BLOCK, offset);
    }
    if (result == 0)
        result = disks_sync(pool);
    if (result < 0)
        return result;
    super_fill(pool, pool->checkpoint.upto, pool->checkpoint.sequence, (struct format_super *)buffer);
    result = pool_write_at(pool->disks[0].fd, buffer, FORMAT_BLOCK, FORMAT_SUPER_OFFSET(!pool->disks[0].super_slot));
    if (result == 0)
        result = disks_sync(pool);
    if (result == 0)
        super_taken(pool, (const struct format_super *)buffer);
    pool->checkpoint.state = CHECKPOINT_IDLE;
    return result;
}
