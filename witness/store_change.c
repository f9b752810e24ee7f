/* Changes of the store: clusters, groups' records, promises. Inside a transaction of the caller. */
#include <errno.h>

#include "common/check.h"
#include "common/cleanup.h"
#include "witness/store_private.h"

static const char *const statements[STORE_STATEMENTS] = {
    [STORE_PUT_GROUP] =
        "INSERT INTO groups (cluster, id, epoch, members, changed, sum)"
        " VALUES (?1, ?2, ?3, ?4, ?5, row_sum('g', ?1, ?2, ?3, ?4, ?5)) ON CONFLICT DO UPDATE SET"
        " epoch = excluded.epoch, members = excluded.members, changed = excluded.changed, sum = excluded.sum",
    [STORE_DELETE_GROUP] = "DELETE FROM groups WHERE cluster = ?1 AND id = ?2",
    [STORE_PUT_COUNTER] = "UPDATE clusters SET counter = ?2,"
                          " sum = row_sum('c', id, name, incarnation, ?2, restored) WHERE id = ?1",
    [STORE_PUT_PROMISE] = "UPDATE nodes SET promise_ms = ?3, sum = row_sum('n', cluster, number, id, name, to_witness,"
                          " from_witness, ?3, next_to, next_from) WHERE cluster = ?1 AND number = ?2",
    [STORE_PUT_RESTORED] = "UPDATE clusters SET restored = 1, incarnation = ?2,"
                           " sum = row_sum('c', id, name, ?2, counter, 1) WHERE id = ?1",
    [STORE_CONFIRM] = "UPDATE clusters SET token = NULL, token_expires = NULL WHERE id = ?1",
};

/* Ready to be bound; prepared at its first use. NULL: it cannot be prepared. */
static sqlite3_stmt *statement_of(struct store *store, enum store_statement which)
{
    if (store->statements[which] == NULL)
        store->statements[which] = store_prepare(store, statements[which]);
    return store->statements[which];
}

static int finish(struct store *store, sqlite3_stmt *statement, const char *what, struct err *err)
{
    int error = store_finish(store, statement, what, err);
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    return error;
}

/* Updates one row of `clusters` or `nodes`; -EIO when there is none. */
static int finish_update(struct store *store, sqlite3_stmt *statement, struct err *err)
{
    int error = finish(store, statement, "changing a record", err);
    if (error == 0 && sqlite3_changes(store->database) != 1)
        return store_damaged(err, "the list of clusters");
    return error;
}

static int add_node(struct store *store, const struct store_cluster *cluster, unsigned number, struct err *err)
{
    const struct store_node *node = &cluster->nodes[number];
    cleanup_statement statement =
        store_prepare(store, "INSERT INTO nodes (cluster, number, id, name, to_witness, from_witness, promise_ms, sum)"
                             " VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, row_sum('n', ?1, ?2, ?3, ?4, ?5, ?6, 0, NULL, NULL))");
    if (statement == NULL)
        return store_fail(store, err, "adding a node");
    store_bind_id(statement, 1, &cluster->id);
    store_bind_number(statement, 2, number);
    store_bind_id(statement, 3, &node->id);
    store_bind_text(statement, 4, node->name);
    store_bind_bytes(statement, 5, node->to_witness, SEAL_KEY_SIZE);
    store_bind_bytes(statement, 6, node->from_witness, SEAL_KEY_SIZE);
    return store_finish(store, statement, "adding a node", err);
}

int store_add_cluster(struct store *store, const struct store_cluster *cluster, struct err *err)
{
    if (store_number(store, "SELECT count(*) FROM clusters") >= STORE_CLUSTERS_MAX)
        return err_set(err, -ENOSPC, "quota", "witness: already holds %u clusters; use another witness", STORE_CLUSTERS_MAX);
    cleanup_statement statement = store_prepare(store, "INSERT INTO clusters (id, name, incarnation, sum)"
                                                       " VALUES (?1, ?2, ?3, row_sum('c', ?1, ?2, ?3, 0, 0))");
    if (statement == NULL)
        return store_fail(store, err, "adding a cluster");
    store_bind_id(statement, 1, &cluster->id);
    store_bind_text(statement, 2, cluster->name);
    store_bind_id(statement, 3, &cluster->incarnation);
    int step = sqlite3_step(statement);
    if (step == SQLITE_CONSTRAINT)
        return err_set(err, -EEXIST, "exists", "cluster '%s': is already enrolled at this witness; 'hci-witnessd --forget "
                       "NAME' on the witness's host removes it", cluster->name);
    if (step != SQLITE_DONE)
        return store_fail(store, err, "adding a cluster");
    int error = add_node(store, cluster, 0, err);
    return error < 0 ? error : add_node(store, cluster, 1, err);
}

