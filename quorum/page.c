/* The shared pages as files: made anew by their one writer, mapped read-only by their readers. */
#include "quorum/page.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/check.h"
#include "common/cleanup.h"

/* Which file a mapping came from, kept behind the page in a second, private page of the same mapping: a reader then
 * needs no more than the pointer it got, and /proc is never parsed. */
struct page_origin {
    dev_t device;
    ino_t inode;
};

static const struct page_origin *origin_of(const void *page)
{
    return (const struct page_origin *)((const uint8_t *)page + PAGE_SIZE_BYTES);
}

/* Maps the file's page and, right behind it, the private page that remembers the file's identity. */
static int map_with_origin(int fd, bool writable, void **ret)
{
    struct stat status;
    if (fstat(fd, &status) < 0)
        return -errno;
    /* A shorter file would turn the first load into SIGBUS. */
    if (status.st_size < (off_t)PAGE_SIZE_BYTES)
        return -ENOENT;
    uint8_t *base = mmap(NULL, 2 * PAGE_SIZE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        return -errno;
    int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    if (mmap(base, PAGE_SIZE_BYTES, protection, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
        int error = -errno;
        munmap(base, 2 * PAGE_SIZE_BYTES);
        return error;
    }
    struct page_origin origin = {.device = status.st_dev, .inode = status.st_ino};
    memcpy(base + PAGE_SIZE_BYTES, &origin, sizeof origin);
    *ret = base;
    return 0;
}

/* The new file is complete before it takes its name: a reader never maps half a page. */
static int make_file(const char *path, const char *temporary, void **ret)
{
    unlink(temporary);
    cleanup_close int fd = open(temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    if (fd < 0)
        return -errno;
    void *page = NULL;
    int error = 0;
    if (fchmod(fd, 0640) < 0 || ftruncate(fd, PAGE_SIZE_BYTES) < 0)
        error = -errno;
    if (error == 0)
        error = map_with_origin(fd, true, &page);
    if (error == 0 && rename(temporary, path) < 0)
        error = -errno;
    if (error < 0) {
        page_close(page);
        unlink(temporary);
        return error;
    }
    *ret = page;
    return 0;
}

int page_make(const char *path, void **ret_page, struct err *err)
{
    check(path != NULL && ret_page != NULL);
    char temporary[PATH_MAX];
    int length = snprintf(temporary, sizeof temporary, "%s.new", path);
    if (length < 0 || (size_t)length >= sizeof temporary)
        return err_set(err, -ENAMETOOLONG, "invalid", "page '%s': the path is too long; choose a shorter run folder", path);
    void *page = NULL;
    int error = make_file(path, temporary, &page);
    if (error < 0)
        return err_set(err, error, "io", "page '%s': cannot be made (%s); check that its folder exists and may be written",
                       path, strerror(-error));
    *ret_page = page;
    return 0;
}

int page_open(const char *path, const void **ret_page, struct err *err)
{
    check(path != NULL && ret_page != NULL);
    cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    int error = fd < 0 ? -errno : 0;
    void *page = NULL;
    if (error == 0)
        error = map_with_origin(fd, false, &page);
    if (error == -ENOENT)
        return err_set(err, -ENOENT, "unavailable", "page '%s': its writer has not started; start its daemon", path);
    if (error < 0)
        return err_set(err, error, "io", "page '%s': cannot be mapped (%s)", path, strerror(-error));
    *ret_page = page;
    return 0;
}

void page_close(const void *page)
{
    if (page != NULL)
        munmap((void *)(uintptr_t)page, 2 * PAGE_SIZE_BYTES);
}

bool page_is_current(const char *path, const void *page)
{
    struct stat status;
    if (page == NULL || stat(path, &status) < 0)
        return false;
    const struct page_origin *origin = origin_of(page);
    return status.st_dev == origin->device && status.st_ino == origin->inode;
}
