/* Checkpoints, each disk for itself: data in place synced, tables durable, then the tail moves. Writes go on meanwhile.
 *
 * A table block may tell more than the tail covers: it never tells what is not durable in the journal or in its place,
 * and replay from the old tail arrives at the same state again. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "common/check.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "storaged/pool/pool_internal.h"

#define STUCK_TICKS 2u

void pool_checkpoint_init(struct pool_disk *disk)
{
    struct pool_checkpoint *checkpoint = &disk->checkpoint;
    list_init(&checkpoint->waiting);
    list_init(&checkpoint->covered);
    for (unsigned index = 0; index < TABLE_WRITES_MAX; index++) {
        checkpoint->writes[index].disk = disk;
        checkpoint->writes[index].buffer = pool_aligned(FORMAT_BLOCK);
    }
}

/* --- where the tail may go ---------------------------------------------------------------------------------------- */

static bool part_is_reclaimable(const struct pool_part *part)
{
    return part->placed && (part->forgiven || !pool_session_covers(part->op));
}

static uint64_t reclaim_lsn(struct pool_journal *journal)
{
    while (journal->reclaim != &journal->live && part_is_reclaimable(pool_part_of(journal->reclaim)))
        journal->reclaim = journal->reclaim->next;
    return journal->reclaim == &journal->live ? journal->head_lsn : pool_part_of(journal->reclaim)->lsn;
}

static void live_drop(struct pool_disk *disk, uint64_t upto)
{
    struct pool_journal *journal = &disk->journal;
    pool_journal_settled(journal); /* so that it points behind what goes */
    while (!list_is_empty(&journal->live)) {
        struct pool_part *part = pool_part_of(journal->live.next);
        if (part->lsn >= upto)
            break;
        check(part->placed && journal->settled != &part->link && journal->reclaim != &part->link);
        list_remove(&part->link);
        if (part->extent != EXTENT_NONE)
            --*pool_extents_busy(disk->pool, part->extent);
        pool_op_release(disk->pool, part->op);
    }
}

/* --- the superblock ----------------------------------------------------------------------------------------------- */

static enum format_disk_state state_format(const struct pool_disk *disk)
{
    switch (disk->state) {
    case POOL_DISK_OK: return FORMAT_DISK_OK;
    case POOL_DISK_DRAINING: return FORMAT_DISK_DRAINING;
    default: return disk->is_settled ? FORMAT_DISK_GONE : FORMAT_DISK_LOST;
    }
}

static void super_fill_disks(const struct pool *pool, struct format_super *super)
{
    super->table_sequence = pool->table_sequence;
    for (unsigned index = 0; index < POOL_DISKS_MAX; index++) {
        const struct pool_disk *disk = &pool->disks[index];
        bool is_named = disk->used && !disk->unnamed;
        super->disks[index] = is_named ? disk->super.disk : (struct id){0};
        super->disk_states[index] = (uint8_t)(is_named ? state_format(disk) : FORMAT_DISK_NONE);
    }
}

static void super_fill(const struct pool_disk *disk, struct format_super *ret)
{
    const struct pool *pool = disk->pool;
    *ret = disk->super;
    ret->sequence = disk->super.sequence + 1;
    ret->tail_lsn = disk->checkpoint.upto;
    ret->journal = disk->journal.id;
    ret->birth = pool->birth;
    ret->flags = 0;
    super_fill_disks(pool, ret);
    memset(ret->seen, 0, sizeof ret->seen);
    for (unsigned index = 0; index < POOL_GROUPS_MAX; index++) {
        const struct pool_session *slot = &pool->sessions[index];
        if (slot->used && !id_is_null(&slot->seen))
            ret->seen[index] =
                (struct format_seen){slot->group, slot->seen, slot->highest, slot->order, slot->committed};
    }
    pool_super_seal(ret);
}

static void super_taken(struct pool_disk *disk, const struct format_super *super)
{
    disk->super = *super;
    disk->super_slot ^= 1;
    disk->journal.tail_lsn = super->tail_lsn;
    disk->pool->stats.checkpoints++;
    live_drop(disk, super->tail_lsn);
    pool_extents_release_empty(disk); /* what only those records named */
}

/* --- the steps ---------------------------------------------------------------------------------------------------- */

static void checkpoint_sync(struct pool_disk *disk, enum checkpoint_state state);
static void tables_pump(struct pool_disk *disk);

static void checkpoint_finish(struct pool_disk *disk)
{
    struct pool_checkpoint *checkpoint = &disk->checkpoint;
    struct pool *pool = disk->pool;
    checkpoint->state = CHECKPOINT_IDLE;
    bool is_failing = disk->failing && !pool->failure; /* they end when it is struck (pool_failure.c) */
    list_for_each_safe(item, after, &checkpoint->covered) {
        if (is_failing)
            break;
        list_remove(item);
        pool_op_finish(pool, list_entry(item, struct pool_op, link), pool->failure);
    }
    pool_checksums_retry(pool);
    pool_wake(pool);
}

