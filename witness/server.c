/* The witness on its datagram socket: a batch of requests is judged, committed once, then answered. */
#include "witness/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

#include "common/check.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "quorum/lease_core.h"
#include "quorum/wire.h"

#define BATCH_MAX 64u
#define SLOTS 32768u /* open addressing, a power of two well above STORE_CLUSTERS_MAX */

enum lane { LANE_LEASE, LANE_CAS, LANE_RECORDS };

struct member { /* a node, this boot */
    struct wire_guard guard;
    uint64_t heard_ns;
};
struct served {
    struct store_cluster *cluster;
    struct member members[2];
};
struct outgoing {
    struct sockaddr_in to;
    uint8_t data[SEAL_DATAGRAM_MAX];
    size_t size;
};

struct server {
    sd_event *event;
    sd_event_source *io;
    int fd;
    struct store *store;
    struct id boot;
    bool changing; /* a transaction is open */
    bool failed;   /* a change could not be made durable: nothing more is answered */
    struct served *slots[SLOTS];
    unsigned cluster_count;
    uint64_t refused_datagrams;
    struct outgoing outgoing[BATCH_MAX];
    unsigned outgoing_count;
};

static unsigned slot_of(const struct id *cluster)
{
    uint32_t hash;
    memcpy(&hash, cluster->bytes, sizeof hash); /* a random UUID is its own hash */
    return hash % SLOTS;
}

static struct served *served_find(const struct server *server, const struct id *cluster)
{
    for (unsigned i = slot_of(cluster); server->slots[i] != NULL; i = (i + 1) % SLOTS)
        if (id_equal(&server->slots[i]->cluster->id, cluster))
            return server->slots[i];
    return NULL;
}

static void served_add(struct store_cluster *cluster, void *userdata)
{
    struct server *server = userdata;
    check(server->cluster_count < STORE_CLUSTERS_MAX);
    struct served *served = calloc(1, sizeof *served);
    check(served != NULL);
    served->cluster = cluster;
    for (unsigned i = 0; i < 2; i++) {
        struct id challenge = id_random();
        wire_guard_init(&served->members[i].guard, &challenge);
    }
    unsigned slot = slot_of(&cluster->id);
    while (server->slots[slot] != NULL)
        slot = (slot + 1) % SLOTS;
    server->slots[slot] = served;
    server->cluster_count++;
}

/* Everything durable goes through here: the first change of a batch opens its transaction. */
static bool change(struct server *server, int (*put)(struct server *, const struct served *, const void *, struct err *),
                   const struct served *served, const void *what)
{
    struct err err = {0};
    int error = 0;
    if (server->failed)
        return false;
    if (!server->changing)
        error = store_begin(server->store, &err);
    if (error == 0) {
        server->changing = true;
        error = put(server, served, what, &err);
    }
    if (error < 0) {
        log_error("%s", err.text);
        server->failed = true;
    }
    return error == 0;
}

static int put_group(struct server *server, const struct served *served, const void *what, struct err *err)
{
    const struct record_answer *answer = what;
    const struct record_cluster *records = &served->cluster->records;
    return store_put_group(server->store, &served->cluster->id, &records->groups[answer->group_index], records->counter,
                           answer->evicted ? &answer->evicted_id : NULL, err);
}

static int put_promise(struct server *server, const struct served *served, const void *what, struct err *err)
{
    unsigned node = *(const unsigned *)what;
    return store_put_promise(server->store, &served->cluster->id, node, served->cluster->records.nodes[node].promise_ms,
                             err);
}

static int put_restored(struct server *server, const struct served *served, const void *what, struct err *err)
{
    return store_put_restored(server->store, &served->cluster->id, &served->cluster->incarnation, err);
}

/* Judges, and puts what must be durable into the batch's transaction. False: it must not be answered. */
static bool judge(struct server *server, struct served *served, struct record_event *event, struct record_answer *ret)
{
    struct store_cluster *cluster = served->cluster;
    event->now_ns = clock_boottime_ns();
    record_step(&cluster->records, event, ret);
    bool fine = true;
    if (ret->persist_restored) {
        cluster->incarnation = id_random();
        log_error("cluster '%s': node '%s' has seen commit %llu, this store ends at %llu: an old store was put back; "
                  "nothing is granted until the cluster is enrolled anew", cluster->name, cluster->nodes[event->node].name,
                  (unsigned long long)event->counter, (unsigned long long)cluster->records.counter);
        fine = change(server, put_restored, served, NULL);
    }
    if (fine && ret->persist_node)
        fine = change(server, put_promise, served, &event->node);
    if (fine && ret->persist_group)
        fine = change(server, put_group, served, ret);
    return fine;
}

