/* Opening a pool: its disks found, locked and compared, its tables loaded, its journal replayed. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/check.h"
#include "common/log.h"
#include "storaged/pool_internal.h"

#define BUSY_WAIT_MS 2000u
#define BUSY_LOOK_MS 20u

/* 0 and *ret_fd, or -EBUSY for a mounted device, -EAGAIN for one that a pool uses. */
static int disk_try_lock(const char *path, bool is_block, int *ret_fd)
{
    /* O_EXCL on a block device: the kernel refuses it while it is mounted or part of another device. */
    int fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC | (is_block ? O_EXCL : 0));
    if (fd < 0)
        return -errno;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        close(fd);
        return -EAGAIN;
    }
    *ret_fd = fd;
    return 0;
}

/* The writes of a killed process go on for a moment after its end, and hold its locks as long: that is waited for. */
static int disk_lock(const char *path, bool is_block, int *ret_fd, struct err *err)
{
    int result = disk_try_lock(path, is_block, ret_fd);
    for (unsigned waited_ms = 0; (result == -EBUSY || result == -EAGAIN) && waited_ms < BUSY_WAIT_MS;
         waited_ms += BUSY_LOOK_MS) {
        usleep(BUSY_LOOK_MS * 1000);
        result = disk_try_lock(path, is_block, ret_fd);
    }
    if (result == -EBUSY)
        return err_set(err, -EBUSY, "busy",
                       "disk %s is mounted or in use by another part of the system; unmount it or choose another",
                       path);
    if (result == -EAGAIN)
        return err_set(err, -EBUSY, "busy", "disk %s is in use by another process of a pool; stop that one first",
                       path);
    if (result < 0)
        return err_set(err, result, "io", "disk %s: cannot be opened: %s; check its path and that this is run as root",
                       path, strerror(-result));
    return 0;
}

static int super_check(const char *path, const struct format_super *super, uint64_t disk_bytes, struct err *err)
{
    if (super->version != FORMAT_VERSION)
        return err_set(err, -EPROTONOSUPPORT, "version",
                       "disk %s has format version %u, this program knows %u; use the program that made it", path,
                       super->version, FORMAT_VERSION);
    if (super->disk_count == 0 || super->disk_count > POOL_DISKS_MAX || super->disk_index >= super->disk_count)
        return err_set(err, -EUCLEAN, "damaged",
                       "disk %s: its superblock says disk %u of %u; restore this node from its peer", path,
                       super->disk_index, super->disk_count);
    if (disk_bytes < super->data_offset + (uint64_t)super->extent_count * FORMAT_EXTENT)
        return err_set(err, -EUCLEAN, "damaged", "disk %s has %llu bytes, fewer than the %llu it had; restore its size",
                       path, (unsigned long long)disk_bytes, (unsigned long long)super->disk_bytes);
    return 0;
}

static int place_check(const struct pool_disk *place, const struct format_super *super, const char *path,
                       struct err *err)
{
    if (place->fd < 0)
        return 0;
    if (!id_equal(&place->super.pool, &super->pool))
        return err_set(err, -EXDEV, "foreign", "disks %s and %s belong to different pools; name the disks of one",
                       place->path, path);
    return err_set(err, -EEXIST, "twice", "disks %s and %s are both number %u of the pool; one is a copy, remove it",
                   place->path, path, super->disk_index);
}

static int disk_open(struct pool *pool, const char *path, struct err *err)
{
    struct stat status;
    if (stat(path, &status) < 0)
        return err_set(err, -errno, "missing", "disk %s: %s; check that it is connected and its path is right", path,
                       strerror(errno));
    struct pool_disk disk = {.fd = -1};
    int result = disk_lock(path, S_ISBLK(status.st_mode), &disk.fd, err);
    if (result < 0)
        return result;
    uint64_t bytes = 0;
    result = pool_disk_size(disk.fd, &bytes);
    if (result == 0)
        result = pool_super_read(disk.fd, &disk.super, &disk.super_slot);
    if (result == -ENODATA || result == -EIO)
        result = err_set(
            err, -ENODATA, "foreign",
            "disk %s carries no superblock of a pool; check its path, or make a pool with 'hcictl pool create'", path);
    else if (result < 0)
        result = err_set(err, result, "io", "disk %s: reading its superblock: %s; check the disk", path,
                         strerror(-result));
    else
        result = super_check(path, &disk.super, bytes, err);
    if (result == 0)
        result = place_check(&pool->disks[disk.super.disk_index], &disk.super, path, err);
    if (result < 0) {
        close(disk.fd);
        return result;
    }
    disk.path = strdup(path);
    check(disk.path);
    pool->disks[disk.super.disk_index] = disk;
    pool->disk_count++;
    return 0;
}

/* All disks of one pool, and nothing but them. */
static int disks_compare(struct pool *pool, struct err *err)
{
    const struct pool_disk *any = NULL;
    for (unsigned index = 0; index < POOL_DISKS_MAX; index++) {
        const struct pool_disk *disk = &pool->disks[index];
        if (disk->fd < 0)
            continue;
        if (any && !id_equal(&any->super.pool, &disk->super.pool))
            return err_set(err, -EXDEV, "foreign", "disks %s and %s belong to different pools; name the disks of one",
                           any->path, disk->path);
        any = disk;
    }
    check(any);
    if (pool->disk_count == any->super.disk_count && pool->disks[0].fd >= 0)
        return 0;
    char text[ID_TEXT_SIZE];
    return err_set(err, -ENODEV, "missing", "pool %s has %u disks, %u of them are named; name all of them",
                   id_format(&any->super.pool, text), any->super.disk_count, pool->disk_count);
}