static void super_completed(struct ring_io *io, int result)
{
    struct checkpoint_io *write = list_entry(io, struct checkpoint_io, io);
    struct pool_disk *disk = write->disk;
    if (result != (int)FORMAT_BLOCK)
        pool_disk_fail(disk, result < 0 ? result : -EIO, "writing its superblock");
    else
        super_taken(disk, (const struct format_super *)write->buffer);
    checkpoint_finish(disk);
    pool_disk_end(disk);
}

/* Nothing more is written to it. */
static bool disk_is_over(const struct pool_disk *disk)
{
    return disk->pool->failure || !POOL_DISK_IS_ALIVE(disk);
}

static void super_write(struct pool_disk *disk)
{
    struct checkpoint_io *write = &disk->checkpoint.writes[0];
    disk->checkpoint.state = CHECKPOINT_SUPER;
    super_fill(disk, (struct format_super *)write->buffer);
    write->io.done = super_completed;
    pool_disk_begin(disk);
    ring_write(disk->pool->ring, &write->io, disk->fd, write->buffer, FORMAT_BLOCK,
               FORMAT_SUPER_OFFSET(!disk->super_slot), true);
}

static void sync_completed(struct ring_io *io, int result)
{
    struct checkpoint_io *sync = list_entry(io, struct checkpoint_io, io);
    struct pool_disk *disk = sync->disk;
    if (result < 0)
        pool_disk_fail(disk, result, "syncing");
    pool_disk_end(disk);
    if (disk_is_over(disk))
        checkpoint_finish(disk);
    else if (disk->checkpoint.state == CHECKPOINT_SYNC_TABLES)
        super_write(disk);
    else
        tables_pump(disk);
}

static void checkpoint_sync(struct pool_disk *disk, enum checkpoint_state state)
{
    struct checkpoint_io *sync = &disk->checkpoint.writes[0];
    disk->checkpoint.state = state;
    sync->io.done = sync_completed;
    pool_disk_begin(disk);
    ring_sync(disk->pool->ring, &sync->io, disk->fd);
}

/* The next dirty table block at or behind the cursor, no longer dirty; false: there is none. What becomes dirty before
 * the cursor from now on is the next checkpoint's. */
static bool table_next(struct pool_disk *disk, struct pool_table **ret_table, uint32_t *ret_block)
{
    struct pool_checkpoint *at = &disk->checkpoint;
    for (; at->table < 2 && disk->tables_dirty; at->table++, at->block = 0) {
        struct pool_table *table = &disk->tables[at->table];
        while (at->block < table->block_count && !(table->flags[at->block] & TABLE_DIRTY))
            at->block++;
        if (at->block == table->block_count)
            continue;
        table->flags[at->block] &= (uint8_t)~TABLE_DIRTY;
        disk->tables_dirty--;
        *ret_table = table;
        *ret_block = at->block++;
        return true;
    }
    return false;
}

/* Encodes the block into `buffer` and tells where it goes: over the older slot, which becomes the newest. */
static uint64_t table_take(struct pool_disk *disk, struct pool_table *table, uint32_t block, uint8_t *buffer)
{
    pool_tables_encode(disk, table, block, buffer);
    table->flags[block] ^= TABLE_SLOT;
    return pool_tables_offset(table, block, table->flags[block] & TABLE_SLOT ? 1 : 0);
}

static void table_completed(struct ring_io *io, int result)
{
    struct checkpoint_io *write = list_entry(io, struct checkpoint_io, io);
    struct pool_disk *disk = write->disk;
    write->busy = false;
    if (write->frame)
        write->frame->pins--;
    write->frame = NULL;
    disk->checkpoint.left--;
    if (result != (int)FORMAT_BLOCK)
        pool_disk_fail(disk, result < 0 ? result : -EIO, "writing an extent table");
    pool_disk_end(disk);
    tables_pump(disk);
}

static void table_write(struct pool_disk *disk, struct checkpoint_io *write, struct pool_table *table, uint32_t block)
{
    uint64_t offset = table_take(disk, table, block, write->buffer);
    if (table->kind == FORMAT_CHECKSUMS) { /* until it is on the disk it must not be loaded from there */
        write->frame = pool_checksums_find(disk, block);
        write->frame->pins++;
    }
    write->busy = true;
    write->io.done = table_completed;
    disk->checkpoint.left++;
    pool_disk_begin(disk);
    ring_write(disk->pool->ring, &write->io, disk->fd, write->buffer, FORMAT_BLOCK, offset, false);
}

