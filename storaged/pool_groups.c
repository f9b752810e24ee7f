/* Group records: a blob per group in two slots, the older one is overwritten. */
#include <errno.h>
#include <string.h>

#include "common/check.h"
#include "common/cleanup.h"
#include "storaged/pool_internal.h"

static void group_pump(struct pool_group *group);

static uint32_t blob_crc(const struct format_slot *slot)
{
    return pool_crc(slot, sizeof *slot + slot->size);
}

bool pool_blob_is_valid(const struct pool *pool, const struct format_slot *slot, uint64_t magic, uint32_t limit)
{
    if (slot->magic != magic || slot->version != FORMAT_VERSION || !id_equal(&slot->pool, &pool->id) ||
        slot->size > limit)
        return false;
    struct format_slot *writable = (struct format_slot *)(uintptr_t)slot;
    uint32_t crc = slot->crc;
    writable->crc = 0;
    bool valid = blob_crc(slot) == crc;
    writable->crc = crc;
    return valid;
}

void pool_blob_seal(struct pool *pool, struct format_slot *slot, uint64_t magic)
{
    slot->magic = magic;
    slot->version = FORMAT_VERSION;
    slot->pool = pool->id;
    slot->crc = 0;
    slot->crc = blob_crc(slot);
}

static struct pool_group *group_find(struct pool *pool, const struct id *id)
{
    for (unsigned index = 0; index < POOL_GROUPS_MAX; index++)
        if (pool->groups[index].used && id_equal(&pool->groups[index].id, id))
            return &pool->groups[index];
    return NULL;
}

static struct pool_group *group_new(struct pool *pool, const struct id *id)
{
    for (unsigned index = 0; index < POOL_GROUPS_MAX; index++) {
        struct pool_group *group = &pool->groups[index];
        if (group->used)
            continue;
        group->id = *id;
        group->used = true;
        return group;
    }
    return NULL;
}

static void group_drop(struct pool_group *group)
{
    struct pool_session *slot = pool_session_find(group->pool, &group->id);
    if (slot && !slot->live)
        slot->used = false;
    group->used = false; /* its slots' sequence goes on with the next owner of the place */
}

/* The blob that is now on disk is also what pool_group_each tells. */
static void group_keep(struct pool_group *group, const struct format_slot *slot)
{
    free(group->blob);
    group->blob = NULL;
    group->size = 0;
    group->stored = slot->used;
    if (!slot->used)
        return;
    group->blob = malloc(slot->size + 1);
    check(group->blob);
    memcpy(group->blob, slot + 1, slot->size);
    group->size = slot->size;
}

static size_t slot_bytes(const struct format_slot *slot)
{
    return (sizeof *slot + slot->size + FORMAT_BLOCK - 1) / FORMAT_BLOCK * FORMAT_BLOCK;
}

static void group_written(struct ring_io *io, int result)
{
    struct pool_group *group = list_entry(io, struct pool_group, io);
    struct pool *pool = group->pool;
    struct pool_op *op = list_entry(group->queue.next, struct pool_op, link);
    const struct format_slot *slot = (const struct format_slot *)op->buffer;
    pool->busy_count--;
    group->in_flight = false;
    list_remove(&op->link);
    if (result < 0 || (size_t)result != slot_bytes(slot)) {
        pool_fail(pool, result < 0 ? result : -EIO, "writing a group's record", pool->disks[0].path);
    } else {
        group->slot ^= 1;
        group_keep(group, slot);
        if (!slot->used && list_is_empty(&group->queue))
            group_drop(group);
    }
    free(op->buffer);
    op->buffer = NULL;
    pool_op_finish(pool, op, pool->failure);
    group_pump(group);
}

static void group_pump(struct pool_group *group)
{
    struct pool *pool = group->pool;
    while (pool->failure && !group->in_flight && !list_is_empty(&group->queue)) {
        struct pool_op *op = list_entry(group->queue.next, struct pool_op, link);
        list_remove(&op->link);
        free(op->buffer);
        op->buffer = NULL;
        pool_op_finish(pool, op, pool->failure);
    }
    if (group->in_flight || list_is_empty(&group->queue))
        return;
    struct pool_op *op = list_entry(group->queue.next, struct pool_op, link);
    struct format_slot *slot = (struct format_slot *)op->buffer;
    slot->group = group->id;
    slot->sequence = ++group->sequence;
    pool_blob_seal(pool, slot, FORMAT_GROUP_MAGIC);
    group->in_flight = true;
    group->io.done = group_written;
    pool->busy_count++;
    ring_write(pool->ring, &group->io, pool->disks[0].fd, slot, slot_bytes(slot),
               FORMAT_GROUP_OFFSET(group - pool->groups, !group->slot), true);
}

