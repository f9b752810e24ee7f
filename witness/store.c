/* The witness's store in SQLite: a handful of tables, every statement in this file. */
#include "witness/store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/check.h"
#include "common/cleanup.h"
#include "common/files.h"

#define SCHEMA_VERSION 1

struct store {
    sqlite3 *database;
    struct id witness;
};

static const char schema[] =
    "CREATE TABLE witness (id BLOB NOT NULL);"
    "CREATE TABLE clusters (id BLOB PRIMARY KEY, name TEXT NOT NULL, incarnation BLOB NOT NULL,"
    " counter INTEGER NOT NULL DEFAULT 0, restored INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;"
    "CREATE TABLE nodes (cluster BLOB NOT NULL, number INTEGER NOT NULL, id BLOB NOT NULL, name TEXT NOT NULL,"
    " to_witness BLOB NOT NULL, from_witness BLOB NOT NULL, promise_ms INTEGER NOT NULL DEFAULT 0,"
    " PRIMARY KEY (cluster, number)) WITHOUT ROWID;"
    "CREATE TABLE groups (cluster BLOB NOT NULL, id BLOB NOT NULL, epoch INTEGER NOT NULL, members INTEGER NOT NULL,"
    " changed INTEGER NOT NULL, PRIMARY KEY (cluster, id)) WITHOUT ROWID;"
    "CREATE TABLE tokens (hash BLOB PRIMARY KEY, expires INTEGER NOT NULL) WITHOUT ROWID;"
    "PRAGMA user_version = 1;";

static void finalize(sqlite3_stmt **statement)
{
    sqlite3_finalize(*statement);
}
#define cleanup_statement cleanup(finalize) sqlite3_stmt *

static int fail(struct store *store, struct err *err, const char *what)
{
    return err_set(err, -EIO, "io", "witness store: %s failed (%s); check the disk that holds the state folder", what,
                   sqlite3_errmsg(store->database));
}

static int run(struct store *store, const char *sql, const char *what, struct err *err)
{
    if (sqlite3_exec(store->database, sql, NULL, NULL, NULL) != SQLITE_OK)
        return fail(store, err, what);
    return 0;
}

static sqlite3_stmt *prepare(struct store *store, const char *sql)
{
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v2(store->database, sql, -1, &statement, NULL) != SQLITE_OK)
        return NULL;
    return statement;
}

static void bind_bytes(sqlite3_stmt *statement, int place, const void *data, size_t size)
{
    check(sqlite3_bind_blob(statement, place, data, (int)size, SQLITE_TRANSIENT) == SQLITE_OK);
}

static void bind_id(sqlite3_stmt *statement, int place, const struct id *id)
{
    bind_bytes(statement, place, id->bytes, sizeof id->bytes);
}

static void bind_number(sqlite3_stmt *statement, int place, uint64_t value)
{
    check(value <= INT64_MAX);
    check(sqlite3_bind_int64(statement, place, (sqlite3_int64)value) == SQLITE_OK);
}

static void bind_text(sqlite3_stmt *statement, int place, const char *text)
{
    check(sqlite3_bind_text(statement, place, text, -1, SQLITE_TRANSIENT) == SQLITE_OK);
}

/* A stored field of another size is damage, never to be read past its end. */
static bool column_bytes(sqlite3_stmt *statement, int column, void *ret, size_t size)
{
    const void *data = sqlite3_column_blob(statement, column);
    if (data == NULL || sqlite3_column_bytes(statement, column) != (int)size)
        return false;
    memcpy(ret, data, size);
    return true;
}

static bool column_id(sqlite3_stmt *statement, int column, struct id *ret)
{
    return column_bytes(statement, column, ret->bytes, sizeof ret->bytes);
}

static void column_name(sqlite3_stmt *statement, int column, char ret[static STORE_NAME_SIZE])
{
    const unsigned char *text = sqlite3_column_text(statement, column);
    snprintf(ret, STORE_NAME_SIZE, "%s", text == NULL ? "" : (const char *)text);
}

static int finish(struct store *store, sqlite3_stmt *statement, const char *what, struct err *err)
{
    return sqlite3_step(statement) == SQLITE_DONE ? 0 : fail(store, err, what);
}

static int damaged(struct err *err, const char *what)
{
    return err_set(err, -EIO, "damaged", "witness store: %s is damaged; enrol the clusters anew into a fresh state folder",
                   what);
}

static int64_t schema_version(struct store *store)
{
    cleanup_statement statement = prepare(store, "PRAGMA user_version");
    if (statement == NULL || sqlite3_step(statement) != SQLITE_ROW)
        return -1;
    return sqlite3_column_int64(statement, 0);
}