static void session_load(struct pool *pool)
{
    const struct format_super *super = &pool->disks[0].super;
    for (unsigned index = 0; index < POOL_GROUPS_MAX; index++) {
        const struct format_seen *seen = &super->seen[index];
        if (id_is_null(&seen->group) || id_is_null(&seen->session))
            continue;
        pool_session_saw(pool, &seen->group, &seen->session, seen->highest);
        pool_session_find(pool, &seen->group)->committed = super->committed[index];
    }
}

static void table_new(struct pool_table *table, enum format_table_kind kind, uint64_t offset, uint32_t extents)
{
    table->kind = kind;
    table->offset = offset;
    table->per_block = kind == FORMAT_DESCRIPTORS ? FORMAT_DESCRIPTORS_PER_BLOCK : FORMAT_CHECKSUMS_PER_BLOCK;
    table->block_count = pool_table_blocks(extents, table->per_block);
    table->flags = calloc(table->block_count, 1);
    check(table->flags);
}

static void pool_take_super(struct pool *pool)
{
    const struct format_super *super = &pool->disks[0].super;
    pool->id = super->pool;
    pool->node = super->node;
    pool->journal = super->journal;
    pool->journal_blocks = super->journal_blocks;
    pool->tail_lsn = pool->head_lsn = super->tail_lsn;
    for (unsigned index = 0; index < pool->disk_count; index++) {
        struct pool_disk *disk = &pool->disks[index];
        table_new(&disk->tables[0], FORMAT_DESCRIPTORS, disk->super.table_offset, disk->super.extent_count);
        table_new(&disk->tables[1], FORMAT_CHECKSUMS, disk->super.checksum_offset, disk->super.extent_count);
    }
}

static int pool_load(struct pool *pool, struct err *err)
{
    uint64_t sequence = 0;
    pool_take_super(pool);
    int result = pool_extents_new(pool);
    if (result < 0)
        return err_set(err, result, "memory", "pool: no memory for the tables of %u extents; add memory",
                       pool->extent_count);
    result = pool_catalogue_load(pool, err);
    if (result == 0)
        result = pool_groups_load(pool, err);
    if (result == 0)
        result = pool_tables_load(pool, &sequence, err);
    if (result < 0)
        return result;
    session_load(pool);
    result = pool_replay_run(pool, err);
    if (result < 0)
        return result;
    /* A checkpoint that a crash cut off has used the superblock's sequence + 1 already. */
    uint64_t super_sequence = pool->disks[0].super.sequence + 1;
    pool->checkpoint.sequence = sequence > super_sequence ? sequence : super_sequence;
    /* Records behind the end of the journal (a later write that became durable, an earlier one that did not) must never
     * follow on what this run writes: its journal gets another id. */
    pool->journal = id_random();
    pool->may_be_empty = true;
    result = pool_checkpoint_write_now(pool);
    if (result < 0)
        return err_set(err, result, "io", "pool: writing the checkpoint after replay: %s; check the disks",
                       strerror(-result));
    return 0;
}

static int pool_new(struct ring *ring, struct pool **ret)
{
    struct pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return -ENOMEM;
    pool->ring = ring;
    struct list *lists[] = {&pool->accept, &pool->live, &pool->place_queue, &pool->free_ops, &pool->finished,
                            &pool->checkpoint.waiting, &pool->checkpoint.covered, &pool->catalogue.queue};
    for (unsigned index = 0; index < sizeof lists / sizeof lists[0]; index++)
        list_init(lists[index]);
    for (unsigned index = 0; index < BUCKET_COUNT; index++)
        list_init(&pool->buckets[index]);
    pool->pending = pool->reclaim = &pool->live;
    for (unsigned index = 0; index < POOL_DISKS_MAX; index++)
        pool->disks[index].fd = -1;
    for (unsigned index = 0; index < POOL_GROUPS_MAX; index++) {
        pool->groups[index].pool = pool;
        list_init(&pool->groups[index].queue);
    }
    for (unsigned index = 0; index < TABLE_WRITES_MAX; index++) {
        pool->checkpoint.writes[index].pool = pool;
        pool->checkpoint.writes[index].buffer = pool_aligned(FORMAT_BLOCK);
    }
    pool->catalogue.buffer = pool_aligned(FORMAT_SLOT);
    *ret = pool;
    return iobuf_arena_new(POOL_ARENA_BYTES, &pool->arena);
}

int pool_open(struct ring *ring, const char *const *paths, unsigned path_count, struct pool **ret, struct err *err)
{
    if (path_count == 0 || path_count > POOL_DISKS_MAX)
        return err_set(err, -EINVAL, "invalid", "pool: %u disks named; name 1 to %u", path_count, POOL_DISKS_MAX);
    struct pool *pool = NULL;
    int result = pool_new(ring, &pool);
    if (result < 0)
        err_set(err, result, "memory", "pool: no memory; add memory");
    for (unsigned index = 0; index < path_count && result == 0; index++)
        result = disk_open(pool, paths[index], err);
    if (result == 0)
        result = disks_compare(pool, err);
    if (result == 0)
        result = pool_load(pool, err);
    if (result < 0) {
        if (pool)
            pool_free(pool);
        return result;
    }
    char text[ID_TEXT_SIZE];
    log_info("pool %s is open: %u disks, %llu MiB", id_format(&pool->id, text), pool->disk_count,
             (unsigned long long)pool->extent_count * FORMAT_EXTENT >> 20);
    *ret = pool;
    return 0;
}
