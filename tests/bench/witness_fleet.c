/* The nodes that witness_load plays: they answer challenges, ask for leases and change records as hci-quorumd does. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/check.h"
#include "common/clock.h"
#include "tests/bench/witness_load.h"
#include "witness/store.h"

#define TURN_MAX 16u /* sent before what has arrived is looked at, so that the clock of an answer is right */

static void derive(unsigned cluster, unsigned node, uint8_t what, uint8_t ret[static 16])
{
    uint32_t input[3] = {cluster, node, what};
    seal_hash128(input, sizeof input, ret);
}

struct id fleet_cluster_id(unsigned cluster)
{
    struct id id;
    derive(cluster, 0, 1, id.bytes);
    return id;
}

struct id fleet_node_id(unsigned cluster, unsigned node)
{
    struct id id;
    derive(cluster, 0, 2, id.bytes);
    id.bytes[0] = (uint8_t)node + 1; /* in order */
    return id;
}

static struct id group_id(unsigned cluster, unsigned group)
{
    struct id id;
    derive(cluster, group, 3, id.bytes);
    return id;
}

void fleet_key(unsigned cluster, unsigned node, bool to_witness, uint8_t ret[static SEAL_KEY_SIZE])
{
    derive(cluster, node, to_witness ? 4 : 5, ret);
    derive(cluster, node, to_witness ? 6 : 7, ret + 16);
}

int fleet_make_store(const char *folder, unsigned clusters)
{
    struct store *store = NULL;
    struct err err = {0};
    int error = store_open(folder, &store, &err);
    if (error == 0)
        error = store_begin(store, &err);
    for (unsigned i = 0; i < clusters && error == 0; i++) {
        struct store_cluster cluster = {.id = fleet_cluster_id(i), .incarnation = id_random()};
        snprintf(cluster.name, sizeof cluster.name, "site%05u", i);
        for (unsigned node = 0; node < 2; node++) {
            cluster.nodes[node].id = fleet_node_id(i, node);
            snprintf(cluster.nodes[node].name, sizeof cluster.nodes[node].name, "%c", 'a' + (int)node);
            fleet_key(i, node, true, cluster.nodes[node].to_witness);
            fleet_key(i, node, false, cluster.nodes[node].from_witness);
        }
        error = store_add_cluster(store, &cluster, &err);
    }
    if (error == 0)
        error = store_commit(store, &err);
    if (error < 0)
        fprintf(stderr, "witness_load: %s\n", err.text);
    store_close(store);
    return error;
}

/* Cluster numbers by the hash of their id; 0: none. */
static unsigned *make_indices(unsigned clusters)
{
    unsigned *indices = calloc(4 * (size_t)clusters, sizeof *indices);
    check(indices != NULL);
    for (unsigned i = 0; i < clusters; i++) {
        struct id id = fleet_cluster_id(i);
        uint32_t hash;
        memcpy(&hash, id.bytes, sizeof hash);
        unsigned at = hash % (4 * clusters);
        while (indices[at] != 0)
            at = (at + 1) % (4 * clusters);
        indices[at] = i + 1;
    }
    return indices;
}

int fleet_open(struct fleet *fleet, unsigned clusters, const struct sockaddr_in *witness)
{
    *fleet = (struct fleet){.clusters = clusters, .witness = *witness};
    fleet->nodes = calloc(2 * (size_t)clusters, sizeof *fleet->nodes);
    fleet->epochs = calloc(FLEET_GROUPS * (size_t)clusters, sizeof *fleet->epochs);
    if (fleet->nodes == NULL || fleet->epochs == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < FLEET_SOCKETS; i++) {
        int size = 8 << 20;
        fleet->sockets[i] = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fleet->sockets[i] < 0 ||
            connect(fleet->sockets[i], (const struct sockaddr *)witness, sizeof *witness) < 0)
            return -errno;
        if (setsockopt(fleet->sockets[i], SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) < 0)
            setsockopt(fleet->sockets[i], SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    }
    fleet->indices = make_indices(clusters);
    uint64_t now_ns = clock_boottime_ns();
    for (unsigned i = 0; i < 2 * clusters; i++) {
        struct fleet_node *node = &fleet->nodes[i];
        fleet_key(i / 2, i % 2, true, node->to_witness);
        fleet_key(i / 2, i % 2, false, node->from_witness);
        node->header = (struct wire_header){.direction = WIRE_NODE_TO_WITNESS, .cluster = fleet_cluster_id(i / 2),
                                            .node = fleet_node_id(i / 2, i % 2)};
        node->boot = id_random();
        fleet->nodes[i].beat_due_ns = now_ns + FLEET_BEAT_NS * i / (2 * clusters);
    }
    return 0;
}

