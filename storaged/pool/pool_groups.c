/* Group records: a blob per group, the same on every disk. */
#include <errno.h>
#include <string.h>

#include "common/check.h"
#include "common/cleanup.h"
#include "storaged/pool/pool_internal.h"

static void group_pump(struct pool_group *group);

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

static void group_written(struct pool_blob *blob)
{
    struct pool_group *group = list_entry(blob, struct pool_group, write);
    struct pool *pool = group->pool;
    struct pool_op *op = list_entry(group->queue.next, struct pool_op, link);
    const struct format_slot *slot = (const struct format_slot *)op->buffer;
    group->in_flight = false;
    list_remove(&op->link);
    if (!pool->failure) {
        group_keep(group, slot);
        if (!slot->used && list_is_empty(&group->queue))
            group_drop(group);
    }
    free(op->buffer);
    op->buffer = NULL;
    pool_op_finish(pool, op, pool->failure);
    group_pump(group);
}

static void group_offsets(const struct pool_group *group, uint64_t ret[static 2])
{
    for (unsigned slot = 0; slot < 2; slot++)
        ret[slot] = FORMAT_GROUP_OFFSET(group - group->pool->groups, slot);
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
    uint64_t offsets[2];
    group_offsets(group, offsets);
    slot->group = group->id;
    slot->sequence = ++group->sequence;
    pool_blob_seal(pool, slot, FORMAT_GROUP_MAGIC);
    group->in_flight = true;
    group->write.written = group_written;
    pool_blob_write(pool, &group->write, slot, offsets, "writing a group's record");
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

static void group_saved_again(void *userdata, int result)
{
    struct pool_op *op = userdata;
    if (result < 0)
        op->result = result;
    if (--op->count == 0)
        pool_op_finish(op->pool, op, op->result);
}

/* Every record once more: a disk that came meanwhile gets it as well. What waits for its turn does so anyway; what is
 * under way went to the disks of before. */
void pool_groups_save_again(struct pool *pool, pool_done *done, void *userdata)
{
    struct pool_op *all = pool_op_new(pool, OP_BLOB);
    all->done = done;
    all->userdata = userdata;
    all->count = 1;
    for (unsigned index = 0; index < POOL_GROUPS_MAX; index++) {
        struct pool_group *group = &pool->groups[index];
        bool is_waiting = !list_is_empty(&group->queue);
        if (!group->used || (!group->stored && !is_waiting))
            continue;
        struct pool_op *op = pool_op_new(pool, OP_BLOB);
        op->done = group_saved_again;
        op->userdata = all;
        all->count++;
        const struct pool_op *last = is_waiting ? list_entry(group->queue.previous, struct pool_op, link) : NULL;
        const struct format_slot *slot = last ? (const struct format_slot *)last->buffer : NULL;
        group_enter(group, op, slot ? (const void *)(slot + 1) : group->blob, slot ? slot->size : group->size,
                    slot ? slot->used : true);
    }
    group_saved_again(all, 0);
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

static int group_load(struct pool_group *group, struct format_slot *slot, struct err *err)
{
    struct pool *pool = group->pool;
    uint64_t offsets[2];
    group_offsets(group, offsets);
    int result = pool_blob_load(pool, FORMAT_GROUP_MAGIC, offsets, POOL_GROUP_BLOB_MAX, slot);
    if (result == -ENODATA)
        return 0;
    if (result == -EUCLEAN) /* that a record was there and is no longer must not pass as none */
        return err_set(err, -EUCLEAN, "damaged",
                       "pool: all copies of group record %u are damaged; restore this node from its peer",
                       (unsigned)(group - pool->groups));
    if (result < 0)
        return err_set(err, result, "io", "pool: reading the group records: %s; check the disks", strerror(-result));
    group->sequence = slot->sequence;
    group->id = slot->group;
    group->used = slot->used;
    group_keep(group, slot);
    return 0;
}

int pool_groups_load(struct pool *pool, struct err *err)
{
    cleanup_free struct format_slot *slot = pool_aligned(FORMAT_SLOT);
    int result = 0;
    for (unsigned index = 0; index < POOL_GROUPS_MAX && result == 0; index++)
        result = group_load(&pool->groups[index], slot, err);
    return result;
}