static bool answer_lease(struct server *server, struct served *served, unsigned node, const struct wire_message *message,
                         struct wire_message *reply)
{
    bool asks = message->wants_lease && message->lease_ms > 0 && message->lease_ms <= LEASE_MS_MAX &&
                message->promise_ms <= LEASE_PROMISE_MS_MAX;
    struct record_event event = {
        .kind = asks ? RECORD_EV_LEASE : RECORD_EV_POLL, .node = node, .counter = message->counter,
        .promise_ms = asks ? lease_promise_for(message->lease_ms, message->promise_ms) : 0,
        .claims = message->claims, .claim_count = message->claim_count,
    };
    struct record_answer answer;
    if (!judge(server, served, &event, &answer))
        return false;
    reply->acknowledged = answer.acknowledged;
    return true;
}

static void log_verdict(const struct served *served, unsigned node, const struct wire_message *cas,
                        const struct record_answer *answer)
{
    char group[ID_TEXT_SIZE];
    enum log_level level = answer->persist_group ? LOG_LEVEL_NOTICE : LOG_LEVEL_INFO;
    log_write(level, "cluster '%s' group %s: node '%s'%s proposes epoch %llu members %u from epoch %llu members %u: %s, "
              "record is epoch %llu members %u%s%s", served->cluster->name, id_format(&cas->group, group),
              served->cluster->nodes[node].name, cas->was_primary ? " (primary)" : "", (unsigned long long)cas->to.epoch,
              cas->to.members, (unsigned long long)cas->from[0].epoch, cas->from[0].members,
              wire_verdict_name((enum wire_verdict)answer->verdict), (unsigned long long)answer->record.epoch,
              answer->record.members, answer->reason != 0 ? "; " : "",
              wire_reason_sentence((enum wire_reason)answer->reason));
}

static bool answer_cas(struct server *server, struct served *served, unsigned node, const struct wire_message *message,
                       struct wire_message *reply)
{
    reply->group = message->group;
    reply->verdict = WIRE_REBOUND;
    /* Protocol "Datagrams": a CAS is bound to W's boot. */
    if (!id_equal(&message->witness_boot, &server->boot))
        return true;
    struct record_event event = {
        .kind = RECORD_EV_CAS, .node = node, .counter = message->counter, .group = message->group,
        .to = {message->to.epoch, message->to.members}, .from_count = message->from_count,
        .was_primary = message->was_primary,
    };
    for (unsigned i = 0; i < message->from_count; i++)
        event.from[i] = (struct record_position){message->from[i].epoch, message->from[i].members};
    struct record_answer answer;
    if (!judge(server, served, &event, &answer))
        return false;
    log_verdict(served, node, message, &answer);
    reply->verdict = (enum wire_verdict)answer.verdict;
    reply->reason = (enum wire_reason)answer.reason;
    reply->record = (struct wire_position){answer.record.epoch, answer.record.members};
    reply->wait_ms = answer.wait_ms;
    reply->loser_ms = answer.loser_ms;
    return true;
}

/* The changes after `since` in their order, as many as fit. */
static bool answer_records(struct server *server, struct served *served, unsigned node, const struct wire_message *message,
                           struct wire_message *reply)
{
    struct record_event event = {.kind = RECORD_EV_POLL, .node = node, .counter = message->counter};
    struct record_answer answer;
    if (!judge(server, served, &event, &answer))
        return false;
    const struct record_cluster *records = &served->cluster->records;
    reply->up_to = message->since < records->counter ? message->since : records->counter;
    while (reply->record_count < WIRE_RECORDS_MAX) {
        const struct record_group *next = NULL;
        for (unsigned i = 0; i < records->group_count; i++) {
            const struct record_group *group = &records->groups[i];
            if (group->changed > reply->up_to && (next == NULL || group->changed < next->changed))
                next = group;
        }
        if (next == NULL) {
            reply->up_to = records->counter;
            break;
        }
        reply->records[reply->record_count++] = (struct wire_record){
            .group = next->id, .epoch = next->position.epoch, .members = next->position.members,
        };
        reply->up_to = next->changed;
    }
    return true;
}

