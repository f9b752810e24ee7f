/* The journal's writing side: records gather while a write is under way and go out as one durable write. */
#include <errno.h>
#include <string.h>

#include "common/check.h"
#include "storaged/pool_internal.h"

static void batch_completed(struct ring_io *io, int result);

static void arena_retry(struct iobuf_waiter *waiter)
{
    struct pool *pool = list_entry(waiter, struct pool, arena_waiter);
    pool->arena_waiting = false;
    pool_wake(pool);
}

static uint8_t *buffer_get(struct pool *pool, uint32_t blocks)
{
    uint8_t *buffer = iobuf_get(pool->arena, (size_t)blocks * FORMAT_BLOCK);
    if (!buffer && !pool->arena_waiting) {
        pool->arena_waiting = true;
        pool->arena_waiter.retry = arena_retry;
        iobuf_wait(pool->arena, &pool->arena_waiter);
    }
    return buffer;
}

static enum format_record_type record_type(const struct pool_op *op)
{
    switch (op->kind) {
    case OP_WRITE: return FORMAT_RECORD_WRITE;
    case OP_ZERO: return FORMAT_RECORD_ZERO;
    case OP_DIRTY: return FORMAT_RECORD_DIRTY;
    default: check(op->kind == OP_PAD); return FORMAT_RECORD_PAD;
    }
}

static void record_append(struct pool *pool, struct pool_op *op, uint32_t blocks)
{
    op->blocks = blocks;
    op->lsn = pool->head_lsn;
    pool->head_lsn += blocks;
    list_append(&pool->live, &op->link);
    if (pool->pending == &pool->live)
        pool->pending = &op->link;
    if (pool->reclaim == &pool->live)
        pool->reclaim = &op->link;
    pool->stats.journal_records++;
}

static void record_fill(struct pool *pool, struct pool_op *op)
{
    struct format_record *record = (struct format_record *)op->buffer;
    memset(record, 0, sizeof *record);
    record->magic = FORMAT_RECORD_MAGIC;
    record->type = record_type(op);
    record->journal = pool->journal;
    record->lsn = op->lsn;
    record->blocks = op->blocks;
    record->flags = (op->dirty ? FORMAT_RECORD_IS_DIRTY : 0) | (op->copy ? FORMAT_RECORD_IS_COPY : 0);
    if (op->volume) {
        record->group = op->volume->group;
        record->volume = op->volume->id;
    }
    record->session = op->session;
    record->sequence = op->sequence;
    if (op->session_slot && op->session_slot->live) {
        record->commit_session = op->session_slot->session;
        record->commit_upto = op->session_slot->commit;
    }
    record->block = op->block;
    record->count = op->count;
    for (uint64_t index = 0; op->kind == OP_WRITE && index < op->count; index++) {
        uint8_t *data = op->buffer + (index + 1) * FORMAT_BLOCK;
        memcpy(data, op->io->data + index * FORMAT_BLOCK, FORMAT_BLOCK);
        record->checksums[index] = pool_extents_checksum(op->volume->seed, op->block + index, data);
    }
    record->crc = pool_crc(record, sizeof *record);
}

/* Covers the rest of the ring; false: no memory now. */
static bool pad_append(struct pool *pool, uint32_t blocks)
{
    uint8_t *buffer = buffer_get(pool, 1);
    if (!buffer)
        return false;
    struct pool_op *op = pool_op_new(pool, OP_PAD);
    op->buffer = buffer;
    record_append(pool, op, blocks);
    record_fill(pool, op);
    return true;
}

/* Moves the first of `accept` into the journal; false: it has to wait for space or memory. */
static bool record_admit(struct pool *pool, struct pool_op *op)
{
    uint32_t blocks = 1 + (op->kind == OP_WRITE ? (uint32_t)op->count : 0);
    uint64_t rest = pool->journal_blocks - pool->head_lsn % pool->journal_blocks;
    uint64_t free_blocks = pool->journal_blocks - (pool->head_lsn - pool->tail_lsn);
    uint64_t pad = rest < blocks ? rest : 0;
    pool->space_waiting = blocks + pad > free_blocks;
    if (pool->space_waiting)
        return false;
    if (pad && !pad_append(pool, (uint32_t)pad))
        return false;
    op->buffer = buffer_get(pool, blocks);
    if (!op->buffer)
        return false;
    list_remove(&op->link);
    record_append(pool, op, blocks);
    record_fill(pool, op);
    return true;
}

