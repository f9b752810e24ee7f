/* Making a pool: every disk is looked at before any is touched, then all are made, superblocks last. */
#include <blkid/blkid.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "common/check.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "storaged/pool/pool_internal.h"

#define WIPE_BYTES (1u << 20) /* at both ends: what other systems' signatures take */

struct candidate {
    const char *path;
    int fd;
    bool is_block;
    bool made; /* the file did not exist before */
    dev_t device;
    ino_t inode;
    uint64_t bytes;
    struct pool_layout layout;
    struct id id;
};

struct creation {
    const struct pool_create_options *options;
    struct candidate disks[POOL_DISKS_MAX];
    uint64_t journal_bytes;
    struct id pool;
    struct format_super super; /* of a prepared disk */
};

static int journal_size(struct creation *creation, struct err *err);

/* --- looking ------------------------------------------------------------------------------------------------------ */

/* Where a block device is mounted, for the sentence. */
static bool mount_find(dev_t device, char *ret_place, size_t size)
{
    cleanup_free char *line = NULL;
    size_t line_size = 0;
    bool found = false;
    FILE *mounts = fopen("/proc/self/mountinfo", "re");
    if (!mounts)
        return false;
    while (!found && getline(&line, &line_size, mounts) > 0) {
        unsigned high, low;
        char place[256];
        if (sscanf(line, "%*u %*u %u:%u %*s %255s", &high, &low, place) != 3 || makedev(high, low) != device)
            continue;
        snprintf(ret_place, size, "%s", place);
        found = true;
    }
    fclose(mounts);
    return found;
}

static int busy_error(const struct candidate *disk, struct err *err)
{
    char place[256];
    if (mount_find(disk->device, place, sizeof place))
        return err_set(err, -EBUSY, "mounted", "disk %s is mounted at %s; unmount it or choose another", disk->path,
                       place);
    return err_set(
        err, -EBUSY, "busy",
        "disk %s is in use by another part of the system (mounted, swap, RAID or LVM); release it or choose another",
        disk->path);
}

static int file_make(struct candidate *disk, uint64_t bytes, struct err *err)
{
    if (bytes == 0)
        return err_set(err, -ENOENT, "missing",
                       "disk %s does not exist; check its path, or say how large a file to make", disk->path);
    if (bytes < POOL_DISK_BYTES_MIN)
        return err_set(err, -EINVAL, "too_small", "disk %s: a file of %llu MiB is too small; give it %llu MiB or more",
                       disk->path, (unsigned long long)bytes >> 20, POOL_DISK_BYTES_MIN >> 20);
    disk->fd = open(disk->path, O_RDWR | O_CREAT | O_EXCL | O_DIRECT | O_CLOEXEC, 0600);
    if (disk->fd < 0)
        return err_set(err, -errno, "io", "disk %s: cannot be made: %s; check its folder", disk->path, strerror(errno));
    disk->made = true;
    /* Space now: what a guest was promised does not run out with the file system below. */
    int error = posix_fallocate(disk->fd, 0, (off_t)(bytes / FORMAT_BLOCK * FORMAT_BLOCK));
    if (error)
        return err_set(err, -error, "no_space",
                       "disk %s: %llu MiB cannot be had: %s; free space or choose a smaller size", disk->path,
                       (unsigned long long)bytes >> 20, strerror(error));
    return 0;
}

static int candidate_open(struct candidate *disk, uint64_t file_bytes, struct err *err)
{
    struct stat status;
    bool exists = stat(disk->path, &status) == 0;
    if (!exists && errno != ENOENT)
        return err_set(err, -errno, "io", "disk %s: %s; check its path", disk->path, strerror(errno));
    if (exists && !S_ISBLK(status.st_mode) && !S_ISREG(status.st_mode))
        return err_set(err, -EINVAL, "invalid", "disk %s is neither a block device nor a file; choose another",
                       disk->path);
    disk->is_block = exists && S_ISBLK(status.st_mode);
    disk->device = exists ? status.st_rdev : 0;
    int result = 0;
    if (!exists)
        result = file_make(disk, file_bytes, err);
    else if ((disk->fd = open(disk->path, O_RDWR | O_DIRECT | O_CLOEXEC | (disk->is_block ? O_EXCL : 0))) < 0)
        result = errno == EBUSY
                     ? busy_error(disk, err)
                     : err_set(err, -errno, "io", "disk %s: cannot be opened: %s; check that this is run as root",
                               disk->path, strerror(errno));
    if (result < 0)
        return result;
    if (flock(disk->fd, LOCK_EX | LOCK_NB) < 0)
        return err_set(err, -EBUSY, "busy", "disk %s is in use by another process of a pool; stop that one first",
                       disk->path);
    if (fstat(disk->fd, &status) < 0)
        return err_set(err, -errno, "io", "disk %s: %s; check it", disk->path, strerror(errno));
    disk->device = disk->is_block ? status.st_rdev : status.st_dev;
    disk->inode = disk->is_block ? 0 : status.st_ino;
    return 0;
}