static void queue_reply(struct server *server, const struct served *served, unsigned node, const struct sockaddr_in *to,
                        const struct wire_message *reply)
{
    check(server->outgoing_count < BATCH_MAX);
    struct outgoing *outgoing = &server->outgoing[server->outgoing_count];
    struct wire_header header = {
        .direction = WIRE_WITNESS_TO_NODE, .cluster = served->cluster->id, .node = served->cluster->nodes[node].id,
    };
    ssize_t size = wire_seal(served->cluster->nodes[node].from_witness, &header, reply, outgoing->data,
                             sizeof outgoing->data);
    check(size > 0);
    outgoing->size = (size_t)size;
    outgoing->to = *to;
    server->outgoing_count++;
}

static bool answer(struct server *server, struct served *served, unsigned node, const struct wire_message *message,
                   struct wire_message *reply)
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
    if (admission == WIRE_CHALLENGED) {
        reply->reply.challenge = member->guard.challenge;
        reply->verdict = WIRE_REBOUND;
    } else if (admission == WIRE_ADMITTED) {
        member->heard_ns = clock_boottime_ns();
        fine = message->kind == WIRE_LEASE ? answer_lease(server, served, node, message, reply)
             : message->kind == WIRE_CAS   ? answer_cas(server, served, node, message, reply)
                                           : answer_records(server, served, node, message, reply);
    }
    reply->counter = served->cluster->records.counter;
    reply->restored = served->cluster->records.restored;
    reply->incarnation = served->cluster->incarnation;
    return fine;
}

static void handle(struct server *server, const uint8_t *data, size_t size, const struct sockaddr_in *from)
{
    struct wire_header header;
    struct wire_message message, reply = {0};
    struct served *served = NULL;
    unsigned node = 0;
    if (wire_peek(data, size, &header) == 0 && header.direction == WIRE_NODE_TO_WITNESS)
        served = served_find(server, &header.cluster);
    if (served != NULL)
        while (node < 2 && !id_equal(&served->cluster->nodes[node].id, &header.node))
            node++;
    /* Not ours or forged: no answer, so that nobody can use us to flood a third. */
    if (served == NULL || node == 2 || wire_open(served->cluster->nodes[node].to_witness, data, size, &message) < 0) {
        server->refused_datagrams++;
        return;
    }
    if (answer(server, served, node, &message, &reply))
        queue_reply(server, served, node, from, &reply);
}

/* Protocol: "Durable, fsync before the reply". */
static void finish_batch(struct server *server)
{
    struct err err = {0};
    if (server->changing && !server->failed && store_commit(server->store, &err) < 0) {
        log_error("%s", err.text);
        server->failed = true;
    }
    if (server->failed) {
        /* What was judged in memory may not be on disk: only a fresh start from the disk can go on. */
        log_error("hci-witnessd ends: its store does not take changes");
        sd_event_exit(server->event, EXIT_FAILURE);
        server->outgoing_count = 0;
        return;
    }
    server->changing = false;
    for (unsigned i = 0; i < server->outgoing_count; i++) {
        const struct outgoing *outgoing = &server->outgoing[i];
        sendto(server->fd, outgoing->data, outgoing->size, 0, (const struct sockaddr *)&outgoing->to, sizeof outgoing->to);
    }
    server->outgoing_count = 0;
}

static int on_readable(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
    struct server *server = userdata;
    for (unsigned i = 0; i < BATCH_MAX && !server->failed; i++) {
        uint8_t data[SEAL_DATAGRAM_MAX + 1]; /* one more, to notice what is too long */
        struct sockaddr_in from;
        socklen_t from_size = sizeof from;
        ssize_t size = recvfrom(fd, data, sizeof data, 0, (struct sockaddr *)&from, &from_size);
        if (size < 0)
            break;
        handle(server, data, (size_t)size, &from);
    }
    finish_batch(server);
    return 0;
}

