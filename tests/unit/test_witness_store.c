/* The witness's store: what was acknowledged is there after a restart, however sudden. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "common/clock.h"
#include "witness/store.h"

struct folder {
    char path[64];
};

static int setup(void **state)
{
    static struct folder folder;
    snprintf(folder.path, sizeof folder.path, "/tmp/hci-store-XXXXXX");
    *state = &folder;
    return mkdtemp(folder.path) == NULL ? -1 : seal_init();
}

static int teardown(void **state)
{
    const struct folder *folder = *state;
    static const char *const names[] = {"witness.db", "witness.db-wal", "witness.db-shm"};
    for (unsigned i = 0; i < 3; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", folder->path, names[i]);
        unlink(path);
    }
    return rmdir(folder->path);
}

static struct store *open_store(void **state)
{
    const struct folder *folder = *state;
    struct store *store = NULL;
    struct err err = {0};
    if (store_open(folder->path, &store, &err) < 0)
        fail_msg("%s", err.text);
    return store;
}

static struct store_cluster make_cluster(uint8_t number)
{
    struct store_cluster cluster = {.id.bytes = {number}, .name = "shop", .incarnation.bytes = {99}};
    for (unsigned i = 0; i < 2; i++) {
        struct store_node *node = &cluster.nodes[i];
        node->id.bytes[0] = (uint8_t)(i + 1);
        snprintf(node->name, sizeof node->name, "%c", 'a' + (int)i);
        memset(node->to_witness, (int)i + 1, SEAL_KEY_SIZE);
        memset(node->from_witness, (int)i + 11, SEAL_KEY_SIZE);
    }
    return cluster;
}

static void add_cluster(struct store *store, uint8_t number)
{
    struct store_cluster cluster = make_cluster(number);
    assert_int_equal(store_begin(store, NULL), 0);
    assert_int_equal(store_add_cluster(store, &cluster, NULL), 0);
    assert_int_equal(store_commit(store, NULL), 0);
}

struct loaded {
    unsigned count;
    struct store_cluster *cluster;
};

static void on_loaded(struct store_cluster *cluster, void *userdata)
{
    struct loaded *loaded = userdata;
    store_cluster_free(loaded->cluster);
    loaded->cluster = cluster;
    loaded->count++;
}

static struct loaded load(struct store *store)
{
    struct loaded loaded = {0};
    assert_int_equal(store_load(store, NSEC_PER_SEC, on_loaded, &loaded, NULL), 0);
    return loaded;
}

static struct record_group group_at(uint8_t number, uint64_t epoch, uint8_t members, uint64_t changed)
{
    return (struct record_group){.id.bytes = {number}, .position = {epoch, members}, .changed = changed};
}

static void everything_is_there_after_reopening(void **state)
{
    struct store *store = open_store(state);
    struct id witness = store_witness_id(store), incarnation = {.bytes = {42}};
    struct store_cluster cluster = make_cluster(7);
    add_cluster(store, 7);
    struct record_group group = group_at(5, 3, 1, 9);
    assert_int_equal(store_begin(store, NULL), 0);
    assert_int_equal(store_put_group(store, &cluster.id, &group, 9, NULL, NULL), 0);
    assert_int_equal(store_put_promise(store, &cluster.id, 1, 2800, NULL), 0);
    assert_int_equal(store_put_restored(store, &cluster.id, &incarnation, NULL), 0);
    assert_int_equal(store_commit(store, NULL), 0);
    store_close(store);

    store = open_store(state);
    struct id again = store_witness_id(store);
    assert_true(id_equal(&witness, &again));
    struct loaded loaded = load(store);
    assert_int_equal(loaded.count, 1);
    assert_string_equal(loaded.cluster->name, "shop");
    assert_string_equal(loaded.cluster->nodes[1].name, "b");
    assert_memory_equal(loaded.cluster->nodes, cluster.nodes, sizeof cluster.nodes);
    assert_true(id_equal(&loaded.cluster->incarnation, &incarnation));
    assert_true(loaded.cluster->records.restored);
    assert_int_equal(loaded.cluster->records.counter, 9);
    assert_int_equal(loaded.cluster->records.nodes[1].promise_ms, 2800);
    const struct record_group *found = record_find(&loaded.cluster->records, &group.id);
    assert_non_null(found);
    assert_int_equal(found->position.epoch, 3);
    assert_int_equal(found->position.members, 1);
    assert_int_equal(found->changed, 9);
    store_cluster_free(loaded.cluster);
    store_close(store);
}

static void what_was_not_committed_is_not_there(void **state)
{
    struct store *store = open_store(state);
    struct store_cluster cluster = make_cluster(7);
    add_cluster(store, 7);
    struct record_group group = group_at(5, 3, 1, 9);
    store_begin(store, NULL);
    store_put_group(store, &cluster.id, &group, 9, NULL, NULL);
    store_rollback(store);
    struct loaded loaded = load(store);
    assert_int_equal(loaded.cluster->records.group_count, 0);
    assert_int_equal(loaded.cluster->records.counter, 0);
    store_cluster_free(loaded.cluster);
    store_close(store);
}

static void an_evicted_group_is_deleted(void **state)
{
    struct store *store = open_store(state);
    struct store_cluster cluster = make_cluster(7);
    add_cluster(store, 7);
    struct record_group first = group_at(5, 3, 0, 1), second = group_at(6, 1, 3, 2);
    store_begin(store, NULL);
    store_put_group(store, &cluster.id, &first, 1, NULL, NULL);
    store_put_group(store, &cluster.id, &second, 2, &first.id, NULL);
    store_commit(store, NULL);
    struct loaded loaded = load(store);
    assert_int_equal(loaded.cluster->records.group_count, 1);
    assert_null(record_find(&loaded.cluster->records, &first.id));
    store_cluster_free(loaded.cluster);
    store_close(store);
}

static void a_cluster_is_enrolled_once(void **state)
{
    struct store *store = open_store(state);
    struct store_cluster cluster = make_cluster(7);
    struct err err = {0};
    add_cluster(store, 7);
    add_cluster(store, 8);
    store_begin(store, NULL);
    assert_int_equal(store_add_cluster(store, &cluster, &err), -EEXIST);
    assert_string_equal(err.code, "exists");
    store_rollback(store);
    struct loaded loaded = load(store);
    assert_int_equal(loaded.count, 2);
    store_cluster_free(loaded.cluster);
    store_close(store);
}

static void a_token_is_good_once_and_for_its_hour(void **state)
{
    struct store *store = open_store(state);
    uint8_t first[16] = {1}, second[16] = {2};
    int64_t expires = 0;
    assert_int_equal(store_add_token(store, first, 1000, 4600, NULL), 0);
    assert_int_equal(store_add_token(store, second, 1000, 4600, NULL), 0);
    assert_int_equal(store_take_token(store, first, 4599, &expires, NULL), 0);
    assert_int_equal(store_take_token(store, first, 4599, &expires, NULL), -ENOENT);
    assert_int_equal(store_take_token(store, second, 4600, &expires, NULL), -ENOENT);
    store_close(store);
}

static void a_foreign_version_is_refused(void **state)
{
    const struct folder *folder = *state;
    char command[256];
    store_close(open_store(state));
    snprintf(command, sizeof command, "printf '\\0\\0\\0\\7' | dd of=%s/witness.db bs=1 seek=60 conv=notrunc status=none",
             folder->path); /* user_version in SQLite's header */
    assert_int_equal(system(command), 0);
    struct store *store;
    struct err err = {0};
    assert_int_equal(store_open(folder->path, &store, &err), -EPROTONOSUPPORT);
    assert_string_equal(err.code, "version");
}