/* By another path, or a link. */
static int candidate_check_twice(const struct creation *creation, unsigned index, struct err *err)
{
    const struct candidate *disk = &creation->disks[index];
    struct stat status;
    for (unsigned other = 0; other < index; other++) {
        const struct candidate *earlier = &creation->disks[other];
        if (stat(disk->path, &status) < 0)
            continue;
        bool is_block = S_ISBLK(status.st_mode);
        if (is_block == earlier->is_block && (is_block ? status.st_rdev : status.st_dev) == earlier->device &&
            (is_block || status.st_ino == earlier->inode))
            return err_set(err, -EEXIST, "twice", "disks %s and %s are the same; name each disk once", earlier->path,
                           disk->path);
    }
    return 0;
}

/* What others' tools would find: a file system, RAID, LVM, LUKS or partitions. */
static bool signature_find(const struct candidate *disk, char *ret_what, size_t size)
{
    blkid_probe probe = blkid_new_probe();
    check(probe);
    /* libblkid reads at any offset: not through our O_DIRECT descriptor. */
    cleanup_close int fd = open(disk->path, O_RDONLY | O_CLOEXEC);
    bool found = false;
    if (fd >= 0 && blkid_probe_set_device(probe, fd, 0, 0) == 0) {
        blkid_probe_enable_superblocks(probe, 1);
        blkid_probe_set_superblocks_flags(probe, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_LABEL);
        blkid_probe_enable_partitions(probe, 1);
        int result = blkid_do_safeprobe(probe);
        const char *type = NULL, *label = NULL;
        blkid_probe_lookup_value(probe, "LABEL", &label, NULL);
        found = result == 0 || result == -2;
        if (result == -2)
            snprintf(ret_what, size, "several signatures");
        else if (result == 0 && blkid_probe_lookup_value(probe, "TYPE", &type, NULL) == 0)
            snprintf(ret_what, size, "a signature of type %s%s%s", type,
                     label ? " with the label " : "", label ? label : "");
        else if (result == 0)
            snprintf(ret_what, size, "a partition table of type %s",
                     blkid_probe_lookup_value(probe, "PTTYPE", &type, NULL) == 0 ? type : "unknown");
    }
    blkid_free_probe(probe);
    return found;
}

static int candidate_check_content(const struct candidate *disk, bool force, struct err *err)
{
    struct format_super super;
    unsigned slot;
    bool doubt;
    char what[256], text[ID_TEXT_SIZE];
    if (force || disk->made)
        return 0;
    if (pool_super_read(disk->fd, &super, &slot, &doubt) == 0)
        return err_set(err, -EEXIST, "in_use", "disk %s carries pool %s already; use it, or overwrite it with --force",
                       disk->path, id_format(&super.pool, text));
    if (signature_find(disk, what, sizeof what))
        return err_set(err, -EEXIST, "signature",
                       "disk %s carries %s; choose another disk, or overwrite it with --force", disk->path, what);
    return 0;
}

static int candidate_check(struct creation *creation, unsigned index, struct err *err)
{
    struct candidate *disk = &creation->disks[index];
    int result = candidate_check_twice(creation, index, err);
    if (result == 0)
        result = candidate_open(disk, creation->options->file_bytes, err);
    if (result < 0)
        return result;
    result = pool_disk_size(disk->fd, &disk->bytes);
    if (result < 0)
        return err_set(err, result, "io", "disk %s: its size cannot be read: %s; check it", disk->path,
                       strerror(-result));
    if (disk->bytes < POOL_DISK_BYTES_MIN)
        return err_set(err, -EINVAL, "too_small", "disk %s has %llu MiB, too small; choose one of %llu MiB or more",
                       disk->path, (unsigned long long)disk->bytes >> 20, POOL_DISK_BYTES_MIN >> 20);
    if (pool_layout_compute(disk->bytes, creation->journal_bytes, &disk->layout) < 0)
        return err_set(
            err, -EINVAL, "too_small",
            "disk %s has %llu MiB, no room beside a journal of %llu MiB; choose a smaller journal or a larger disk",
            disk->path, (unsigned long long)disk->bytes >> 20, (unsigned long long)creation->journal_bytes >> 20);
    return candidate_check_content(disk, creation->options->force, err);
}

/* --- making ------------------------------------------------------------------------------------------------------- */

