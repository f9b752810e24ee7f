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
#include "storaged/pool/pool_internal.h"

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

/* Journal, tables and extents lie behind one another (format.h), and no number is so large that a sum of them wraps. */
static bool places_are_possible(const struct format_super *super)
{
    uint64_t most = UINT64_C(1) << 62;
    if (super->journal_offset < FORMAT_GROUP_END || super->journal_offset > most || super->tail_lsn > most ||
        super->journal_blocks > POOL_JOURNAL_BYTES_MAX / FORMAT_BLOCK || super->table_offset > most ||
        super->checksum_offset > most || super->data_offset > most || super->data_offset % FORMAT_EXTENT)
        return false;
    uint32_t descriptors = pool_table_blocks(super->extent_count, FORMAT_DESCRIPTORS_PER_BLOCK);
    uint32_t checksums = pool_table_blocks(super->extent_count, FORMAT_CHECKSUMS_PER_BLOCK);
    if ((super->journal_offset | super->table_offset | super->checksum_offset) % FORMAT_BLOCK)
        return false;
    return super->journal_offset + super->journal_blocks * FORMAT_BLOCK <= super->table_offset &&
           super->table_offset + 2ull * FORMAT_BLOCK * descriptors <= super->checksum_offset &&
           super->checksum_offset + 2ull * FORMAT_BLOCK * checksums <= super->data_offset;
}

static int super_check(const char *path, const struct format_super *super, uint64_t disk_bytes, struct err *err)
{
    if (super->version != FORMAT_VERSION)
        return err_set(err, -EPROTONOSUPPORT, "version",
                       "disk %s has format version %u, this program knows %u; use the program that made it", path,
                       super->version, FORMAT_VERSION);
    if (super->disk_index >= POOL_DISKS_MAX || super->journal_blocks < POOL_JOURNAL_BYTES_MIN / FORMAT_BLOCK ||
        super->extent_count > EXTENTS_PER_DISK_MAX || !places_are_possible(super))
        return err_set(err, -EUCLEAN, "damaged",
                       "disk %s: its superblock is damaged (disk %u, %u extents); restore this node from its peer", path,
                       super->disk_index, super->extent_count);
    if (disk_bytes < super->data_offset + (uint64_t)super->extent_count * FORMAT_EXTENT)
        return err_set(err, -EUCLEAN, "damaged", "disk %s has %llu bytes, fewer than the %llu it had; restore its size",
                       path, (unsigned long long)disk_bytes, (unsigned long long)super->disk_bytes);
    return 0;
}

/* Its file and superblock, whichever pool it is of. */
static int disk_open(const char *path, struct pool_disk *ret, struct err *err)
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
        result = pool_super_read(disk.fd, &disk.super, &disk.super_slot, &disk.super_doubt);
    if (result == -ENODATA || result == -EIO)
        result = err_set(
            err, -ENODATA, "foreign",
            "disk %s carries no superblock of a pool; check its path, or make a pool with 'hcictl pool create'", path);
    else if (result < 0)
        result = err_set(err, result, "io", "disk %s: reading its superblock: %s; check the disk", path,
                         strerror(-result));
    else
        result = super_check(path, &disk.super, bytes, err);
    if (result < 0) {
        close(disk.fd);
        return result;
    }
    disk.path = strdup(path);
    check(disk.path);
    *ret = disk;
    return 0;
}

/* What is not there, or carries no pool, may be a disk that the pool does without (pool_choose.c). */
static int disks_open(struct pool_choice *choice, const char *const *paths, unsigned path_count, struct err *err)
{
    for (unsigned index = 0; index < path_count; index++) {
        struct err why = {0};
        int result = disk_open(paths[index], &choice->disks[choice->count], &why);
        if (result == 0) {
            choice->count++;
            continue;
        }
        if (strcmp(why.code, "missing") != 0 && strcmp(why.code, "foreign") != 0 && strcmp(why.code, "io") != 0) {
            *err = why;
            return result;
        }
        if (!choice->absent_count++) {
            choice->absent = why;
            choice->absent_result = result;
        }
    }
    return 0;
}

static void session_load(struct pool *pool, const struct format_super *super)
{
    for (unsigned index = 0; index < POOL_GROUPS_MAX; index++) {
        const struct format_seen *seen = &super->seen[index];
        if (id_is_null(&seen->group) || id_is_null(&seen->session))
            continue;
        pool_session_saw(pool, &seen->group, &seen->session, seen->order, seen->highest);
        struct pool_session *slot = pool_session_find(pool, &seen->group);
        if (id_equal(&slot->seen, &seen->session) && seen->committed > slot->committed)
            slot->committed = seen->committed;
    }
}

static int disks_init(struct pool *pool, struct err *err)
{
    int result = pool_checksums_new(pool, POOL_CHECKSUM_FRAMES);
    pool_for_each_disk(pool, disk) {
        if (result == 0)
            result = pool_disk_init(pool, disk);
        if (disk->super.birth > pool->birth)
            pool->birth = disk->super.birth;
    }
    pool_disks_keep_last(pool);
    pool->extent_count = pool_members_capacity(pool, NULL);
    if (result < 0)
        return err_set(err, result, "memory", "pool: no memory for the tables of %u extents; add memory",
                       pool->extent_count);
    return 0;
}