static void with_sqlite(void **state, const char *sql)
{
    const struct folder *folder = *state;
    char path[128];
    sqlite3 *database = NULL;
    snprintf(path, sizeof path, "%s/witness.db", folder->path);
    assert_int_equal(sqlite3_open(path, &database), SQLITE_OK);
    if (sqlite3_exec(database, sql, NULL, NULL, NULL) != SQLITE_OK)
        fail_msg("%s", sqlite3_errmsg(database));
    sqlite3_close(database);
}

static void fill(void **state)
{
    struct store *store = open_store(state);
    struct store_cluster cluster = make_cluster(7);
    struct record_group group = group_at(5, 3, 1, 9);
    add_cluster(store, 7);
    store_begin(store, NULL);
    store_put_group(store, &cluster.id, &group, 9, NULL, NULL);
    store_put_promise(store, &cluster.id, 0, 2800, NULL);
    assert_int_equal(store_commit(store, NULL), 0);
    store_close(store);
}

/* One value that is not what was written is enough: a wrong epoch, member or mark would be a wrong grant. */
static void a_changed_value_is_damage(void **state)
{
    static const char *const changes[][2] = {
        {"UPDATE groups SET epoch = epoch + 1", "UPDATE groups SET epoch = epoch - 1"},
        {"UPDATE groups SET members = 2", "UPDATE groups SET members = 1"},
        {"UPDATE groups SET changed = 8", "UPDATE groups SET changed = 9"},
        {"UPDATE clusters SET counter = 10", "UPDATE clusters SET counter = 9"},
        {"UPDATE clusters SET restored = 1", "UPDATE clusters SET restored = 0"},
        {"UPDATE nodes SET promise_ms = 0", "UPDATE nodes SET promise_ms = 2800 WHERE number = 0"},
        {"UPDATE groups SET sum = NULL", NULL},
    };
    fill(state);
    for (unsigned i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        const struct folder *folder = *state;
        struct store *store = NULL;
        struct err err = {0};
        with_sqlite(state, changes[i][0]);
        assert_int_equal(store_open(folder->path, &store, &err), -EIO);
        assert_string_equal(err.code, "damaged");
        if (changes[i][1] == NULL)
            return;
        with_sqlite(state, changes[i][1]);
        store_close(open_store(state));
    }
}

