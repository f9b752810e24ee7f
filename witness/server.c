/* The witness on its datagram socket: a batch of requests is judged, committed once, then answered. */
#include "witness/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/log.h"
#include "witness/server_private.h"

#define PROBE_US UINT64_C(1000000)

enum lane { LANE_LEASE, LANE_CAS, LANE_RECORDS };

/* `key`: of the pair under which the request came. */
static void queue_reply(struct server *server, const struct served *served, unsigned node, const uint8_t *key,
                        const struct sockaddr_in *to, const struct wire_message *reply)
{
    check(server->outgoing_count < BATCH_MAX);
    struct outgoing *outgoing = &server->outgoing[server->outgoing_count];
    struct wire_header header = {
        .direction = WIRE_WITNESS_TO_NODE, .cluster = served->cluster->id, .node = served->cluster->nodes[node].id,
    };
    ssize_t size = wire_seal(key, &header, reply, outgoing->data, sizeof outgoing->data);
    check(size > 0);
    outgoing->size = (size_t)size;
    outgoing->to = *to;
    server->outgoing_count++;
}

/* The first sign of a cluster's nodes: its keys have arrived, so its token may not be answered again. Should this not
 * become durable, the next start of the witness finds it open until it expires, and closes it at the next sign. */
static void confirm(struct server *server, struct served *served)
{
    struct err err = {0};
    served->cluster->unconfirmed = false;
    int error = server->full ? 0 : store_confirm(server->store, &served->cluster->id, &err);
    if (error < 0)
        log_warning("%s", err.text);
    if (error < 0 && server->changing)
        server->change_error = error;
}

/* The node has its new keys and uses them: the old ones are worth nothing from now on. Should this not become durable,
 * the next start of the witness knows both again, until the next sign. */
static void promote(struct server *server, struct served *served, unsigned number)
{
    struct store_node *node = &served->cluster->nodes[number];
    struct err err = {0};
    int error = server->full ? 0 : store_promote_keys(server->store, &served->cluster->id, number, &err);
    if (error < 0)
        log_warning("%s", err.text);
    if (error < 0 && server->changing)
        server->change_error = error;
    memcpy(node->to_witness, node->next_to_witness, SEAL_KEY_SIZE);
    memcpy(node->from_witness, node->next_from_witness, SEAL_KEY_SIZE);
    seal_wipe(node->next_to_witness, SEAL_KEY_SIZE);
    seal_wipe(node->next_from_witness, SEAL_KEY_SIZE);
    node->has_next = false;
    log_notice("cluster '%s': node '%s' uses its new keys", served->cluster->name, node->name);
}

static void note_heard(struct server *server, struct served *served, unsigned node, const struct sockaddr_in *from)
{
    struct member *member = &served->members[node];
    member->heard_ns = clock_boottime_ns();
    member->from = *from;
    if (served->cluster->unconfirmed)
        confirm(server, served);
}

static bool answer(struct server *server, struct served *served, unsigned node, const struct wire_message *message,
                   bool is_next, const struct sockaddr_in *from, struct wire_message *reply)
{
    struct member *member = &served->members[node];
    struct id fresh = id_random();
    static const enum wire_kind reply_kinds[] = {
        [WIRE_LEASE] = WIRE_LEASE_ACK, [WIRE_CAS] = WIRE_VERDICT, [WIRE_RECORDS] = WIRE_RECORDS_REPLY,
    };
    unsigned lane = message->kind == WIRE_LEASE ? LANE_LEASE : message->kind == WIRE_CAS ? LANE_CAS : LANE_RECORDS;
    reply->kind = reply_kinds[message->kind];
    reply->reply = (struct wire_reply){.echo = message->request.id, .boot = server->boot};
    enum wire_admission admission = wire_guard_admit(&member->guard, &message->request, lane, &fresh);
    bool fine = admission != WIRE_REPEATED;
    if (admission == WIRE_REPEATED) {
        count_add(server->counters, COUNT_REPEATED);
    } else if (admission == WIRE_CHALLENGED) {
        count_add(server->counters, COUNT_CHALLENGED);
        reply->reply.challenge = member->guard.challenge;
        reply->verdict = WIRE_REBOUND;
    } else {
        note_heard(server, served, node, from);
        if (is_next)
            promote(server, served, node);
        fine = server_answer(server, served, node, message, reply);
    }
    reply->counter = served->cluster->records.counter;
    reply->restored = served->cluster->records.restored;
    reply->incarnation = served->cluster->incarnation;
    return fine;
}

static bool same_address(const struct sockaddr_in *left, const struct sockaddr_in *right)
{
    return left->sin_addr.s_addr == right->sin_addr.s_addr && left->sin_port == right->sin_port;
}

/* Before any crypto: whoever knows a cluster's id, which travels in clear, must not be able to spend our time. A node at
 * the address from which it was last admitted is no stranger; one whose address changed shares the strangers' rate once. */