static int disk_check_super(struct pool_disk *disk, struct err *err)
{
    bool rotten = false;
    int result = disk->super_doubt ? pool_scan_is_rotten(disk, &rotten) : 0;
    if (result < 0)
        return err_set(err, result, "io", "disk %s: reading its journal: %s; check the disk", disk->path,
                       strerror(-result));
    if (rotten)
        return err_set(err, -EUCLEAN, "damaged",
                       "disk %s: its newest superblock is damaged, and the older one does not know what was written "
                       "since; restore this node from its peer",
                       disk->path);
    return 0;
}

static int disks_load(struct pool *pool, struct err *err)
{
    int result = 0;
    pool_for_each_disk(pool, disk) {
        if (result == 0)
            result = disk_check_super(disk, err);
        if (result == 0)
            result = pool_tables_load(disk, err);
        session_load(pool, &disk->super);
    }
    return result;
}

/* Records behind the end of a journal (a later write that became durable, an earlier one that did not) must never follow
 * on what this run writes: its journal gets another id. */
static int disk_checkpoint(struct pool_disk *disk, struct err *err)
{
    disk->journal.id = id_random();
    int result = pool_checkpoint_write_now(disk);
    if (result < 0)
        return err_set(err, result, "io", "disk %s: writing the checkpoint after replay: %s; check the disk", disk->path,
                       strerror(-result));
    return 0;
}

/* Disks that are drained first: what they no longer hold must be forgotten before others may give up what they took over. */
static int disks_checkpoint(struct pool *pool, struct err *err)
{
    int result = 0;
    for (unsigned turn = 0; turn < 2; turn++)
        pool_for_each_disk(pool, disk)
            if (result == 0 && (disk->state == POOL_DISK_DRAINING) == (turn == 0))
                result = disk_checkpoint(disk, err);
    return result;
}

/* Disks that are missing, or whose loss had not been dealt with: first the others' superblocks strike them, then the
 * catalogue says which holes are lost, then the superblocks say that it does. */
static int losses_settle(struct pool *pool, struct err *err)
{
    if (!pool_choose_is_unsettled(pool))
        return 0;
    int result = pool_catalogue_save_now(pool);
    if (result < 0)
        return err_set(err, result, "io", "pool: writing the catalogue of volumes: %s; check the disks",
                       strerror(-result));
    pool_choose_settle(pool);
    return disks_checkpoint(pool, err);
}

static int pool_load(struct pool *pool, struct err *err)
{
    int result = disks_init(pool, err);
    if (result == 0)
        result = pool_catalogue_load(pool, err);
    if (result == 0)
        result = pool_groups_load(pool, err);
    if (result == 0)
        result = disks_load(pool, err);
    if (result == 0)
        result = pool_replay_run(pool, err);
    /* Numbers that a disk of which we know nothing may have given must not be given again. */
    pool->birth = ((pool->birth >> 32) + 1) << 32;
    if (result == 0)
        result = disks_checkpoint(pool, err);
    return result == 0 ? losses_settle(pool, err) : result;
}

static int pool_new(struct ring *ring, struct pool **ret)
{
    struct pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return -ENOMEM;
    pool->ring = ring;
    struct list *lists[] = {&pool->place_queue, &pool->intent_queue, &pool->placings_free, &pool->free_ops, &pool->finished,
                            &pool->catalogue.queue, &pool->held, &pool->blobs_held};
    for (unsigned index = 0; index < sizeof lists / sizeof lists[0]; index++)
        list_init(lists[index]);
    for (unsigned index = 0; index < BUCKET_COUNT; index++)
        list_init(&pool->buckets[index]);
    for (unsigned index = 0; index < PLACING_MAX; index++)
        list_append(&pool->placings_free, &pool->placings[index].link);
    for (unsigned index = 0; index < POOL_DISKS_MAX; index++)
        pool->disks[index].fd = -1;
    for (unsigned index = 0; index < POOL_GROUPS_MAX; index++) {
        pool->groups[index].pool = pool;
        list_init(&pool->groups[index].queue);
    }
    pool->catalogue.buffer = pool_aligned(FORMAT_SLOT);
    *ret = pool;
    return iobuf_arena_new(POOL_ARENA_BYTES, &pool->arena);
}

int pool_open_without(struct ring *ring, const char *const *paths, unsigned path_count, const struct id *lost,
                      unsigned lost_count, struct pool **ret, struct err *err)
{
    if (path_count == 0 || path_count > POOL_DISKS_MAX)
        return err_set(err, -EINVAL, "invalid", "pool: %u disks named; name 1 to %u", path_count, POOL_DISKS_MAX);
    struct pool *pool = NULL;
    struct pool_choice choice = {.lost = lost, .lost_count = lost_count};
    int result = pool_new(ring, &pool);
    if (result < 0)
        err_set(err, result, "memory", "pool: no memory; add memory");
    if (result == 0)
        result = disks_open(&choice, paths, path_count, err);
    if (result == 0)
        result = pool_choose(pool, &choice, err);
    pool_choose_end(&choice);
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
    pool->is_open = true;
    pool_drain_start(pool);
    *ret = pool;
    return 0;
}

int pool_open(struct ring *ring, const char *const *paths, unsigned path_count, struct pool **ret, struct err *err)
{
    return pool_open_without(ring, paths, path_count, NULL, 0, ret, err);
}
