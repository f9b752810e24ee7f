/* One extent on its way to another disk (pool_drain.c says when, and why a crash finds one owner at any point). */
#include <errno.h>
#include <string.h>

#include "common/check.h"
#include "common/log.h"
#include "storaged/pool/pool_drain.h"

#define PACE 3u /* guests at work: so many times as long as a move took nothing moves */

bool pool_drain_holds(const struct pool *pool, uint32_t extent)
{
    return pool->drain && pool->drain->state != MOVE_IDLE && pool->drain->from == extent;
}

bool pool_drain_moves(const struct pool *pool, const struct pool_volume *volume)
{
    return pool->drain && pool->drain->state != MOVE_IDLE && pool->drain->volume == volume;
}

bool pool_drain_is_target(const struct pool *pool, uint32_t extent)
{
    return pool->drain && pool->drain->state != MOVE_IDLE && pool->drain->to == extent;
}

bool pool_drain_targets(const struct pool_disk *disk)
{
    const struct pool_drain *drain = disk->pool->drain;
    return drain && drain->state != MOVE_IDLE && drain->to >> EXTENT_DISK_SHIFT == disk->index &&
           !disk->descriptors[drain->to & EXTENT_LOCAL_MASK].birth;
}

/* --- one move ----------------------------------------------------------------------------------------------------- */

/* Also when it came to nothing: the requests that waited go on, wherever the extent is now. */
static void move_end(struct pool_drain *drain)
{
    struct pool *pool = drain->pool;
    struct pool_disk *disk = pool_extents_disk(pool, drain->to);
    uint64_t took_ms = ring_now_ms(pool->ring) - drain->began_ms;
    if (pool_drain_targets(disk) && (drain->to & EXTENT_LOCAL_MASK) < disk->hint)
        disk->hint = drain->to & EXTENT_LOCAL_MASK; /* not taken: a search may have gone past it */
    bool guests_work = pool->stats.journal_records > drain->records + 1 || !list_is_empty(&pool->held);
    drain->state = MOVE_IDLE;
    drain->op = NULL;
    drain->volume = NULL;
    drain->from = drain->to = EXTENT_NONE;
    uint64_t pause_ms = guests_work ? PACE * (took_ms + 1) : 0;
    if (pause_ms)
        pool_drain_pause(drain, pause_ms < DRAIN_PAUSE_MS_MAX ? pause_ms : DRAIN_PAUSE_MS_MAX);
    pool_request_release(pool);
    pool_wake(pool);
}

static void move_give_up(struct pool_drain *drain)
{
    struct pool *pool = drain->pool;
    for (unsigned index = 0; index < 2; index++)
        pool_checksums_unpin(&drain->op->parts[index]);
    drain->op->parts_left = 0;
    pool_op_finish(pool, drain->op, 0);
    move_end(drain);
}

/* What is not committed yet is dirty from here on: only the old disk's journal says so, and that disk may fail. */
static void tail_mark(struct pool_drain *drain)
{
    list_for_each(item, &pool_extents_disk(drain->pool, drain->from)->journal.live) {
        const struct pool_part *part = pool_part_of(item);
        if (part->extent == drain->from && part->op->volume && pool_session_covers(part->op))
            pool_dirty_set(part->op->volume, part->block, part->count);
    }
}

void pool_drain_fill(const struct pool_part *part, uint64_t *ret_birth, uint32_t *ret_words)
{
    struct pool *pool = part->op->pool;
    struct pool_drain *drain = pool->drain;
    const struct format_descriptor *old = pool_extents_descriptor(pool, drain->from);
    tail_mark(drain);
    const uint32_t *checksums = pool_checksums_of(pool, drain->op->parts[0].frame, drain->from);
    *ret_birth = drain->birth;
    memcpy(ret_words, checksums, FORMAT_EXTENT_BLOCKS * sizeof *checksums);
    uint64_t bits[12];
    memcpy(bits, old->written, sizeof old->written);
    memcpy(bits + 4, old->dirty, sizeof old->dirty);
    memcpy(bits + 8, old->lost, sizeof old->lost);
    for (unsigned word = 0; word < 4; word++)
        bits[8 + word] |= drain->unreadable[word] & bits[word];
    memcpy(ret_words + FORMAT_EXTENT_BLOCKS, bits, sizeof bits);
}