static void post(struct fleet *fleet, unsigned index, struct wire_message *message)
{
    struct fleet_node *node = &fleet->nodes[index];
    uint8_t data[SEAL_DATAGRAM_MAX];
    message->request = (struct wire_request){.id = id_random(), .boot = node->boot, .answer = node->challenge,
                                             .sequence = ++node->sequence};
    ssize_t size = wire_seal(node->to_witness, &node->header, message, data, sizeof data);
    check(size > 0);
    /* A full socket is a lost datagram: it is sent again when its time comes. */
    ssize_t sent = send(fleet->sockets[index % FLEET_SOCKETS], data, (size_t)size, 0);
    (void)sent;
}

static void beat(struct fleet *fleet, unsigned index, uint64_t now_ns)
{
    struct fleet_node *node = &fleet->nodes[index];
    struct wire_message message = {.kind = WIRE_LEASE, .wants_lease = true, .lease_ms = FLEET_LEASE_MS,
                                   .promise_ms = FLEET_PROMISE_MS, .claim_count = FLEET_GROUPS / 2};
    for (unsigned i = 0; i < FLEET_GROUPS / 2; i++) /* each node is primary of half the groups */
        message.claims[i] = group_id(index / 2, i + index % 2 * FLEET_GROUPS / 2);
    if (node->beat_sent_ns != 0 && fleet->measuring)
        fleet->beats_lost++;
    post(fleet, index, &message);
    node->beat_id = message.request.id;
    node->beat_sent_ns = now_ns;
    node->beat_due_ns += FLEET_BEAT_NS;
}

static void send_change(struct fleet *fleet, unsigned index, unsigned group, uint64_t now_ns)
{
    struct fleet_change *change = &fleet->nodes[index].changes[group];
    uint64_t epoch = fleet->epochs[index / 2 * FLEET_GROUPS + group];
    struct wire_message message = {
        .kind = WIRE_CAS, .group = group_id(index / 2, group), .witness_boot = fleet->witness_boot, .from_count = 1,
        .from = {{epoch, epoch == 0 ? 0 : 3}}, .to = {epoch + 1, epoch == 0 ? 3 : 1}, .was_primary = true,
    };
    post(fleet, index, &message);
    change->id = message.request.id;
    if (change->first_ns == 0)
        change->first_ns = now_ns;
    change->due_ns = now_ns + FLEET_RETRY_NS;
}

void fleet_propose(struct fleet *fleet, unsigned cluster, bool alone)
{
    struct fleet_node *node = &fleet->nodes[2 * cluster];
    check(node->changes_open == 0);
    for (unsigned group = 0; group < FLEET_GROUPS; group++) {
        check((fleet->epochs[cluster * FLEET_GROUPS + group] != 0) == alone);
        node->changes[group] = (struct fleet_change){.open = true};
    }
    node->changes_open = FLEET_GROUPS;
    fleet->changes_open += FLEET_GROUPS;
}

static void take_verdict(struct fleet *fleet, unsigned index, const struct wire_message *reply, uint64_t now_ns)
{
    struct fleet_node *node = &fleet->nodes[index];
    for (unsigned group = 0; group < FLEET_GROUPS; group++) {
        struct fleet_change *change = &node->changes[group];
        if (!change->open || !id_equal(&change->id, &reply->reply.echo))
            continue;
        if (reply->verdict != WIRE_OK) {
            change->due_ns = now_ns + (reply->verdict == WIRE_WAIT ? reply->wait_ms * 1000000ull : 0);
            return;
        }
        change->open = false;
        node->changes_open--;
        fleet->changes_open--;
        fleet->epochs[index / 2 * FLEET_GROUPS + group]++;
        load_histogram_add(&fleet->change_latency, now_ns - change->first_ns);
        return;
    }
}

