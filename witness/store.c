/* The witness's store in SQLite: opening, transactions, and what its other files share. */
#include "witness/store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/check.h"
#include "common/cleanup.h"
#include "common/files.h"
#include "witness/store_private.h"

int store_fail(struct store *store, struct err *err, const char *what)
{
    if (sqlite3_errcode(store->database) == SQLITE_FULL)
        return err_set(err, -ENOSPC, "full", "witness store: %s failed because the disk is full; make room on the disk that "
                       "holds the state folder", what);
    return err_set(err, -EIO, "io", "witness store: %s failed (%s); check the disk that holds the state folder", what,
                   sqlite3_errmsg(store->database));
}

int store_damaged(struct err *err, const char *what)
{
    return err_set(err, -EIO, "damaged", "witness store: %s is damaged; nothing is granted from it: put a backup back with "
                   "'hci-witnessd --restore FILE', or enrol the clusters anew into a fresh state folder", what);
}

int store_run(struct store *store, const char *sql, const char *what, struct err *err)
{
    if (sqlite3_exec(store->database, sql, NULL, NULL, NULL) != SQLITE_OK)
        return store_fail(store, err, what);
    return 0;
}

sqlite3_stmt *store_prepare(struct store *store, const char *sql)
{
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v2(store->database, sql, -1, &statement, NULL) != SQLITE_OK)
        return NULL;
    return statement;
}

int store_finish(struct store *store, sqlite3_stmt *statement, const char *what, struct err *err)
{
    return sqlite3_step(statement) == SQLITE_DONE ? 0 : store_fail(store, err, what);
}

int64_t store_number(struct store *store, const char *sql)
{
    cleanup_statement statement = store_prepare(store, sql);
    if (statement == NULL || sqlite3_step(statement) != SQLITE_ROW)
        return INT64_MAX;
    return sqlite3_column_int64(statement, 0);
}

void store_bind_bytes(sqlite3_stmt *statement, int place, const void *data, size_t size)
{
    check(sqlite3_bind_blob(statement, place, data, (int)size, SQLITE_TRANSIENT) == SQLITE_OK);
}

void store_bind_id(sqlite3_stmt *statement, int place, const struct id *id)
{
    store_bind_bytes(statement, place, id->bytes, sizeof id->bytes);
}

void store_bind_number(sqlite3_stmt *statement, int place, uint64_t value)
{
    check(value <= INT64_MAX);
    check(sqlite3_bind_int64(statement, place, (sqlite3_int64)value) == SQLITE_OK);
}

void store_bind_text(sqlite3_stmt *statement, int place, const char *text)
{
    check(sqlite3_bind_text(statement, place, text, -1, SQLITE_TRANSIENT) == SQLITE_OK);
}

bool store_column_bytes(sqlite3_stmt *statement, int column, void *ret, size_t size)
{
    const void *data = sqlite3_column_blob(statement, column);
    if (data == NULL || sqlite3_column_bytes(statement, column) != (int)size)
        return false;
    memcpy(ret, data, size);
    return true;
}

bool store_column_id(sqlite3_stmt *statement, int column, struct id *ret)
{
    return store_column_bytes(statement, column, ret->bytes, sizeof ret->bytes);
}

static int open_database(struct store *store, const char *path, struct err *err)
{
    /* Made here with its mode: SQLite would ask the umask. Its -wal and -shm files take the same mode. */
    cleanup_close int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_set(err, -errno, "io", "witness store '%s': cannot be opened (%s); check its folder", path,
                       strerror(errno));
    if (sqlite3_open_v2(path, &store->database, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
        return store_fail(store, err, "opening");
    int error = store_run(store, "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
                                 "PRAGMA trusted_schema=OFF; PRAGMA secure_delete=ON; PRAGMA cache_size=-512;", "opening", err);
    return error < 0 ? error : store_schema_open(store, path, err);
}

int store_open(const char *folder, struct store **ret, struct err *err)
{
    char path[PATH_MAX];
    if ((size_t)snprintf(path, sizeof path, "%s/" STORE_FILE, folder) >= sizeof path)
        return err_set(err, -ENAMETOOLONG, "invalid", "state folder '%s': the path is too long", folder);
    int error = files_make_folder(folder, 0700, err);
    return error < 0 ? error : store_open_file(path, ret, err);
}

int store_open_file(const char *path, struct store **ret, struct err *err)
{
    struct store *store = calloc(1, sizeof *store);
    if (store == NULL)
        return err_set(err, -ENOMEM, "no_memory", "witness store: out of memory");
    int error = open_database(store, path, err);
    if (error < 0) {
        store_close(store);
        return error;
    }
    *ret = store;
    return 0;
}

void store_close(struct store *store)
{
    if (store == NULL)
        return;
    store_backup_end(store);
    for (unsigned i = 0; i < STORE_STATEMENTS; i++)
        sqlite3_finalize(store->statements[i]);
    sqlite3_close(store->database);
    free(store);
}

struct id store_witness_id(const struct store *store)
{
    return store->witness;
}

uint64_t store_size_bytes(struct store *store)
{
    int64_t pages = store_number(store, "PRAGMA page_count"), size = store_number(store, "PRAGMA page_size");
    return pages == INT64_MAX || size == INT64_MAX ? 0 : (uint64_t)pages * (uint64_t)size;
}

int store_begin(struct store *store, struct err *err)
{
    return store_run(store, "BEGIN IMMEDIATE", "beginning a change", err);
}

int store_commit(struct store *store, struct err *err)
{
    return store_run(store, "COMMIT", "making a change durable", err);
}

void store_rollback(struct store *store)
{
    if (!sqlite3_get_autocommit(store->database))
        sqlite3_exec(store->database, "ROLLBACK", NULL, NULL, NULL);
}

int store_probe(struct store *store, struct err *err)
{
    return store_run(store, "UPDATE witness SET id = id", "writing", err);
}
