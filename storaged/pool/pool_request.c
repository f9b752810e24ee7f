/* What callers ask of the pool's data, divided into parts that lie in one extent each. */
#include <errno.h>
#include <string.h>

#include "common/check.h"
#include "storaged/pool/pool_internal.h"

#define MARK_EXTENTS_MAX 2u /* longer ranges are made durable by a checkpoint, not by records */

/* Part `index` (0, 1) of what lies in two extents at most: its length in blocks (0: there is none), its first block in
 * the volume, the volume's extent and the block in that. */
unsigned pool_request_split(uint64_t block, uint64_t count, unsigned index, uint64_t *ret_block, uint32_t *ret_logical,
                            unsigned *ret_first)
{
    uint64_t end = block + count;
    uint64_t border = (block / FORMAT_EXTENT_BLOCKS + 1) * FORMAT_EXTENT_BLOCKS;
    if (index == 1)
        block = border;
    else if (end > border)
        end = border;
    if (block >= end)
        return 0;
    *ret_block = block;
    *ret_logical = (uint32_t)(block / FORMAT_EXTENT_BLOCKS);
    *ret_first = (unsigned)(block % FORMAT_EXTENT_BLOCKS);
    return (unsigned)(end - block);
}

void pool_part_ready(struct pool_part *part)
{
    struct pool *pool = part->op->pool;
    if (part->kind == PART_MOVE_FROM || part->kind == PART_MOVE_TO) {
        pool_drain_part_ready(part); /* it gives up as a whole */
    } else if (pool->failure) {
        pool_part_done(part, pool->failure);
    } else if (!POOL_DISK_IS_ALIVE(part->disk)) {
        pool_failure_requeue(part);
    } else if (part->kind == PART_READ) {
        pool_io_read(part);
    } else {
        list_append(&part->disk->journal.accept, &part->link);
        pool_wake(pool);
    }
}

void pool_part_done(struct pool_part *part, int result)
{
    struct pool_op *op = part->op;
    pool_checksums_unpin(part);
    if (result < 0 && op->result == 0)
        op->result = result;
    if (part->kind == PART_READ)
        --*pool_extents_busy(op->pool, part->extent);
    check(op->parts_left > 0);
    if (--op->parts_left == 0)
        pool_op_finish(op->pool, op, op->result);
}

/* Any disk's journal: what concerns no extent. */
static struct pool_disk *disk_any(struct pool *pool)
{
    pool_for_each_disk(pool, disk)
        if (disk->state == POOL_DISK_OK)
            return disk;
    pool_for_each_disk(pool, disk)
        return disk;
    check(!"a pool has a disk");
    return NULL;
}

static struct pool_part *part_add(struct pool_op *op, enum pool_part_kind kind, uint32_t extent, unsigned first,
                                  unsigned count)
{
    struct pool *pool = op->pool;
    struct pool_part *part = &op->parts[op->parts_left++];
    part->kind = kind;
    part->extent = extent;
    part->first = (uint16_t)first;
    part->count = (uint16_t)count;
    part->disk = extent == EXTENT_NONE ? disk_any(pool) : pool_extents_disk(pool, extent);
    if (extent != EXTENT_NONE)
        ++*pool_extents_busy(pool, extent);
    return part;
}

static enum pool_part_kind part_kind(const struct pool_op *op, unsigned count)
{
    switch (op->kind) {
    case OP_ZERO: return PART_ZERO;
    case OP_DIRTY: return PART_DIRTY;
    default: return count > POOL_JOURNALED_MAX ? PART_INTENT : PART_WRITE;
    }
}

/* An extent that moves, or whose disk has failed a moment ago, is not to be had now. */
static bool request_is_held(struct pool *pool, const struct pool_op *op)
{
    if (pool->rescues)
        return true; /* in the order in which they were acknowledged */
    if (list_is_empty(&pool->held) && !pool_failure_is_striking(pool) && !pool->drain)
        return false;
    for (unsigned index = 0; index < 2; index++) {
        uint64_t block;
        uint32_t logical;
        unsigned first, count = pool_request_split(op->block, op->count, index, &block, &logical, &first);
        uint32_t extent = count ? op->volume->map[logical] - 1 : EXTENT_NONE;
        if (extent == EXTENT_NONE)
            continue;
        const struct pool_disk *disk = pool_extents_disk(pool, extent);
        if (pool_drain_holds(pool, extent) || (!POOL_DISK_IS_ALIVE(disk) && disk->failing < FAILING_SETTLE))
            return true;
    }
    return false;
}