static bool stranger_may(struct server *server, struct served *served, unsigned node, const struct sockaddr_in *from,
                         uint64_t now_ns)
{
    return same_address(from, &served->members[node].from) ||
           (limit_take(&served->strangers, SERVER_STRANGER_RATE, SERVER_STRANGER_BURST, now_ns) &&
            limit_take(&server->strangers, SERVER_STRANGERS_RATE, SERVER_STRANGERS_RATE, now_ns));
}

/* A node with new keys may send under either pair. */
static int open_request(const struct store_node *node, const uint8_t *data, size_t size, struct wire_message *ret,
                        bool *ret_is_next)
{
    int error = wire_open(node->to_witness, data, size, ret);
    *ret_is_next = error < 0 && node->has_next;
    return *ret_is_next ? wire_open(node->next_to_witness, data, size, ret) : error;
}

static void handle(struct server *server, const uint8_t *data, size_t size, const struct sockaddr_in *from)
{
    struct wire_header header;
    struct wire_message message, reply = {0};
    struct served *served = NULL;
    unsigned node = 0;
    bool is_next;
    uint64_t now_ns = clock_boottime_ns();
    if (wire_peek(data, size, &header) == 0 && header.direction == WIRE_NODE_TO_WITNESS)
        served = served_find(&server->table, &header.cluster);
    if (served != NULL)
        while (node < 2 && !id_equal(&served->cluster->nodes[node].id, &header.node))
            node++;
    /* Not ours or forged: no answer, so that nobody can use us to flood a third. */
    if (served == NULL || node == 2)
        count_add(server->counters, COUNT_FOREIGN);
    else if (!stranger_may(server, served, node, from, now_ns))
        count_add(server->counters, COUNT_STRANGER);
    else if (open_request(&served->cluster->nodes[node], data, size, &message, &is_next) < 0)
        count_add(server->counters, COUNT_FORGED);
    else if (!limit_take(&served->members[node].quota, SERVER_NODE_RATE, SERVER_NODE_BURST, now_ns))
        count_add(server->counters, COUNT_QUOTA);
    else if (answer(server, served, node, &message, is_next, from, &reply))
        queue_reply(server, served, node, served->cluster->nodes[node].has_next && is_next
                    ? served->cluster->nodes[node].next_from_witness : served->cluster->nodes[node].from_witness, from, &reply);
}

static int on_probe(sd_event_source *source, uint64_t now, void *userdata)
{
    struct server *server = userdata;
    struct err err = {0};
    int error = store_probe(server->store, &err);
    if (error == -ENOSPC) {
        sd_event_source_set_time_relative(source, PROBE_US);
        sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
        return 0;
    }
    if (error < 0) {
        log_error("%s; hci-witnessd ends: what is on the disk must be read anew", err.text);
        server->failed = true;
        return sd_event_exit(server->event, EXIT_FAILURE);
    }
    log_notice("the disk takes changes again: records are changed as before");
    server->full = false;
    count_set(server->counters, COUNT_STORE_FULL, 0);
    return 0;
}

/* The batch left nothing on disk: what it changed in memory goes, latest first, and nobody is answered. */
static void undo_batch(struct server *server)
{
    store_rollback(server->store);
    while (server->undo_count > 0) {
        server_undo(&server->undo[--server->undo_count]);
        count_add(server->counters, COUNT_UNSTORED);
    }
    server->outgoing_count = 0;
}

static void note_full(struct server *server)
{
    undo_batch(server);
    if (!server->full)
        log_error("the disk that holds the store is full: no record is changed and nobody is excluded until there is room; "
                  "leases are acknowledged as before, so nothing stops while both nodes of a site are up; make room now");
    server->full = true;
    count_set(server->counters, COUNT_STORE_FULL, 1);
    sd_event_source_set_time_relative(server->probe, PROBE_US);
    sd_event_source_set_enabled(server->probe, SD_EVENT_ONESHOT);
}

static int commit(struct server *server)
{
    struct err err = {0};
    if (server->change_error < 0)
        return server->change_error;
    uint64_t start_ns = clock_boottime_ns();
    int error = store_commit(server->store, &err);
    count_commit(server->counters, clock_boottime_ns() - start_ns);
    if (error < 0)
        log_error("%s", err.text);
    return error;
}

static void send_all(struct server *server)
{
    struct mmsghdr messages[BATCH_MAX] = {0};
    struct iovec parts[BATCH_MAX];
    for (unsigned i = 0; i < server->outgoing_count; i++) {
        struct outgoing *outgoing = &server->outgoing[i];
        parts[i] = (struct iovec){outgoing->data, outgoing->size};
        messages[i].msg_hdr = (struct msghdr){.msg_name = &outgoing->to, .msg_namelen = sizeof outgoing->to,
                                              .msg_iov = &parts[i], .msg_iovlen = 1};
    }
    /* One that cannot be sent (an address without a route) must not keep the others. */
    for (unsigned done = 0; done < server->outgoing_count;) {
        int sent = sendmmsg(server->fd, messages + done, server->outgoing_count - done, 0);
        done += sent > 0 ? (unsigned)sent : 1;
    }
    server->outgoing_count = 0;
}

