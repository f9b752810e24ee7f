/* A witness's server on loopback inside the test, and the two nodes of one cluster talking to it. The loop runs only while
 * a node waits for its answer, so that everything happens in the order of the test. */
#pragma once

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "witness/server.h"

#define LAB_TOKEN ((const uint8_t[16]){1, 2, 3})

struct lab_node {
    int fd;
    struct id boot, challenge, witness_boot;
    uint64_t sequence;
};
struct lab {
    char folder[64];
    sd_event *event;
    struct store *store;
    struct counters counters;
    struct server *server;
    uint16_t port;
    struct store_cluster cluster;
    struct lab_node nodes[2];
};

static inline void lab_must(int error, const struct err *err)
{
    if (error < 0)
        fail_msg("%s (%d)", err->text, error);
}

static inline uint16_t lab_free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    close(fd);
    return ntohs(address.sin_port);
}

static inline void lab_start(struct lab *lab)
{
    struct err err = {0};
    assert_true(sd_event_new(&lab->event) >= 0);
    lab_must(store_open(lab->folder, &lab->store, &err), &err);
    lab->port = lab_free_port();
    lab_must(server_new(lab->event, lab->store, &lab->counters, "127.0.0.1", lab->port, &lab->server, &err), &err);
}

static inline void lab_stop(struct lab *lab)
{
    server_free(lab->server);
    store_close(lab->store);
    lab->event = sd_event_unref(lab->event);
}

static inline void lab_add_token(struct lab *lab, const uint8_t token[static 16])
{
    int64_t now = (int64_t)time(NULL);
    assert_int_equal(store_add_token(lab->store, token, now, now + 3600, NULL), 0);
}

static inline struct store_cluster lab_cluster(uint8_t number)
{
    struct store_cluster cluster = {.id.bytes = {number, 0x55}, .incarnation.bytes = {99}};
    snprintf(cluster.name, sizeof cluster.name, "shop%u", number);
    for (unsigned i = 0; i < 2; i++) {
        cluster.nodes[i].id.bytes[0] = (uint8_t)(i + 1);
        snprintf(cluster.nodes[i].name, sizeof cluster.nodes[i].name, "%c", 'a' + (int)i);
        seal_random(cluster.nodes[i].to_witness, SEAL_KEY_SIZE);
        seal_random(cluster.nodes[i].from_witness, SEAL_KEY_SIZE);
    }
    return cluster;
}

static inline void lab_boot(struct lab_node *node)
{
    if (node->fd > 0)
        close(node->fd);
    *node = (struct lab_node){.fd = socket(AF_INET, SOCK_DGRAM, 0), .boot = id_random()};
}

static inline int lab_setup(void **state)
{
    struct lab *lab = calloc(1, sizeof *lab);
    struct err err = {0};
    *state = lab;
    snprintf(lab->folder, sizeof lab->folder, "/tmp/hci-witness-XXXXXX");
    if (seal_init() < 0 || mkdtemp(lab->folder) == NULL)
        return -1;
    lab_start(lab);
    lab->cluster = lab_cluster(7);
    lab_add_token(lab, LAB_TOKEN);
    lab_must(server_enrol(lab->server, &lab->cluster, LAB_TOKEN, &err), &err);
    for (unsigned i = 0; i < 2; i++)
        lab_boot(&lab->nodes[i]);
    return 0;
}

static inline void lab_remove_folder(const char *folder)
{
    char command[160];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    assert_int_equal(system(command), 0);
}

static inline int lab_teardown(void **state)
{
    struct lab *lab = *state;
    lab_stop(lab);
    for (unsigned i = 0; i < 2; i++)
        close(lab->nodes[i].fd);
    lab_remove_folder(lab->folder);
    free(lab);
    return 0;
}

static inline struct sockaddr_in lab_address(const struct lab *lab)
{
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(lab->port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static inline size_t lab_seal(const struct lab *lab, unsigned number, const struct wire_message *message,
                              uint8_t out[static SEAL_DATAGRAM_MAX])
{
    const struct store_node *keys = &lab->cluster.nodes[number];
    struct wire_header header = {.direction = WIRE_NODE_TO_WITNESS, .cluster = lab->cluster.id, .node = keys->id};
    ssize_t size = wire_seal(keys->to_witness, &header, message, out, SEAL_DATAGRAM_MAX);
    assert_true(size > 0);
    return (size_t)size;
}

static inline void lab_send_from(const struct lab *lab, int fd, const uint8_t *data, size_t size)
{
    struct sockaddr_in to = lab_address(lab);
    assert_int_equal(sendto(fd, data, size, 0, (struct sockaddr *)&to, sizeof to), size);
}

/* Only puts it into the witness's socket. */
static inline struct id lab_post(struct lab *lab, unsigned number, struct wire_message message)
{
    struct lab_node *node = &lab->nodes[number];
    uint8_t data[SEAL_DATAGRAM_MAX];
    message.request = (struct wire_request){.id = id_random(), .boot = node->boot, .answer = node->challenge,
                                            .sequence = ++node->sequence};
    message.witness_boot = node->witness_boot;
    lab_send_from(lab, node->fd, data, lab_seal(lab, number, &message, data));
    return message.request.id;
}

/* Everything that is in the witness's socket is handled. */
static inline void lab_run(struct lab *lab)
{
    while (sd_event_get_state(lab->event) == SD_EVENT_INITIAL && sd_event_run(lab->event, 0) > 0)
        ;
}

/* False: the witness said nothing. */
static inline bool lab_hear(struct lab *lab, unsigned number, struct wire_message *ret)
{
    struct lab_node *node = &lab->nodes[number];
    uint8_t data[SEAL_DATAGRAM_MAX];
    ssize_t size = recv(node->fd, data, sizeof data, MSG_DONTWAIT);
    if (size < 0)
        return false;
    assert_int_equal(wire_open(lab->cluster.nodes[number].from_witness, data, (size_t)size, ret), 0);
    node->witness_boot = ret->reply.boot;
    if (!id_is_null(&ret->reply.challenge))
        node->challenge = ret->reply.challenge;
    return true;
}

static inline bool lab_ask(struct lab *lab, unsigned number, struct wire_message message, struct wire_message *ret)
{
    struct id id = lab_post(lab, number, message);
    lab_run(lab);
    if (!lab_hear(lab, number, ret))
        return false;
    assert_true(id_equal(&ret->reply.echo, &id));
    return true;
}

static inline struct wire_message lab_lease(void)
{
    return (struct wire_message){.kind = WIRE_LEASE, .wants_lease = true, .lease_ms = 200, .promise_ms = 250};
}

static inline struct wire_message lab_cas(uint8_t group, uint64_t from, uint8_t members, uint8_t to_members)
{
    return (struct wire_message){.kind = WIRE_CAS, .group.bytes = {group}, .from_count = 1, .from = {{from, members}},
                                 .to = {from + 1, to_members}, .was_primary = true};
}

/* Answers the challenge: from here on the node counts. */
static inline void lab_join(struct lab *lab, unsigned number)
{
    struct wire_message reply;
    assert_true(lab_ask(lab, number, lab_lease(), &reply));
    assert_true(lab_ask(lab, number, lab_lease(), &reply));
}

static inline uint64_t lab_count(const struct lab *lab, enum counter counter)
{
    return count_get(&lab->counters, counter);
}