static int bind_socket(struct server *server, const char *address, uint16_t port, struct err *err)
{
    struct sockaddr_in local = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (inet_pton(AF_INET, address, &local.sin_addr) != 1)
        return err_set(err, -EINVAL, "invalid", "listen address '%s': is no IPv4 address; write for example 10.13.0.3",
                       address);
    server->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (server->fd < 0 || bind(server->fd, (const struct sockaddr *)&local, sizeof local) < 0)
        return err_set(err, -errno, "io", "listen address '%s:%u': cannot be bound (%s); choose an address of this host",
                       address, port, strerror(errno));
    int error = sd_event_add_io(server->event, &server->io, server->fd, EPOLLIN, on_readable, server);
    return error < 0 ? err_set(err, error, "io", "listen address '%s:%u': %s", address, port, strerror(-error)) : 0;
}

int server_new(sd_event *event, struct store *store, const char *address, uint16_t port, struct server **ret,
               struct err *err)
{
    struct server *server = calloc(1, sizeof *server);
    if (server == NULL)
        return err_set(err, -ENOMEM, "no_memory", "hci-witnessd: out of memory");
    server->event = sd_event_ref(event);
    server->store = store;
    server->fd = -1;
    server->boot = id_random();
    int error = store_load(store, clock_boottime_ns(), served_add, server, err);
    if (error == 0)
        error = bind_socket(server, address, port, err);
    if (error < 0) {
        server_free(server);
        return error;
    }
    log_notice("listening on %s:%u for %u clusters", address, port, server->cluster_count);
    *ret = server;
    return 0;
}

void server_free(struct server *server)
{
    if (server == NULL)
        return;
    sd_event_source_disable_unref(server->io);
    if (server->fd >= 0)
        close(server->fd);
    for (unsigned i = 0; i < SLOTS; i++) {
        if (server->slots[i] == NULL)
            continue;
        seal_wipe(server->slots[i]->cluster, sizeof *server->slots[i]->cluster);
        free(server->slots[i]->cluster);
        free(server->slots[i]);
    }
    sd_event_unref(server->event);
    free(server);
}

int server_enrol(struct server *server, const struct store_cluster *cluster, const uint8_t token_hash[static 16],
                 struct err *err)
{
    struct store_cluster *copy = malloc(sizeof *copy);
    if (copy == NULL)
        return err_set(err, -ENOMEM, "no_memory", "hci-witnessd: out of memory");
    *copy = *cluster;
    record_init(&copy->records, clock_boottime_ns());
    int error = store_begin(server->store, err);
    if (error == 0)
        error = store_take_token(server->store, token_hash, (int64_t)time(NULL), err);
    if (error == 0)
        error = store_add_cluster(server->store, copy, err);
    if (error == 0)
        error = store_commit(server->store, err);
    if (error < 0) {
        store_rollback(server->store);
        seal_wipe(copy, sizeof *copy);
        free(copy);
        return error;
    }
    served_add(copy, server);
    return 0;
}

static json_t *node_status(const struct served *served, unsigned node, uint64_t now_ns)
{
    uint64_t heard_ns = served->members[node].heard_ns;
    return json_pack("{s:s, s:I, s:I}", "name", served->cluster->nodes[node].name, "heard_ms_ago",
                     heard_ns == 0 ? (json_int_t)-1 : (json_int_t)((now_ns - heard_ns) / NSEC_PER_MSEC), "promise_ms",
                     (json_int_t)served->cluster->records.nodes[node].promise_ms);
}

json_t *server_status(const struct server *server)
{
    uint64_t now_ns = clock_boottime_ns();
    json_t *clusters = json_array();
    for (unsigned i = 0; i < SLOTS; i++) {
        const struct served *served = server->slots[i];
        if (served == NULL || json_array_size(clusters) >= 500) /* one line of the control socket holds no more */
            continue;
        char id[ID_TEXT_SIZE];
        const struct record_cluster *records = &served->cluster->records;
        json_array_append_new(clusters, json_pack("{s:s, s:s, s:I, s:i, s:b, s:I, s:[o,o]}", "name", served->cluster->name,
            "id", id_format(&served->cluster->id, id), "counter", (json_int_t)records->counter, "groups",
            (int)records->group_count, "restored", records->restored, "guard_ms",
            (json_int_t)record_guard_left_ms(records, now_ns), "nodes", node_status(served, 0, now_ns),
            node_status(served, 1, now_ns)));
    }
    struct id witness = store_witness_id(server->store);
    char text[ID_TEXT_SIZE];
    return json_pack("{s:s, s:i, s:I, s:o}", "witness", id_format(&witness, text), "cluster_count",
                     (int)server->cluster_count, "refused_datagrams", (json_int_t)server->refused_datagrams, "clusters",
                     clusters);
}