/* The entry is durable: the new extent is the volume's. */
void pool_drain_part_durable(struct pool_part *part)
{
    struct pool *pool = part->op->pool;
    struct pool_drain *drain = pool->drain;
    struct pool_op *op = drain->op;
    struct format_descriptor bits = *pool_extents_descriptor(pool, drain->from);
    check(drain->volume->map[drain->logical] == drain->from + 1); /* requests and failures wait for us */
    uint64_t newest = pool->birth;
    memcpy(pool_checksums_of(pool, op->parts[1].frame, drain->to),
           pool_checksums_of(pool, op->parts[0].frame, drain->from), FORMAT_EXTENT_BLOCKS * sizeof(uint32_t));
    pool_extents_replace(drain->volume, drain->logical, drain->to, &bits);
    pool_extents_descriptor(pool, drain->to)->birth = drain->birth; /* as the entry says */
    pool->birth = newest;
    pool_tables_touch(pool, drain->to, FORMAT_CHECKSUMS);
    for (unsigned block = 0; block < FORMAT_EXTENT_BLOCKS; block++)
        if (drain->unreadable[block / 64] >> (block % 64) & 1 && pool_extents_is_written(pool, drain->to, block))
            pool_extents_set_lost(pool, drain->to, block, 1);
    pool_drain_pin(drain);
    pool_checksums_unpin(&op->parts[0]);
    pool_part_done(part, 0);
    move_end(drain);
}

static void move_journal(struct pool_drain *drain)
{
    struct pool_part *to = &drain->op->parts[1];
    drain->state = MOVE_JOURNAL;
    drain->birth = ++drain->pool->birth;
    ++*pool_extents_busy(drain->pool, drain->to); /* until the tail has passed its record */
    list_append(&to->disk->journal.accept, &to->link);
    pool_wake(drain->pool);
}

static void move_written(struct ring_io *io, int result)
{
    struct pool_drain *drain = list_entry(io, struct pool_drain, io);
    struct pool_disk *disk = drain->op->parts[1].disk;
    if (result != (int)FORMAT_EXTENT)
        pool_disk_fail(disk, result < 0 ? result : -EIO, "writing an extent that moves to it");
    pool_disk_end(disk);
    if (drain->given_up || drain->pool->failure || !POOL_DISK_IS_ALIVE(disk))
        move_give_up(drain);
    else
        move_journal(drain);
}

static void move_write(struct pool_drain *drain)
{
    struct pool *pool = drain->pool;
    struct pool_disk *disk = drain->op->parts[1].disk;
    if (drain->given_up || !POOL_DISK_IS_ALIVE(disk)) {
        move_give_up(drain);
        return;
    }
    drain->state = MOVE_WRITE;
    drain->io.done = move_written;
    pool_disk_begin(disk);
    ring_write(pool->ring, &drain->io, disk->fd, drain->data, FORMAT_EXTENT, pool_extents_offset(pool, drain->to, 0),
               true);
}

static void block_read(struct pool_drain *drain);

static void block_was_read(struct ring_io *io, int result)
{
    struct pool_drain *drain = list_entry(io, struct pool_drain, io);
    struct pool_disk *disk = drain->op->parts[0].disk;
    if (result != (int)FORMAT_BLOCK) {
        disk->read_errors++;
        drain->unreadable[drain->block / 64] |= UINT64_C(1) << (drain->block % 64);
        memset(drain->data + (size_t)drain->block * FORMAT_BLOCK, 0, FORMAT_BLOCK);
    }
    drain->block++;
    pool_disk_end(disk);
    block_read(drain);
}

/* The whole could not be read: what of it can. */
static void block_read(struct pool_drain *drain)
{
    struct pool *pool = drain->pool;
    struct pool_disk *disk = drain->op->parts[0].disk;
    if (drain->block == FORMAT_EXTENT_BLOCKS || drain->given_up) {
        move_write(drain);
        return;
    }
    drain->state = MOVE_READ_BLOCKS;
    drain->io.done = block_was_read;
    pool_disk_begin(disk);
    ring_read(pool->ring, &drain->io, disk->fd, drain->data + (size_t)drain->block * FORMAT_BLOCK, FORMAT_BLOCK,
              pool_extents_offset(pool, drain->from, drain->block));
}

/* A rotten block moves with its checksum, which goes on saying that it is rotten. */
static void blocks_verify(struct pool_drain *drain)
{
    struct pool *pool = drain->pool;
    const uint32_t *checksums = pool_checksums_of(pool, drain->op->parts[0].frame, drain->from);
    uint64_t first = (uint64_t)drain->logical * FORMAT_EXTENT_BLOCKS;
    for (unsigned block = 0; block < FORMAT_EXTENT_BLOCKS; block++) {
        const uint8_t *data = drain->data + (size_t)block * FORMAT_BLOCK;
        if (!pool_extents_is_written(pool, drain->from, block) || pool_extents_is_lost(pool, drain->from, block) ||
            pool_extents_checksum(drain->volume->seed, first + block, data) == checksums[block])
            continue;
        drain->op->parts[0].disk->checksum_errors++;
        pool->stats.checksum_errors++;
    }
}

