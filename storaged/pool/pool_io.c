/* Blocks between memory and their place: reads with their checksums, placements, each in order per block. */
#include <errno.h>
#include <string.h>

#include "common/check.h"
#include "common/log.h"
#include "storaged/pool/pool_internal.h"

static struct list *bucket_of(struct pool *pool, uint32_t extent)
{
    return &pool->buckets[(extent * 2654435761u >> 16) % BUCKET_COUNT];
}

static struct pool_part *part_of_bucket(struct list *item)
{
    return list_entry(item, struct pool_part, bucket);
}

static bool is_read(const struct pool_part *part)
{
    return part->kind == PART_READ;
}

static bool part_is_blocked(struct pool *pool, const struct pool_part *part)
{
    list_for_each(item, bucket_of(pool, part->extent)) {
        const struct pool_part *other = part_of_bucket(item);
        if (other == part)
            return false;
        if (other->extent == part->extent && !(is_read(other) && is_read(part)) &&
            other->first < part->first + part->count && part->first < other->first + other->count)
            return true;
    }
    check(!"a part is in its bucket");
    return true;
}

void pool_io_leave(struct pool_part *part)
{
    list_remove(&part->bucket);
    list_remove(&part->queue);
    if (part->in_backlog)
        part->op->pool->place_backlog -= part->count;
    part->in_backlog = false;
}

/* --- reads -------------------------------------------------------------------------------------------------------- */

static void block_verify(struct pool *pool, struct pool_part *part, const uint32_t *checksums, unsigned index)
{
    struct pool_op *op = part->op;
    uint8_t *data = part->data + (size_t)index * FORMAT_BLOCK;
    unsigned place = part->first + index;
    bool is_lost = pool_extents_is_lost(pool, part->extent, place);
    if (!is_lost && !pool_extents_is_written(pool, part->extent, place)) {
        memset(data, 0, FORMAT_BLOCK);
        return;
    }
    uint64_t block = part->block + index;
    if (!is_lost && pool_extents_checksum(op->volume->seed, block, data) == checksums[place])
        return;
    if (!is_lost) {
        pool->stats.checksum_errors++;
        part->disk->checksum_errors++;
    }
    if (op->result != -EBADMSG || block < op->io->bad_block)
        op->io->bad_block = block;
    op->result = -EBADMSG;
}

/* A place that the device cannot read is like a rotten one: the other copy has it, and the next read may be fine. */
static void read_failed(struct pool *pool, struct pool_part *part, int result)
{
    struct pool_op *op = part->op;
    log_error("disk %s: reading failed: %s", part->disk->path,
              result < 0 ? strerror(-result) : "fewer bytes than asked for");
    pool->stats.checksum_errors++;
    part->disk->read_errors++;
    if (op->result != -EBADMSG || part->block < op->io->bad_block)
        op->io->bad_block = part->block;
    op->result = -EBADMSG;
}

static void reads_go_on(struct pool *pool, struct list *bucket);

static void read_completed(struct ring_io *io, int result)
{
    struct pool_part *part = list_entry(io, struct pool_part, io);
    struct pool *pool = part->op->pool;
    struct list *bucket = bucket_of(pool, part->extent);
    struct pool_disk *disk = part->disk;
    pool_io_leave(part);
    if (result == part->count * (int)FORMAT_BLOCK) {
        const uint32_t *checksums = pool_checksums_of(pool, part->frame, part->extent);
        for (unsigned index = 0; index < part->count; index++)
            block_verify(pool, part, checksums, index);
    } else {
        read_failed(pool, part, result);
    }
    pool_part_done(part, 0);
    pool_disk_end(disk);
    reads_go_on(pool, bucket);
    pool_io_pump(pool);
}

static void read_start(struct pool *pool, struct pool_part *part)
{
    if (!POOL_DISK_IS_ALIVE(part->disk)) {
        pool_io_leave(part);
        pool_failure_requeue(part);
        return;
    }
    part->started = true;
    part->io.done = read_completed;
    pool_disk_begin(part->disk);
    ring_read(pool->ring, &part->io, part->disk->fd, part->data, (size_t)part->count * FORMAT_BLOCK,
              pool_extents_offset(pool, part->extent, part->first));
}