static void take(struct fleet *fleet, const uint8_t *data, size_t size, uint64_t now_ns)
{
    const unsigned *indices = fleet->indices;
    struct wire_header header;
    struct wire_message reply;
    check(wire_peek(data, size, &header) == 0);
    uint32_t hash;
    memcpy(&hash, header.cluster.bytes, sizeof hash);
    for (unsigned at = hash % (4 * fleet->clusters);; at = (at + 1) % (4 * fleet->clusters)) {
        unsigned cluster = indices[at] - 1;
        check(indices[at] != 0);
        if (!id_equal(&fleet->nodes[2 * cluster].header.cluster, &header.cluster))
            continue;
        unsigned index = 2 * cluster + (header.node.bytes[0] - 1u);
        struct fleet_node *node = &fleet->nodes[index];
        check(wire_open(node->from_witness, data, size, &reply) == 0);
        fleet->witness_boot = reply.reply.boot;
        if (!id_is_null(&reply.reply.challenge))
            node->challenge = reply.reply.challenge;
        if (reply.kind == WIRE_VERDICT) {
            take_verdict(fleet, index, &reply, now_ns);
        } else if (node->beat_sent_ns != 0 && id_equal(&node->beat_id, &reply.reply.echo)) {
            if (!node->joined && reply.acknowledged) {
                node->joined = true;
                fleet->joined++;
            }
            if (fleet->measuring) {
                fleet->beats++;
                load_histogram_add(&fleet->beat_latency, now_ns - node->beat_sent_ns);
            }
            node->beat_sent_ns = 0;
        }
        return;
    }
}

static unsigned receive(struct fleet *fleet)
{
    unsigned taken = 0;
    for (unsigned i = 0; i < FLEET_SOCKETS; i++) {
        uint8_t data[TURN_MAX][SEAL_DATAGRAM_MAX];
        struct mmsghdr messages[TURN_MAX] = {0};
        struct iovec parts[TURN_MAX];
        for (unsigned n = 0; n < TURN_MAX; n++) {
            parts[n] = (struct iovec){data[n], sizeof data[n]};
            messages[n].msg_hdr = (struct msghdr){.msg_iov = &parts[n], .msg_iovlen = 1};
        }
        int count = recvmmsg(fleet->sockets[i], messages, TURN_MAX, MSG_DONTWAIT, NULL);
        uint64_t now_ns = clock_boottime_ns();
        for (int n = 0; n < count; n++, taken++)
            take(fleet, data[n], messages[n].msg_len, now_ns);
    }
    return taken;
}

/* The heartbeats' order by time is their order by number: one cursor goes round. */
static unsigned send_due(struct fleet *fleet)
{
    unsigned *cursor = &fleet->next_beat;
    unsigned sent = 0;
    uint64_t now_ns = clock_boottime_ns();
    while (sent < TURN_MAX && fleet->nodes[*cursor].beat_due_ns <= now_ns) {
        if (fleet->nodes[*cursor].dead)
            fleet->nodes[*cursor].beat_due_ns += FLEET_BEAT_NS;
        else
            beat(fleet, *cursor, now_ns);
        *cursor = (*cursor + 1) % (2 * fleet->clusters);
        sent++;
    }
    return sent;
}

static unsigned send_changes(struct fleet *fleet)
{
    unsigned *cursor = &fleet->next_change;
    unsigned sent = 0;
    uint64_t now_ns = clock_boottime_ns();
    for (unsigned looked = 0; looked < 1000 && sent < TURN_MAX && fleet->changes_open > 0; looked++) {
        unsigned index = 2 * *cursor;
        *cursor = (*cursor + 1) % fleet->clusters;
        for (unsigned group = 0; fleet->nodes[index].changes_open > 0 && group < FLEET_GROUPS; group++)
            if (fleet->nodes[index].changes[group].open && fleet->nodes[index].changes[group].due_ns <= now_ns) {
                send_change(fleet, index, group, now_ns);
                sent++;
            }
    }
    return sent;
}

void fleet_turn(struct fleet *fleet)
{
    unsigned done = send_due(fleet) + receive(fleet) + send_changes(fleet);
    if (done == 0) {
        struct pollfd ready[FLEET_SOCKETS];
        for (unsigned i = 0; i < FLEET_SOCKETS; i++)
            ready[i] = (struct pollfd){.fd = fleet->sockets[i], .events = POLLIN};
        poll(ready, FLEET_SOCKETS, 1);
    }
}