static void move_was_read(struct ring_io *io, int result)
{
    struct pool_drain *drain = list_entry(io, struct pool_drain, io);
    struct pool_disk *disk = drain->op->parts[0].disk;
    pool_disk_end(disk);
    if (drain->given_up || drain->pool->failure) {
        move_give_up(drain);
    } else if (result == (int)FORMAT_EXTENT) {
        blocks_verify(drain);
        move_write(drain);
    } else {
        log_error("disk %s: an extent cannot be read as a whole: %s; what can be read of it moves", disk->path,
                  result < 0 ? strerror(-result) : "fewer bytes than asked for");
        block_read(drain);
    }
}

static void move_read(struct pool_drain *drain)
{
    struct pool *pool = drain->pool;
    struct pool_disk *disk = drain->op->parts[0].disk;
    drain->state = MOVE_READ;
    drain->io.done = move_was_read;
    pool_disk_begin(disk);
    ring_read(pool->ring, &drain->io, disk->fd, drain->data, FORMAT_EXTENT, pool_extents_offset(pool, drain->from, 0));
}

void pool_drain_part_ready(struct pool_part *part)
{
    struct pool_drain *drain = part->op->pool->drain;
    if (++drain->frames < 2)
        return;
    if (drain->given_up || drain->pool->failure)
        move_give_up(drain);
    else
        move_read(drain);
}

/* All that names the extent is in its place: only records in the journal's memory do. */
static bool extent_is_quiet(struct pool *pool, uint32_t extent)
{
    uint32_t placed = 0;
    list_for_each(item, &pool_extents_disk(pool, extent)->journal.live)
    {
        const struct pool_part *part = pool_part_of(item);
        placed += part->extent == extent && part->placed;
    }
    return placed == *pool_extents_busy(pool, extent);
}

static void part_prepare(struct pool_drain *drain, unsigned index, enum pool_part_kind kind, uint32_t extent)
{
    struct pool_part *part = &drain->op->parts[index];
    uint64_t first = (uint64_t)drain->logical * FORMAT_EXTENT_BLOCKS, left = drain->volume->blocks - first;
    part->kind = kind;
    part->extent = extent;
    part->disk = pool_extents_disk(drain->pool, extent);
    part->block = first;
    part->count = (uint16_t)(left < FORMAT_EXTENT_BLOCKS ? left : FORMAT_EXTENT_BLOCKS);
}

void pool_move_look(struct pool_drain *drain)
{
    struct pool *pool = drain->pool;
    if (drain->given_up) {
        drain->op->parts_left = 0;
        pool_op_finish(pool, drain->op, 0);
        move_end(drain);
        return;
    }
    if (!extent_is_quiet(pool, drain->from)) {
        pool_drain_pause(drain, DRAIN_LOOK_MS);
        return;
    }
    drain->state = MOVE_FRAMES;
    part_prepare(drain, 0, PART_MOVE_FROM, drain->from);
    part_prepare(drain, 1, PART_MOVE_TO, drain->to);
    drain->op->parts_left = 1; /* the entry */
    for (unsigned index = 0; index < 2; index++)
        if (pool_checksums_pin(&drain->op->parts[index]))
            pool_part_ready(&drain->op->parts[index]);
}

void pool_move_begin(struct pool_drain *drain, struct pool_volume *volume, uint32_t logical, uint32_t to)
{
    drain->state = MOVE_QUIET;
    drain->op = pool_op_new(drain->pool, OP_MOVE);
    drain->op->volume = volume;
    drain->op->unmirrored = true; /* nothing of it is the peer's business */
    drain->volume = volume;
    drain->logical = logical;
    drain->from = volume->map[logical] - 1;
    drain->to = to;
    drain->frames = drain->block = 0;
    drain->given_up = false;
    memset(drain->unreadable, 0, sizeof drain->unreadable);
    drain->began_ms = ring_now_ms(drain->pool->ring);
    drain->records = drain->pool->stats.journal_records;
    pool_move_look(drain);
}

/* Its disk has failed: it waited for a frame, or was in the journal. */
void pool_drain_part_lost(struct pool_part *part)
{
    struct pool_drain *drain = part->op->pool->drain;
    drain->given_up = true;
    if (drain->state == MOVE_FRAMES)
        pool_drain_part_ready(part);
    else if (drain->state == MOVE_JOURNAL)
        move_give_up(drain);
}

/* The move still looks at what it knows of the disk, and ends by itself; in its target's journal it is withdrawn. */
bool pool_drain_needs(const struct pool_disk *disk)
{
    struct pool_drain *drain = disk->pool->drain;
    if (!drain || drain->state == MOVE_IDLE || drain->state == MOVE_QUIET)
        return false;
    return pool_extents_disk(disk->pool, drain->from) == disk ||
           (pool_extents_disk(disk->pool, drain->to) == disk && drain->state != MOVE_JOURNAL);
}
