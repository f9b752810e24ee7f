/* Which disks are the pool's: the table in every superblock, of which the one with the highest sequence counts. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/check.h"
#include "common/log.h"
#include "storaged/pool/pool_internal.h"

struct pool_disk *pool_members_find(struct pool *pool, const struct id *disk)
{
    for (unsigned index = 0; index < POOL_DISKS_MAX; index++)
        if (pool->disks[index].used && id_equal(&pool->disks[index].super.disk, disk))
            return &pool->disks[index];
    return NULL;
}

uint32_t pool_members_capacity(const struct pool *pool, const struct pool_disk *without)
{
    uint32_t count = 0;
    pool_for_each_disk(pool, disk) if (disk != without && disk->state == POOL_DISK_OK && !disk->joining) count +=
        disk->extent_count;
    return count;
}

void pool_members_commit(struct pool *pool, pool_done *done, void *userdata)
{
    pool->table_sequence++;
    pool_checkpoint(pool, done, userdata); /* whose last step is the superblock of each disk */
}

/* Extents on a failed disk that found no room: perhaps there is some now. Written over, they would find it as well. */
bool pool_members_house_ghosts(struct pool *pool)
{
    bool done = true;
    for (unsigned index = 0; index < POOL_VOLUMES_MAX; index++) {
        struct pool_volume *volume = pool->volumes[index];
        for (uint32_t logical = 0; volume && volume->ghosts && logical < volume->extent_count; logical++)
            if (volume->map[logical])
                pool_extents_of(volume, logical, true);
        done &= !volume || !volume->ghosts;
    }
    return done;
}

static void info_fill(const struct pool_disk *disk, struct pool_disk_info *ret)
{
    const struct pool_journal *journal = &disk->journal;
    *ret = (struct pool_disk_info){.id = disk->super.disk,
                                   .state = disk->state,
                                   .read_errors = disk->read_errors,
                                   .write_errors = disk->write_errors,
                                   .checksum_errors = disk->checksum_errors};
    snprintf(ret->path, sizeof ret->path, "%s", disk->path ? disk->path : "");
    if (!POOL_DISK_IS_ALIVE(disk))
        return;
    ret->total_bytes = (uint64_t)disk->extent_count * FORMAT_EXTENT;
    ret->used_bytes = (uint64_t)(disk->extent_count - disk->free_extents) * FORMAT_EXTENT;
    ret->journal_bytes = journal->blocks * FORMAT_BLOCK;
    ret->journal_used_bytes = (journal->head_lsn - journal->tail_lsn) * FORMAT_BLOCK;
    ret->drain_left_bytes = disk->state == POOL_DISK_DRAINING ? ret->used_bytes : 0;
}

unsigned pool_disk_list(const struct pool *pool, struct pool_disk_info ret[static POOL_DISKS_MAX])
{
    unsigned count = 0;
    for (unsigned index = 0; index < POOL_DISKS_MAX; index++)
        if (pool->disks[index].used && !pool->disks[index].unnamed)
            info_fill(&pool->disks[index], &ret[count++]);
    return count;
}

void pool_set_listener(struct pool *pool, void (*disk_changed)(void *userdata, const struct pool_disk_info *disk),
                       void *userdata)
{
    pool->disk_changed = disk_changed;
    pool->disk_changed_userdata = userdata;
}

void pool_members_tell(struct pool_disk *disk)
{
    struct pool *pool = disk->pool;
    struct pool_disk_info info;
    info_fill(disk, &info);
    if (pool->disk_changed)
        pool->disk_changed(pool->disk_changed_userdata, &info);
}
