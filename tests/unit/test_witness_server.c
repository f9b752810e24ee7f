/* The witness's server: what it grants, and what strangers, full disks and old stores cannot make it do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>

#include <cmocka.h>

#include "witness/alerts.h"
#include "witness/watch.h"
#include "witness_lab.h"

/* Stands before the C library's for everything in this process, SQLite included. */
static int disk_error;

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset);
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
    if (disk_error != 0) {
        errno = disk_error;
        return -1;
    }
    return syscall(SYS_pwrite64, fd, data, size, offset);
}

static void must_grant(struct lab *lab, unsigned node, struct wire_message cas)
{
    struct wire_message reply;
    assert_true(lab_ask(lab, node, cas, &reply));
    while (reply.verdict == WIRE_WAIT) { /* as long as the protocol says, as a node does */
        usleep(reply.wait_ms * 1000);
        assert_true(lab_ask(lab, node, cas, &reply));
    }
    assert_int_equal(reply.kind, WIRE_VERDICT);
    assert_int_equal(reply.verdict, WIRE_OK);
}

static void must_acknowledge(struct lab *lab, unsigned node)
{
    struct wire_message reply;
    assert_true(lab_ask(lab, node, lab_lease(), &reply));
    assert_true(reply.acknowledged);
}

static void a_node_that_answered_the_challenge_is_served(void **state)
{
    struct lab *lab = *state;
    struct wire_message reply;
    assert_true(lab_ask(lab, 0, lab_lease(), &reply));
    assert_false(reply.acknowledged);
    assert_false(id_is_null(&reply.reply.challenge));
    must_acknowledge(lab, 0);
    must_grant(lab, 0, lab_cas(1, 0, 0, 3));
    lab_stop(lab);
    lab_start(lab);
    lab_join(lab, 1);
    assert_true(lab_ask(lab, 1, (struct wire_message){.kind = WIRE_RECORDS}, &reply));
    assert_int_equal(reply.record_count, 1);
    assert_int_equal(reply.records[0].epoch, 1);
}

static void a_full_disk_stops_records_and_not_leases(void **state)
{
    struct lab *lab = *state;
    struct wire_message reply;
    lab_join(lab, 0);
    lab_join(lab, 1);
    must_grant(lab, 0, lab_cas(1, 0, 0, 1));
    disk_error = ENOSPC;
    assert_false(lab_ask(lab, 0, lab_cas(1, 1, 1, 3), &reply));
    assert_true(server_is_full(lab->server));
    must_acknowledge(lab, 0);
    must_acknowledge(lab, 1);
    /* What cannot be durable is not in memory either, and a change among leases does not cost these. */
    lab_post(lab, 0, lab_cas(1, 1, 1, 3));
    must_acknowledge(lab, 1);
    assert_false(lab_hear(lab, 0, &reply));
    assert_true(lab_ask(lab, 0, (struct wire_message){.kind = WIRE_RECORDS}, &reply));
    assert_int_equal(reply.counter, 1);
    assert_int_equal(reply.records[0].epoch, 1);
    assert_int_equal(lab_count(lab, COUNT_UNSTORED), 2);

    disk_error = 0;
    while (server_is_full(lab->server))
        assert_true(sd_event_run(lab->event, UINT64_MAX) > 0);
    must_grant(lab, 0, lab_cas(1, 1, 1, 3));
    lab_stop(lab);
    lab_start(lab);
    lab_join(lab, 0);
    assert_true(lab_ask(lab, 0, (struct wire_message){.kind = WIRE_RECORDS}, &reply));
    assert_int_equal(reply.counter, 2);
    assert_int_equal(reply.records[0].epoch, 2);
}

static void a_batch_that_fails_leaves_nothing(void **state)
{
    struct lab *lab = *state;
    struct wire_message reply;
    lab_join(lab, 0);
    disk_error = ENOSPC;
    for (uint8_t group = 1; group <= 5; group++)
        lab_post(lab, 0, lab_cas(group, 0, 0, 3));
    lab_run(lab);
    disk_error = 0;
    assert_false(lab_hear(lab, 0, &reply));
    assert_int_equal(server_table(lab->server)->count, 1);
    assert_int_equal(served_find(server_table(lab->server), &lab->cluster.id)->cluster->records.group_count, 0);
    assert_int_equal(served_find(server_table(lab->server), &lab->cluster.id)->groups, 0);
}

