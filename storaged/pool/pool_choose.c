/* Which of the disks at the given paths are the pool's, and whether it can do without those that are missing. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/check.h"
#include "common/log.h"
#include "storaged/pool/pool_internal.h"

/* The table of disks that counts: that of the highest sequence. */
static const struct format_super *table_newest(const struct pool_choice *choice)
{
    const struct format_super *newest = NULL;
    for (unsigned index = 0; index < choice->count; index++)
        if (!newest || choice->disks[index].super.table_sequence > newest->table_sequence)
            newest = &choice->disks[index].super;
    return newest;
}

static int choice_check(const struct pool_choice *choice, struct err *err)
{
    for (unsigned index = 0; index < choice->count; index++) {
        const struct pool_disk *disk = &choice->disks[index];
        for (unsigned other = 0; other < index; other++) {
            const struct pool_disk *earlier = &choice->disks[other];
            if (!id_equal(&earlier->super.pool, &disk->super.pool))
                return err_set(err, -EXDEV, "foreign",
                               "disks %s and %s belong to different pools; name the disks of one", earlier->path,
                               disk->path);
            if (id_equal(&earlier->super.disk, &disk->super.disk))
                return err_set(err, -EEXIST, "twice", "disks %s and %s are the same one; one is a copy, remove it",
                               earlier->path, disk->path);
        }
    }
    return 0;
}

/* Its place in the table; -1: it is not one of the pool's, which the log tells. */
static int place_find(const struct format_super *table, const struct pool_disk *disk)
{
    for (int index = 0; index < POOL_DISKS_MAX; index++) {
        if (table->disk_states[index] == FORMAT_DISK_NONE || !id_equal(&table->disks[index], &disk->super.disk))
            continue;
        if (table->disk_states[index] == FORMAT_DISK_OK || table->disk_states[index] == FORMAT_DISK_DRAINING)
            return index;
        log_error(
            "disk %s failed or was missing before, and the pool went on without it: its content is old and is not "
            "used; remove it with 'hcictl disk remove', then it may be added again with --force",
            disk->path);
        return -1;
    }
    log_warning("disk %s is not (or no longer) one of the pool's disks; it is left alone", disk->path);
    return -1;
}

static void disk_take(struct pool *pool, unsigned place, struct pool_disk *from, enum format_disk_state state)
{
    struct pool_disk *disk = &pool->disks[place];
    *disk = *from;
    disk->used = true;
    disk->super.disk_index = (uint16_t)place;
    disk->state = state == FORMAT_DISK_DRAINING ? POOL_DISK_DRAINING : POOL_DISK_OK;
    from->fd = -1;
    from->path = NULL;
}

/* One that the table names and that is not there, or not used any more. */
static void disk_miss(struct pool *pool, unsigned place, const struct format_super *table)
{
    struct pool_disk *disk = &pool->disks[place];
    enum format_disk_state state = table->disk_states[place];
    bool is_struck = state == FORMAT_DISK_LOST || state == FORMAT_DISK_GONE;
    *disk = (struct pool_disk){.pool = pool, .used = true, .fd = -1, .index = place};
    disk->super.disk = table->disks[place];
    disk->super.disk_index = (uint16_t)place;
    disk->state = is_struck ? POOL_DISK_FAILED : POOL_DISK_MISSING;
    disk->is_settled = state == FORMAT_DISK_GONE;
    list_init(&disk->requeue);
}

static bool is_given_up(const struct pool_choice *choice, const struct id *disk)
{
    for (unsigned index = 0; index < choice->lost_count; index++)
        if (id_equal(&choice->lost[index], disk))
            return true;
    return false;
}