static int zeros_write(int fd, uint64_t offset, uint64_t size)
{
    cleanup_free uint8_t *zeros = pool_aligned(FORMAT_EXTENT);
    int result = 0;
    for (uint64_t at = 0; at < size && result == 0; at += FORMAT_EXTENT) {
        uint64_t part = size - at < FORMAT_EXTENT ? size - at : FORMAT_EXTENT;
        result = pool_write_at(fd, zeros, part, offset + at);
    }
    return result;
}

/* Lets the device or the file system do it where it can: the tables of a large disk are large. */
static int zeros_make(const struct candidate *disk, uint64_t offset, uint64_t size)
{
    uint64_t range[2] = {offset, size};
    if (disk->is_block ? ioctl(disk->fd, BLKZEROOUT, range) == 0
                       : fallocate(disk->fd, FALLOC_FL_ZERO_RANGE, (off_t)offset, (off_t)size) == 0)
        return 0;
    return zeros_write(disk->fd, offset, size);
}

static int disk_clear(const struct creation *creation, unsigned index)
{
    const struct candidate *disk = &creation->disks[index];
    uint64_t end = disk->bytes / FORMAT_BLOCK * FORMAT_BLOCK;
    int result = zeros_write(disk->fd, 0, FORMAT_GROUP_END);
    if (result == 0)
        result = zeros_write(disk->fd, end - WIPE_BYTES, WIPE_BYTES);
    /* Written, not only allocated: a durable write into it needs no change of the file system's own tables. */
    if (result == 0)
        result = zeros_write(disk->fd, FORMAT_GROUP_END, creation->journal_bytes);
    if (result == 0)
        result = zeros_make(disk, disk->layout.table_offset, disk->layout.checksum_offset - disk->layout.table_offset);
    return result;
}

static int catalogue_make(const struct creation *creation, unsigned index)
{
    cleanup_free struct format_slot *slot = pool_aligned(FORMAT_BLOCK);
    *slot = (struct format_slot){
        .magic = FORMAT_CATALOGUE_MAGIC, .version = FORMAT_VERSION, .pool = creation->pool, .sequence = 1, .used = 1};
    slot->crc = pool_crc(slot, sizeof *slot);
    return pool_write_at(creation->disks[index].fd, slot, FORMAT_BLOCK, FORMAT_CATALOGUE_OFFSET(1));
}

static void super_fill(const struct creation *creation, unsigned index, struct format_super *ret)
{
    const struct candidate *disk = &creation->disks[index];
    *ret = (struct format_super){.pool = creation->pool,
                                 .disk = disk->id,
                                 .node = creation->options->node,
                                 .disk_index = (uint16_t)index,
                                 .flags = FORMAT_SUPER_CLEAN,
                                 .disk_bytes = disk->bytes,
                                 .table_offset = disk->layout.table_offset,
                                 .checksum_offset = disk->layout.checksum_offset,
                                 .data_offset = disk->layout.data_offset,
                                 .extent_count = disk->layout.extent_count,
                                 .journal_offset = FORMAT_GROUP_END,
                                 .journal_blocks = creation->journal_bytes / FORMAT_BLOCK,
                                 .journal = id_random(),
                                 .table_sequence = 1};
    ret->tail_lsn = ret->journal_blocks; /* the ring's beginning, and never 0 */
    for (unsigned other = 0; other < creation->options->path_count; other++) {
        ret->disks[other] = creation->disks[other].id;
        ret->disk_states[other] = FORMAT_DISK_OK;
    }
}

static int super_make(const struct creation *creation, unsigned index)
{
    const struct candidate *disk = &creation->disks[index];
    cleanup_free struct format_super *super = pool_aligned(sizeof *super);
    super_fill(creation, index, super);
    for (unsigned slot = 0; slot < 2; slot++) {
        super->sequence = slot + 1;
        pool_super_seal(super);
        int result = pool_write_at(disk->fd, super, sizeof *super, FORMAT_SUPER_OFFSET(slot));
        if (result < 0)
            return result;
    }
    return fsync(disk->fd) < 0 ? -errno : 0;
}

/* Disk 0 gets its superblock last: a pool is there only when all of it is. */
static int disks_make(struct creation *creation, struct err *err)
{
    unsigned count = creation->options->path_count;
    for (unsigned step = 0; step < 2 * count; step++) {
        unsigned index = step < count ? step : 2 * count - 1 - step;
        int result = step < count ? disk_clear(creation, index) : 0;
        if (result == 0 && step < count && fsync(creation->disks[index].fd) < 0)
            result = -errno;
        if (result == 0 && step >= count)
            result = catalogue_make(creation, index);
        if (result == 0 && step >= count)
            result = super_make(creation, index);
        if (result < 0)
            return err_set(err, result, "io", "disk %s: writing: %s; check the disk", creation->disks[index].path,
                           strerror(-result));
    }
    return 0;
}

