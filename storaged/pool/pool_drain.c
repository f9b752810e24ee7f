/* Draining a disk: its extents move to the others, one after the other, while guests go on.
 *
 * An extent moves so that a crash at any point finds one owner with the right content: requests to it wait; what is
 * under way to its place arrives; it is read, verified and written durably to a free extent of another disk; then one
 * MOVE entry in that disk's journal tells all of it, with a higher birth, and from its durability on the new extent is
 * the volume's. What the old disk still says of the old one is older, at opening and at replay (format.h, `birth`).
 * It must not become the only one that says something, though: the new extent is not given back before the old disk's
 * tables and journal have forgotten the old one (the pins). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/log.h"
#include "storaged/pool/pool_drain.h"

static void drain_wake(struct ring_timer *timer)
{
    struct pool_drain *drain = list_entry(timer, struct pool_drain, timer);
    drain->pausing = false;
    pool_wake(drain->pool);
}

void pool_drain_pause(struct pool_drain *drain, uint64_t delay_ms)
{
    drain->pausing = true;
    drain->timer.expired = drain_wake;
    ring_timer_start(drain->pool->ring, &drain->timer, delay_ms);
}

/* --- pins --------------------------------------------------------------------------------------------------------- */

void pool_drain_pin(struct pool_drain *drain)
{
    struct pool_disk *disk = pool_extents_disk(drain->pool, drain->from);
    check(drain->pin_count < PINS_MAX);
    drain->pins[drain->pin_count++] = (struct pin){
        .extent = drain->to, .disk = disk, .super_sequence = disk->super.sequence, .lsn = disk->journal.head_lsn};
    ++*pool_extents_busy(drain->pool, drain->to);
    disk->checkpoint.idle_wanted |= drain->pin_count >= PINS_MAX / 2;
}

/* --- the whole disk ----------------------------------------------------------------------------------------------- */

static bool pin_is_due(const struct pin *pin)
{
    /* Two: one checkpoint may have been under way. */
    return pin->disk->failing ||
           (pin->disk->super.sequence >= pin->super_sequence + 2 && pin->disk->journal.tail_lsn >= pin->lsn);
}

static void pins_release(struct pool_drain *drain)
{
    unsigned kept = 0;
    for (unsigned index = 0; index < drain->pin_count; index++) {
        struct pin *pin = &drain->pins[index];
        if (!pin_is_due(pin)) {
            drain->pins[kept++] = *pin;
            continue;
        }
        --*pool_extents_busy(drain->pool, pin->extent);
        pool_extents_may_be_empty(drain->pool, pin->extent);
    }
    drain->pin_count = kept;
}

/* An idle disk would write its checkpoints one at a tick. */
static void pins_hurry(struct pool_drain *drain)
{
    for (unsigned index = 0; index < drain->pin_count; index++)
        drain->pins[index].disk->checkpoint.idle_wanted = true;
    pool_drain_pause(drain, DRAIN_LOOK_MS);
}

/* The next of its extents that a volume has; nothing new comes to it, so the search goes on where it was. */
static bool extent_find_on(struct pool_drain *drain, struct pool_disk *disk, struct pool_volume **ret_volume,
                           uint32_t *ret_logical)
{
    for (; drain->cursor < disk->extent_count; drain->cursor++) {
        const struct format_descriptor *descriptor = &disk->descriptors[drain->cursor];
        if (!descriptor->birth)
            continue;
        struct pool_volume *volume = pool_volume_find(disk->pool, &descriptor->volume);
        uint32_t extent = disk->index << EXTENT_DISK_SHIFT | drain->cursor;
        if (!volume || descriptor->logical >= volume->extent_count || volume->map[descriptor->logical] != extent + 1)
            continue; /* it is being deleted */
        *ret_volume = volume;
        *ret_logical = descriptor->logical;
        return true;
    }
    drain->cursor = 0;
    return false;
}

static void wiped(struct ring_io *io, int result)
{
    struct pool_drain *drain = list_entry(io, struct pool_drain, io);
    struct pool_disk *disk = drain->leaving;
    struct pool_op *removal = disk->removal;
    drain->block++;
    pool_disk_end(disk);
    if (drain->block < 2) {
        drain->io.done = wiped;
        pool_disk_begin(disk);
        ring_write(drain->pool->ring, &drain->io, disk->fd, drain->data, FORMAT_BLOCK,
                   FORMAT_SUPER_OFFSET(drain->block), true);
        return;
    }
    drain->leaving = NULL;
    log_notice("disk %s is out of the pool and may be taken away", disk->path);
    pool_members_tell(disk);
    pool_checksums_forget(disk);
    pool_disk_free(disk);
    drain->pool->disk_count--;
    if (removal)
        pool_op_finish(drain->pool, removal, 0);
    pool_wake(drain->pool);
}