void pool_io_read(struct pool_part *part)
{
    struct pool *pool = part->op->pool;
    list_append(bucket_of(pool, part->extent), &part->bucket);
    if (!part_is_blocked(pool, part))
        read_start(pool, part);
}

static void reads_go_on(struct pool *pool, struct list *bucket)
{
    list_for_each_safe(item, after, bucket) {
        struct pool_part *part = part_of_bucket(item);
        if (is_read(part) && !part->started && !part_is_blocked(pool, part))
            read_start(pool, part);
    }
}

/* --- to its place ------------------------------------------------------------------------------------------------- */

static void part_placed(struct pool *pool, struct pool_part *part)
{
    pool_io_leave(part);
    iobuf_put(pool->arena, part->buffer);
    part->buffer = NULL;
    part->checksums = NULL;
    part->placed = pool->failure == 0;
}

/* An earlier journaled write that this one covers and that has not begun is not needed in its place any more. No read
 * waits for it: the caller has none under way where it writes. */
static void place_supersede(struct pool *pool, const struct pool_part *part)
{
    list_for_each_safe(item, after, bucket_of(pool, part->extent)) {
        struct pool_part *other = part_of_bucket(item);
        if (other == part)
            break;
        if (other->extent == part->extent && other->kind == PART_WRITE && !other->started &&
            other->first >= part->first && other->first + other->count <= part->first + part->count)
            part_placed(pool, other);
    }
}

/* The part is durable in the journal. A write: from here on reads see it. */
void pool_io_place(struct pool_part *part)
{
    struct pool *pool = part->op->pool;
    list_append(bucket_of(pool, part->extent), &part->bucket);
    list_append(part->kind == PART_INTENT ? &pool->intent_queue : &pool->place_queue, &part->queue);
    if (part->kind == PART_INTENT)
        return;
    part->in_backlog = true;
    pool->place_backlog += part->count;
    place_supersede(pool, part);
    uint32_t *checksums = pool_checksums_of(pool, part->frame, part->extent);
    memcpy(&checksums[part->first], part->checksums, part->count * sizeof *checksums);
    part->checksums = NULL;
    pool_tables_touch(pool, part->extent, FORMAT_CHECKSUMS);
    pool_extents_set_written(pool, part->extent, part->first, part->count);
}

static void intent_completed(struct ring_io *io, int result)
{
    struct pool_part *part = list_entry(io, struct pool_part, io);
    struct pool_op *op = part->op;
    struct pool *pool = op->pool;
    struct list *bucket = bucket_of(pool, part->extent);
    struct pool_disk *disk = part->disk;
    if (result != part->count * (int)FORMAT_BLOCK)
        pool_disk_fail(disk, result < 0 ? result : -EIO, "writing data to its place");
    pool_disk_end(disk);
    if (!POOL_DISK_IS_ALIVE(disk) && !pool->failure) { /* nobody was told: it is done again elsewhere */
        pool_io_leave(part);
        part->started = false;
        reads_go_on(pool, bucket);
        return;
    }
    if (!pool->failure) {
        uint32_t *checksums = pool_checksums_of(pool, part->frame, part->extent);
        memcpy(&checksums[part->first], part->checksums, part->count * sizeof *checksums);
        pool_tables_touch(pool, part->extent, FORMAT_CHECKSUMS);
        pool_extents_set_written(pool, part->extent, part->first, part->count);
        if (!op->unmirrored && !op->dirty)
            op->dirty = !pool_session_is_live(op);
        if (op->dirty)
            pool_dirty_set(op->volume, part->block, part->count);
    }
    part_placed(pool, part);
    pool_part_done(part, pool->failure);
    reads_go_on(pool, bucket);
    pool_io_pump(pool);
    pool_wake(pool);
}

static void intent_start(struct pool *pool, struct pool_part *part)
{
    part->started = true;
    list_remove(&part->queue);
    part->io.done = intent_completed;
    pool_disk_begin(part->disk);
    ring_write(pool->ring, &part->io, part->disk->fd, part->data, (size_t)part->count * FORMAT_BLOCK,
               pool_extents_offset(pool, part->extent, part->first), true);
}

