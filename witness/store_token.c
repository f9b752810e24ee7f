/* One-time enrolment tokens: a hash each, used up by the enrolment that it admits. */
#include <errno.h>

#include "common/check.h"
#include "common/cleanup.h"
#include "witness/store_private.h"

static int drop_expired(struct store *store, int64_t now, struct err *err)
{
    cleanup_statement statement = store_prepare(store, "DELETE FROM tokens WHERE expires <= ?");
    if (statement == NULL)
        return store_fail(store, err, "dropping old tokens");
    check(sqlite3_bind_int64(statement, 1, now) == SQLITE_OK);
    return store_finish(store, statement, "dropping old tokens", err);
}

int store_add_token(struct store *store, const uint8_t hash[static 16], int64_t now, int64_t expires, struct err *err)
{
    int error = drop_expired(store, now, err);
    if (error < 0)
        return error;
    if (store_number(store, "SELECT count(*) FROM tokens") >= STORE_TOKENS_MAX)
        return err_set(err, -ENOSPC, "quota", "witness: %u tokens are waiting to be used; wait until some expire",
                       STORE_TOKENS_MAX);
    cleanup_statement statement = store_prepare(store, "INSERT INTO tokens (hash, expires) VALUES (?, ?)");
    if (statement == NULL)
        return store_fail(store, err, "adding a token");
    store_bind_bytes(statement, 1, hash, 16);
    check(sqlite3_bind_int64(statement, 2, expires) == SQLITE_OK);
    return store_finish(store, statement, "adding a token", err);
}

static int64_t expires_of(struct store *store, const uint8_t hash[static 16])
{
    cleanup_statement statement = store_prepare(store, "SELECT expires FROM tokens WHERE hash = ?");
    if (statement == NULL)
        return 0;
    store_bind_bytes(statement, 1, hash, 16);
    return sqlite3_step(statement) == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : 0;
}

int store_take_token(struct store *store, const uint8_t hash[static 16], int64_t now, int64_t *ret_expires, struct err *err)
{
    int64_t expires = expires_of(store, hash);
    if (expires <= now)
        return err_set(err, -ENOENT, "token", "the token is unknown, expired or already used; make a new one on the witness"
                                              " with 'hcictl witness token'");
    cleanup_statement statement = store_prepare(store, "DELETE FROM tokens WHERE hash = ?");
    if (statement == NULL)
        return store_fail(store, err, "using a token");
    store_bind_bytes(statement, 1, hash, 16);
    int error = store_finish(store, statement, "using a token", err);
    if (error == 0)
        *ret_expires = expires;
    return error;
}

int store_bind_token(struct store *store, const struct id *cluster, const uint8_t hash[static 16], int64_t expires,
                     struct err *err)
{
    cleanup_statement statement = store_prepare(store, "UPDATE clusters SET token = ?2, token_expires = ?3 WHERE id = ?1");
    if (statement == NULL)
        return store_fail(store, err, "using a token");
    store_bind_id(statement, 1, cluster);
    store_bind_bytes(statement, 2, hash, 16);
    check(sqlite3_bind_int64(statement, 3, expires) == SQLITE_OK);
    return store_finish(store, statement, "using a token", err);
}

bool store_token_admitted(struct store *store, const struct id *cluster, const uint8_t hash[static 16], int64_t now)
{
    cleanup_statement statement =
        store_prepare(store, "SELECT 1 FROM clusters WHERE id = ?1 AND token = ?2 AND token_expires > ?3");
    if (statement == NULL)
        return false;
    store_bind_id(statement, 1, cluster);
    store_bind_bytes(statement, 2, hash, 16);
    check(sqlite3_bind_int64(statement, 3, now) == SQLITE_OK);
    return sqlite3_step(statement) == SQLITE_ROW;
}