/* As many of the pending records as lie together in the ring and fit. */
static void batch_start(struct pool *pool)
{
    struct pool_batch *batch = &pool->batches[(pool->batch_first + pool->batch_count++) % BATCHES_MAX];
    struct pool_op *first = list_entry(pool->pending, struct pool_op, link), *op = first;
    batch->pool = pool;
    batch->first = pool->pending;
    batch->count = 0;
    batch->bytes = 0;
    batch->durable = false;
    do {
        op = list_entry(pool->pending, struct pool_op, link);
        size_t size = (size_t)(op->kind == OP_PAD ? 1 : op->blocks) * FORMAT_BLOCK;
        batch->vectors[batch->count++] = (struct iovec){.iov_base = op->buffer, .iov_len = size};
        batch->bytes += size;
        pool->pending = pool->pending->next;
    } while (pool->pending != &pool->live && batch->count < BATCH_RECORDS_MAX && batch->bytes < BATCH_BYTES_MAX &&
             (op->lsn + op->blocks) % pool->journal_blocks != 0);
    const struct pool_disk *disk = &pool->disks[0];
    uint64_t offset = disk->super.journal_offset + first->lsn % pool->journal_blocks * FORMAT_BLOCK;
    batch->io.done = batch_completed;
    pool->busy_count++;
    pool->stats.journal_writes++;
    ring_writev(pool->ring, &batch->io, disk->fd, batch->vectors, batch->count, offset, true);
}

static void record_durable(struct pool *pool, struct pool_op *op)
{
    op->durable = true;
    if (!id_is_null(&op->session) && !op->copy)
        pool_session_saw(pool, &op->volume->group, &op->session, op->sequence);
    if (op->kind == OP_WRITE || op->kind == OP_ZERO)
        pool_io_place(pool, op);
    else if (op->kind == OP_DIRTY)
        pool_extents_set_dirty(op->volume, op->block, op->count);
    if (op->kind != OP_WRITE) {
        iobuf_put(pool->arena, op->buffer);
        op->buffer = NULL;
        op->placed = true;
    }
    pool_op_finish(pool, op, 0);
}

/* The oldest batch. A record is done only when all earlier ones are durable: replay ends at the first hole. */
static void batch_retire(struct pool *pool)
{
    struct pool_batch *batch = &pool->batches[pool->batch_first];
    pool->batch_first = (pool->batch_first + 1) % BATCHES_MAX;
    pool->batch_count--;
    struct list *item = batch->first;
    for (unsigned index = 0; index < batch->count; index++) {
        struct pool_op *op = list_entry(item, struct pool_op, link);
        item = item->next;
        if (pool->failure)
            pool_op_finish(pool, op, pool->failure);
        else
            record_durable(pool, op);
    }
}

static void batch_completed(struct ring_io *io, int result)
{
    struct pool_batch *batch = list_entry(io, struct pool_batch, io);
    struct pool *pool = batch->pool;
    pool->busy_count--;
    if (result < 0 || (uint64_t)result != batch->bytes)
        pool_fail(pool, result < 0 ? result : -EIO, "writing the journal", pool->disks[0].path);
    batch->durable = true;
    while (pool->batch_count && pool->batches[pool->batch_first].durable)
        batch_retire(pool);
    pool_io_pump(pool);
    pool_wake(pool);
}

/* After a failure nothing enters the journal; what is already in a batch ends with that. */
static void fail_waiting(struct pool *pool)
{
    list_for_each_safe(item, after, &pool->accept) {
        list_remove(item);
        pool_op_finish(pool, list_entry(item, struct pool_op, link), pool->failure);
    }
    for (; pool->pending != &pool->live; pool->pending = pool->pending->next)
        pool_op_finish(pool, list_entry(pool->pending, struct pool_op, link), pool->failure);
}

void pool_journal_pump(struct pool *pool)
{
    if (pool->failure) {
        fail_waiting(pool);
        return;
    }
    while (!list_is_empty(&pool->accept) && !pool->arena_waiting)
        if (!record_admit(pool, list_entry(pool->accept.next, struct pool_op, link)))
            break;
    while (pool->pending != &pool->live && pool->batch_count < BATCHES_MAX)
        batch_start(pool);
}

/* --- what callers ask for ---------------------------------------------------------------------------------------- */

static void record_submit(struct pool *pool, struct pool_op *op)
{
    check(op->volume && op->volume->pool == pool);
    check(op->block <= op->volume->blocks && op->count <= op->volume->blocks - op->block);
    list_append(&pool->accept, &op->link);
    pool_wake(pool);
}

static void write_submit(struct pool *pool, struct pool_io *io, enum pool_op_kind kind)
{
    check(io->count > 0 && io->count <= POOL_WRITE_BLOCKS_MAX);
    struct pool_op *op = pool_op_new(pool, kind);
    op->io = io;
    op->volume = io->volume;
    op->block = io->block;
    op->count = io->count;
    op->dirty = io->dirty;
    op->copy = io->copy;
    if (!io->dirty) {
        op->session = io->session;
        op->sequence = io->sequence;
        op->session_slot = pool_session_find(pool, &io->volume->group);
        /* A write that belongs to no live session has no second copy that anyone will tell us of. */
        op->dirty = !op->session_slot || !op->session_slot->live || !id_equal(&op->session_slot->session, &io->session);
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

void pool_dirty_mark(struct pool *pool, struct pool_volume *volume, uint64_t block, uint64_t count, pool_done *done,
                     void *userdata)
{
    struct pool_op *op = pool_op_new(pool, OP_DIRTY);
    op->done = done;
    op->userdata = userdata;
    op->volume = volume;
    op->block = block;
    op->count = count;
    op->dirty = true;
    record_submit(pool, op);
}