static void creation_end(struct creation *creation, bool failed)
{
    for (unsigned index = 0; index < creation->options->path_count; index++) {
        struct candidate *disk = &creation->disks[index];
        if (failed && disk->made)
            unlink(disk->path);
        if (disk->fd >= 0)
            close(disk->fd);
    }
}

/* --- one more for a pool that serves ------------------------------------------------------------------------------ */

static int prepared_make(struct creation *creation, struct err *err)
{
    struct candidate *disk = &creation->disks[0];
    cleanup_free struct format_super *super = pool_aligned(sizeof *super);
    int result = disk_clear(creation, 0);
    if (result == 0 && fsync(disk->fd) < 0)
        result = -errno;
    super_fill(creation, 0, super);
    /* It names nobody, not even itself: the pool's other disks say whether it is one of them. */
    super->table_sequence = 0;
    memset(super->disks, 0, sizeof super->disks);
    memset(super->disk_states, 0, sizeof super->disk_states);
    for (unsigned slot = 0; slot < 2 && result == 0; slot++) {
        super->sequence = slot + 1;
        pool_super_seal(super);
        result = pool_write_at(disk->fd, super, sizeof *super, FORMAT_SUPER_OFFSET(slot));
    }
    if (result == 0 && fsync(disk->fd) < 0)
        result = -errno;
    if (result < 0)
        return err_set(err, result, "io", "disk %s: writing: %s; check the disk", disk->path, strerror(-result));
    creation->super = *super;
    return 0;
}

int pool_disk_prepare(const struct pool_disk_prepare_options *options, struct pool_disk_prepared **ret, struct err *err)
{
    struct pool_create_options as_created = {.paths = &options->path,
                                             .path_count = 1,
                                             .file_bytes = options->file_bytes,
                                             .node = options->node,
                                             .journal_bytes = options->journal_bytes,
                                             .force = options->force};
    struct creation creation = {.options = &as_created, .pool = options->pool};
    int result = journal_size(&creation, err);
    if (result < 0)
        return result;
    creation.disks[0] = (struct candidate){.path = options->path, .fd = -1, .id = id_random()};
    result = candidate_check(&creation, 0, err);
    if (result == 0)
        result = prepared_make(&creation, err);
    struct pool_disk_prepared *prepared = result == 0 ? calloc(1, sizeof *prepared) : NULL;
    if (result == 0) {
        check(prepared);
        *prepared = (struct pool_disk_prepared){.path = strdup(options->path), .fd = creation.disks[0].fd,
                                                .super = creation.super};
        check(prepared->path);
        creation.disks[0].fd = -1; /* and with it the lock */
        *ret = prepared;
    }
    creation_end(&creation, result < 0);
    return result;
}

void pool_disk_prepared_free(struct pool_disk_prepared *prepared)
{
    if (!prepared)
        return;
    if (prepared->fd >= 0)
        close(prepared->fd);
    free(prepared->path);
    free(prepared);
}

/* --- a pool ------------------------------------------------------------------------------------------------------- */

static int journal_size(struct creation *creation, struct err *err)
{
    const struct pool_create_options *options = creation->options;
    creation->journal_bytes = (options->journal_bytes ? options->journal_bytes : POOL_JOURNAL_BYTES_DEFAULT) /
                              FORMAT_BLOCK * FORMAT_BLOCK;
    if (creation->journal_bytes >= POOL_JOURNAL_BYTES_MIN && creation->journal_bytes <= POOL_JOURNAL_BYTES_MAX)
        return 0;
    return err_set(err, -EINVAL, "invalid", "pool: a journal of %llu MiB; choose %llu to %llu MiB",
                   (unsigned long long)creation->journal_bytes >> 20, POOL_JOURNAL_BYTES_MIN >> 20,
                   POOL_JOURNAL_BYTES_MAX >> 20);
}

int pool_create(const struct pool_create_options *options, struct id *ret_pool, struct err *err)
{
    struct creation creation = {.options = options, .pool = id_random()};
    if (options->path_count == 0 || options->path_count > POOL_DISKS_MAX)
        return err_set(err, -EINVAL, "invalid", "pool: %u disks named; name 1 to %u", options->path_count,
                       POOL_DISKS_MAX);
    int result = journal_size(&creation, err);
    if (result < 0)
        return result;
    for (unsigned index = 0; index < options->path_count; index++)
        creation.disks[index] = (struct candidate){.path = options->paths[index], .fd = -1, .id = id_random()};
    for (unsigned index = 0; index < options->path_count && result == 0; index++)
        result = candidate_check(&creation, index, err);
    if (result == 0)
        result = disks_make(&creation, err);
    creation_end(&creation, result < 0);
    if (result < 0)
        return result;
    *ret_pool = creation.pool;
    return 0;
}
