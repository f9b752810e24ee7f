/* Blocks between memory and their place: reads with their checksums, journaled writes, each in order per block. */
#include <errno.h>
#include <string.h>

#include "common/check.h"
#include "common/log.h"
#include "storaged/pool_internal.h"

static void portion_completed(struct ring_io *io, int result);

/* Part `index` (0, 1) of what lies in two extents at most: its length in blocks (0: there is none), its first block in
 * the volume, the volume's extent and the block in that. */
unsigned pool_io_split(const struct pool_op *op, unsigned index, uint64_t *ret_block, uint32_t *ret_logical,
                       unsigned *ret_first)
{
    uint64_t block = op->block, end = op->block + op->count;
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

static struct list *bucket_of(struct pool *pool, uint32_t extent)
{
    return &pool->buckets[extent % BUCKET_COUNT];
}

static bool is_read(const struct pool_portion *portion)
{
    return portion->op->kind == OP_READ;
}

static bool portion_is_blocked(struct pool *pool, const struct pool_portion *portion)
{
    list_for_each(item, bucket_of(pool, portion->extent)) {
        const struct pool_portion *other = list_entry(item, struct pool_portion, link);
        if (other == portion)
            return false;
        if (other->extent == portion->extent && !(is_read(other) && is_read(portion)) &&
            other->first < portion->first + portion->count && portion->first < other->first + other->count)
            return true;
    }
    check(!"a portion is in its bucket");
    return true;
}

static void portion_start(struct pool *pool, struct pool_portion *portion)
{
    const struct pool_disk *disk = pool_extents_disk(pool, portion->extent);
    uint64_t offset = pool_extents_offset(pool, portion->extent, portion->first);
    size_t size = (size_t)portion->count * FORMAT_BLOCK;
    portion->started = true;
    portion->io.done = portion_completed;
    pool->busy_count++;
    if (is_read(portion)) {
        ring_read(pool->ring, &portion->io, disk->fd, portion->data, size, offset);
        return;
    }
    list_remove(&portion->queue);
    pool->placing++;
    ring_write(pool->ring, &portion->io, disk->fd, portion->data, size, offset, false);
}

static struct pool_portion *portion_add(struct pool *pool, struct pool_op *op, uint32_t extent, unsigned first,
                                        unsigned count, uint8_t *data)
{
    struct pool_portion *portion = &op->portions[op->portions_left++];
    *portion = (struct pool_portion){
        .op = op, .data = data, .extent = extent, .first = (uint16_t)first, .count = (uint16_t)count};
    list_init(&portion->queue);
    list_append(bucket_of(pool, extent), &portion->link);
    pool->busy[extent]++;
    check(pool->busy[extent] != 0);
    return portion;
}

/* --- to its place ------------------------------------------------------------------------------------------------- */

/* A record has become durable: from here on reads see it. */
void pool_io_place(struct pool *pool, struct pool_op *op)
{
    const struct format_record *record = (const struct format_record *)op->buffer;
    for (unsigned index = 0; index < 2; index++) {
        uint64_t block;
        uint32_t logical;
        unsigned first, count = pool_io_split(op, index, &block, &logical, &first);
        int64_t extent = count ? pool_extents_of(op->volume, logical, op->kind == OP_WRITE) : -1;
        if (extent < 0)
            continue;
        if (op->kind == OP_ZERO) {
            pool_extents_set_zero(pool, (uint32_t)extent, first, count);
            continue;
        }
        uint64_t at = block - op->block;
        pool_extents_set_written(pool, (uint32_t)extent, first, count, &record->checksums[at]);
        struct pool_portion *portion = portion_add(pool, op, (uint32_t)extent, first, count,
                                                   op->buffer + (at + 1) * FORMAT_BLOCK);
        list_append(&pool->place_queue, &portion->queue);
    }
    if (op->dirty)
        pool_extents_set_dirty(op->volume, op->block, op->count);
}

void pool_io_pump(struct pool *pool)
{
    if (pool->failure)
        return;
    list_for_each_safe(item, after, &pool->place_queue) {
        struct pool_portion *portion = list_entry(item, struct pool_portion, queue);
        if (pool->placing >= PLACING_MAX)
            break;
        if (!portion_is_blocked(pool, portion))
            portion_start(pool, portion);
    }
}

static void write_completed(struct pool *pool, struct pool_portion *portion, int result)
{
    struct pool_op *op = portion->op;
    pool->placing--;
    if (result != portion->count * (int)FORMAT_BLOCK)
        pool_fail(pool, result < 0 ? result : -EIO, "writing data to its place",
                  pool_extents_disk(pool, portion->extent)->path);
    if (--op->portions_left)
        return;
    iobuf_put(pool->arena, op->buffer);
    op->buffer = NULL;
    op->placed = pool->failure == 0;
}

/* --- reads -------------------------------------------------------------------------------------------------------- */

static void block_verify(struct pool *pool, struct pool_portion *portion, unsigned index)
{
    struct pool_op *op = portion->op;
    uint8_t *data = portion->data + (size_t)index * FORMAT_BLOCK;
    unsigned place = portion->first + index;
    if (!pool_extents_is_written(pool, portion->extent, place)) {
        memset(data, 0, FORMAT_BLOCK);
        return;
    }
    uint64_t block = op->block + (uint64_t)(portion->data - op->io->data) / FORMAT_BLOCK + index;
    if (pool_extents_checksum(op->volume->seed, block, data) == pool->checksums[portion->extent][place])
        return;
    pool->stats.checksum_errors++;
    if (op->result != -EBADMSG || block < op->io->bad_block)
        op->io->bad_block = block;
    op->result = -EBADMSG;
}

static void read_completed(struct pool *pool, struct pool_portion *portion, int result)
{
    struct pool_op *op = portion->op;
    if (result == portion->count * (int)FORMAT_BLOCK) {
        for (unsigned index = 0; index < portion->count; index++)
            block_verify(pool, portion, index);
    } else if (op->result == 0) {
        /* A place that the device cannot read is like a rotten one: the other copy has it, and the next read may be fine. */
        log_error("disk %s: reading failed: %s", pool_extents_disk(pool, portion->extent)->path,
                  result < 0 ? strerror(-result) : "fewer bytes than asked for");
        pool->stats.checksum_errors++;
        op->result = -EBADMSG;
        op->io->bad_block = op->block + (uint64_t)(portion->data - op->io->data) / FORMAT_BLOCK;
    }
    if (--op->portions_left == 0)
        pool_op_finish(pool, op, op->result);
}

static void portion_completed(struct ring_io *io, int result)
{
    struct pool_portion *portion = list_entry(io, struct pool_portion, io);
    struct pool *pool = portion->op->pool;
    struct list *bucket = bucket_of(pool, portion->extent);
    pool->busy_count--;
    pool->busy[portion->extent]--;
    list_remove(&portion->link);
    if (is_read(portion))
        read_completed(pool, portion, result);
    else
        write_completed(pool, portion, result);
    list_for_each_safe(item, after, bucket) {
        struct pool_portion *other = list_entry(item, struct pool_portion, link);
        if (is_read(other) && !other->started && !portion_is_blocked(pool, other))
            portion_start(pool, other);
    }
    pool_io_pump(pool);
    pool_wake(pool);
}

/* After a failure nothing more goes to its place, and nothing waits for it. */
void pool_io_fail_waiting(struct pool *pool)
{
    for (unsigned index = 0; index < BUCKET_COUNT; index++) {
        list_for_each_safe(item, after, &pool->buckets[index]) {
            struct pool_portion *portion = list_entry(item, struct pool_portion, link);
            if (portion->started || !is_read(portion))
                continue;
            list_remove(&portion->link);
            pool->busy[portion->extent]--;
            portion->op->result = pool->failure;
            if (--portion->op->portions_left == 0)
                pool_op_finish(pool, portion->op, pool->failure);
        }
    }
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
    for (unsigned index = 0; index < 2 && !pool->failure; index++) {
        uint64_t block;
        uint32_t logical;
        unsigned first, count = pool_io_split(op, index, &block, &logical, &first);
        uint8_t *data = count ? io->data + (block - io->block) * FORMAT_BLOCK : NULL;
        int64_t extent = count ? pool_extents_of(io->volume, logical, false) : -1;
        if (extent >= 0 && pool_extents_any_written(pool, (uint32_t)extent, first, count))
            portion_add(pool, op, (uint32_t)extent, first, count, data);
        else if (count)
            memset(data, 0, (size_t)count * FORMAT_BLOCK);
    }
    if (!op->portions_left) {
        pool_op_finish(pool, op, pool->failure);
        return;
    }
    for (unsigned index = 0, count = op->portions_left; index < count; index++)
        if (!portion_is_blocked(pool, &op->portions[index]))
            portion_start(pool, &op->portions[index]);
}
