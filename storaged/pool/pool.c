/* The pool's frame: operations, their completion, its failure, its end. */
#include "storaged/pool/pool.h"

#include <errno.h>
#include <isa-l/crc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/check.h"
#include "common/log.h"
#include "storaged/pool/pool_internal.h"

#define CHUNK_OPS 256u

uint32_t pool_crc(const void *data, size_t size)
{
    return ~crc32_iscsi((unsigned char *)(uintptr_t)data, (int)size, UINT32_MAX);
}

uint32_t pool_crc_sealed(const void *data, size_t size, const uint32_t *crc)
{
    size_t before = (size_t)((const uint8_t *)crc - (const uint8_t *)data), behind = before + sizeof *crc;
    const uint32_t zero = 0;
    check(behind <= size);
    uint32_t value = crc32_iscsi((unsigned char *)(uintptr_t)data, (int)before, UINT32_MAX);
    value = crc32_iscsi((unsigned char *)(uintptr_t)&zero, (int)sizeof zero, value);
    return ~crc32_iscsi((unsigned char *)(uintptr_t)data + behind, (int)(size - behind), value);
}

void *pool_table_map(size_t size)
{
    void *table = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return table == MAP_FAILED ? NULL : table;
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
    for (unsigned index = 0; index < 2; index++) {
        struct pool_part *part = &op->parts[index];
        part->op = op;
        list_init(&part->link);
        list_init(&part->bucket);
        list_init(&part->queue);
    }
    return op;
}

static void op_free(struct pool *pool, struct pool_op *op)
{
    check(list_is_empty(&op->finished_link) && list_is_empty(&op->link) && !op->buffer);
    list_append(&pool->free_ops, &op->link);
}

void pool_op_release(struct pool *pool, struct pool_op *op)
{
    check(op->holds > 0);
    if (--op->holds == 0 && op->told)
        op_free(pool, op);
}

void pool_op_finish(struct pool *pool, struct pool_op *op, int result)
{
    if (!list_is_empty(&op->finished_link) || op->told)
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
    op->told = true;
    if (!op->holds) /* in a journal's memory it lives on until the tail has passed it */
        op_free(pool, op);
    if (io)
        io->done(io, result);
    else if (done)
        done(userdata, result);
}

static void mail_run(struct ring_mail *mail)
{
    struct pool *pool = list_entry(mail, struct pool, mail);
    pool->mail_armed = false;
    if (pool->failure) {
        pool_checksums_fail(pool);
        pool_io_fail_waiting(pool);
    }
    while (!list_is_empty(&pool->finished))
        op_tell(pool, list_entry(pool->finished.next, struct pool_op, finished_link));
    pool_failure_pump(pool);
    pool_drain_pump(pool);
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

/* --- what people see ---------------------------------------------------------------------------------------------- */

void pool_get_stats(const struct pool *pool, struct pool_stats *ret)
{
    *ret = pool->stats;
    ret->id = pool->id;
    ret->total_bytes = (uint64_t)pool->extent_count * FORMAT_EXTENT;
    ret->reserved_bytes = (uint64_t)pool->reserved_extents * FORMAT_EXTENT;
    ret->used_bytes = (uint64_t)pool->used_extents * FORMAT_EXTENT;
    pool_for_each_disk(pool, disk) {
        const struct pool_journal *journal = &disk->journal;
        ret->journal_bytes += journal->blocks * FORMAT_BLOCK;
        ret->journal_used_bytes += (journal->head_lsn - journal->tail_lsn) * FORMAT_BLOCK;
    }
    ret->disk_count = pool->disk_count;
}

static const struct pool_disk *disk_at(const struct pool *pool, unsigned index)
{
    for (unsigned place = 0; place < POOL_DISKS_MAX; place++)
        if (pool->disks[place].used && index-- == 0)
            return &pool->disks[place];
    return NULL;
}

const char *pool_disk_path(const struct pool *pool, unsigned index)
{
    const struct pool_disk *disk = disk_at(pool, index);
    return disk ? disk->path : NULL;
}

/* --- the end --------------------------------------------------------------------------------------------------------
 */

struct settle {
    struct ring_timer timer;
    struct pool *pool;
    bool waiting, finished;
};

static void settle_done(void *userdata, int result)
{
    ((struct settle *)userdata)->waiting = false;
}

static void settle_look(struct ring_timer *timer)
{
    struct settle *settle = list_entry(timer, struct settle, timer);
    if (!settle->waiting && !settle->pool->busy_count && !settle->pool->mail_armed &&
        !pool_failure_is_busy(settle->pool)) {
        settle->finished = true;
        ring_stop(settle->pool->ring);
    } else {
        ring_timer_start(settle->pool->ring, timer, 1);
    }
}

int pool_settle(struct pool *pool, bool checkpoint)
{
    struct settle settle = {.timer.expired = settle_look, .pool = pool, .waiting = checkpoint};
    if (checkpoint)
        pool_checkpoint(pool, settle_done, &settle);
    ring_timer_start(pool->ring, &settle.timer, 0);
    int result = 0;
    while (result == 0 && !settle.finished) /* somebody else may stop the ring */
        result = ring_run(pool->ring);
    ring_timer_stop(&settle.timer);
    return result;
}

void pool_free(struct pool *pool)
{
    pool_drain_free(pool);
    for (unsigned index = 0; index < POOL_DISKS_MAX; index++)
        pool_disk_free(&pool->disks[index]);
    if (pool->arena_waiting)
        iobuf_wait_cancel(pool->arena, &pool->arena_waiter);
    iobuf_arena_free(pool->arena);
    for (unsigned index = 0; index < POOL_VOLUMES_MAX; index++)
        if (pool->volumes[index])
            pool_volume_free(pool->volumes[index]);
    for (unsigned index = 0; index < POOL_GROUPS_MAX; index++)
        free(pool->groups[index].blob);
    for (unsigned index = 0; index < pool->op_chunk_count; index++)
        free(pool->op_chunks[index]);
    free(pool->op_chunks);
    free(pool->catalogue.buffer);
    pool_checksums_free(pool);
    free(pool);
}

void pool_close(struct pool *pool)
{
    if (!pool)
        return;
    pool->closing = true;
    int result = pool_settle(pool, true);
    if (result == 0)
        result = pool->failure;
    pool_for_each_disk(pool, disk)
        if (result == 0)
            result = pool_checkpoint_seal_now(disk);
    if (result < 0)
        log_error("pool: closing without a checkpoint: %s; the next start replays the journal", strerror(-result));
    ring_timer_stop(&pool->tick);
    pool_free(pool);
}
