/* The witness's tables: made on the first start, brought up from an older version, and checked on every start.
 *
 * Each row of a record carries a checksum of its fields, made by the SQL function row_sum: SQLite finds a damaged page's
 * structure, but not a bit that fell over in an epoch, and a wrong epoch would be a wrong grant. */
#include <errno.h>
#include <string.h>

#include "common/check.h"
#include "common/cleanup.h"
#include "common/seal.h"
#include "witness/store_private.h"

#define SCHEMA_VERSION 2
#define SUM_SIZE 16
#define SUM_INPUT_MAX 512

static const char schema[] =
    "CREATE TABLE witness (id BLOB NOT NULL);"
    "CREATE TABLE clusters (id BLOB PRIMARY KEY, name TEXT NOT NULL, incarnation BLOB NOT NULL,"
    " counter INTEGER NOT NULL DEFAULT 0, restored INTEGER NOT NULL DEFAULT 0, sum BLOB,"
    " token BLOB, token_expires INTEGER) WITHOUT ROWID;"
    "CREATE TABLE nodes (cluster BLOB NOT NULL, number INTEGER NOT NULL, id BLOB NOT NULL, name TEXT NOT NULL,"
    " to_witness BLOB NOT NULL, from_witness BLOB NOT NULL, promise_ms INTEGER NOT NULL DEFAULT 0, sum BLOB,"
    " next_to BLOB, next_from BLOB, PRIMARY KEY (cluster, number)) WITHOUT ROWID;"
    "CREATE TABLE groups (cluster BLOB NOT NULL, id BLOB NOT NULL, epoch INTEGER NOT NULL, members INTEGER NOT NULL,"
    " changed INTEGER NOT NULL, sum BLOB, PRIMARY KEY (cluster, id)) WITHOUT ROWID;"
    "CREATE TABLE tokens (hash BLOB PRIMARY KEY, expires INTEGER NOT NULL) WITHOUT ROWID;"
    "PRAGMA user_version = 2;";

static const char upgrade_from_1[] =
    "ALTER TABLE clusters ADD COLUMN sum BLOB; ALTER TABLE clusters ADD COLUMN token BLOB;"
    "ALTER TABLE clusters ADD COLUMN token_expires INTEGER;"
    "ALTER TABLE nodes ADD COLUMN next_to BLOB; ALTER TABLE nodes ADD COLUMN next_from BLOB;"
    "ALTER TABLE nodes ADD COLUMN sum BLOB; ALTER TABLE groups ADD COLUMN sum BLOB;"
    "UPDATE clusters SET sum = " STORE_SUM_CLUSTER "; UPDATE nodes SET sum = " STORE_SUM_NODE ";"
    "UPDATE groups SET sum = " STORE_SUM_GROUP "; PRAGMA user_version = 2;";

/* Type and length go in with each field, so that no two rows have the same bytes. */
static void row_sum(sqlite3_context *context, int count, sqlite3_value **values)
{
    uint8_t input[SUM_INPUT_MAX], sum[SUM_SIZE];
    size_t size = 0;
    for (int i = 0; i < count; i++) {
        const void *data = sqlite3_value_blob(values[i]);
        size_t length = (size_t)sqlite3_value_bytes(values[i]);
        if (length > UINT8_MAX || size + 2 + length > sizeof input) {
            sqlite3_result_null(context); /* longer than anything we write: equals no sum */
            return;
        }
        input[size++] = (uint8_t)sqlite3_value_type(values[i]);
        input[size++] = (uint8_t)length;
        if (length > 0)
            memcpy(input + size, data, length);
        size += length;
    }
    seal_hash128(input, size, sum);
    seal_wipe(input, sizeof input);
    sqlite3_result_blob(context, sum, sizeof sum, SQLITE_TRANSIENT);
}

static int make(struct store *store, struct err *err)
{
    struct id witness = id_random();
    int error = store_begin(store, err);
    if (error == 0)
        error = store_run(store, schema, "making the tables", err);
    if (error == 0) {
        cleanup_statement statement = store_prepare(store, "INSERT INTO witness VALUES (?)");
        if (statement == NULL)
            return store_fail(store, err, "making the tables");
        store_bind_id(statement, 1, &witness);
        error = store_finish(store, statement, "making the tables", err);
    }
    return error < 0 ? error : store_commit(store, err);
}

static int upgrade(struct store *store, struct err *err)
{
    int error = store_begin(store, err);
    if (error == 0)
        error = store_run(store, upgrade_from_1, "upgrading the tables", err);
    return error < 0 ? error : store_commit(store, err);
}

/* Before anything is believed: pages by SQLite, rows by their sums. A row without a sum is as bad as a wrong one. */
static int verify(struct store *store, struct err *err)
{
    cleanup_statement statement = store_prepare(store, "PRAGMA quick_check(1)");
    if (statement == NULL || sqlite3_step(statement) != SQLITE_ROW ||
        strcmp((const char *)sqlite3_column_text(statement, 0), "ok") != 0)
        return store_damaged(err, "a page of the database");
    if (store_number(store, "SELECT count(*) FROM clusters WHERE sum IS NOT " STORE_SUM_CLUSTER) != 0)
        return store_damaged(err, "a cluster's entry");
    if (store_number(store, "SELECT count(*) FROM nodes WHERE sum IS NOT " STORE_SUM_NODE) != 0)
        return store_damaged(err, "a node's entry");
    if (store_number(store, "SELECT count(*) FROM groups WHERE sum IS NOT " STORE_SUM_GROUP) != 0)
        return store_damaged(err, "a group's record");
    return 0;
}

static int read_witness(struct store *store, struct err *err)
{
    cleanup_statement statement = store_prepare(store, "SELECT id FROM witness");
    if (statement == NULL || sqlite3_step(statement) != SQLITE_ROW || !store_column_id(statement, 0, &store->witness))
        return store_damaged(err, "the witness's own identity");
    return 0;
}

int store_schema_functions(sqlite3 *database)
{
    return sqlite3_create_function(database, "row_sum", -1, SQLITE_UTF8 | SQLITE_DETERMINISTIC, NULL, row_sum, NULL, NULL);
}

int store_schema_open(struct store *store, const char *path, struct err *err)
{
    if (store_schema_functions(store->database) != SQLITE_OK)
        return store_fail(store, err, "opening");
    int64_t version = store_number(store, "PRAGMA user_version");
    int error = 0;
    if (version == INT64_MAX)
        return store_damaged(err, "the database's header");
    if (version == 0)
        error = make(store, err);
    else if (version == 1)
        error = upgrade(store, err);
    else if (version != SCHEMA_VERSION)
        return err_set(err, -EPROTONOSUPPORT, "version",
                       "witness store '%s': has schema version %lld, this program knows 1 to %d; use the matching program",
                       path, (long long)version, SCHEMA_VERSION);
    if (error == 0)
        error = verify(store, err);
    return error < 0 ? error : read_witness(store, err);
}