/* Does every part that needs an extent have one? Only after the loss of a disk there may be none. */
static bool extents_ensure(struct pool_op *op)
{
    for (unsigned index = 0; index < 2; index++) {
        uint64_t block;
        uint32_t logical;
        unsigned first, count = pool_request_split(op->block, op->count, index, &block, &logical, &first);
        if (!count)
            continue;
        /* What may have to be marked as different from the peer needs an extent whose bits can tell so, on the disk in
         * whose journal the record lies: the two must not be lost one without the other. */
        bool allocate = op->kind != OP_ZERO || !op->unmirrored || op->volume->map[logical] ||
                        pool_extents_hole_is_lost(op->volume);
        if (pool_extents_of(op->volume, logical, allocate) == EXTENT_NONE && allocate)
            return false;
    }
    return true;
}

static void record_submit(struct pool *pool, struct pool_op *op)
{
    check(op->volume && op->volume->pool == pool);
    check(op->block <= op->volume->blocks && op->count <= op->volume->blocks - op->block);
    if (!pool->failure && request_is_held(pool, op)) {
        list_append(&pool->held, &op->link);
        return;
    }
    if (pool->failure || !extents_ensure(op)) {
        pool_op_finish(pool, op, pool->failure ? pool->failure : -ENOSPC);
        return;
    }
    for (unsigned index = 0; index < 2; index++) {
        uint64_t block;
        uint32_t logical;
        unsigned first, count = pool_request_split(op->block, op->count, index, &block, &logical, &first);
        if (!count)
            continue;
        uint32_t extent = pool_extents_of(op->volume, logical, false);
        struct pool_part *part = part_add(op, part_kind(op, count), extent, first, count);
        part->block = block;
        part->data = op->kind == OP_WRITE ? op->io->data + (block - op->block) * FORMAT_BLOCK : NULL;
    }
    for (unsigned index = 0, count = op->parts_left; index < count; index++) {
        struct pool_part *part = &op->parts[index];
        bool needs_checksums = part->kind == PART_WRITE || part->kind == PART_INTENT;
        if (!needs_checksums || pool_checksums_pin(part))
            pool_part_ready(part);
    }
}

static void write_submit(struct pool *pool, struct pool_io *io, enum pool_op_kind kind)
{
    check(io->count > 0 && io->count <= POOL_WRITE_BLOCKS_MAX);
    struct pool_op *op = pool_op_new(pool, kind);
    op->io = io;
    op->volume = io->volume;
    op->block = io->block;
    op->count = io->count;
    op->unmirrored = io->unmirrored;
    op->dirty = io->dirty && !io->unmirrored;
    op->copy = io->copy;
    if (!io->dirty && !io->unmirrored) {
        op->session = io->session;
        op->sequence = io->sequence;
        op->session_slot = pool_session_find(pool, &io->volume->group);
        /* A write that belongs to no live session has no second copy that anyone will tell us of. */
        op->dirty = !pool_session_is_live(op);
    }
    record_submit(pool, op);
}

void pool_write(struct pool *pool, struct pool_io *io)
{
    check(io->data && (uintptr_t)io->data % FORMAT_BLOCK == 0);
    write_submit(pool, io, OP_WRITE);
}

void pool_zero(struct pool *pool, struct pool_io *io)
{
    write_submit(pool, io, OP_ZERO);
}

/* The first block of the part whose content is known to be lost; false: none. */
static bool lost_find(struct pool_volume *volume, uint32_t extent, uint64_t block, unsigned first, unsigned count,
                      uint64_t *ret_block)
{
    *ret_block = block;
    if (extent == EXTENT_NONE)
        return pool_extents_hole_is_lost(volume);
    if (pool_extents_disk(volume->pool, extent)->failing < FAILING_SETTLE)
        return false; /* the read will see */
    for (unsigned index = 0; index < count; index++, (*ret_block)++)
        if (pool_extents_is_lost(volume->pool, extent, first + index))
            return true;
    return false;
}