static void a_rotten_page_is_damage(void **state)
{
    const struct folder *folder = *state;
    char path[128];
    struct store *store = NULL;
    struct err err = {0};
    fill(state);
    snprintf(path, sizeof path, "%s/witness.db", folder->path);
    FILE *file = fopen(path, "r+");
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    for (long page = 4096; page < size; page += 4096) {
        fseek(file, page, SEEK_SET);
        fwrite("rot rot rot", 1, 11, file);
    }
    fclose(file);
    assert_true(store_open(folder->path, &store, &err) < 0);
    assert_string_equal(err.code, "damaged");
}

static void a_store_of_version_1_is_brought_up_to_date(void **state)
{
    with_sqlite(state,
        "PRAGMA journal_mode=WAL; CREATE TABLE witness (id BLOB NOT NULL);"
        "CREATE TABLE clusters (id BLOB PRIMARY KEY, name TEXT NOT NULL, incarnation BLOB NOT NULL,"
        " counter INTEGER NOT NULL DEFAULT 0, restored INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;"
        "CREATE TABLE nodes (cluster BLOB NOT NULL, number INTEGER NOT NULL, id BLOB NOT NULL, name TEXT NOT NULL,"
        " to_witness BLOB NOT NULL, from_witness BLOB NOT NULL, promise_ms INTEGER NOT NULL DEFAULT 0,"
        " PRIMARY KEY (cluster, number)) WITHOUT ROWID;"
        "CREATE TABLE groups (cluster BLOB NOT NULL, id BLOB NOT NULL, epoch INTEGER NOT NULL, members INTEGER NOT NULL,"
        " changed INTEGER NOT NULL, PRIMARY KEY (cluster, id)) WITHOUT ROWID;"
        "CREATE TABLE tokens (hash BLOB PRIMARY KEY, expires INTEGER NOT NULL) WITHOUT ROWID;"
        "INSERT INTO witness VALUES (randomblob(16));"
        "INSERT INTO clusters (id, name, incarnation, counter) VALUES (x'07000000000000000000000000000000', 'shop',"
        " randomblob(16), 4);"
        "INSERT INTO nodes VALUES (x'07000000000000000000000000000000', 0, randomblob(16), 'a', randomblob(32),"
        " randomblob(32), 2800), (x'07000000000000000000000000000000', 1, randomblob(16), 'b', randomblob(32),"
        " randomblob(32), 0);"
        "INSERT INTO groups VALUES (x'07000000000000000000000000000000', x'05000000000000000000000000000000', 6, 2, 4);"
        "PRAGMA user_version = 1");
    for (unsigned i = 0; i < 2; i++) { /* and it stays so */
        struct store *store = open_store(state);
        struct loaded loaded = load(store);
        assert_int_equal(loaded.count, 1);
        assert_int_equal(loaded.cluster->records.counter, 4);
        assert_int_equal(loaded.cluster->records.groups[0].position.epoch, 6);
        assert_int_equal(loaded.cluster->records.nodes[0].promise_ms, 2800);
        assert_false(loaded.cluster->unconfirmed);
        store_cluster_free(loaded.cluster);
        store_close(store);
    }
}