static void group_enter(struct pool_group *group, struct pool_op *op, const void *blob, uint32_t size, bool used)
{
    op->buffer = pool_aligned(FORMAT_SLOT);
    struct format_slot *slot = (struct format_slot *)op->buffer;
    slot->size = size;
    slot->used = used;
    if (size)
        memcpy(slot + 1, blob, size);
    list_append(&group->queue, &op->link);
    group_pump(group);
}

void pool_group_save(struct pool *pool, const struct id *group, const void *blob, uint32_t size, pool_done *done,
                     void *userdata)
{
    check(size <= POOL_GROUP_BLOB_MAX);
    struct pool_op *op = pool_op_new(pool, OP_BLOB);
    op->done = done;
    op->userdata = userdata;
    struct pool_group *place = group_find(pool, group);
    if (!place)
        place = group_new(pool, group);
    if (place)
        group_enter(place, op, blob, size, true);
    else
        pool_op_finish(pool, op, pool->failure ? pool->failure : -ENOSPC);
}

void pool_group_delete(struct pool *pool, const struct id *group, pool_done *done, void *userdata)
{
    struct pool_op *op = pool_op_new(pool, OP_BLOB);
    op->done = done;
    op->userdata = userdata;
    int result = pool->failure;
    for (unsigned index = 0; index < POOL_VOLUMES_MAX; index++)
        if (pool->volumes[index] && id_equal(&pool->volumes[index]->group, group))
            result = -EBUSY;
    struct pool_group *place = group_find(pool, group);
    if (result == 0 && place)
        group_enter(place, op, NULL, 0, false);
    else
        pool_op_finish(pool, op, result); /* deleting what is not there is done */
}

void pool_group_each(struct pool *pool,
                     void (*each)(void *userdata, const struct id *group, const void *blob, uint32_t size),
                     void *userdata)
{
    for (unsigned index = 0; index < POOL_GROUPS_MAX; index++)
        if (pool->groups[index].used && pool->groups[index].stored)
            each(userdata, &pool->groups[index].id, pool->groups[index].blob, pool->groups[index].size);
}

static int group_load(struct pool_group *group, unsigned place, struct format_slot *slots, struct err *err)
{
    struct pool *pool = group->pool;
    const char *path = pool->disks[0].path;
    int result = pool_read_at(pool->disks[0].fd, slots, 2 * FORMAT_SLOT, FORMAT_GROUP_OFFSET(place, 0));
    if (result < 0)
        return err_set(err, result, "io", "disk %s: reading the group records: %s; check the disk", path,
                       strerror(-result));
    struct format_slot *second = (struct format_slot *)((uint8_t *)slots + FORMAT_SLOT);
    bool valid[2] = {pool_blob_is_valid(pool, slots, FORMAT_GROUP_MAGIC, POOL_GROUP_BLOB_MAX),
                     pool_blob_is_valid(pool, second, FORMAT_GROUP_MAGIC, POOL_GROUP_BLOB_MAX)};
    /* The first save ever may have been cut off; but that a record was there and is no longer must not pass as none. */
    if (!valid[0] && !valid[1] && slots->magic == FORMAT_GROUP_MAGIC && second->magic == FORMAT_GROUP_MAGIC)
        return err_set(err, -EUCLEAN, "damaged",
                       "disk %s: both copies of group record %u are damaged; restore this node from its peer", path,
                       place);
    if (!valid[0] && !valid[1])
        return 0;
    group->slot = valid[1] && (!valid[0] || second->sequence > slots->sequence);
    const struct format_slot *slot = group->slot ? second : slots;
    group->sequence = slot->sequence;
    group->id = slot->group;
    group->used = slot->used;
    group_keep(group, slot);
    return 0;
}

int pool_groups_load(struct pool *pool, struct err *err)
{
    cleanup_free struct format_slot *slots = pool_aligned(2 * FORMAT_SLOT);
    int result = 0;
    for (unsigned index = 0; index < POOL_GROUPS_MAX && result == 0; index++)
        result = group_load(&pool->groups[index], index, slots, err);
    return result;
}