static int make_schema(struct store *store, struct err *err)
{
    struct id witness = id_random();
    int error = store_begin(store, err);
    if (error == 0)
        error = run(store, schema, "making the tables", err);
    if (error == 0) {
        cleanup_statement statement = prepare(store, "INSERT INTO witness VALUES (?)");
        if (statement == NULL)
            return fail(store, err, "making the tables");
        bind_id(statement, 1, &witness);
        error = finish(store, statement, "making the tables", err);
    }
    if (error == 0)
        error = store_commit(store, err);
    return error;
}

static int read_witness(struct store *store, struct err *err)
{
    cleanup_statement statement = prepare(store, "SELECT id FROM witness");
    if (statement == NULL || sqlite3_step(statement) != SQLITE_ROW || !column_id(statement, 0, &store->witness))
        return damaged(err, "the witness's own identity");
    return 0;
}

static int open_database(struct store *store, const char *path, struct err *err)
{
    /* Made here with its mode: SQLite would ask the umask. Its -wal and -shm files take the same mode. */
    cleanup_close int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_set(err, -errno, "io", "witness store '%s': cannot be opened (%s); check its folder", path,
                       strerror(errno));
    if (sqlite3_open_v2(path, &store->database, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
        return fail(store, err, "opening");
    int error = run(store, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA locking_mode=EXCLUSIVE;"
                           "PRAGMA trusted_schema=OFF; PRAGMA secure_delete=ON;", "opening", err);
    if (error < 0)
        return error;
    int64_t version = schema_version(store);
    if (version == 0)
        error = make_schema(store, err);
    else if (version != SCHEMA_VERSION)
        return err_set(err, -EPROTONOSUPPORT, "version",
                       "witness store '%s': has schema version %lld, this program knows %d; use the matching program", path,
                       (long long)version, SCHEMA_VERSION);
    return error < 0 ? error : read_witness(store, err);
}

int store_open(const char *folder, struct store **ret, struct err *err)
{
    char path[PATH_MAX];
    if ((size_t)snprintf(path, sizeof path, "%s/witness.db", folder) >= sizeof path)
        return err_set(err, -ENAMETOOLONG, "invalid", "state folder '%s': the path is too long", folder);
    int error = files_make_folder(folder, 0700, err);
    if (error < 0)
        return error;
    struct store *store = calloc(1, sizeof *store);
    if (store == NULL)
        return err_set(err, -ENOMEM, "no_memory", "witness store: out of memory");
    error = open_database(store, path, err);
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
    sqlite3_close(store->database);
    free(store);
}

struct id store_witness_id(const struct store *store)
{
    return store->witness;
}

static int load_nodes(struct store *store, struct store_cluster *cluster, struct err *err)
{
    cleanup_statement statement = prepare(
        store, "SELECT number, id, name, to_witness, from_witness, promise_ms FROM nodes WHERE cluster = ? ORDER BY number");
    if (statement == NULL)
        return fail(store, err, "reading nodes");
    bind_id(statement, 1, &cluster->id);
    int expected = 0;
    while (sqlite3_step(statement) == SQLITE_ROW) {
        if (expected > 1 || sqlite3_column_int(statement, 0) != expected)
            return damaged(err, "the list of nodes");
        struct store_node *node = &cluster->nodes[expected];
        if (!column_id(statement, 1, &node->id) || !column_bytes(statement, 3, node->to_witness, SEAL_KEY_SIZE) ||
            !column_bytes(statement, 4, node->from_witness, SEAL_KEY_SIZE))
            return damaged(err, "a node's entry");
        column_name(statement, 2, node->name);
        cluster->records.nodes[expected].promise_ms = (uint32_t)sqlite3_column_int64(statement, 5);
        expected++;
    }
    return expected == 2 ? 0 : damaged(err, "the list of nodes");
}

static int load_groups(struct store *store, struct store_cluster *cluster, struct err *err)
{
    cleanup_statement statement = prepare(store, "SELECT id, epoch, members, changed FROM groups WHERE cluster = ?");
    if (statement == NULL)
        return fail(store, err, "reading groups");
    bind_id(statement, 1, &cluster->id);
    int step;
    while ((step = sqlite3_step(statement)) == SQLITE_ROW) {
        struct id id;
        struct record_position position = {
            .epoch = (uint64_t)sqlite3_column_int64(statement, 1),
            .members = (uint8_t)sqlite3_column_int(statement, 2),
        };
        uint64_t changed = (uint64_t)sqlite3_column_int64(statement, 3);
        if (!column_id(statement, 0, &id) || position.members > RECORD_BOTH || changed > cluster->records.counter ||
            record_load_group(&cluster->records, &id, position, changed) < 0)
            return damaged(err, "a group's record");
    }
    return step == SQLITE_DONE ? 0 : fail(store, err, "reading groups");
}

static int load_cluster(struct store *store, sqlite3_stmt *row, uint64_t now_ns, struct store_cluster *cluster,
                        struct err *err)
{
    record_init(&cluster->records, now_ns);
    if (!column_id(row, 0, &cluster->id) || !column_id(row, 2, &cluster->incarnation))
        return damaged(err, "a cluster's entry");
    column_name(row, 1, cluster->name);
    cluster->records.counter = (uint64_t)sqlite3_column_int64(row, 3);
    cluster->records.restored = sqlite3_column_int(row, 4) != 0;
    int error = load_nodes(store, cluster, err);
    return error < 0 ? error : load_groups(store, cluster, err);
}

int store_load(struct store *store, uint64_t now_ns, void (*found)(struct store_cluster *cluster, void *userdata),
               void *userdata, struct err *err)
{
    cleanup_statement statement = prepare(store, "SELECT id, name, incarnation, counter, restored FROM clusters");
    if (statement == NULL)
        return fail(store, err, "reading clusters");
    int step;
    while ((step = sqlite3_step(statement)) == SQLITE_ROW) {
        struct store_cluster *cluster = calloc(1, sizeof *cluster);
        if (cluster == NULL)
            return err_set(err, -ENOMEM, "no_memory", "witness store: out of memory");
        int error = load_cluster(store, statement, now_ns, cluster, err);
        if (error < 0) {
            seal_wipe(cluster, sizeof *cluster);
            free(cluster);
            return error;
        }
        found(cluster, userdata);
    }
    return step == SQLITE_DONE ? 0 : fail(store, err, "reading clusters");
}

int store_begin(struct store *store, struct err *err)
{
    return run(store, "BEGIN IMMEDIATE", "beginning a change", err);
}

int store_commit(struct store *store, struct err *err)
{
    return run(store, "COMMIT", "making a change durable", err);
}

void store_rollback(struct store *store)
{
    if (!sqlite3_get_autocommit(store->database))
        sqlite3_exec(store->database, "ROLLBACK", NULL, NULL, NULL);
}

static int64_t count_rows(struct store *store, const char *sql)
{
    cleanup_statement statement = prepare(store, sql);
    if (statement == NULL || sqlite3_step(statement) != SQLITE_ROW)
        return INT64_MAX;
    return sqlite3_column_int64(statement, 0);
}

static int add_node(struct store *store, const struct store_cluster *cluster, unsigned number, struct err *err)
{
    const struct store_node *node = &cluster->nodes[number];
    cleanup_statement statement = prepare(
        store, "INSERT INTO nodes (cluster, number, id, name, to_witness, from_witness) VALUES (?, ?, ?, ?, ?, ?)");
    if (statement == NULL)
        return fail(store, err, "adding a node");
    bind_id(statement, 1, &cluster->id);
    bind_number(statement, 2, number);
    bind_id(statement, 3, &node->id);
    bind_text(statement, 4, node->name);
    bind_bytes(statement, 5, node->to_witness, SEAL_KEY_SIZE);
    bind_bytes(statement, 6, node->from_witness, SEAL_KEY_SIZE);
    return finish(store, statement, "adding a node", err);
}

int store_add_cluster(struct store *store, const struct store_cluster *cluster, struct err *err)
{
    if (count_rows(store, "SELECT count(*) FROM clusters") >= STORE_CLUSTERS_MAX)
        return err_set(err, -ENOSPC, "quota", "witness: already holds %u clusters; use another witness", STORE_CLUSTERS_MAX);
    cleanup_statement statement = prepare(store, "INSERT INTO clusters (id, name, incarnation) VALUES (?, ?, ?)");
    if (statement == NULL)
        return fail(store, err, "adding a cluster");
    bind_id(statement, 1, &cluster->id);
    bind_text(statement, 2, cluster->name);
    bind_id(statement, 3, &cluster->incarnation);
    int step = sqlite3_step(statement);
    if (step == SQLITE_CONSTRAINT)
        return err_set(err, -EEXIST, "exists", "cluster '%s': is already enrolled at this witness", cluster->name);
    if (step != SQLITE_DONE)
        return fail(store, err, "adding a cluster");
    int error = add_node(store, cluster, 0, err);
    return error < 0 ? error : add_node(store, cluster, 1, err);
}

static int delete_group(struct store *store, const struct id *cluster, const struct id *group, struct err *err)
{
    cleanup_statement statement = prepare(store, "DELETE FROM groups WHERE cluster = ? AND id = ?");
    if (statement == NULL)
        return fail(store, err, "changing a record");
    bind_id(statement, 1, cluster);
    bind_id(statement, 2, group);
    return finish(store, statement, "changing a record", err);
}

/* Updates one row of `clusters` or `nodes`; -EIO when there is none. */
static int finish_update(struct store *store, sqlite3_stmt *statement, struct err *err)
{
    int error = finish(store, statement, "changing a record", err);
    if (error == 0 && sqlite3_changes(store->database) != 1)
        return damaged(err, "the list of clusters");
    return error;
}

static int put_counter(struct store *store, const struct id *cluster, uint64_t counter, struct err *err)
{
    cleanup_statement statement = prepare(store, "UPDATE clusters SET counter = ? WHERE id = ?");
    if (statement == NULL)
        return fail(store, err, "changing a record");
    bind_number(statement, 1, counter);
    bind_id(statement, 2, cluster);
    return finish_update(store, statement, err);
}

int store_put_group(struct store *store, const struct id *cluster, const struct record_group *group, uint64_t counter,
                    const struct id *evicted, struct err *err)
{
    check(group->changed <= counter);
    int error = evicted == NULL ? 0 : delete_group(store, cluster, evicted, err);
    if (error < 0)
        return error;
    cleanup_statement statement = prepare(
        store, "INSERT INTO groups (cluster, id, epoch, members, changed) VALUES (?, ?, ?, ?, ?)"
               " ON CONFLICT DO UPDATE SET epoch = excluded.epoch, members = excluded.members, changed = excluded.changed");
    if (statement == NULL)
        return fail(store, err, "changing a record");
    bind_id(statement, 1, cluster);
    bind_id(statement, 2, &group->id);
    bind_number(statement, 3, group->position.epoch);
    bind_number(statement, 4, group->position.members);
    bind_number(statement, 5, group->changed);
    error = finish(store, statement, "changing a record", err);
    return error < 0 ? error : put_counter(store, cluster, counter, err);
}

int store_put_promise(struct store *store, const struct id *cluster, unsigned node, uint32_t promise_ms, struct err *err)
{
    cleanup_statement statement = prepare(store, "UPDATE nodes SET promise_ms = ? WHERE cluster = ? AND number = ?");
    if (statement == NULL)
        return fail(store, err, "changing a promise");
    bind_number(statement, 1, promise_ms);
    bind_id(statement, 2, cluster);
    bind_number(statement, 3, node);
    return finish_update(store, statement, err);
}

int store_put_restored(struct store *store, const struct id *cluster, const struct id *incarnation, struct err *err)
{
    cleanup_statement statement = prepare(store, "UPDATE clusters SET restored = 1, incarnation = ? WHERE id = ?");
    if (statement == NULL)
        return fail(store, err, "marking a cluster");
    bind_id(statement, 1, incarnation);
    bind_id(statement, 2, cluster);
    return finish_update(store, statement, err);
}

static int drop_expired(struct store *store, int64_t now, struct err *err)
{
    cleanup_statement statement = prepare(store, "DELETE FROM tokens WHERE expires <= ?");
    if (statement == NULL)
        return fail(store, err, "dropping old tokens");
    check(sqlite3_bind_int64(statement, 1, now) == SQLITE_OK);
    return finish(store, statement, "dropping old tokens", err);
}

int store_add_token(struct store *store, const uint8_t hash[static 16], int64_t now, int64_t expires, struct err *err)
{
    int error = drop_expired(store, now, err);
    if (error < 0)
        return error;
    if (count_rows(store, "SELECT count(*) FROM tokens") >= STORE_TOKENS_MAX)
        return err_set(err, -ENOSPC, "quota", "witness: %u tokens are waiting to be used; wait until some expire",
                       STORE_TOKENS_MAX);
    cleanup_statement statement = prepare(store, "INSERT INTO tokens (hash, expires) VALUES (?, ?)");
    if (statement == NULL)
        return fail(store, err, "adding a token");
    bind_bytes(statement, 1, hash, 16);
    check(sqlite3_bind_int64(statement, 2, expires) == SQLITE_OK);
    return finish(store, statement, "adding a token", err);
}

int store_take_token(struct store *store, const uint8_t hash[static 16], int64_t now, struct err *err)
{
    cleanup_statement statement = prepare(store, "DELETE FROM tokens WHERE hash = ? AND expires > ?");
    if (statement == NULL)
        return fail(store, err, "using a token");
    bind_bytes(statement, 1, hash, 16);
    check(sqlite3_bind_int64(statement, 2, now) == SQLITE_OK);
    int error = finish(store, statement, "using a token", err);
    if (error == 0 && sqlite3_changes(store->database) != 1)
        return err_set(err, -ENOENT, "token", "the token is unknown, expired or already used; make a new one on the witness"
                                              " with 'hcictl witness token'");
    return error;
}
