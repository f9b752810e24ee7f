/* Volumes: the catalogue that names them, their reservation, their making and deletion. */
#include <errno.h>
#include <string.h>

#include "common/check.h"
#include "common/cleanup.h"
#include "storaged/pool_internal.h"

static void catalogue_pump(struct pool *pool);

struct pool_volume *pool_volume_find(struct pool *pool, const struct id *volume)
{
    for (unsigned index = 0; index < POOL_VOLUMES_MAX; index++)
        if (pool->volumes[index] && pool->volumes[index]->ready && id_equal(&pool->volumes[index]->id, volume))
            return pool->volumes[index];
    return NULL;
}

uint64_t pool_volume_blocks(const struct pool_volume *volume)
{
    return volume->blocks;
}

uint64_t pool_volume_used_bytes(const struct pool_volume *volume)
{
    return (uint64_t)volume->used_extents * FORMAT_EXTENT;
}

/* A place for it in the pool and its reservation; NULL: none left, or no memory. */
struct pool_volume *pool_volume_new(struct pool *pool, const struct format_volume *from)
{
    unsigned place = 0;
    while (place < POOL_VOLUMES_MAX && pool->volumes[place])
        place++;
    uint64_t extents = (from->size_bytes + FORMAT_EXTENT - 1) / FORMAT_EXTENT;
    if (place == POOL_VOLUMES_MAX || extents > pool->extent_count - pool->reserved_extents)
        return NULL;
    struct pool_volume *volume = calloc(1, sizeof *volume);
    uint32_t *map = calloc(extents, sizeof *map);
    if (!volume || !map) {
        free(volume);
        free(map);
        return NULL;
    }
    *volume = (struct pool_volume){.pool = pool,
                                   .id = from->volume,
                                   .group = from->group,
                                   .size_bytes = from->size_bytes,
                                   .blocks = (from->size_bytes + FORMAT_BLOCK - 1) / FORMAT_BLOCK,
                                   .created_lsn = from->created_lsn,
                                   .extent_count = (uint32_t)extents,
                                   .map = map,
                                   .seed = pool_extents_seed(&from->volume)};
    pool->volumes[place] = volume;
    pool->reserved_extents += volume->extent_count;
    return volume;
}

void pool_volume_free(struct pool_volume *volume)
{
    struct pool *pool = volume->pool;
    for (unsigned index = 0; index < POOL_VOLUMES_MAX; index++)
        if (pool->volumes[index] == volume)
            pool->volumes[index] = NULL;
    pool->reserved_extents -= volume->extent_count;
    free(volume->map);
    free(volume);
}

/* --- the catalogue on disk ---------------------------------------------------------------------------------------- */

/* All volumes that are ready, and the one about to be. */
static size_t catalogue_encode(struct pool *pool, const struct pool_volume *coming)
{
    struct format_slot *slot = (struct format_slot *)pool->catalogue.buffer;
    struct format_volume *entries = (struct format_volume *)(slot + 1);
    memset(slot, 0, FORMAT_SLOT);
    uint32_t count = 0;
    for (unsigned index = 0; index < POOL_VOLUMES_MAX; index++) {
        const struct pool_volume *volume = pool->volumes[index];
        if (volume && (volume->ready || volume == coming))
            entries[count++] = (struct format_volume){volume->id, volume->group, volume->size_bytes,
                                                      volume->created_lsn};
    }
    slot->sequence = ++pool->catalogue.sequence;
    slot->size = count * (uint32_t)sizeof *entries;
    slot->used = 1;
    pool_blob_seal(pool, slot, FORMAT_CATALOGUE_MAGIC);
    return FORMAT_SLOT;
}

static void volume_deleted(void *userdata, int result)
{
    struct pool_op *op = userdata;
    if (result == 0)
        pool_volume_free(op->volume);
    pool_op_finish(op->pool, op, result);
}

/* Its blocks are nobody's from here on. The checkpoint makes that durable before the id may be used again. */
static void volume_release(struct pool *pool, struct pool_op *op)
{
    list_for_each(item, &pool->live) {
        struct pool_op *record = list_entry(item, struct pool_op, link);
        if (record->volume == op->volume)
            record->volume = NULL;
    }
    pool_extents_release_volume(op->volume);
    pool_checkpoint(pool, volume_deleted, op);
}

static void catalogue_written(struct ring_io *io, int result)
{
    struct pool *pool = list_entry(io, struct pool, catalogue.io);
    struct pool_op *op = list_entry(pool->catalogue.queue.next, struct pool_op, link);
    pool->busy_count--;
    pool->catalogue.in_flight = false;
    list_remove(&op->link);
    if (result != (int)FORMAT_SLOT) {
        pool_fail(pool, result < 0 ? result : -EIO, "writing the catalogue of volumes", pool->disks[0].path);
        pool_op_finish(pool, op, pool->failure);
    } else {
        pool->catalogue.slot ^= 1;
        if (op->dirty) {
            volume_release(pool, op);
        } else {
            op->volume->ready = true;
            pool_op_finish(pool, op, 0);
        }
    }
    catalogue_pump(pool);
}

