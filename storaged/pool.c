/* The pool's frame: operations, their completion, its failure, its end. */
#include "storaged/pool.h"

#include <errno.h>
#include <isa-l/crc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/check.h"
#include "common/log.h"
#include "storaged/pool_internal.h"

#define CHUNK_OPS 256u

uint32_t pool_crc(const void *data, size_t size)
{
    return ~crc32_iscsi((unsigned char *)(uintptr_t)data, (int)size, UINT32_MAX);
}

void *pool_aligned(size_t size)
{
    void *memory = aligned_alloc(FORMAT_BLOCK, (size + FORMAT_BLOCK - 1) / FORMAT_BLOCK * FORMAT_BLOCK);
    check(memory);
    return memset(memory, 0, size);
}

/* --- operations: from chunks that are kept, so that the data path allocates only while it grows ------------------ */

static void chunk_add(struct pool *pool)
{
    struct pool_op **chunks = realloc(pool->op_chunks, (pool->op_chunk_count + 1) * sizeof *chunks);
    struct pool_op *chunk = calloc(CHUNK_OPS, sizeof *chunk);
    check(chunks && chunk);
    pool->op_chunks = chunks;
    pool->op_chunks[pool->op_chunk_count++] = chunk;
    for (unsigned index = 0; index < CHUNK_OPS; index++)
        list_append(&pool->free_ops, &chunk[index].link);
}

struct pool_op *pool_op_new(struct pool *pool, enum pool_op_kind kind)
{
    if (list_is_empty(&pool->free_ops))
        chunk_add(pool);
    struct pool_op *op = list_entry(pool->free_ops.next, struct pool_op, link);
    list_remove(&op->link);
    memset(op, 0, sizeof *op);
    op->kind = kind;
    op->pool = pool;
    list_init(&op->link);
    list_init(&op->finished_link);
    return op;
}

void pool_op_free(struct pool *pool, struct pool_op *op)
{
    check(list_is_empty(&op->finished_link) && list_is_empty(&op->link) && !op->buffer);
    list_append(&pool->free_ops, &op->link);
}

void pool_op_finish(struct pool *pool, struct pool_op *op, int result)
{
    if (!list_is_empty(&op->finished_link))
        return;
    op->result = result;
    list_append(&pool->finished, &op->finished_link);
    pool_wake(pool);
}

static void op_tell(struct pool *pool, struct pool_op *op)
{
    struct pool_io *io = op->io;
    pool_done *done = op->done;
    void *userdata = op->userdata;
    int result = op->result;
    list_remove(&op->finished_link);
    op->io = NULL;
    op->done = NULL;
    if (!op->lsn) /* records live on until the tail has passed them */
        pool_op_free(pool, op);
    if (io)
        io->done(io, result);
    else if (done)
        done(userdata, result);
}

static void mail_run(struct ring_mail *mail)
{
    struct pool *pool = list_entry(mail, struct pool, mail);
    pool->mail_armed = false;
    if (pool->failure)
        pool_io_fail_waiting(pool);
    while (!list_is_empty(&pool->finished))
        op_tell(pool, list_entry(pool->finished.next, struct pool_op, finished_link));
    pool_journal_pump(pool);
    pool_checkpoint_consider(pool);
}

void pool_wake(struct pool *pool)
{
    if (!pool->tick.heap_index) {
        pool->tick.expired = pool_checkpoint_tick;
        ring_timer_start(pool->ring, &pool->tick, TICK_MS);
    }
    if (pool->mail_armed)
        return;
    pool->mail_armed = true;
    pool->mail.run = mail_run;
    ring_defer(pool->ring, &pool->mail);
}

void pool_fail(struct pool *pool, int error, const char *what, const char *path)
{
    check(error < 0);
    if (pool->failure)
        return;
    pool->failure = error;
    log_error("pool: disk %s failed while %s: %s; the pool serves nothing any more, check the disk and restart", path,
              what, strerror(-error));
    pool_wake(pool);
}

int pool_failure(const struct pool *pool)
{
    return pool->failure;
}

/* --- what people see -----------------------------------------------------------------------------------------------
 */

void pool_get_stats(const struct pool *pool, struct pool_stats *ret)
{
    *ret = pool->stats;
    ret->id = pool->id;
    ret->total_bytes = (uint64_t)pool->extent_count * FORMAT_EXTENT;
    ret->reserved_bytes = (uint64_t)pool->reserved_extents * FORMAT_EXTENT;
    ret->used_bytes = (uint64_t)pool->used_extents * FORMAT_EXTENT;
    ret->journal_bytes = pool->journal_blocks * FORMAT_BLOCK;
    ret->journal_used_bytes = (pool->head_lsn - pool->tail_lsn) * FORMAT_BLOCK;
    ret->disk_count = pool->disk_count;
}

const char *pool_disk_path(const struct pool *pool, unsigned index)
{
    return index < pool->disk_count ? pool->disks[index].path : NULL;
}

/* --- the end --------------------------------------------------------------------------------------------------------
 */

struct settle {
    struct ring_timer timer;
    struct pool *pool;
    bool waiting;
};

static void settle_done(void *userdata, int result)
{
    ((struct settle *)userdata)->waiting = false;
}

static void settle_look(struct ring_timer *timer)
{
    struct settle *settle = list_entry(timer, struct settle, timer);
    if (!settle->waiting && !settle->pool->busy_count && !settle->pool->mail_armed)
        ring_stop(settle->pool->ring);
    else
        ring_timer_start(settle->pool->ring, timer, 1);
}

int pool_settle(struct pool *pool, bool checkpoint)
{
    struct settle settle = {.timer.expired = settle_look, .pool = pool, .waiting = checkpoint};
    if (checkpoint)
        pool_checkpoint(pool, settle_done, &settle);
    ring_timer_start(pool->ring, &settle.timer, 0);
    return ring_run(pool->ring);
}

static void disk_free(struct pool_disk *disk)
{
    free(disk->tables[0].flags);
    free(disk->tables[1].flags);
    free(disk->path);
    if (disk->fd >= 0)
        close(disk->fd); /* and with it the lock */
}

void pool_free(struct pool *pool)
{
    list_for_each(item, &pool->live) {
        struct pool_op *op = list_entry(item, struct pool_op, link);
        iobuf_put(pool->arena, op->buffer);
    }
    if (pool->arena_waiting)
        iobuf_wait_cancel(pool->arena, &pool->arena_waiter);
    iobuf_arena_free(pool->arena);
    for (unsigned index = 0; index < POOL_VOLUMES_MAX; index++)
        if (pool->volumes[index])
            pool_volume_free(pool->volumes[index]);
    for (unsigned index = 0; index < POOL_GROUPS_MAX; index++)
        free(pool->groups[index].blob);
    for (unsigned index = 0; index < TABLE_WRITES_MAX; index++)
        free(pool->checkpoint.writes[index].buffer);
    for (unsigned index = 0; index < pool->op_chunk_count; index++)
        free(pool->op_chunks[index]);
    free(pool->op_chunks);
    free(pool->catalogue.buffer);
    pool_extents_free(pool);
    for (unsigned index = 0; index < POOL_DISKS_MAX; index++)
        disk_free(&pool->disks[index]);
    free(pool);
}

void pool_close(struct pool *pool)
{
    if (!pool)
        return;
    int result = pool_settle(pool, true);
    if (result < 0)
        log_error("pool: closing without a checkpoint: %s; the next start replays the journal", strerror(-result));
    ring_timer_stop(&pool->tick);
    pool_free(pool);
}