static void a_disk_that_fails_ends_the_daemon_unanswered(void **state)
{
    struct lab *lab = *state;
    struct wire_message reply;
    int code = 0;
    lab_join(lab, 0);
    disk_error = EIO;
    assert_false(lab_ask(lab, 0, lab_cas(1, 0, 0, 3), &reply));
    disk_error = 0;
    assert_true(sd_event_get_exit_code(lab->event, &code) >= 0);
    assert_int_equal(code, EXIT_FAILURE);
}

static void strangers_cost_little_and_delay_nobody(void **state)
{
    struct lab *lab = *state;
    uint8_t data[SEAL_DATAGRAM_MAX];
    struct wire_message message = lab_lease();
    message.request = (struct wire_request){.id = id_random(), .boot = id_random(), .sequence = 1};
    size_t size = lab_seal(lab, 0, &message, data);
    int stranger = socket(AF_INET, SOCK_DGRAM, 0);
    lab_join(lab, 0);
    data[size - 1] ^= 1; /* forged */
    for (unsigned i = 0; i < 1000; i++) {
        lab_send_from(lab, stranger, data, size);
        if (i % 100 == 99)
            lab_run(lab);
    }
    assert_true(lab_count(lab, COUNT_FORGED) >= SERVER_STRANGER_BURST - 4);
    assert_true(lab_count(lab, COUNT_STRANGER) >= 500);
    assert_int_equal(lab_count(lab, COUNT_FORGED) + lab_count(lab, COUNT_STRANGER), 1000);
    must_acknowledge(lab, 0);
    data[8] ^= 1; /* another cluster: not even looked at */
    lab_send_from(lab, stranger, data, size);
    lab_run(lab);
    assert_int_equal(lab_count(lab, COUNT_FOREIGN), 1);
    assert_int_equal(recv(stranger, data, sizeof data, MSG_DONTWAIT), -1);
    close(stranger);
}

static void a_node_behind_another_address_is_known_again(void **state)
{
    struct lab *lab = *state;
    struct wire_message reply;
    lab_join(lab, 0);
    int moved = socket(AF_INET, SOCK_DGRAM, 0);
    close(lab->nodes[0].fd);
    lab->nodes[0].fd = moved; /* another port, as after a new mapping of a router */
    for (unsigned i = 0; i < 2 * SERVER_STRANGER_BURST; i++)
        assert_true(lab_ask(lab, 0, lab_lease(), &reply));
    assert_int_equal(lab_count(lab, COUNT_STRANGER), 0);
}

static void a_node_has_a_quota(void **state)
{
    struct lab *lab = *state;
    lab_join(lab, 0);
    lab_join(lab, 1);
    uint64_t start_ns = clock_boottime_ns();
    for (unsigned i = 0; i < 2000; i++) {
        lab_post(lab, 0, (struct wire_message){.kind = WIRE_RECORDS});
        if (i % 50 == 49)
            lab_run(lab);
    }
    uint64_t most = SERVER_NODE_BURST + SERVER_NODE_RATE * (1 + (clock_boottime_ns() - start_ns) / NSEC_PER_SEC);
    assert_true(lab_count(lab, COUNT_RECORDS) <= most);
    assert_true(lab_count(lab, COUNT_RECORDS) >= SERVER_NODE_BURST - 10);
    assert_int_equal(lab_count(lab, COUNT_RECORDS) + lab_count(lab, COUNT_QUOTA), 2000);
    must_acknowledge(lab, 1);
}

static void a_repeated_datagram_is_not_answered(void **state)
{
    struct lab *lab = *state;
    uint8_t data[SEAL_DATAGRAM_MAX];
    struct wire_message message = lab_cas(1, 0, 0, 3), reply;
    lab_join(lab, 0);
    message.witness_boot = lab->nodes[0].witness_boot;
    message.request = (struct wire_request){.id = id_random(), .boot = lab->nodes[0].boot, .sequence = 50};
    size_t size = lab_seal(lab, 0, &message, data);
    for (unsigned i = 0; i < 3; i++)
        lab_send_from(lab, lab->nodes[0].fd, data, size);
    lab_run(lab);
    assert_true(lab_hear(lab, 0, &reply));
    assert_int_equal(reply.verdict, WIRE_OK);
    assert_false(lab_hear(lab, 0, &reply));
    assert_int_equal(lab_count(lab, COUNT_REPEATED), 2);
    for (size_t cut = 0; cut < size; cut++)
        lab_send_from(lab, lab->nodes[0].fd, data, cut);
    lab_run(lab);
    assert_false(lab_hear(lab, 0, &reply));
}

