/* The checksum tables in memory: blocks are loaded when first needed and kept in a bounded number of frames. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/check.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "storaged/pool/pool_internal.h"

int pool_checksums_new(struct pool *pool, uint32_t frames)
{
    struct pool_checksums *all = &pool->checksums;
    list_init(&all->load_queue);
    list_init(&all->starved);
    all->count = all->limit = frames;
    all->frames = pool_table_map(frames * sizeof *all->frames);
    all->blocks = pool_table_map(frames * sizeof *all->blocks);
    for (unsigned index = 0; index < LOADERS_MAX; index++) {
        all->loaders[index].pool = pool;
        all->loaders[index].pair = pool_aligned(2 * FORMAT_BLOCK);
    }
    return all->frames && all->blocks ? 0 : -ENOMEM;
}

void pool_checksums_free(struct pool *pool)
{
    struct pool_checksums *all = &pool->checksums;
    for (unsigned index = 0; index < LOADERS_MAX; index++)
        free(all->loaders[index].pair);
    if (all->frames)
        munmap(all->frames, all->count * sizeof *all->frames);
    if (all->blocks)
        munmap(all->blocks, all->count * sizeof *all->blocks);
}

/* --- frames ------------------------------------------------------------------------------------------------------- */

static bool frame_is_dirty(const struct pool_frame *frame)
{
    return frame->disk->tables[1].flags[frame->block] & TABLE_DIRTY;
}

static bool frame_is_free(const struct pool_frame *frame)
{
    return !frame->disk || (!frame->pins && !frame->loading && !frame_is_dirty(frame));
}

static void frame_drop(struct pool_checksums *all, struct pool_frame *frame)
{
    if (!frame->disk)
        return;
    frame->disk->frames[frame->block] = 0;
    frame->disk = NULL;
    all->evictions++;
}

void pool_checksums_limit(struct pool *pool, uint32_t frames)
{
    struct pool_checksums *all = &pool->checksums;
    check(frames > 0 && frames <= all->count);
    for (uint32_t index = frames; index < all->used; index++) {
        check(frame_is_free(&all->frames[index])); /* nothing is under way, and a checkpoint was written */
        frame_drop(all, &all->frames[index]);
    }
    all->limit = frames;
    if (all->used > frames)
        all->used = frames;
    all->hand = 0;
}

/* A frame that never held anything, or by the clock one that was not used for a round; NULL: all are needed. */
static struct pool_frame *frame_get(struct pool_checksums *all)
{
    if (all->used < all->limit) {
        struct pool_frame *frame = &all->frames[all->used++];
        list_init(&frame->waiting);
        list_init(&frame->link);
        return frame;
    }
    for (uint32_t step = 0; step < 2 * all->limit; step++) {
        struct pool_frame *frame = &all->frames[all->hand];
        all->hand = (all->hand + 1) % all->limit;
        if (!frame_is_free(frame))
            continue;
        if (frame->referenced) {
            frame->referenced = false;
            continue;
        }
        frame_drop(all, frame);
        return frame;
    }
    return NULL;
}

static struct pool_frame *frame_take(struct pool_disk *disk, uint32_t block)
{
    struct pool_checksums *all = &disk->pool->checksums;
    struct pool_frame *frame = frame_get(all);
    if (!frame)
        return NULL;
    frame->disk = disk;
    frame->block = block;
    frame->pins = 0;
    frame->referenced = true;
    disk->frames[block] = (uint32_t)(frame - all->frames) + 1;
    return frame;
}

struct pool_frame *pool_checksums_find(const struct pool_disk *disk, uint32_t block)
{
    uint32_t number = disk->frames[block];
    return number ? &disk->pool->checksums.frames[number - 1] : NULL;
}

uint32_t *pool_checksums_of(struct pool *pool, const struct pool_frame *frame, uint32_t extent)
{
    const struct pool_checksums *all = &pool->checksums;
    uint32_t local = extent & EXTENT_LOCAL_MASK;
    check(frame && local / FORMAT_CHECKSUMS_PER_BLOCK == frame->block && !frame->loading);
    return all->blocks[frame - all->frames].checksums[local % FORMAT_CHECKSUMS_PER_BLOCK];
}

/* --- loading ------------------------------------------------------------------------------------------------------ */

static void load_pump(struct pool *pool);

/* Without a valid slot: zeros, under which every check fails. */
static void frame_fill(struct pool_frame *frame, uint8_t *pair)
{
    struct pool_disk *disk = frame->disk;
    struct pool_checksums *all = &disk->pool->checksums;
    struct format_checksum_block *block = &all->blocks[frame - all->frames];
    struct pool_table *table = &disk->tables[1];
    int slot = pool_tables_choose(disk, table, frame->block, pair);
    if (slot < 0) {
        memset(block, 0, sizeof *block);
        return;
    }
    memcpy(block, pair + slot * FORMAT_BLOCK, sizeof *block);
    pool_tables_note(disk, table, frame->block, slot, block->header.sequence);
}

static void frame_ready(struct pool_frame *frame)
{
    frame->loading = false;
    while (!list_is_empty(&frame->waiting)) {
        struct pool_part *part = list_entry(frame->waiting.next, struct pool_part, link);
        list_remove(&part->link);
        part->frame = frame;
        frame->pins++;
        pool_part_ready(part);
    }
}