/* In the child: raises the group's epoch again and again through the judge, telling each one only after its commit. */
static void stream(struct store *store, const struct id *cluster, struct record_cluster *records, int out)
{
    for (uint64_t epoch = 1;; epoch++) {
        struct record_event event = {
            .kind = RECORD_EV_CAS, .now_ns = 10 * NSEC_PER_SEC, .node = 0, .group.bytes = {5}, .from_count = 1,
            .from = {{epoch - 1, epoch == 1 ? 0 : 1}}, .to = {epoch, 1}, .was_primary = true,
        };
        struct record_answer answer;
        record_step(records, &event, &answer); /* one group: the room made before the first suffices */
        if (answer.verdict != RECORD_OK || store_begin(store, NULL) < 0 ||
            store_put_group(store, cluster, &records->groups[answer.group_index], records->counter, NULL, NULL) < 0 ||
            store_commit(store, NULL) < 0 || write(out, &epoch, sizeof epoch) != sizeof epoch)
            _exit(1);
    }
}

static uint64_t kill_in_the_stream(void **state, unsigned delay_us)
{
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    pid_t child = fork();
    if (child == 0) {
        close(pipes[0]);
        struct store *store = open_store(state);
        struct loaded loaded = load(store);
        loaded.cluster->records.group_count = 0; /* each round starts its own history */
        loaded.cluster->records.counter = 0;
        store_cluster_make_room(loaded.cluster);
        stream(store, &loaded.cluster->id, &loaded.cluster->records, pipes[1]);
    }
    close(pipes[1]);
    uint64_t epoch, acknowledged = 0;
    assert_int_equal(read(pipes[0], &epoch, sizeof epoch), sizeof epoch);
    acknowledged = epoch;
    usleep(delay_us);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    while (read(pipes[0], &epoch, sizeof epoch) == sizeof epoch)
        acknowledged = epoch;
    close(pipes[0]);
    return acknowledged;
}

static void every_acknowledged_change_survives_a_kill(void **state)
{
    struct store *store = open_store(state);
    add_cluster(store, 7);
    store_close(store);
    for (unsigned round = 0; round < 8; round++) {
        uint64_t acknowledged = kill_in_the_stream(state, 5000 + 7919 * round);
        store = open_store(state);
        struct loaded loaded = load(store);
        const struct record_group *group = record_find(&loaded.cluster->records, &(struct id){.bytes = {5}});
        assert_non_null(group);
        /* At most the one that was committed but not told is more. */
        assert_true(group->position.epoch == acknowledged || group->position.epoch == acknowledged + 1);
        assert_int_equal(loaded.cluster->records.counter, group->changed);
        store_cluster_free(loaded.cluster);
        store_close(store);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(everything_is_there_after_reopening, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_not_committed_is_not_there, setup, teardown),
        cmocka_unit_test_setup_teardown(an_evicted_group_is_deleted, setup, teardown),
        cmocka_unit_test_setup_teardown(a_cluster_is_enrolled_once, setup, teardown),
        cmocka_unit_test_setup_teardown(a_token_is_good_once_and_for_its_hour, setup, teardown),
        cmocka_unit_test_setup_teardown(a_foreign_version_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_changed_value_is_damage, setup, teardown),
        cmocka_unit_test_setup_teardown(a_rotten_page_is_damage, setup, teardown),
        cmocka_unit_test_setup_teardown(a_store_of_version_1_is_brought_up_to_date, setup, teardown),
        cmocka_unit_test_setup_teardown(every_acknowledged_change_survives_a_kill, setup, teardown),
    };
    return cmocka_run_group_tests_name("witness_store", tests, NULL, NULL);
}