static void tables_pump(struct pool_disk *disk)
{
    struct pool_checkpoint *checkpoint = &disk->checkpoint;
    checkpoint->state = CHECKPOINT_TABLES;
    for (unsigned index = 0; index < TABLE_WRITES_MAX && !disk_is_over(disk); index++) {
        struct pool_table *table;
        uint32_t block;
        if (checkpoint->writes[index].busy)
            continue;
        if (!table_next(disk, &table, &block))
            break;
        table_write(disk, &checkpoint->writes[index], table, block);
    }
    if (checkpoint->left)
        return;
    if (disk_is_over(disk))
        checkpoint_finish(disk);
    else
        checkpoint_sync(disk, CHECKPOINT_SYNC_TABLES);
}

static void cursor_reset(struct pool_checkpoint *checkpoint)
{
    checkpoint->sequence++;
    checkpoint->table = 0;
    checkpoint->block = 0;
}

/* Whoever asked when something was not in its place that still is not is the next checkpoint's: others' reasons may
 * begin one at any time. */
static void waiting_cover(struct pool_disk *disk)
{
    struct pool_checkpoint *checkpoint = &disk->checkpoint;
    const struct list *item = disk->journal.live.next;
    while (item != &disk->journal.live && list_entry(item, struct pool_part, link)->placed)
        item = item->next;
    uint64_t placed = item == &disk->journal.live ? UINT64_MAX : list_entry(item, struct pool_part, link)->lsn;
    list_for_each_safe(waiting, after, &checkpoint->waiting) {
        if (list_entry(waiting, struct pool_op, link)->block > placed)
            break; /* they are in the order in which they asked */
        list_remove(waiting);
        list_append(&checkpoint->covered, waiting);
    }
}

static void checkpoint_begin(struct pool_disk *disk)
{
    struct pool_checkpoint *checkpoint = &disk->checkpoint;
    checkpoint->upto = reclaim_lsn(&disk->journal);
    checkpoint->idle_wanted = false;
    checkpoint->left = 0;
    cursor_reset(checkpoint);
    waiting_cover(disk);
    pool_extents_release_empty(disk);
}

/* --- when to begin one -------------------------------------------------------------------------------------------- */

/* Everything that was in the journal when the last waiting caller asked is in its place. */
static bool waiting_is_ready(struct pool_disk *disk)
{
    if (list_is_empty(&disk->checkpoint.waiting))
        return false;
    const struct pool_op *last = list_entry(disk->checkpoint.waiting.previous, struct pool_op, link);
    list_for_each(item, &disk->journal.live) {
        const struct pool_part *part = pool_part_of(item);
        if (part->lsn >= last->block)
            break;
        if (!part->placed)
            return false;
    }
    return true;
}

static bool journal_is_full(struct pool_journal *journal)
{
    uint64_t reclaimable = reclaim_lsn(journal) - journal->tail_lsn;
    if (journal->space_waiting)
        return reclaimable > 0;
    return journal->head_lsn - journal->tail_lsn > journal->blocks / 2 && reclaimable >= journal->blocks / 8;
}

static void disk_consider(struct pool_disk *disk)
{
    struct pool *pool = disk->pool;
    struct pool_checkpoint *checkpoint = &disk->checkpoint;
    if (checkpoint->state != CHECKPOINT_IDLE)
        return;
    if (pool->failure) {
        list_for_each_safe(item, after, &checkpoint->waiting) {
            list_remove(item);
            pool_op_finish(pool, list_entry(item, struct pool_op, link), pool->failure);
        }
        return;
    }
    bool frames_wanted = disk->tables_dirty && !list_is_empty(&pool->checksums.starved);
    if (!checkpoint->idle_wanted && !frames_wanted && !journal_is_full(&disk->journal) && !waiting_is_ready(disk))
        return;
    checkpoint_begin(disk);
    checkpoint_sync(disk, CHECKPOINT_SYNC_DATA);
}

void pool_checkpoint_consider(struct pool *pool)
{
    if (!list_is_empty(&pool->checksums.starved) && !pool->failure)
        pool_checksums_retry(pool);
    pool_for_each_disk(pool, disk)
        disk_consider(disk);
}

/* Writes wait for space that only a commit would free, and the writes may be what the commit waits for. To call the
 * uncommitted blocks dirty is safe: the set may be larger than what differs (I7). */
static void unstick(struct pool_disk *disk)
{
    unsigned count = 0;
    for (unsigned index = 0; index < POOL_GROUPS_MAX; index++)
        pool_session_mark(&disk->journal, &disk->pool->sessions[index]);
    list_for_each(item, &disk->journal.live) {
        struct pool_part *part = pool_part_of(item);
        if (!part->placed || !pool_session_covers(part->op))
            continue;
        part->forgiven = true;
        count++;
    }
    log_warning(
        "pool: the journal is full of %u writes that the peer did not confirm; "
        "to go on, their blocks are marked as different from the peer's",
        count);
}