static void read_submit(struct pool *pool, struct pool_op *op)
{
    struct pool_io *io = op->io;
    if (!pool->failure && request_is_held(pool, op)) {
        list_append(&pool->held, &op->link);
        return;
    }
    for (unsigned index = 0; index < 2 && !pool->failure; index++) {
        uint64_t block;
        uint32_t logical;
        unsigned first, count = pool_request_split(io->block, io->count, index, &block, &logical, &first);
        uint8_t *data = count ? io->data + (block - io->block) * FORMAT_BLOCK : NULL;
        uint32_t extent = count ? pool_extents_of(io->volume, logical, false) : EXTENT_NONE;
        uint64_t lost;
        if (count && lost_find(io->volume, extent, block, first, count, &lost)) {
            if (!op->result)
                io->bad_block = lost;
            op->result = -EBADMSG;
        } else if (extent != EXTENT_NONE && pool_extents_any_content(pool, extent, first, count)) {
            struct pool_part *part = part_add(op, PART_READ, extent, first, count);
            part->block = block;
            part->data = data;
        } else if (count) {
            memset(data, 0, (size_t)count * FORMAT_BLOCK);
        }
    }
    if (!op->parts_left) {
        pool_op_finish(pool, op, pool->failure ? pool->failure : op->result);
        return;
    }
    for (unsigned index = 0, count = op->parts_left; index < count; index++)
        if (pool_checksums_pin(&op->parts[index]))
            pool_part_ready(&op->parts[index]);
}

void pool_read(struct pool *pool, struct pool_io *io)
{
    check(io->count > 0 && io->count <= POOL_WRITE_BLOCKS_MAX && io->volume->pool == pool);
    check(io->block <= io->volume->blocks && io->count <= io->volume->blocks - io->block);
    check(io->data && (uintptr_t)io->data % FORMAT_BLOCK == 0);
    struct pool_op *op = pool_op_new(pool, OP_READ);
    op->io = io;
    op->volume = io->volume;
    op->block = io->block;
    op->count = io->count;
    read_submit(pool, op);
}

void pool_request_release(struct pool *pool)
{
    struct list again;
    list_init(&again);
    while (!list_is_empty(&pool->held)) {
        struct list *item = pool->held.next;
        list_remove(item);
        list_append(&again, item);
    }
    while (!list_is_empty(&again)) {
        struct pool_op *op = list_entry(again.next, struct pool_op, link);
        list_remove(&op->link);
        if (op->kind == OP_READ)
            read_submit(pool, op);
        else
            record_submit(pool, op);
    }
}

void pool_part_again(struct pool_part *part, uint32_t extent)
{
    struct pool *pool = part->op->pool;
    part->extent = extent;
    part->disk = extent == EXTENT_NONE ? disk_any(pool) : pool_extents_disk(pool, extent);
    part->lsn = 0;
    part->durable = part->placed = part->started = false;
    if (extent != EXTENT_NONE)
        ++*pool_extents_busy(pool, extent);
    bool needs_checksums = part->kind != PART_ZERO && part->kind != PART_DIRTY;
    if (!needs_checksums || pool_checksums_pin(part))
        pool_part_ready(part);
}

/* Is there an extent for every one of the range, whose bits can tell? */
static bool range_ensure(struct pool_volume *volume, uint64_t block, uint64_t count)
{
    uint64_t last = (block + count - 1) / FORMAT_EXTENT_BLOCKS;
    for (uint64_t logical = block / FORMAT_EXTENT_BLOCKS; logical <= last; logical++)
        if (pool_extents_of(volume, (uint32_t)logical, true) == EXTENT_NONE)
            return false;
    return true;
}

/* A long range: marked in memory, and the checkpoint makes that durable. */
static void mark_long(struct pool *pool, struct pool_volume *volume, uint64_t block, uint64_t count, pool_done *done,
                      void *userdata)
{
    if (!pool->failure && !range_ensure(volume, block, count)) {
        struct pool_op *op = pool_op_new(pool, OP_DIRTY);
        op->done = done;
        op->userdata = userdata;
        pool_op_finish(pool, op, -ENOSPC);
        return;
    }
    if (!pool->failure)
        pool_dirty_set(volume, block, count);
    pool_checkpoint(pool, done, userdata);
}

void pool_dirty_mark(struct pool *pool, struct pool_volume *volume, uint64_t block, uint64_t count, pool_done *done,
                     void *userdata)
{
    check(block <= volume->blocks && count <= volume->blocks - block);
    if (count && (block + count - 1) / FORMAT_EXTENT_BLOCKS - block / FORMAT_EXTENT_BLOCKS >= MARK_EXTENTS_MAX) {
        mark_long(pool, volume, block, count, done, userdata);
        return;
    }
    struct pool_op *op = pool_op_new(pool, OP_DIRTY);
    op->done = done;
    op->userdata = userdata;
    op->volume = volume;
    op->block = block;
    op->count = count;
    op->dirty = true;
    if (count)
        record_submit(pool, op);
    else
        pool_op_finish(pool, op, pool->failure);
}
