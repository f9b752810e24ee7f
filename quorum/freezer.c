/* Freezing by cgroup2: cgroup.freeze is the order, cgroup.events the truth. */
#include "quorum/freezer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"

static int open_file(const char *cgroup, const char *name, int flags)
{
    char path[FREEZE_PATH_SIZE + 32];
    if ((size_t)snprintf(path, sizeof path, "%s/%s", cgroup, name) >= sizeof path)
        return -ENAMETOOLONG;
    int fd = open(path, flags | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int freezer_order(const char *cgroup, bool freeze)
{
    cleanup_close int fd = open_file(cgroup, "cgroup.freeze", O_WRONLY);
    if (fd < 0)
        return fd;
    return write(fd, freeze ? "1" : "0", 1) == 1 ? 0 : -errno;
}

enum freeze_state freezer_read(const char *cgroup)
{
    char text[256];
    cleanup_close int fd = open_file(cgroup, "cgroup.events", O_RDONLY);
    if (fd == -ENOENT || fd == -ENODEV)
        return FREEZE_GONE;
    ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (size < 0)
        return FREEZE_RUNNING;
    text[size] = '\0';
    return strstr(text, "frozen 1") != NULL ? FREEZE_FROZEN : FREEZE_RUNNING;
}