static void disk_tick(struct pool_disk *disk)
{
    struct pool_journal *journal = &disk->journal;
    struct pool_checkpoint *checkpoint = &disk->checkpoint;
    bool idle = checkpoint->tick_head == journal->head_lsn && list_is_empty(&journal->accept);
    checkpoint->tick_head = journal->head_lsn;
    if (idle && (disk->tables_dirty || reclaim_lsn(journal) != journal->tail_lsn))
        checkpoint->idle_wanted = true;
    bool stuck = journal->space_waiting && checkpoint->state == CHECKPOINT_IDLE &&
                 reclaim_lsn(journal) == journal->tail_lsn && journal->reclaim != &journal->live &&
                 pool_part_of(journal->reclaim)->placed;
    checkpoint->stuck_ticks = stuck ? checkpoint->stuck_ticks + 1 : 0;
    if (checkpoint->stuck_ticks >= STUCK_TICKS)
        unstick(disk);
}

void pool_checkpoint_tick(struct ring_timer *timer)
{
    struct pool *pool = list_entry(timer, struct pool, tick);
    pool_for_each_disk(pool, disk)
        disk_tick(disk);
    pool_volume_heal(pool);
    ring_timer_start(pool->ring, &pool->tick, TICK_MS);
    pool_wake(pool);
}

/* --- on demand ---------------------------------------------------------------------------------------------------- */

static void disk_covered(void *userdata, int result)
{
    struct pool_op *op = userdata;
    if (result < 0)
        op->result = result;
    if (--op->parts_left == 0)
        pool_op_finish(op->pool, op, op->result);
}

void pool_checkpoint(struct pool *pool, pool_done *done, void *userdata)
{
    struct pool_op *op = pool_op_new(pool, OP_CHECKPOINT);
    op->done = done;
    op->userdata = userdata;
    pool_for_each_disk(pool, disk) {
        struct pool_op *of_disk = pool_op_new(pool, OP_CHECKPOINT);
        of_disk->done = disk_covered;
        of_disk->userdata = op;
        of_disk->block = disk->journal.head_lsn;
        op->parts_left++;
        list_append(&disk->checkpoint.waiting, &of_disk->link);
    }
    pool_wake(pool);
}

/* --- the same, blocking ------------------------------------------------------------------------------------------- */

static int tables_write_now(struct pool_disk *disk)
{
    cleanup_free uint8_t *buffer = pool_aligned(FORMAT_BLOCK);
    struct pool_table *table;
    uint32_t block;
    int result = fdatasync(disk->fd) < 0 ? -errno : 0;
    while (result == 0 && table_next(disk, &table, &block)) {
        uint64_t offset = table_take(disk, table, block, buffer);
        result = pool_write_at(disk->fd, buffer, FORMAT_BLOCK, offset);
    }
    if (result == 0 && fdatasync(disk->fd) < 0)
        result = -errno;
    return result;
}

int pool_checkpoint_flush_now(struct pool_disk *disk)
{
    cursor_reset(&disk->checkpoint);
    return tables_write_now(disk);
}

int pool_checkpoint_write_now(struct pool_disk *disk)
{
    cleanup_free struct format_super *super = pool_aligned(FORMAT_BLOCK);
    checkpoint_begin(disk);
    int result = tables_write_now(disk);
    if (result < 0)
        return result;
    super_fill(disk, super);
    result = pool_write_at(disk->fd, super, FORMAT_BLOCK, FORMAT_SUPER_OFFSET(!disk->super_slot));
    if (result == 0 && fdatasync(disk->fd) < 0)
        result = -errno;
    if (result == 0)
        super_taken(disk, super);
    return result;
}

int pool_checkpoint_seal_now(struct pool_disk *disk)
{
    const struct pool_journal *journal = &disk->journal;
    if (journal->head_lsn != journal->tail_lsn)
        return 0;
    int result = pool_checkpoint_flush_now(disk);
    if (result < 0)
        return result;
    cleanup_free struct format_super *super = pool_aligned(FORMAT_BLOCK);
    disk->checkpoint.upto = journal->tail_lsn;
    super_fill(disk, super);
    super->flags |= FORMAT_SUPER_CLEAN;
    pool_super_seal(super);
    result = pool_write_at(disk->fd, super, FORMAT_BLOCK, FORMAT_SUPER_OFFSET(!disk->super_slot));
    return result == 0 && fdatasync(disk->fd) < 0 ? -errno : result;
}
