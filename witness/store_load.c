/* Reads the whole store into memory, once, at the start. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>

#include "common/cleanup.h"
#include "witness/store_private.h"

#define ROOM_STEP 4u /* most clusters have a handful */

int store_cluster_make_room(struct store_cluster *cluster)
{
    struct record_cluster *records = &cluster->records;
    if (records->group_count < records->group_room || records->group_room == RECORD_GROUPS_MAX)
        return 0;
    static_assert(RECORD_GROUPS_MAX % ROOM_STEP == 0, "the steps end at the limit");
    struct record_group *groups = realloc(records->groups, (records->group_room + ROOM_STEP) * sizeof *groups);
    if (groups == NULL)
        return -ENOMEM;
    records->groups = groups;
    records->group_room += ROOM_STEP;
    return 0;
}

void store_cluster_free(struct store_cluster *cluster)
{
    if (cluster == NULL)
        return;
    free(cluster->records.groups);
    seal_wipe(cluster, sizeof *cluster);
    free(cluster);
}

static void column_name(sqlite3_stmt *statement, int column, char ret[static STORE_NAME_SIZE])
{
    const unsigned char *text = sqlite3_column_text(statement, column);
    snprintf(ret, STORE_NAME_SIZE, "%s", text == NULL ? "" : (const char *)text);
}

static int load_nodes(struct store *store, struct store_cluster *cluster, struct err *err)
{
    cleanup_statement statement = store_prepare(
        store, "SELECT number, id, name, to_witness, from_witness, promise_ms, next_to, next_from FROM nodes"
               " WHERE cluster = ? ORDER BY number");
    if (statement == NULL)
        return store_fail(store, err, "reading nodes");
    store_bind_id(statement, 1, &cluster->id);
    int expected = 0;
    while (sqlite3_step(statement) == SQLITE_ROW) {
        if (expected > 1 || sqlite3_column_int(statement, 0) != expected)
            return store_damaged(err, "the list of nodes");
        struct store_node *node = &cluster->nodes[expected];
        if (!store_column_id(statement, 1, &node->id) ||
            !store_column_bytes(statement, 3, node->to_witness, SEAL_KEY_SIZE) ||
            !store_column_bytes(statement, 4, node->from_witness, SEAL_KEY_SIZE))
            return store_damaged(err, "a node's entry");
        node->has_next = sqlite3_column_type(statement, 6) != SQLITE_NULL;
        if (node->has_next && (!store_column_bytes(statement, 6, node->next_to_witness, SEAL_KEY_SIZE) ||
                               !store_column_bytes(statement, 7, node->next_from_witness, SEAL_KEY_SIZE)))
            return store_damaged(err, "a node's entry");
        column_name(statement, 2, node->name);
        cluster->records.nodes[expected].promise_ms = (uint32_t)sqlite3_column_int64(statement, 5);
        expected++;
    }
    return expected == 2 ? 0 : store_damaged(err, "the list of nodes");
}

static int load_groups(struct store *store, struct store_cluster *cluster, struct err *err)
{
    cleanup_statement statement = store_prepare(store, "SELECT id, epoch, members, changed FROM groups WHERE cluster = ?");
    if (statement == NULL)
        return store_fail(store, err, "reading groups");
    store_bind_id(statement, 1, &cluster->id);
    int step;
    while ((step = sqlite3_step(statement)) == SQLITE_ROW) {
        struct id id;
        struct record_position position = {
            .epoch = (uint64_t)sqlite3_column_int64(statement, 1),
            .members = (uint8_t)sqlite3_column_int(statement, 2),
        };
        uint64_t changed = (uint64_t)sqlite3_column_int64(statement, 3);
        if (!store_column_id(statement, 0, &id) || position.members > RECORD_BOTH || changed > cluster->records.counter ||
            store_cluster_make_room(cluster) < 0 ||
            record_load_group(&cluster->records, &id, position, changed) < 0)
            return store_damaged(err, "a group's record");
    }
    return step == SQLITE_DONE ? 0 : store_fail(store, err, "reading groups");
}

static int load_cluster(struct store *store, sqlite3_stmt *row, uint64_t now_ns, struct store_cluster *cluster,
                        struct err *err)
{
    record_init(&cluster->records, NULL, 0, now_ns);
    if (!store_column_id(row, 0, &cluster->id) || !store_column_id(row, 2, &cluster->incarnation))
        return store_damaged(err, "a cluster's entry");
    column_name(row, 1, cluster->name);
    cluster->records.counter = (uint64_t)sqlite3_column_int64(row, 3);
    cluster->records.restored = sqlite3_column_int(row, 4) != 0;
    cluster->unconfirmed = sqlite3_column_int(row, 5) != 0;
    int error = load_nodes(store, cluster, err);
    return error < 0 ? error : load_groups(store, cluster, err);
}

int store_load(struct store *store, uint64_t now_ns, void (*found)(struct store_cluster *cluster, void *userdata),
               void *userdata, struct err *err)
{
    cleanup_statement statement =
        store_prepare(store, "SELECT id, name, incarnation, counter, restored, token IS NOT NULL FROM clusters");
    if (statement == NULL)
        return store_fail(store, err, "reading clusters");
    int step;
    while ((step = sqlite3_step(statement)) == SQLITE_ROW) {
        struct store_cluster *cluster = calloc(1, sizeof *cluster);
        if (cluster == NULL)
            return err_set(err, -ENOMEM, "no_memory", "witness store: out of memory");
        int error = load_cluster(store, statement, now_ns, cluster, err);
        if (error < 0) {
            store_cluster_free(cluster);
            return error;
        }
        found(cluster, userdata);
    }
    return step == SQLITE_DONE ? 0 : store_fail(store, err, "reading clusters");
}
