/* Disks that come to a pool and that are to go, while it serves. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/log.h"
#include "storaged/pool/pool_internal.h"

/* --- coming ------------------------------------------------------------------------------------------------------- */

/* Order: the disk gets what all disks hold; then the superblocks name it, its own among them; then it gets extents.
 * Until a superblock names it, a crash leaves the pool without it. */
struct joining {
    struct pool_disk *disk;
    pool_done *done;
    void *userdata;
};

static void join_end(struct joining *joining, int result)
{
    struct pool_disk *disk = joining->disk;
    struct pool *pool = disk->pool;
    pool_done *done = joining->done;
    void *userdata = joining->userdata;
    free(joining);
    if (result == 0 && !POOL_DISK_IS_ALIVE(disk))
        result = -EIO; /* it has failed already */
    disk->joining = false;
    pool->extent_count = pool_members_capacity(pool, NULL);
    if (result == 0) {
        log_notice("disk %s is one of the pool's now", disk->path);
        pool_members_house_ghosts(pool);
        pool_members_tell(disk);
    }
    if (done)
        done(userdata, result);
}

static void joined(void *userdata, int result)
{
    join_end(userdata, result);
}

static void catalogue_there(void *userdata, int result)
{
    struct joining *joining = userdata;
    struct pool_disk *disk = joining->disk;
    if (result < 0 || !POOL_DISK_IS_ALIVE(disk)) {
        join_end(joining, result < 0 ? result : -EIO);
        return;
    }
    disk->unnamed = false;
    disk->pool->disk_count++;
    pool_members_commit(disk->pool, joined, joining);
}

static void groups_there(void *userdata, int result)
{
    struct joining *joining = userdata;
    if (result < 0)
        join_end(joining, result);
    else
        pool_catalogue_save(joining->disk->pool, catalogue_there, joining);
}

static int join_check(struct pool *pool, const struct pool_disk_prepared *prepared, unsigned *ret_place)
{
    unsigned place = 0;
    while (place < POOL_DISKS_MAX && pool->disks[place].used)
        place++;
    *ret_place = place;
    if (pool->failure)
        return pool->failure;
    if (!id_equal(&prepared->super.pool, &pool->id))
        return -EXDEV;
    return place < POOL_DISKS_MAX ? 0 : -ENOSPC;
}

void pool_disk_add(struct pool *pool, struct pool_disk_prepared *prepared, pool_done *done, void *userdata)
{
    unsigned place;
    int result = join_check(pool, prepared, &place);
    struct pool_disk *disk = result == 0 ? &pool->disks[place] : NULL;
    struct joining *joining = disk ? calloc(1, sizeof *joining) : NULL;
    if (joining) {
        *disk = (struct pool_disk){.pool = pool,
                                   .used = true,
                                   .unnamed = true,
                                   .joining = true,
                                   .fd = prepared->fd,
                                   .path = prepared->path,
                                   .super = prepared->super,
                                   .super_slot = 1};
        disk->super.disk_index = (uint16_t)place;
        prepared->fd = -1;
        prepared->path = NULL;
        result = pool_disk_init(pool, disk);
        pool->extent_count = pool_members_capacity(pool, NULL);
    }
    pool_disk_prepared_free(prepared);
    if (result < 0 || !joining) {
        if (disk)
            pool_disk_free(disk);
        free(joining);
        done(userdata, result < 0 ? result : -ENOMEM);
        return;
    }
    *joining = (struct joining){disk, done, userdata};
    pool_groups_save_again(pool, groups_there, joining);
}

/* --- going -------------------------------------------------------------------------------------------------------- */

static void draining_named(void *userdata, int result)
{
    struct pool_disk *disk = userdata;
    if (result < 0)
        return;
    pool_drain_start(disk->pool);
}

static void drain(struct pool_disk *disk, struct pool_op *op)
{
    struct pool *pool = disk->pool;
    uint32_t rest = pool_members_capacity(pool, disk);
    unsigned others = 0;
    pool_for_each_disk(pool, other) others += other != disk && other->state == POOL_DISK_OK && !other->joining;
    int result = disk->state == POOL_DISK_DRAINING ? -EBUSY : others == 0 ? -EINVAL : disk->joining ? -EBUSY : 0;
    if (result == 0 && (rest < pool->reserved_extents || rest < pool->used_extents))
        result = -ENOSPC;
    if (result < 0) {
        pool_op_finish(pool, op, result);
        return;
    }
    disk->removal = op;
    disk->state = POOL_DISK_DRAINING;
    pool->extent_count = rest;
    log_notice("disk %s: what it holds moves to the pool's other disks", disk->path);
    pool_members_tell(disk);
    pool_members_commit(pool, draining_named, disk);
}

void pool_disks_keep_last(struct pool *pool)
{
    pool_for_each_disk(pool, disk)
        if (disk->state == POOL_DISK_OK)
            return;
    pool_for_each_disk(pool, disk) {
        log_error("disk %s is not drained any more: no other disk is left that could take what it holds; add one, then "
                  "remove it again",
                  disk->path);
        disk->state = POOL_DISK_OK;
        if (disk->removal)
            pool_op_finish(pool, disk->removal, -ENOSPC);
        disk->removal = NULL;
        pool_members_tell(disk);
    }
}

static void forgotten(void *userdata, int result)
{
    struct pool_disk *disk = userdata;
    struct pool_op *op = disk->removal;
    struct pool *pool = disk->pool;
    disk->removal = NULL;
    if (result == 0) {
        log_notice("disk %s is given up; what only it held reads as errors until it is written again",
                   disk->path ? disk->path : "that is missing");
        pool_members_tell(disk);
        if (disk->fd >= 0)
            pool_checksums_forget(disk);
        pool_disk_free(disk);
        pool->disk_count--;
    }
    pool_op_finish(pool, op, result);
}

/* Its name goes from the table. What it held is known to be lost: it is settled. */
static void give_up(struct pool_disk *disk, struct pool_op *op)
{
    struct pool *pool = op->pool;
    bool has_room = pool_members_house_ghosts(pool);
    if (!disk->is_settled || disk->unnamed || !has_room) {
        pool_op_finish(pool, op, has_room ? -EBUSY : -ENOSPC); /* a moment after its failure, or twice */
        return;
    }
    disk->unnamed = true;
    disk->removal = op;
    pool_members_commit(pool, forgotten, disk);
}

void pool_disk_remove(struct pool *pool, const struct id *disk, bool lost, pool_done *done, void *userdata)
{
    struct pool_op *op = pool_op_new(pool, OP_VOLUME);
    struct pool_disk *place = pool_members_find(pool, disk);
    op->done = done;
    op->userdata = userdata;
    if (pool->failure || !place)
        pool_op_finish(pool, op, pool->failure ? pool->failure : -ENOENT);
    else if (POOL_DISK_IS_ALIVE(place))
        drain(place, op);
    else if (lost)
        give_up(place, op);
    else
        pool_op_finish(pool, op, -EIO);
}
