/* What the store's files share; they alone include sqlite3.h. */
#pragma once

#include <sqlite3.h>

#include "witness/store.h"

enum store_statement { /* prepared once: what a storm of changes repeats */
    STORE_PUT_GROUP, STORE_DELETE_GROUP, STORE_PUT_COUNTER, STORE_PUT_PROMISE, STORE_PUT_RESTORED, STORE_CONFIRM,
    STORE_STATEMENTS
};

/* The fields that a row's checksum covers (store_schema.c). */
#define STORE_SUM_CLUSTER "row_sum('c', id, name, incarnation, counter, restored)"
#define STORE_SUM_NODE \
    "row_sum('n', cluster, number, id, name, to_witness, from_witness, promise_ms, next_to, next_from)"
#define STORE_SUM_GROUP "row_sum('g', cluster, id, epoch, members, changed)"

struct store {
    sqlite3 *database;
    struct id witness;
    sqlite3_stmt *statements[STORE_STATEMENTS];
    struct store_backup *backup; /* under way */
};

static inline void store_finalize(sqlite3_stmt **statement)
{
    sqlite3_finalize(*statement);
}
#define cleanup_statement cleanup(store_finalize) sqlite3_stmt *

/* -ENOSPC when SQLite says that the disk is full, else -EIO; the sentence names `what`. */
int store_fail(struct store *store, struct err *err, const char *what);
int store_damaged(struct err *err, const char *what);
int store_run(struct store *store, const char *sql, const char *what, struct err *err);
/* NULL when it cannot be prepared: then store_fail tells why. */
sqlite3_stmt *store_prepare(struct store *store, const char *sql);
/* Steps a statement that gives no rows. */
int store_finish(struct store *store, sqlite3_stmt *statement, const char *what, struct err *err);
int64_t store_number(struct store *store, const char *sql); /* INT64_MAX when it cannot be read */

void store_bind_bytes(sqlite3_stmt *statement, int place, const void *data, size_t size);
void store_bind_id(sqlite3_stmt *statement, int place, const struct id *id);
void store_bind_number(sqlite3_stmt *statement, int place, uint64_t value);
void store_bind_text(sqlite3_stmt *statement, int place, const char *text);
/* False: a stored field of another size, which is damage. */
bool store_column_bytes(sqlite3_stmt *statement, int column, void *ret, size_t size);
bool store_column_id(sqlite3_stmt *statement, int column, struct id *ret);

/* What the statements use beside SQL: row_sum. An SQLite result code. */
int store_schema_functions(sqlite3 *database);
/* Makes or upgrades the tables, and checks that every row is as it was written. */
int store_schema_open(struct store *store, const char *path, struct err *err);