static void catalogue_pump(struct pool *pool)
{
    struct pool_catalogue *catalogue = &pool->catalogue;
    while (pool->failure && !catalogue->in_flight && !list_is_empty(&catalogue->queue)) {
        struct pool_op *op = list_entry(catalogue->queue.next, struct pool_op, link);
        list_remove(&op->link);
        pool_op_finish(pool, op, pool->failure);
    }
    if (catalogue->in_flight || list_is_empty(&catalogue->queue))
        return;
    struct pool_op *op = list_entry(catalogue->queue.next, struct pool_op, link);
    size_t size = catalogue_encode(pool, op->dirty ? NULL : op->volume);
    catalogue->in_flight = true;
    catalogue->io.done = catalogue_written;
    pool->busy_count++;
    ring_write(pool->ring, &catalogue->io, pool->disks[0].fd, catalogue->buffer, size,
               FORMAT_CATALOGUE_OFFSET(!catalogue->slot), true);
}

static void catalogue_enter(struct pool *pool, struct pool_op *op)
{
    list_append(&pool->catalogue.queue, &op->link);
    catalogue_pump(pool);
}

static int volume_check(struct pool *pool, const struct id *volume, uint64_t size_bytes)
{
    if (pool->failure)
        return pool->failure;
    if (size_bytes == 0 || id_is_null(volume))
        return -EINVAL;
    for (unsigned index = 0; index < POOL_VOLUMES_MAX; index++)
        if (pool->volumes[index] && id_equal(&pool->volumes[index]->id, volume))
            return -EEXIST;
    return size_bytes > (uint64_t)pool->extent_count * FORMAT_EXTENT ? -ENOSPC : 0;
}

void pool_volume_create(struct pool *pool, const struct id *group, const struct id *volume, uint64_t size_bytes,
                        pool_done *done, void *userdata)
{
    struct pool_op *op = pool_op_new(pool, OP_VOLUME);
    op->done = done;
    op->userdata = userdata;
    int result = volume_check(pool, volume, size_bytes);
    if (result == 0) {
        struct format_volume entry = {*volume, *group, size_bytes, pool->head_lsn};
        op->volume = pool_volume_new(pool, &entry);
        result = op->volume ? 0 : -ENOSPC;
    }
    if (result < 0)
        pool_op_finish(pool, op, result);
    else
        catalogue_enter(pool, op);
}

/* Everything written to it is in its place: no write of ours can reach its extents any more. */
static void volume_drained(void *userdata, int result)
{
    struct pool_op *op = userdata;
    if (result < 0)
        pool_op_finish(op->pool, op, result);
    else
        catalogue_enter(op->pool, op);
}

void pool_volume_delete(struct pool *pool, struct pool_volume *volume, pool_done *done, void *userdata)
{
    check(volume->ready);
    struct pool_op *op = pool_op_new(pool, OP_VOLUME);
    op->done = done;
    op->userdata = userdata;
    op->volume = volume;
    op->dirty = true; /* a deletion */
    volume->ready = false;
    pool_checkpoint(pool, volume_drained, op);
}

int pool_catalogue_load(struct pool *pool, struct err *err)
{
    struct pool_catalogue *catalogue = &pool->catalogue;
    struct pool_disk *disk = &pool->disks[0];
    cleanup_free uint8_t *best = pool_aligned(FORMAT_SLOT);
    struct format_slot *slot = (struct format_slot *)catalogue->buffer;
    bool found = false;
    for (unsigned index = 0; index < 2; index++) {
        int result = pool_read_at(disk->fd, slot, FORMAT_SLOT, FORMAT_CATALOGUE_OFFSET(index));
        if (result < 0)
            return err_set(err, result, "io", "disk %s: reading the catalogue of volumes: %s; check the disk",
                           disk->path, strerror(-result));
        if (!pool_blob_is_valid(pool, slot, FORMAT_CATALOGUE_MAGIC, FORMAT_SLOT - sizeof *slot) ||
            (found && slot->sequence <= catalogue->sequence))
            continue;
        found = true;
        catalogue->sequence = slot->sequence;
        catalogue->slot = index;
        memcpy(best, slot, FORMAT_SLOT);
    }
    if (!found)
        return err_set(err, -EUCLEAN, "damaged",
                       "disk %s: both copies of the catalogue of volumes are damaged; restore this node from its peer",
                       disk->path);
    slot = (struct format_slot *)best;
    const struct format_volume *entries = (const struct format_volume *)(slot + 1);
    for (uint32_t index = 0; index < slot->size / sizeof *entries; index++) {
        struct pool_volume *volume = pool_volume_new(pool, &entries[index]);
        if (!volume)
            return err_set(
                err, -EUCLEAN, "damaged",
                "disk %s: the catalogue names volumes that do not fit the pool; restore this node from its peer",
                disk->path);
        volume->ready = true;
    }
    return 0;
}