static void a_token_may_ask_again_until_a_node_was_heard(void **state)
{
    struct lab *lab = *state;
    struct err err = {0};
    struct store_cluster again = lab_cluster(7), other = lab_cluster(8);
    assert_int_equal(server_enrol(lab->server, &other, LAB_TOKEN, &err), -ENOENT); /* it admitted another one */
    lab_stop(lab);
    lab_start(lab);
    lab_must(server_enrol(lab->server, &again, LAB_TOKEN, &err), &err);
    assert_memory_equal(again.nodes, lab->cluster.nodes, sizeof again.nodes);
    lab_join(lab, 0);
    again = lab_cluster(7);
    assert_true(server_enrol(lab->server, &again, LAB_TOKEN, &err) < 0);
    assert_memory_not_equal(again.nodes, lab->cluster.nodes, sizeof again.nodes);
    lab_stop(lab);
    lab_start(lab);
    assert_true(server_enrol(lab->server, &again, LAB_TOKEN, &err) < 0);
    assert_string_equal(err.code, "token");
    assert_memory_not_equal(again.nodes, lab->cluster.nodes, sizeof again.nodes);
}

static void a_restored_store_grants_nothing(void **state)
{
    struct lab *lab = *state;
    struct wire_message reply;
    struct err err = {0};
    char copy[80], folder[80];
    int step;
    lab_join(lab, 0);
    must_grant(lab, 0, lab_cas(1, 0, 0, 3));
    snprintf(copy, sizeof copy, "%s/copy.db", lab->folder);
    snprintf(folder, sizeof folder, "%s-new", lab->folder);
    lab_must(store_backup_begin(lab->store, copy, &err), &err);
    must_grant(lab, 0, lab_cas(2, 0, 0, 3)); /* meanwhile */
    while ((step = store_backup_step(lab->store, &err)) > 0)
        must_acknowledge(lab, 0);
    lab_must(step, &err);
    must_grant(lab, 0, lab_cas(1, 1, 3, 1)); /* afterwards: B is out, and only A knows */
    assert_int_equal(store_restore(copy, lab->folder, &err), -EEXIST);
    lab_must(store_restore(copy, folder, &err), &err);
    lab_stop(lab);
    lab_remove_folder(lab->folder);
    strcpy(lab->folder, folder);
    lab_start(lab);

    lab_boot(&lab->nodes[1]);
    assert_true(lab_ask(lab, 1, lab_lease(), &reply));
    assert_true(lab_ask(lab, 1, lab_lease(), &reply));
    assert_true(reply.restored);
    assert_false(reply.acknowledged);
    assert_false(id_equal(&reply.incarnation, &lab->cluster.incarnation));
    assert_int_equal(reply.counter, 2);
    assert_true(lab_ask(lab, 1, lab_cas(1, 1, 3, 2), &reply));
    assert_int_equal(reply.verdict, WIRE_REFUSED);
    assert_int_equal(reply.reason, WIRE_REASON_RESTORED);
}

static void a_forgotten_cluster_is_enrolled_anew(void **state)
{
    struct lab *lab = *state;
    struct wire_message reply;
    struct err err = {0};
    struct store_cluster others[3];
    for (uint8_t i = 0; i < 3; i++) { /* ids that fall into neighbouring slots */
        uint8_t token[16] = {9, i};
        others[i] = lab_cluster(7);
        others[i].id.bytes[4] = (uint8_t)(i + 1);
        lab_add_token(lab, token);
        lab_must(server_enrol(lab->server, &others[i], token, &err), &err);
    }
    lab_join(lab, 0);
    assert_int_equal(server_forget(lab->server, "nobody", &err), -ENOENT);
    assert_int_equal(server_forget(lab->server, "shop7", &err), -EEXIST); /* four have this name */
    char id[ID_TEXT_SIZE];
    lab_must(server_forget(lab->server, id_format(&lab->cluster.id, id), &err), &err);
    assert_false(lab_ask(lab, 0, lab_lease(), &reply));
    for (unsigned i = 0; i < 3; i++)
        assert_non_null(served_find(server_table(lab->server), &others[i].id));
    lab_stop(lab);
    lab_start(lab);
    assert_int_equal(server_table(lab->server)->count, 3);
    lab_add_token(lab, LAB_TOKEN);
    lab_must(server_enrol(lab->server, &lab->cluster, LAB_TOKEN, &err), &err);
    lab_join(lab, 0);
    must_grant(lab, 0, lab_cas(1, 0, 0, 3));
}

static void run_until_counted(struct lab *lab, enum counter counter, uint64_t wanted)
{
    while (lab_count(lab, counter) != wanted)
        assert_true(sd_event_run(lab->event, UINT64_MAX) > 0);
}