/* More than half of what was not struck must be there: two halves of a pool must never both go on. */
static int missing_check(const struct pool *pool, const struct pool_choice *choice, struct err *err)
{
    unsigned present = 0, missing = 0, unforgiven = 0;
    const struct pool_disk *first = NULL;
    for (unsigned index = 0; index < POOL_DISKS_MAX; index++) {
        const struct pool_disk *disk = &pool->disks[index];
        present += disk->used && disk->fd >= 0;
        if (!disk->used || disk->state != POOL_DISK_MISSING)
            continue;
        missing++;
        if (is_given_up(choice, &disk->super.disk))
            continue;
        unforgiven++;
        first = first ? first : disk;
    }
    if (!unforgiven || present > missing)
        return 0;
    char pool_text[ID_TEXT_SIZE], disk_text[ID_TEXT_SIZE];
    return err_set(err, -ENODEV, "missing_disks",
                   "pool %s: %u of its %u disks are missing, first of all %s (%s); bring it back, or if it is lost for "
                   "good: hcictl disk remove %s --lost",
                   id_format(&pool->id, pool_text), missing, missing + present,
                   id_format(&first->super.disk, disk_text), choice->absent_count ? choice->absent.text : "at no path",
                   disk_text);
}

static void missing_tell(struct pool *pool, const struct pool_choice *choice)
{
    char text[ID_TEXT_SIZE];
    for (unsigned index = 0; index < POOL_DISKS_MAX; index++) {
        const struct pool_disk *disk = &pool->disks[index];
        if (disk->used && disk->state == POOL_DISK_MISSING)
            log_error("pool: disk %s is missing; the pool goes on without it, what only it held is lost: replace it",
                      id_format(&disk->super.disk, text));
    }
    if (choice->absent_count)
        log_warning("%s (%u such paths; the pool goes on without)", choice->absent.text, choice->absent_count);
}

int pool_choose(struct pool *pool, struct pool_choice *choice, struct err *err)
{
    int result = choice_check(choice, err);
    if (result < 0)
        return result;
    if (!choice->count) {
        *err = choice->absent;
        return choice->absent_result;
    }
    const struct format_super table = *table_newest(choice);
    pool->id = table.pool;
    pool->node = table.node;
    pool->table_sequence = table.table_sequence;
    for (unsigned index = 0; index < choice->count; index++) {
        int place = place_find(&table, &choice->disks[index]);
        if (place >= 0)
            disk_take(pool, (unsigned)place, &choice->disks[index], table.disk_states[place]);
    }
    for (unsigned place = 0; place < POOL_DISKS_MAX; place++) {
        pool->disk_count += table.disk_states[place] != FORMAT_DISK_NONE;
        if (table.disk_states[place] != FORMAT_DISK_NONE && !pool->disks[place].used)
            disk_miss(pool, place, &table);
    }
    if (!pool_members_capacity(pool, NULL) && !pool->disks[0].used && !pool->disk_count)
        return err_set(err, -ENODEV, "foreign",
                       "disk %s was prepared for a pool but never became part of it; name the "
                       "pool's disks",
                       choice->disks[0].path);
    result = missing_check(pool, choice, err);
    if (result == 0) {
        missing_tell(pool, choice);
        /* A disk that is not here may carry more than these tell of: whatever this opening says outranks it. */
        pool->table_sequence = ((pool->table_sequence >> 32) + 1) << 32;
    }
    return result;
}

void pool_choose_end(struct pool_choice *choice)
{
    for (unsigned index = 0; index < choice->count; index++) {
        if (choice->disks[index].fd >= 0)
            close(choice->disks[index].fd);
        free(choice->disks[index].path);
    }
}

/* What the disk held may not be known to be lost. */
bool pool_choose_is_unsettled(const struct pool *pool)
{
    for (unsigned index = 0; index < POOL_DISKS_MAX; index++)
        if (pool->disks[index].used && pool->disks[index].fd < 0 && !pool->disks[index].is_settled)
            return true;
    return false;
}

void pool_choose_settle(struct pool *pool)
{
    for (unsigned index = 0; index < POOL_DISKS_MAX; index++)
        if (pool->disks[index].used && pool->disks[index].fd < 0)
            pool->disks[index].is_settled = true;
    pool->table_sequence++;
}
