/* A copy of the store made while it serves, and its way back.
 *
 * R5: "a W of another incarnation (wiped, restored) … refuses every grant until seeded". What the witness granted after
 * the copy was made is not in it, and the node that knows may be the one that is lost. So the copy itself is marked:
 * whoever puts it back, by whatever way, has a store that grants nothing. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/cleanup.h"
#include "common/files.h"
#include "witness/store_private.h"

#define PAGES_PER_STEP 64 /* 256 KiB: about a millisecond between two datagrams */

struct store_backup {
    sqlite3 *copy;
    sqlite3_backup *running;
};

static int fail(struct store_backup *backup, struct err *err)
{
    return err_set(err, -EIO, "io", "backup: writing the copy failed (%s); check the room in the state folder",
                   sqlite3_errmsg(backup->copy));
}

/* Grants nothing (R5), under incarnations that no node knows; an open token of then is none of later. One file: no WAL. */
static int mark(sqlite3 *database)
{
    int code = store_schema_functions(database);
    if (code == SQLITE_OK)
        code = sqlite3_exec(database, "PRAGMA journal_mode=DELETE; BEGIN IMMEDIATE; DELETE FROM tokens;"
                            "UPDATE clusters SET restored = 1, incarnation = randomblob(16), token = NULL,"
                            " token_expires = NULL; UPDATE clusters SET sum = " STORE_SUM_CLUSTER "; COMMIT;", NULL, NULL,
                            NULL);
    return code;
}

int store_backup_begin(struct store *store, const char *path, struct err *err)
{
    if (store->backup != NULL)
        return err_set(err, -EBUSY, "busy", "backup: one is being made; wait until it has ended");
    cleanup_close int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_set(err, -errno, "io", "backup '%s': cannot be made (%s); check its folder", path, strerror(errno));
    store->backup = calloc(1, sizeof *store->backup);
    if (store->backup == NULL)
        return err_set(err, -ENOMEM, "no_memory", "backup: out of memory");
    struct store_backup *backup = store->backup;
    /* Whoever asked for the copy makes it durable, at the place where it stays. */
    if (sqlite3_open_v2(path, &backup->copy, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK ||
        sqlite3_exec(backup->copy, "PRAGMA journal_mode=MEMORY; PRAGMA synchronous=OFF", NULL, NULL, NULL) != SQLITE_OK ||
        (backup->running = sqlite3_backup_init(backup->copy, "main", store->database, "main")) == NULL) {
        int error = fail(backup, err);
        store_backup_end(store);
        return error;
    }
    return 0;
}

/* Changes that the server makes meanwhile go into the copy, too: SQLite follows those of its own connection. */
int store_backup_step(struct store *store, struct err *err)
{
    struct store_backup *backup = store->backup;
    int step = sqlite3_backup_step(backup->running, PAGES_PER_STEP);
    if (step == SQLITE_OK || step == SQLITE_BUSY || step == SQLITE_LOCKED)
        return 1;
    int error = step == SQLITE_DONE ? 0 : fail(backup, err);
    sqlite3_backup_finish(backup->running);
    backup->running = NULL;
    if (error == 0 && mark(backup->copy) != SQLITE_OK)
        error = fail(backup, err);
    store_backup_end(store);
    return error;
}

void store_backup_end(struct store *store)
{
    struct store_backup *backup = store->backup;
    if (backup == NULL)
        return;
    if (backup->running != NULL)
        sqlite3_backup_finish(backup->running);
    sqlite3_close(backup->copy);
    free(backup);
    store->backup = NULL;
}

/* A file of root's in a folder of the daemon's user must be that user's. */
static int copy_file(const char *from, const char *folder, const char *to, struct err *err)
{
    char data[65536];
    struct stat owner;
    cleanup_close int in = open(from, O_RDONLY | O_CLOEXEC);
    if (in < 0)
        return err_set(err, -errno, "io", "backup '%s': cannot be read (%s); name the file that --backup wrote", from,
                       strerror(errno));
    cleanup_close int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    bool fine = out >= 0 && stat(folder, &owner) == 0 && (geteuid() != 0 || fchown(out, owner.st_uid, owner.st_gid) == 0);
    ssize_t size = 0;
    while (fine && (size = read(in, data, sizeof data)) > 0)
        fine = write(out, data, (size_t)size) == size;
    if (!fine || size < 0 || fsync(out) < 0)
        return err_set(err, -EIO, "io", "'%s': cannot be written (%s); check its folder and the room there", to,
                       strerror(errno));
    return 0;
}

int store_restore(const char *from, const char *folder, struct err *err)
{
    char path[PATH_MAX], fresh[PATH_MAX];
    struct stat there;
    if ((size_t)snprintf(path, sizeof path, "%s/" STORE_FILE, folder) >= sizeof path ||
        (size_t)snprintf(fresh, sizeof fresh, "%s/" STORE_FILE ".restored", folder) >= sizeof fresh)
        return err_set(err, -ENAMETOOLONG, "invalid", "state folder '%s': the path is too long", folder);
    if (stat(path, &there) == 0)
        return err_set(err, -EEXIST, "exists", "'%s' is there: stop hci-witnessd and move it away together with '%s-wal'",
                       path, path);
    int error = files_make_folder(folder, 0700, err);
    if (error == 0)
        error = copy_file(from, folder, fresh, err);
    struct store *store = NULL;
    if (error == 0)
        error = store_open_file(fresh, &store, err);
    if (error == 0 && mark(store->database) != SQLITE_OK)
        error = store_fail(store, err, "marking the store as restored");
    store_close(store);
    if (error == 0 && rename(fresh, path) < 0)
        error = err_set(err, -errno, "io", "'%s': cannot be put in place (%s); check its folder", path, strerror(errno));
    if (error < 0)
        unlink(fresh);
    return error;
}

int store_copy_out(const char *from, const char *to, struct err *err)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(to, '/');
    snprintf(folder, sizeof folder, "%.*s", slash == NULL ? 1 : slash == to ? 1 : (int)(slash - to), slash == NULL ? "." : to);
    return copy_file(from, folder, to, err);
}