/* The others no longer name it: its superblocks go, so that nobody takes it for one of the pool's. */
static void left(void *userdata, int result)
{
    struct pool_drain *drain = userdata;
    struct pool_disk *disk = drain->leaving;
    if (result < 0)
        return;
    memset(drain->data, 0, FORMAT_BLOCK);
    drain->block = 0;
    drain->io.done = wiped;
    pool_disk_begin(disk);
    ring_write(drain->pool->ring, &drain->io, disk->fd, drain->data, FORMAT_BLOCK, FORMAT_SUPER_OFFSET(0), true);
}

/* Nothing of it is needed: no extent, no record, and no checkpoint is under way. */
static void disk_leave(struct pool_drain *drain, struct pool_disk *disk)
{
    struct pool_journal *journal = &disk->journal;
    bool is_idle = list_is_empty(&journal->live) && list_is_empty(&journal->accept) && !disk->flights &&
                   journal->tail_lsn == journal->head_lsn && disk->checkpoint.state == CHECKPOINT_IDLE &&
                   list_is_empty(&disk->checkpoint.waiting);
    if (drain->pin_count) {
        pins_hurry(drain);
        return;
    }
    if (!is_idle || disk->tables_dirty) {
        disk->checkpoint.idle_wanted = true;
        pool_drain_pause(drain, DRAIN_LOOK_MS);
        return;
    }
    drain->leaving = disk;
    disk->leaving = disk->unnamed = true;
    pool_members_commit(drain->pool, left, drain);
}

static struct pool_disk *disk_draining(struct pool *pool)
{
    pool_for_each_disk(pool, disk) if (disk->state == POOL_DISK_DRAINING) return disk;
    return NULL;
}

void pool_drain_pump(struct pool *pool)
{
    struct pool_drain *drain = pool->drain;
    if (!drain || pool->failure || drain->pausing || drain->leaving)
        return;
    pins_release(drain);
    if (drain->state == MOVE_QUIET)
        pool_move_look(drain);
    if (drain->state != MOVE_IDLE || drain->pausing)
        return;
    struct pool_disk *disk = disk_draining(pool);
    struct pool_volume *volume;
    uint32_t logical;
    if (!disk || pool->closing || pool_failure_is_striking(pool))
        return;
    if (drain->pin_count == PINS_MAX) {
        pins_hurry(drain);
        return;
    }
    if (!extent_find_on(drain, disk, &volume, &logical)) {
        if (disk->free_extents == disk->extent_count)
            disk_leave(drain, disk);
        else
            pool_drain_pause(drain, DRAIN_LOOK_MS);
        return;
    }
    uint32_t to = pool_extents_find_free(pool);
    if (to == EXTENT_NONE)
        pool_drain_pause(drain, DRAIN_PAUSE_MS_MAX); /* another disk was lost meanwhile */
    else
        pool_move_begin(drain, volume, logical, to);
}

void pool_drain_disk_failed(struct pool_disk *disk)
{
    struct pool_drain *drain = disk->pool->drain;
    if (!drain || drain->state == MOVE_IDLE)
        return;
    if (pool_extents_disk(disk->pool, drain->from) != disk && pool_extents_disk(disk->pool, drain->to) != disk)
        return;
    drain->given_up = true;
}

void pool_drain_start(struct pool *pool)
{
    if (pool->drain || !disk_draining(pool))
        return;
    struct pool_drain *drain = calloc(1, sizeof *drain);
    check(drain);
    drain->pool = pool;
    drain->from = drain->to = EXTENT_NONE;
    drain->data = pool_aligned(FORMAT_EXTENT);
    pool->drain = drain;
    pool_wake(pool);
}

void pool_drain_free(struct pool *pool)
{
    if (!pool->drain)
        return;
    ring_timer_stop(&pool->drain->timer);
    free(pool->drain->data);
    free(pool->drain);
    pool->drain = NULL;
}