int store_delete_cluster(struct store *store, const struct id *cluster, struct err *err)
{
    static const char *const tables[] = {"DELETE FROM groups WHERE cluster = ?", "DELETE FROM nodes WHERE cluster = ?",
                                         "DELETE FROM clusters WHERE id = ?"};
    int error = 0;
    for (unsigned i = 0; i < 3 && error == 0; i++) {
        cleanup_statement statement = store_prepare(store, tables[i]);
        if (statement == NULL)
            return store_fail(store, err, "removing a cluster");
        store_bind_id(statement, 1, cluster);
        error = store_finish(store, statement, "removing a cluster", err);
    }
    return error;
}

static int delete_group(struct store *store, const struct id *cluster, const struct id *group, struct err *err)
{
    sqlite3_stmt *statement = statement_of(store, STORE_DELETE_GROUP);
    if (statement == NULL)
        return store_fail(store, err, "changing a record");
    store_bind_id(statement, 1, cluster);
    store_bind_id(statement, 2, group);
    return finish(store, statement, "changing a record", err);
}

static int put_counter(struct store *store, const struct id *cluster, uint64_t counter, struct err *err)
{
    sqlite3_stmt *statement = statement_of(store, STORE_PUT_COUNTER);
    if (statement == NULL)
        return store_fail(store, err, "changing a record");
    store_bind_id(statement, 1, cluster);
    store_bind_number(statement, 2, counter);
    return finish_update(store, statement, err);
}

int store_put_group(struct store *store, const struct id *cluster, const struct record_group *group, uint64_t counter,
                    const struct id *evicted, struct err *err)
{
    check(group->changed <= counter);
    int error = evicted == NULL ? 0 : delete_group(store, cluster, evicted, err);
    if (error < 0)
        return error;
    sqlite3_stmt *statement = statement_of(store, STORE_PUT_GROUP);
    if (statement == NULL)
        return store_fail(store, err, "changing a record");
    store_bind_id(statement, 1, cluster);
    store_bind_id(statement, 2, &group->id);
    store_bind_number(statement, 3, group->position.epoch);
    store_bind_number(statement, 4, group->position.members);
    store_bind_number(statement, 5, group->changed);
    error = finish(store, statement, "changing a record", err);
    return error < 0 ? error : put_counter(store, cluster, counter, err);
}

int store_put_promise(struct store *store, const struct id *cluster, unsigned node, uint32_t promise_ms, struct err *err)
{
    sqlite3_stmt *statement = statement_of(store, STORE_PUT_PROMISE);
    if (statement == NULL)
        return store_fail(store, err, "changing a promise");
    store_bind_id(statement, 1, cluster);
    store_bind_number(statement, 2, node);
    store_bind_number(statement, 3, promise_ms);
    return finish_update(store, statement, err);
}

int store_put_restored(struct store *store, const struct id *cluster, const struct id *incarnation, struct err *err)
{
    sqlite3_stmt *statement = statement_of(store, STORE_PUT_RESTORED);
    if (statement == NULL)
        return store_fail(store, err, "marking a cluster");
    store_bind_id(statement, 1, cluster);
    store_bind_id(statement, 2, incarnation);
    return finish_update(store, statement, err);
}

int store_put_next_keys(struct store *store, const struct id *cluster, unsigned node, const uint8_t to[static SEAL_KEY_SIZE],
                        const uint8_t from[static SEAL_KEY_SIZE], struct err *err)
{
    cleanup_statement statement = store_prepare(store, "UPDATE nodes SET next_to = ?3, next_from = ?4, sum = row_sum('n',"
        " cluster, number, id, name, to_witness, from_witness, promise_ms, ?3, ?4) WHERE cluster = ?1 AND number = ?2");
    if (statement == NULL)
        return store_fail(store, err, "adding keys");
    store_bind_id(statement, 1, cluster);
    store_bind_number(statement, 2, node);
    store_bind_bytes(statement, 3, to, SEAL_KEY_SIZE);
    store_bind_bytes(statement, 4, from, SEAL_KEY_SIZE);
    return finish_update(store, statement, err);
}

int store_promote_keys(struct store *store, const struct id *cluster, unsigned node, struct err *err)
{
    cleanup_statement statement = store_prepare(store, "UPDATE nodes SET to_witness = next_to, from_witness = next_from,"
        " next_to = NULL, next_from = NULL, sum = row_sum('n', cluster, number, id, name, next_to, next_from, promise_ms,"
        " NULL, NULL) WHERE cluster = ?1 AND number = ?2 AND next_to IS NOT NULL");
    if (statement == NULL)
        return store_fail(store, err, "changing keys");
    store_bind_id(statement, 1, cluster);
    store_bind_number(statement, 2, node);
    return finish_update(store, statement, err);
}

int store_confirm(struct store *store, const struct id *cluster, struct err *err)
{
    sqlite3_stmt *statement = statement_of(store, STORE_CONFIRM);
    if (statement == NULL)
        return store_fail(store, err, "confirming a cluster");
    store_bind_id(statement, 1, cluster);
    return finish_update(store, statement, err);
}