static void a_full_disk_is_told_and_its_end(void **state)
{
    struct lab *lab = *state;
    struct config config;
    struct alerts *alerts = NULL;
    struct watch *watch = NULL;
    struct wire_message reply;
    struct err err = {0};
    config_default(&config);
    lab_must(alerts_new(lab->event, &config, &lab->counters, &alerts, &err), &err);
    lab_must(watch_new(lab->event, lab->server, lab->store, &config, alerts, &lab->counters, &watch, &err), &err);
    lab_join(lab, 0);
    run_until_counted(lab, COUNT_NODES_HEARD, 1); /* a whole sweep */
    assert_int_equal(lab_count(lab, COUNT_ALERTS), 0);
    disk_error = ENOSPC;
    assert_false(lab_ask(lab, 0, lab_cas(1, 0, 0, 3), &reply));
    run_until_counted(lab, COUNT_ALERTS_ACTIVE, 1);
    assert_int_equal(lab_count(lab, COUNT_ALERTS), 1);
    assert_int_equal(lab_count(lab, COUNT_STORE_FULL), 1);
    disk_error = 0;
    run_until_counted(lab, COUNT_ALERTS_ENDED, 1);
    assert_int_equal(lab_count(lab, COUNT_ALERTS), 1);
    assert_int_equal(lab_count(lab, COUNT_STORE_FULL), 0);
    watch_free(watch);
    alerts_free(alerts);
}

/* Every key works until its successor was used, across restarts; then it is worth nothing. */
static void keys_change_without_a_gap(void **state)
{
    struct lab *lab = *state;
    struct wire_message reply;
    struct err err = {0};
    const uint8_t token[16] = {4};
    struct store_cluster fresh = {.id = lab->cluster.id, .nodes = {{.id = lab->cluster.nodes[0].id, .name = "a"}}};
    struct store_cluster stranger = fresh;
    lab_join(lab, 0);
    lab_join(lab, 1);
    lab_add_token(lab, token);
    seal_random(fresh.nodes[0].to_witness, SEAL_KEY_SIZE);
    seal_random(fresh.nodes[0].from_witness, SEAL_KEY_SIZE);
    stranger.nodes[0].id.bytes[0] = 77;
    assert_int_equal(server_rekey(lab->server, &stranger, token, &err), -ENOENT);
    lab_must(server_rekey(lab->server, &fresh, token, &err), &err);
    assert_int_equal(server_rekey(lab->server, &fresh, token, &err), -ENOENT);
    must_acknowledge(lab, 0);
    lab_stop(lab);
    lab_start(lab);
    lab_join(lab, 0);
    const struct store_node old = lab->cluster.nodes[0];
    memcpy(lab->cluster.nodes[0].to_witness, fresh.nodes[0].to_witness, SEAL_KEY_SIZE);
    memcpy(lab->cluster.nodes[0].from_witness, fresh.nodes[0].from_witness, SEAL_KEY_SIZE);
    lab_boot(&lab->nodes[0]); /* hci-quorumd starts with them: a challenge does not count as their use */
    assert_true(lab_ask(lab, 0, lab_lease(), &reply));
    assert_true(served_find(server_table(lab->server), &lab->cluster.id)->cluster->nodes[0].has_next);
    must_acknowledge(lab, 0);
    assert_false(served_find(server_table(lab->server), &lab->cluster.id)->cluster->nodes[0].has_next);
    must_acknowledge(lab, 0);
    lab_stop(lab);
    lab_start(lab);
    lab_join(lab, 0);
    lab_join(lab, 1);
    uint64_t forged = lab_count(lab, COUNT_FORGED);
    lab->cluster.nodes[0] = old;
    assert_false(lab_ask(lab, 0, lab_lease(), &reply));
    assert_int_equal(lab_count(lab, COUNT_FORGED), forged + 1);
}

static int teardown(void **state)
{
    disk_error = 0;
    return lab_teardown(state);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, lab_setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_node_that_answered_the_challenge_is_served),
        TEST(a_full_disk_stops_records_and_not_leases),
        TEST(a_batch_that_fails_leaves_nothing),
        TEST(a_full_disk_is_told_and_its_end),
        TEST(a_disk_that_fails_ends_the_daemon_unanswered),
        TEST(strangers_cost_little_and_delay_nobody),
        TEST(a_node_behind_another_address_is_known_again),
        TEST(a_node_has_a_quota),
        TEST(a_repeated_datagram_is_not_answered),
        TEST(a_token_may_ask_again_until_a_node_was_heard),
        TEST(a_restored_store_grants_nothing),
        TEST(a_forgotten_cluster_is_enrolled_anew),
        TEST(keys_change_without_a_gap),
    };
    return cmocka_run_group_tests_name("witness_server", tests, NULL, NULL);
}
