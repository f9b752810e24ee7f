/* Volumes: the catalogue that names them, their reservation, their making and deletion. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/check.h"
#include "common/cleanup.h"
#include "storaged/pool/pool_internal.h"

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

/* How many extents may be promised yet. After the loss of a disk more may be promised than there are. */
static uint64_t pool_volume_room(const struct pool *pool, bool is_new)
{
    if (!is_new)
        return UINT32_MAX; /* a promise is a promise */
    return pool->extent_count > pool->reserved_extents ? pool->extent_count - pool->reserved_extents : 0;
}

/* A place for it in the pool and its reservation; NULL: none left, or no memory. */
struct pool_volume *pool_volume_new(struct pool *pool, const struct format_volume *from)
{
    unsigned place = 0;
    while (place < POOL_VOLUMES_MAX && pool->volumes[place])
        place++;
    uint64_t extents = (from->size_bytes + FORMAT_EXTENT - 1) / FORMAT_EXTENT;
    if (place == POOL_VOLUMES_MAX || extents > pool_volume_room(pool, pool->is_open))
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
                                   .life = from->life,
                                   .flags = from->flags | (pool_choose_is_unsettled(pool) && !pool->is_open
                                                                  ? FORMAT_VOLUME_HOLES_LOST : 0),
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

/* A volume with extents on a lost disk that got no others: what is not in the tables is not known to be zeros. */
static uint32_t volume_flags(const struct pool_volume *volume)
{
    uint32_t flags = volume->flags | (volume->haunted ? FORMAT_VOLUME_HOLES_LOST : 0);
    if (volume->heal == 2 && !volume->ghosts)
        flags &= ~(uint32_t)FORMAT_VOLUME_HOLES_LOST;
    return flags;
}

/* All volumes that are ready, and the one about to be, with its size to be. */
static void catalogue_encode(struct pool *pool, const struct pool_volume *coming, uint64_t coming_bytes)
{
    struct format_slot *slot = (struct format_slot *)pool->catalogue.buffer;
    struct format_volume *entries = (struct format_volume *)(slot + 1);
    memset(slot, 0, FORMAT_SLOT);
    uint32_t count = 0;
    for (unsigned index = 0; index < POOL_VOLUMES_MAX; index++) {
        const struct pool_volume *volume = pool->volumes[index];
        if (!volume || !(volume->ready || volume == coming))
            continue;
        uint64_t bytes = volume == coming && coming_bytes ? coming_bytes : volume->size_bytes;
        entries[count++] =
            (struct format_volume){volume->id, volume->group, bytes, volume->life, volume_flags(volume)};
    }
    slot->sequence = ++pool->catalogue.sequence;
    slot->size = count * (uint32_t)sizeof *entries;
    slot->used = 1;
    pool_blob_seal(pool, slot, FORMAT_CATALOGUE_MAGIC);
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
    pool_for_each_disk(pool, disk) {
        list_for_each(item, &disk->journal.live) {
            struct pool_part *part = pool_part_of(item);
            if (part->op->volume == op->volume)
                part->op->volume = NULL;
        }
    }
    pool_extents_release_volume(op->volume);
    pool_checkpoint(pool, volume_deleted, op);
}

/* The catalogue names it, with its size. */
static void volume_change(struct pool_op *op)
{
    struct pool_volume *volume = op->volume;
    if (!op->count) {
        volume->ready = true;
        return;
    }
    volume->size_bytes = op->count;
    volume->blocks = (op->count + FORMAT_BLOCK - 1) / FORMAT_BLOCK;
}

static void catalogue_written(struct pool_blob *blob)
{
    struct pool *pool = blob->pool;
    struct pool_op *op = list_entry(pool->catalogue.queue.next, struct pool_op, link);
    pool->catalogue.in_flight = false;
    list_remove(&op->link);
    if (pool->failure) {
        pool_op_finish(pool, op, pool->failure);
    } else if (op->dirty) {
        volume_release(pool, op);
    } else {
        if (op->volume)
            volume_change(op);
        pool_op_finish(pool, op, 0);
    }
    catalogue_pump(pool);
}

static const uint64_t catalogue_offsets[2] = {FORMAT_CATALOGUE_OFFSET(0), FORMAT_CATALOGUE_OFFSET(1)};

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
    catalogue_encode(pool, op->dirty ? NULL : op->volume, op->count);
    catalogue->in_flight = true;
    catalogue->write.written = catalogue_written;
    pool_blob_write(pool, &catalogue->write, (const struct format_slot *)catalogue->buffer, catalogue_offsets,
                    "writing the catalogue of volumes");
}