/* Protocol: "Durable, fsync before the reply". */
void server_finish_batch(struct server *server)
{
    int error = server->changing || server->change_error < 0 ? commit(server) : 0;
    server->changing = false;
    server->change_error = 0;
    if (error == -ENOSPC) {
        note_full(server);
    } else if (error < 0) {
        /* What was judged in memory may or may not be on disk: only a fresh start from the disk can go on. */
        log_error("hci-witnessd ends: its store does not take changes");
        undo_batch(server);
        server->failed = true;
        sd_event_exit(server->event, EXIT_FAILURE);
    }
    server->undo_count = 0;
    send_all(server);
}

static int on_readable(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
    struct server *server = userdata;
    struct mmsghdr messages[BATCH_MAX] = {0};
    struct iovec parts[BATCH_MAX];
    for (unsigned i = 0; i < BATCH_MAX; i++) {
        struct incoming *incoming = &server->incoming[i];
        parts[i] = (struct iovec){incoming->data, sizeof incoming->data};
        messages[i].msg_hdr = (struct msghdr){.msg_name = &incoming->from, .msg_namelen = sizeof incoming->from,
                                              .msg_iov = &parts[i], .msg_iovlen = 1};
    }
    int count = server->failed ? 0 : recvmmsg(fd, messages, BATCH_MAX, MSG_DONTWAIT, NULL);
    for (int i = 0; i < count; i++)
        handle(server, server->incoming[i].data, messages[i].msg_len, &server->incoming[i].from);
    server_finish_batch(server);
    return 0;
}

static int bind_socket(struct server *server, const char *address, uint16_t port, struct err *err)
{
    struct sockaddr_in local = {.sin_family = AF_INET, .sin_port = htons(port)};
    int buffer = 4 << 20; /* what arrives while a commit waits for the disk; the kernel takes less when it must */
    if (inet_pton(AF_INET, address, &local.sin_addr) != 1)
        return err_set(err, -EINVAL, "invalid", "listen address '%s': is no IPv4 address; write for example 10.13.0.3",
                       address);
    server->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (server->fd < 0 || bind(server->fd, (const struct sockaddr *)&local, sizeof local) < 0)
        return err_set(err, -errno, "io", "listen address '%s:%u': cannot be bound (%s); choose an address of this host",
                       address, port, strerror(errno));
    if (setsockopt(server->fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer) < 0)
        setsockopt(server->fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    /* No higher priority than the rest of the loop: sources take turns, so that a flood cannot silence alerts or a stop. */
    int error = sd_event_add_io(server->event, &server->io, server->fd, EPOLLIN, on_readable, server);
    if (error >= 0)
        error = sd_event_add_time_relative(server->event, &server->probe, CLOCK_BOOTTIME, PROBE_US, 0, on_probe, server);
    if (error >= 0)
        error = sd_event_source_set_enabled(server->probe, SD_EVENT_OFF);
    return error < 0 ? err_set(err, error, "io", "listen address '%s:%u': %s", address, port, strerror(-error)) : 0;
}

static void on_loaded(struct store_cluster *cluster, void *userdata)
{
    struct server *server = userdata;
    served_add(&server->table, cluster, clock_boottime_ns());
}

int server_new(sd_event *event, struct store *store, struct counters *counters, const char *address, uint16_t port,
               struct server **ret, struct err *err)
{
    struct server *server = calloc(1, sizeof *server);
    if (server == NULL)
        return err_set(err, -ENOMEM, "no_memory", "hci-witnessd: out of memory");
    server->event = sd_event_ref(event);
    server->store = store;
    server->counters = counters;
    server->fd = -1;
    server->boot = id_random();
    int error = store_load(store, clock_boottime_ns(), on_loaded, server, err);
    if (error == 0)
        error = bind_socket(server, address, port, err);
    if (error < 0) {
        server_free(server);
        return error;
    }
    log_notice("listening on %s:%u for %u clusters", address, port, server->table.count);
    *ret = server;
    return 0;
}

void server_free(struct server *server)
{
    if (server == NULL)
        return;
    sd_event_source_disable_unref(server->io);
    sd_event_source_disable_unref(server->probe);
    if (server->fd >= 0)
        close(server->fd);
    served_clear(&server->table);
    sd_event_unref(server->event);
    free(server);
}

const struct served_table *server_table(const struct server *server)
{
    return &server->table;
}

bool server_is_full(const struct server *server)
{
    return server->full;
}