static void placing_completed(struct ring_io *io, int result)
{
    struct pool_placing *placing = list_entry(io, struct pool_placing, io);
    struct pool *pool = placing->pool;
    struct list *bucket = bucket_of(pool, placing->parts[0]->extent);
    struct pool_disk *disk = placing->parts[0]->disk;
    if (result < 0 || (uint64_t)result != placing->bytes)
        pool_disk_fail(disk, result < 0 ? result : -EIO, "writing data to its place");
    pool_disk_end(disk);
    for (unsigned index = 0; index < placing->count; index++) {
        if (POOL_DISK_IS_ALIVE(disk))
            part_placed(pool, placing->parts[index]);
        else
            pool_io_leave(placing->parts[index]); /* its data may be saved to another disk */
    }
    list_append(&pool->placings_free, &placing->link);
    pool->placing_count--;
    reads_go_on(pool, bucket);
    pool_io_pump(pool);
    pool_wake(pool);
}

static void placing_add(struct pool_placing *placing, struct pool_part *part)
{
    size_t size = (size_t)part->count * FORMAT_BLOCK;
    list_remove(&part->queue);
    part->started = true;
    placing->parts[placing->count] = part;
    placing->vectors[placing->count++] = (struct iovec){.iov_base = part->buffer, .iov_len = size};
    placing->bytes += size;
}

/* The journaled write that begins where the last ends, and that nothing keeps from going with it. */
static struct pool_part *placing_neighbour(struct pool *pool, const struct pool_placing *placing)
{
    const struct pool_part *last = placing->parts[placing->count - 1];
    list_for_each(item, bucket_of(pool, last->extent)) {
        struct pool_part *part = part_of_bucket(item);
        if (part->extent == last->extent && part->kind == PART_WRITE && !part->started &&
            part->first == last->first + last->count && !part_is_blocked(pool, part))
            return part;
    }
    return NULL;
}

static void placing_start(struct pool *pool, struct pool_part *part)
{
    struct pool_placing *placing = list_entry(pool->placings_free.next, struct pool_placing, link);
    list_remove(&placing->link);
    pool->placing_count++;
    placing->pool = pool;
    placing->count = 0;
    placing->bytes = 0;
    placing_add(placing, part);
    struct pool_part *next;
    while (placing->count < PLACING_PARTS_MAX && (next = placing_neighbour(pool, placing)))
        placing_add(placing, next);
    placing->io.done = placing_completed;
    pool_disk_begin(part->disk);
    ring_writev(pool->ring, &placing->io, part->disk->fd, placing->vectors, placing->count,
                pool_extents_offset(pool, part->extent, part->first), false);
}

/* How many placements may be at the disks: few while little waits, for the journal's writes are those that somebody
 * waits for, and what waits may be overwritten or find neighbours; all when much does. */
static unsigned placing_limit(const struct pool *pool)
{
    unsigned most = PLACING_MIN + pool->place_backlog / PLACING_BACKLOG_EACH;
    return most < PLACING_MAX ? most : PLACING_MAX;
}

static struct pool_part *part_of_queue(struct list *item)
{
    return list_entry(item, struct pool_part, queue);
}

static bool part_may_start(struct pool *pool, const struct pool_part *part)
{
    return POOL_DISK_IS_ALIVE(part->disk) && !part_is_blocked(pool, part);
}

void pool_io_pump(struct pool *pool)
{
    if (pool->failure)
        return;
    list_for_each_safe(intent, after, &pool->intent_queue) {
        struct pool_part *part = part_of_queue(intent);
        if (part_may_start(pool, part))
            intent_start(pool, part);
    }
    unsigned limit = placing_limit(pool);
    for (struct list *item = pool->place_queue.next; item != &pool->place_queue && pool->placing_count < limit;) {
        struct pool_part *part = part_of_queue(item);
        item = item->next;
        if (!part_may_start(pool, part))
            continue;
        placing_start(pool, part);
        item = pool->place_queue.next; /* neighbours left the queue with it */
    }
}

/* After a failure nothing more goes to its place, and nothing waits for it. */
void pool_io_fail_waiting(struct pool *pool)
{
    for (unsigned index = 0; index < BUCKET_COUNT; index++) {
        list_for_each_safe(item, after, &pool->buckets[index]) {
            struct pool_part *part = part_of_bucket(item);
            if (part->started || part->kind == PART_WRITE)
                continue;
            pool_io_leave(part);
            pool_part_done(part, pool->failure);
        }
    }
}