static void catalogue_enter(struct pool *pool, struct pool_op *op)
{
    list_append(&pool->catalogue.queue, &op->link);
    catalogue_pump(pool);
}

/* What is left of an earlier volume of that id is known by its life: its deletion has raised the sequence since. */
static uint32_t life_next(const struct pool *pool)
{
    return (uint32_t)pool->catalogue.sequence + 1;
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
        struct format_volume entry = {*volume, *group, size_bytes, life_next(pool), 0};
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
    else if (pool_drain_moves(op->pool, op->volume))
        pool_checkpoint(op->pool, volume_drained, op); /* one of its extents is on its way to another disk */
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

void pool_catalogue_save(struct pool *pool, pool_done *done, void *userdata)
{
    struct pool_op *op = pool_op_new(pool, OP_VOLUME);
    op->done = done;
    op->userdata = userdata;
    catalogue_enter(pool, op);
}

int pool_catalogue_save_now(struct pool *pool)
{
    catalogue_encode(pool, NULL, 0);
    const struct format_slot *slot = (const struct format_slot *)pool->catalogue.buffer;
    int result = 0;
    pool_for_each_disk(pool, disk) {
        if (result == 0)
            result = pool_write_at(disk->fd, slot, FORMAT_SLOT, catalogue_offsets[slot->sequence % 2]);
        if (result == 0 && fdatasync(disk->fd) < 0)
            result = -errno;
    }
    return result;
}

/* --- after the loss of a disk ------------------------------------------------------------------------------------- */

static void healed_named(void *userdata, int result)
{
    struct pool *pool = userdata;
    pool->healing = false;
    for (unsigned index = 0; index < POOL_VOLUMES_MAX && result == 0; index++) {
        struct pool_volume *volume = pool->volumes[index];
        if (!volume || volume->heal != 2)
            continue;
        volume->heal = 0;
        volume->haunted = volume->ghosts;
        volume->flags &= ~(uint32_t)FORMAT_VOLUME_HOLES_LOST;
        for (uint32_t logical = 0; logical < volume->extent_count; logical++)
            if (volume->map[logical])
                pool_extents_may_be_empty(pool, volume->map[logical] - 1);
    }
}

static void healed_durable(void *userdata, int result)
{
    struct pool *pool = userdata;
    for (unsigned index = 0; index < POOL_VOLUMES_MAX && result == 0; index++)
        if (pool->volumes[index] && pool->volumes[index]->heal == 1)
            pool->volumes[index]->heal = 2;
    pool_catalogue_save(pool, healed_named, pool);
}

/* No hole that may be lost is left: all extents are there; or, when all holes are known to be zeros, no ghost is. */
static bool volume_is_whole(const struct pool_volume *volume)
{
    if (!volume->ready || volume->ghosts)
        return false;
    return pool_extents_hole_is_lost(volume) ? volume->used_extents == volume->extent_count : volume->haunted;
}

/* The tables must tell of every extent before the catalogue says that what they do not tell of is zeros. Meanwhile no
 * extent goes: the flag still stands. */
void pool_volume_heal(struct pool *pool)
{
    bool wanted = false;
    for (unsigned index = 0; index < POOL_VOLUMES_MAX && !pool->healing; index++) {
        struct pool_volume *volume = pool->volumes[index];
        bool is_whole = volume && volume_is_whole(volume);
        if (is_whole)
            volume->heal = 1;
        wanted |= is_whole;
    }
    if (!wanted || pool->failure || pool->closing)
        return;
    pool->healing = true;
    pool_checkpoint(pool, healed_durable, pool);
}

/* --- growth ------------------------------------------------------------------------------------------------------ */

/* The larger map is there at once, and used when the catalogue says so. */
static int volume_reserve(struct pool_volume *volume, uint64_t size_bytes)
{
    struct pool *pool = volume->pool;
    uint64_t extents = (size_bytes + FORMAT_EXTENT - 1) / FORMAT_EXTENT;
    if (size_bytes <= volume->size_bytes)
        return -EINVAL;
    if (pool_extents_hole_is_lost(volume))
        return -EBADMSG; /* what is new would count as lost, too */
    if (extents - volume->extent_count > pool_volume_room(pool, true))
        return -ENOSPC;
    uint32_t *map = realloc(volume->map, extents * sizeof *map);
    if (!map)
        return -ENOMEM;
    memset(map + volume->extent_count, 0, (extents - volume->extent_count) * sizeof *map);
    pool->reserved_extents += (uint32_t)extents - volume->extent_count;
    volume->map = map;
    volume->extent_count = (uint32_t)extents;
    return 0;
}

void pool_volume_grow(struct pool *pool, struct pool_volume *volume, uint64_t size_bytes, pool_done *done,
                      void *userdata)
{
    struct pool_op *op = pool_op_new(pool, OP_VOLUME);
    op->done = done;
    op->userdata = userdata;
    op->volume = volume;
    op->count = size_bytes;
    int result = pool->failure;
    if (result == 0)
        result = volume->ready ? volume_reserve(volume, size_bytes) : -EBUSY;
    if (result < 0)
        pool_op_finish(pool, op, result);
    else
        catalogue_enter(pool, op);
}

uint64_t pool_volume_lost_blocks(const struct pool_volume *volume)
{
    uint64_t count = volume->lost_blocks;
    for (uint32_t logical = 0; pool_extents_hole_is_lost(volume) && logical < volume->extent_count; logical++) {
        uint64_t first = (uint64_t)logical * FORMAT_EXTENT_BLOCKS;
        if (!volume->map[logical] && first < volume->blocks)
            count += volume->blocks - first < FORMAT_EXTENT_BLOCKS ? volume->blocks - first : FORMAT_EXTENT_BLOCKS;
    }
    return count;
}

int pool_catalogue_load(struct pool *pool, struct err *err)
{
    struct pool_catalogue *catalogue = &pool->catalogue;
    cleanup_free struct format_slot *slot = pool_aligned(FORMAT_SLOT);
    int result = pool_blob_load(pool, FORMAT_CATALOGUE_MAGIC, catalogue_offsets, FORMAT_SLOT - sizeof *slot, slot);
    if (result == -ENODATA || result == -EUCLEAN)
        return err_set(err, -EUCLEAN, "damaged",
                       "pool: all copies of the catalogue of volumes are damaged; restore this node from its peer");
    if (result < 0)
        return err_set(err, result, "io", "pool: reading the catalogue of volumes: %s; check the disks",
                       strerror(-result));
    catalogue->sequence = slot->sequence;
    const struct format_volume *entries = (const struct format_volume *)(slot + 1);
    for (uint32_t index = 0; index < slot->size / sizeof *entries; index++) {
        struct pool_volume *volume = pool_volume_new(pool, &entries[index]);
        if (!volume)
            return err_set(err, -EUCLEAN, "damaged",
                           "pool: the catalogue names volumes that do not fit the pool; restore this node from its peer");
        volume->ready = true;
    }
    return 0;
}
