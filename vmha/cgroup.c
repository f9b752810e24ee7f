/* The cgroup2 file system, through its files. */
#include "vmha/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "common/check.h"
#include "common/cleanup.h"

int cgroup_prepare(const char *root, struct err *err)
{
    struct statfs info;

    if (mkdir(root, 0755) && errno != EEXIST)
        return err_set(err, -errno, "cgroup", "guests folder '%s' cannot be made: %s; mount cgroup2 there or set "
                       "guests.cgroup_root in hci.conf", root, strerror(errno));
    if (statfs(root, &info))
        return err_set(err, -errno, "cgroup", "guests folder '%s': %s", root, strerror(errno));
    if (info.f_type != CGROUP2_SUPER_MAGIC) {
        rmdir(root); /* do not leave an ordinary folder behind that looks like one */
        return err_set(err, -EINVAL, "cgroup", "guests folder '%s' is not on a cgroup2 file system; mount one or set "
                       "guests.cgroup_root in hci.conf", root);
    }
    return 0;
}

void cgroup_path(const char *root, const char *name, char ret[static CGROUP_PATH_MAX])
{
    int size = snprintf(ret, CGROUP_PATH_MAX, "%s/%s", root, name);

    check(size > 0 && (unsigned)size < CGROUP_PATH_MAX && !strchr(name, '/'));
}

static int file_open(const char *root, const char *name, const char *file, int flags)
{
    char folder[CGROUP_PATH_MAX], path[CGROUP_PATH_MAX + 32];

    cgroup_path(root, name, folder);
    snprintf(path, sizeof path, "%s/%s", folder, file);
    int fd = open(path, flags | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int file_write(const char *root, const char *name, const char *file, const char *text)
{
    cleanup_close int fd = file_open(root, name, file, O_WRONLY);

    if (fd < 0)
        return fd;
    return write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

int cgroup_add(const char *root, const char *name, pid_t pid, struct err *err)
{
    char folder[CGROUP_PATH_MAX], text[24];

    cgroup_path(root, name, folder);
    if (mkdir(folder, 0755) && errno != EEXIST)
        return err_set(err, -errno, "cgroup", "guest '%s': folder '%s' cannot be made: %s; see 'hcictl status'", name,
                       folder,
                       strerror(errno));
    snprintf(text, sizeof text, "%d", (int)pid);
    int r = file_write(root, name, "cgroup.procs", text);
    if (r)
        return err_set(err, r, "cgroup", "guest '%s': process %d cannot be moved to '%s': %s", name, (int)pid, folder,
                       strerror(-r));
    return 0;
}

int cgroup_kill(const char *root, const char *name)
{
    return file_write(root, name, "cgroup.kill", "1");
}

int cgroup_state(const char *root, const char *name, bool *ret_populated, bool *ret_frozen)
{
    char text[256];
    cleanup_close int fd = file_open(root, name, "cgroup.events", O_RDONLY);

    if (fd < 0)
        return fd;
    ssize_t size = read(fd, text, sizeof text - 1);
    if (size < 0)
        return -errno;
    text[size] = '\0';
    *ret_populated = strstr(text, "populated 1") != NULL;
    *ret_frozen = strstr(text, "frozen 1") != NULL;
    return 0;
}

int cgroup_remove(const char *root, const char *name)
{
    char folder[CGROUP_PATH_MAX];

    cgroup_path(root, name, folder);
    return rmdir(folder) && errno != ENOENT ? -errno : 0;
}

static void close_folder(DIR **folder)
{
    if (*folder)
        closedir(*folder);
}

int cgroup_list(const char *root, void (*found)(const char *name, void *userdata), void *userdata)
{
    cleanup(close_folder) DIR *folder = opendir(root);

    if (!folder)
        return -errno;
    for (struct dirent *entry; (entry = readdir(folder));)
        if (entry->d_type == DT_DIR && entry->d_name[0] != '.')
            found(entry->d_name, userdata);
    return 0;
}