static void load_completed(struct ring_io *io, int result)
{
    struct pool_loader *loader = list_entry(io, struct pool_loader, io);
    struct pool *pool = loader->pool;
    struct pool_frame *frame = loader->frame;
    loader->frame = NULL;
    struct pool_disk *disk = frame->disk;
    if (result != (int)(2 * FORMAT_BLOCK))
        pool_disk_fail(disk, result < 0 ? result : -EIO, "reading its checksums");
    else
        frame_fill(frame, loader->pair);
    frame_ready(frame);
    pool_disk_end(disk);
    load_pump(pool);
    pool_wake(pool);
}

static void load_pump(struct pool *pool)
{
    struct pool_checksums *all = &pool->checksums;
    for (unsigned index = 0; index < LOADERS_MAX && !list_is_empty(&all->load_queue); index++) {
        struct pool_loader *loader = &all->loaders[index];
        if (loader->frame)
            continue;
        loader->frame = list_entry(all->load_queue.next, struct pool_frame, link);
        list_remove(&loader->frame->link);
        struct pool_disk *disk = loader->frame->disk;
        if (!POOL_DISK_IS_ALIVE(disk)) { /* its parts see that it failed */
            struct pool_frame *frame = loader->frame;
            loader->frame = NULL;
            frame_ready(frame);
            continue;
        }
        loader->io.done = load_completed;
        pool_disk_begin(disk);
        all->loads++;
        ring_read(pool->ring, &loader->io, disk->fd, loader->pair, 2 * FORMAT_BLOCK,
                  pool_tables_offset(&disk->tables[1], loader->frame->block, 0));
    }
}

bool pool_checksums_pin(struct pool_part *part)
{
    struct pool *pool = part->op->pool;
    struct pool_checksums *all = &pool->checksums;
    struct pool_disk *disk = part->disk;
    uint32_t block = (part->extent & EXTENT_LOCAL_MASK) / FORMAT_CHECKSUMS_PER_BLOCK;
    struct pool_frame *frame = pool_checksums_find(disk, block);
    if (frame && !frame->loading) {
        frame->referenced = true;
        frame->pins++;
        part->frame = frame;
        return true;
    }
    if (!frame) {
        frame = frame_take(disk, block);
        if (!frame) {
            list_append(&all->starved, &part->link);
            pool_wake(pool); /* a checkpoint makes frames clean */
            return false;
        }
        frame->loading = true;
        list_append(&all->load_queue, &frame->link);
        load_pump(pool);
    }
    list_append(&frame->waiting, &part->link);
    return false;
}

void pool_checksums_unpin(struct pool_part *part)
{
    struct pool *pool = part->op->pool;
    if (!part->frame)
        return;
    check(part->frame->pins > 0);
    part->frame->pins--;
    part->frame = NULL;
    if (!list_is_empty(&pool->checksums.starved))
        pool_wake(pool);
}

void pool_checksums_retry(struct pool *pool)
{
    struct list *starved = &pool->checksums.starved;
    while (!list_is_empty(starved)) {
        struct pool_part *part = list_entry(starved->next, struct pool_part, link);
        list_remove(&part->link);
        if (pool_checksums_pin(part)) {
            pool_part_ready(part);
            continue;
        }
        if (!list_is_empty(starved) && starved->previous == &part->link) { /* still none: it keeps its turn */
            list_remove(&part->link);
            part->link = (struct list){starved->next, starved};
            starved->next->previous = &part->link;
            starved->next = &part->link;
            return;
        }
    }
}

void pool_checksums_fail(struct pool *pool)
{
    struct list *starved = &pool->checksums.starved;
    while (!list_is_empty(starved)) {
        struct pool_part *part = list_entry(starved->next, struct pool_part, link);
        list_remove(&part->link);
        pool_part_ready(part); /* which ends it */
    }
}

/* The disk is no more: nothing of it is needed, nor dirty. */
void pool_checksums_forget(struct pool_disk *disk)
{
    struct pool_checksums *all = &disk->pool->checksums;
    list_for_each_safe(item, after, &all->load_queue) {
        struct pool_frame *frame = list_entry(item, struct pool_frame, link);
        if (frame->disk != disk)
            continue;
        list_remove(item);
        frame_ready(frame);
    }
    memset(disk->tables[1].flags, 0, disk->tables[1].block_count);
    for (uint32_t index = 0; index < all->used; index++) {
        struct pool_frame *frame = &all->frames[index];
        if (frame->disk != disk)
            continue;
        check(!frame->pins && !frame->loading);
        frame_drop(all, frame);
    }
}

/* --- before the loop runs ----------------------------------------------------------------------------------------- */

struct pool_frame *pool_checksums_load_now(struct pool *pool, uint32_t extent, int *ret_error)
{
    struct pool_disk *disk = pool_extents_disk(pool, extent);
    uint32_t block = (extent & EXTENT_LOCAL_MASK) / FORMAT_CHECKSUMS_PER_BLOCK;
    struct pool_frame *frame = pool_checksums_find(disk, block);
    if (frame)
        return frame;
    uint8_t *pair = pool->checksums.loaders[0].pair;
    int result = pool_read_at(disk->fd, pair, 2 * FORMAT_BLOCK, pool_tables_offset(&disk->tables[1], block, 0));
    if (result == 0 && (frame = frame_take(disk, block)))
        frame_fill(frame, pair);
    if (!frame)
        *ret_error = result < 0 ? result : -ENOBUFS;
    return frame;
}
