/* Small files: read with a limit, replaced so that a power cut leaves the old or the new content. */
#include "common/files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/err.h"

int files_read(const char *path, size_t limit, char **ret_data, size_t *ret_size, struct err *err)
{
    cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_set(err, -errno, errno == ENOENT ? "missing" : "io",
                       "%s: cannot be opened: %s; check that it exists and that this user may read it", path,
                       strerror(errno));

    /* Grows with what is there (files of /proc and /sys have no size), one byte beyond the limit to notice excess. */
    cleanup_free char *data = NULL;
    size_t capacity = 0, size = 0;
    for (;;) {
        if (size == capacity) {
            capacity = capacity == 0 ? 4096 : capacity * 2;
            if (capacity > limit + 1)
                capacity = limit + 1;
            char *grown = realloc(data, capacity + 1);
            if (grown == NULL)
                return err_set(err, -ENOMEM, "no_memory", "%s: no memory to read it; free some memory", path);
            data = grown;
        }
        ssize_t got = read(fd, data + size, capacity - size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_set(err, -errno, "io", "%s: cannot be read: %s; check the disk that holds it", path,
                           strerror(errno));
        size += (size_t)got;
        if (size > limit)
            return err_set(err, -EFBIG, "too_large", "%s: is larger than %zu bytes; it is not a file of this program",
                           path, limit);
        if (got == 0)
            break;
    }
    data[size] = '\0';
    *ret_data = data;
    data = NULL;
    if (ret_size != NULL)
        *ret_size = size;
    return 0;
}

static int write_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t written = write(fd, data, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return -errno;
        data += written;
        size -= (size_t)written;
    }
    return 0;
}

static int sync_folder_of(const char *path)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');

    if (slash == NULL)
        strcpy(folder, ".");
    else
        snprintf(folder, sizeof(folder), "%.*s", slash == path ? 1 : (int)(slash - path), path);
    cleanup_close int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        return -errno;
    return 0;
}

/* The name is random, so that two writers never rename each other's half-written file. */
static int replace_with_temporary(const char *path, char *temporary, const void *data, size_t size, mode_t mode)
{
    cleanup_close int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0)
        return -errno;

    int result = fchmod(fd, mode) < 0 ? -errno : write_all(fd, data, size);
    if (result == 0 && fsync(fd) < 0)
        result = -errno;
    if (result == 0 && rename(temporary, path) < 0)
        result = -errno;
    if (result < 0)
        unlink(temporary);
    return result;
}

int files_replace(const char *path, const void *data, size_t size, mode_t mode, struct err *err)
{
    char temporary[PATH_MAX];
    int length = snprintf(temporary, sizeof(temporary), "%s.XXXXXX", path);
    int result = length >= (int)sizeof(temporary) ? -ENAMETOOLONG
                                                  : replace_with_temporary(path, temporary, data, size, mode);

    if (result == 0)
        result = sync_folder_of(path);
    if (result < 0)
        return err_set(err, result, "io", "%s: cannot be written: %s; check that its folder exists and has free space",
                       path, strerror(-result));
    return 0;
}

int files_make_folder(const char *path, mode_t mode, struct err *err)
{
    char partial[PATH_MAX];
    struct stat status;

    if (snprintf(partial, sizeof(partial), "%s", path) >= (int)sizeof(partial))
        return err_set(err, -ENAMETOOLONG, "invalid", "%s: is too long for a folder name; choose a shorter one", path);
    for (char *slash = strchr(partial + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(partial, 0755) < 0 && errno != EEXIST)
            return err_set(err, -errno, "io", "%s: cannot be made: %s; check the folder above it", partial,
                           strerror(errno));
        *slash = '/';
    }
    if (mkdir(path, mode) < 0 && errno != EEXIST)
        return err_set(err, -errno, "io", "%s: cannot be made: %s; check the folder above it", path, strerror(errno));
    if (stat(path, &status) < 0 || !S_ISDIR(status.st_mode))
        return err_set(err, -ENOTDIR, "io", "%s: is not a folder; move it away", path);
    return 0;
}
