/* The conversation with the witness: every request is repeated until answered, every reply must echo an id that is
 * outstanding in this boot. */
#include "quorum/witness_client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/log.h"
#include "quorum/daemon.h"

#define LEASES_MAX 64u
#define USEC_PER_MSEC 1000ull

struct pending_cas {
    struct control_request *request; /* NULL: a free place */
    struct wire_message message;
    uint64_t first_ns, last_ns;
};
struct pending_lease {
    struct id id;
    uint64_t sent_ns;
};

struct witness_client {
    struct daemon *daemon;
    int fd;
    struct sockaddr_in address;
    sd_event_source *io, *lease_timer, *repeat_timer;
    struct id boot;   /* W's, as its last reply said */
    struct id answer; /* its last challenge */
    uint64_t sequence;
    uint64_t counter; /* the highest commit counter ever seen, ours or storaged's */
    struct pending_lease leases[LEASES_MAX];
    unsigned next_lease;
    struct pending_cas cas[WITNESS_CAS_MAX];
    /* records: told to storaged up to `told`; a fetch goes on from `fetched` */
    bool heard_records, fetching;
    struct id fetch_id;
    uint64_t told, fetched, fetch_sent_ns;
    struct wire_record known[WITNESS_RECORDS_KNOWN];
    unsigned known_count;
    uint64_t heard_ns, round_trip_ns;
    bool reachable, restored;
};

static void send_message(struct witness_client *client, struct wire_message *message)
{
    const struct daemon *daemon = client->daemon;
    struct wire_header header = {
        .direction = WIRE_NODE_TO_WITNESS, .cluster = daemon->site.id, .node = site_self(&daemon->site)->id,
    };
    uint8_t data[SEAL_DATAGRAM_MAX];
    message->request.boot = daemon->boot;
    message->request.answer = client->answer;
    message->request.sequence = ++client->sequence;
    message->counter = client->counter;
    ssize_t size = wire_seal(daemon->secrets.to_witness, &header, message, data, sizeof data);
    check(size > 0);
    /* Lost is lost: everything is repeated. */
    (void)sendto(client->fd, data, (size_t)size, 0, (const struct sockaddr *)&client->address, sizeof client->address);
}

static void send_lease(struct witness_client *client)
{
    struct daemon *daemon = client->daemon;
    struct lease_event event = {.kind = LEASE_EV_SEND, .responder = LEASE_FROM_WITNESS, .id = id_random()};
    struct wire_message message = {
        .kind = WIRE_LEASE, .request.id = event.id, .wants_lease = daemon_lease_step(daemon, &event).ask,
        .lease_ms = daemon->site.profile.lease_ms, .promise_ms = daemon->site.profile.promise_ms,
        .claim_count = (uint8_t)daemon->claim_count,
    };
    memcpy(message.claims, daemon->claims, daemon->claim_count * sizeof daemon->claims[0]);
    client->leases[client->next_lease] = (struct pending_lease){.id = event.id, .sent_ns = clock_boottime_ns()};
    client->next_lease = (client->next_lease + 1) % LEASES_MAX;
    send_message(client, &message);
}

static void send_cas(struct witness_client *client, struct pending_cas *cas)
{
    cas->last_ns = clock_boottime_ns();
    cas->message.witness_boot = client->boot;
    send_message(client, &cas->message);
}

static void send_fetch(struct witness_client *client)
{
    struct wire_message message = {.kind = WIRE_RECORDS, .request.id = client->fetch_id, .since = client->fetched};
    client->fetch_sent_ns = clock_boottime_ns();
    send_message(client, &message);
}

static void wake_repeats(struct witness_client *client)
{
    sd_event_source_set_time_relative(client->repeat_timer, WITNESS_REPEAT_MS / 3 * USEC_PER_MSEC);
    sd_event_source_set_enabled(client->repeat_timer, SD_EVENT_ONESHOT);
}

static void fetch_if_behind(struct witness_client *client, uint64_t counter)
{
    if (client->fetching || (client->heard_records && counter <= client->told))
        return;
    client->fetching = true;
    client->fetched = client->heard_records ? client->told : 0;
    client->fetch_id = id_random();
    send_fetch(client);
    wake_repeats(client);
}

static void set_reachable(struct witness_client *client, bool reachable)
{
    if (client->reachable == reachable)
        return;
    client->reachable = reachable;
    log_notice("the witness %s", reachable ? "answers" : "does not answer");
    control_publish(client->daemon->control, "witness", json_pack("{s:b}", "reachable", reachable));
}

/* Every reply that echoes an outstanding id brings W's boot, and perhaps a challenge. True: something new to answer with,
 * so that what was not counted is worth repeating at once. */
static bool note_reply(struct witness_client *client, const struct wire_message *message, uint64_t sent_ns)
{
    bool news = !id_equal(&client->boot, &message->reply.boot);
    client->boot = message->reply.boot;
    if (!id_is_null(&message->reply.challenge) && !id_equal(&client->answer, &message->reply.challenge)) {
        client->answer = message->reply.challenge;
        news = true;
    }
    client->heard_ns = clock_boottime_ns();
    client->round_trip_ns = client->heard_ns - sent_ns;
    client->restored = message->restored;
    set_reachable(client, true);
    if (id_is_null(&message->reply.challenge) && message->counter > client->counter)
        client->counter = message->counter;
    return news;
}

static void handle_lease_ack(struct witness_client *client, const struct wire_message *message)
{
    unsigned i = 0;
    while (i < LEASES_MAX && !id_equal(&client->leases[i].id, &message->reply.echo))
        i++;
    if (i == LEASES_MAX)
        return;
    bool news = note_reply(client, message, client->leases[i].sent_ns);
    memset(&client->leases[i].id, 0, sizeof client->leases[i].id);
    if (!id_is_null(&message->reply.challenge)) {
        if (news)
            send_lease(client);
        return;
    }
    if (message->acknowledged) {
        struct lease_event event = {
            .kind = LEASE_EV_ACK, .responder = LEASE_FROM_WITNESS, .id = message->reply.echo, .counter = message->counter,
        };
        daemon_lease_step(client->daemon, &event);
    }
    fetch_if_behind(client, message->counter);
}

static uint64_t serve_after_ms(struct witness_client *client, const struct pending_cas *cas, const struct wire_message *message)
{
    struct daemon *daemon = client->daemon;
    uint8_t self = (uint8_t)(1u << daemon->site.self);
    if (message->record.members != self || cas->message.was_primary)
        return 0; /* R1a: nothing to wait for when X itself was the primary, or is not the only member */
    /* R8: what W says is left of the loser's lease, what this node promised it itself, and the start guard. */
    struct lease_event fence = {.kind = LEASE_EV_TAKE_OVER, .group = cas->message.group, .least_ms = message->loser_ms};
    return daemon_lease_step(daemon, &fence).fence_ms;
}

static void answer_cas(struct witness_client *client, struct pending_cas *cas, const struct wire_message *message)
{
    bool held = message->verdict == WIRE_OK || message->verdict == WIRE_ADOPT;
    json_t *result = json_pack("{s:s, s:I, s:i, s:I, s:I, s:s}", "verdict", wire_verdict_name(message->verdict), "epoch",
                               (json_int_t)message->record.epoch, "members", (int)message->record.members, "wait_ms",
                               (json_int_t)message->wait_ms, "serve_after_ms",
                               (json_int_t)(held ? serve_after_ms(client, cas, message) : 0), "reason",
                               wire_reason_sentence(message->reason));
    char group[ID_TEXT_SIZE];
    log_notice("group %s: the witness answers %s to epoch %llu members %u; its record is epoch %llu members %u%s%s",
               id_format(&cas->message.group, group), wire_verdict_name(message->verdict),
               (unsigned long long)cas->message.to.epoch, cas->message.to.members,
               (unsigned long long)message->record.epoch, message->record.members, message->reason != 0 ? "; " : "",
               wire_reason_sentence(message->reason));
    control_reply(cas->request, result);
    cas->request = NULL;
}

static void handle_verdict(struct witness_client *client, const struct wire_message *message)
{
    for (unsigned i = 0; i < WITNESS_CAS_MAX; i++) {
        struct pending_cas *cas = &client->cas[i];
        if (cas->request == NULL || !id_equal(&cas->message.request.id, &message->reply.echo))
            continue;
        bool news = note_reply(client, message, cas->last_ns);
        if (message->verdict == WIRE_REBOUND) {
            if (news)
                send_cas(client, cas);
            return;
        }
        answer_cas(client, cas, message);
        fetch_if_behind(client, message->counter);
        return;
    }
}

static void learn(struct witness_client *client, const struct wire_record *record)
{
    unsigned slot = 0, retired = WITNESS_RECORDS_KNOWN;
    for (slot = 0; slot < client->known_count && !id_equal(&client->known[slot].group, &record->group); slot++)
        if (client->known[slot].members == 0)
            retired = slot;
    if (slot == WITNESS_RECORDS_KNOWN)
        slot = retired; /* W holds no more than these: a retired one has given up its place there too */
    if (slot == WITNESS_RECORDS_KNOWN)
        return;
    if (slot == client->known_count)
        client->known_count++;
    client->known[slot] = *record;
}

static json_t *record_json(const struct wire_record *record)
{
    char group[ID_TEXT_SIZE];
    return json_pack("{s:s, s:I, s:i}", "group", id_format(&record->group, group), "epoch", (json_int_t)record->epoch,
                     "members", (int)record->members);
}

json_t *witness_client_records(const struct witness_client *client)
{
    if (!client->heard_records)
        return NULL;
    json_t *records = json_array();
    for (unsigned i = 0; i < client->known_count; i++)
        json_array_append_new(records, record_json(&client->known[i]));
    return json_pack("{s:I, s:o}", "counter", (json_int_t)client->told, "records", records);
}

static void handle_records(struct witness_client *client, const struct wire_message *message)
{
    if (!client->fetching || !id_equal(&client->fetch_id, &message->reply.echo))
        return;
    bool news = note_reply(client, message, client->fetch_sent_ns);
    if (!id_is_null(&message->reply.challenge)) {
        if (news)
            send_fetch(client);
        return;
    }
    for (unsigned i = 0; i < message->record_count; i++)
        learn(client, &message->records[i]);
    if (message->up_to > client->fetched && message->up_to < message->counter) {
        client->fetched = message->up_to;
        client->fetch_id = id_random();
        send_fetch(client);
        return;
    }
    client->fetching = false;
    client->heard_records = true;
    client->told = message->up_to;
    control_publish(client->daemon->control, "records", witness_client_records(client));
}

static void handle(struct witness_client *client, const uint8_t *data, size_t size)
{
    const struct daemon *daemon = client->daemon;
    struct wire_header header;
    struct wire_message message;
    if (wire_peek(data, size, &header) < 0 || header.direction != WIRE_WITNESS_TO_NODE ||
        !id_equal(&header.cluster, &daemon->site.id) || !id_equal(&header.node, &site_self(&daemon->site)->id) ||
        wire_open(daemon->secrets.from_witness, data, size, &message) < 0)
        return;
    if (message.kind == WIRE_LEASE_ACK)
        handle_lease_ack(client, &message);
    else if (message.kind == WIRE_VERDICT)
        handle_verdict(client, &message);
    else
        handle_records(client, &message);
}

static int on_readable(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
    uint8_t data[SEAL_DATAGRAM_MAX + 1];
    for (unsigned i = 0; i < 32; i++) {
        ssize_t size = recv(fd, data, sizeof data, 0);
        if (size < 0)
            break;
        handle(userdata, data, (size_t)size);
    }
    return 0;
}

static int on_lease_timer(sd_event_source *source, uint64_t now, void *userdata)
{
    struct witness_client *client = userdata;
    uint32_t lease_ms = client->daemon->site.profile.lease_ms;
    sd_event_source_set_time_relative(source, lease_ms / 4 * USEC_PER_MSEC);
    if (client->reachable && clock_boottime_ns() > client->heard_ns + lease_ms * NSEC_PER_MSEC)
        set_reachable(client, false);
    send_lease(client);
    return 0;
}

static bool repeat_cas(struct witness_client *client, struct pending_cas *cas, uint64_t now_ns)
{
    if (cas->request == NULL)
        return false;
    if (now_ns >= cas->first_ns + WITNESS_GIVE_UP_MS * NSEC_PER_MSEC) {
        control_reply(cas->request, json_pack("{s:s, s:i, s:i, s:i, s:i, s:s}", "verdict", "no_answer", "epoch", 0,
                      "members", 0, "wait_ms", 0, "serve_after_ms", 0, "reason", "the witness did not answer within 2 s"));
        cas->request = NULL;
        return false;
    }
    if (now_ns >= cas->last_ns + WITNESS_REPEAT_MS * NSEC_PER_MSEC)
        send_cas(client, cas);
    return true;
}

static int on_repeat_timer(sd_event_source *source, uint64_t now, void *userdata)
{
    struct witness_client *client = userdata;
    uint64_t now_ns = clock_boottime_ns();
    bool more = client->fetching;
    for (unsigned i = 0; i < WITNESS_CAS_MAX; i++)
        more |= repeat_cas(client, &client->cas[i], now_ns);
    if (client->fetching && now_ns >= client->fetch_sent_ns + WITNESS_REPEAT_MS * NSEC_PER_MSEC)
        send_fetch(client);
    if (more)
        wake_repeats(client);
    return 0;
}

void witness_client_cas(struct witness_client *client, const struct wire_message *cas, struct control_request *request)
{
    unsigned slot = 0;
    while (slot < WITNESS_CAS_MAX && client->cas[slot].request != NULL)
        slot++;
    if (slot == WITNESS_CAS_MAX) {
        control_fail(request, "busy", "%u requests to the witness are under way; repeat this one later", WITNESS_CAS_MAX);
        return;
    }
    struct pending_cas *pending = &client->cas[slot];
    *pending = (struct pending_cas){.request = request, .message = *cas, .first_ns = clock_boottime_ns()};
    pending->message.kind = WIRE_CAS;
    pending->message.request.id = id_random();
    send_cas(client, pending);
    wake_repeats(client);
}

void witness_client_note_counter(struct witness_client *client, uint64_t counter)
{
    if (counter > client->counter)
        client->counter = counter;
}

bool witness_client_is_reachable(const struct witness_client *client)
{
    return client->reachable;
}

json_t *witness_client_status(const struct witness_client *client)
{
    const struct site *site = &client->daemon->site;
    return json_pack("{s:s, s:i, s:b, s:b, s:f, s:I, s:I}", "address", site->witness_address, "port",
                     (int)site->witness_port, "reachable", client->reachable, "old_store", client->restored, "rtt_ms",
                     (double)client->round_trip_ns / NSEC_PER_MSEC, "counter", (json_int_t)client->counter,
                     "records_told", (json_int_t)client->told);
}

static int open_socket(struct witness_client *client, struct err *err)
{
    const struct site *site = &client->daemon->site;
    client->address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(site->witness_port)};
    if (inet_pton(AF_INET, site->witness_address, &client->address.sin_addr) != 1)
        return err_set(err, -EINVAL, "invalid", "witness address '%s': is no IPv4 address; correct it in hci.conf",
                       site->witness_address);
    client->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    /* Not connected: without a route yet connect() would fail for good, and replies are known by their seal. */
    if (client->fd < 0)
        return err_set(err, -errno, "io", "witness socket: %s", strerror(errno));
    return 0;
}

static int add_sources(struct witness_client *client)
{
    sd_event *event = client->daemon->event;
    int error = sd_event_add_io(event, &client->io, client->fd, EPOLLIN, on_readable, client);
    if (error >= 0)
        error = sd_event_add_time_relative(event, &client->lease_timer, CLOCK_BOOTTIME, 0, 1000, on_lease_timer, client);
    if (error >= 0)
        error = sd_event_source_set_enabled(client->lease_timer, SD_EVENT_ON);
    if (error >= 0)
        error = sd_event_add_time_relative(event, &client->repeat_timer, CLOCK_BOOTTIME, 0, 1000, on_repeat_timer, client);
    if (error >= 0)
        error = sd_event_source_set_enabled(client->repeat_timer, SD_EVENT_OFF);
    return error;
}

int witness_client_new(struct daemon *daemon, struct witness_client **ret, struct err *err)
{
    struct witness_client *client = calloc(1, sizeof *client);
    if (client == NULL)
        return err_set(err, -ENOMEM, "no_memory", "hci-quorumd: out of memory");
    client->daemon = daemon;
    client->fd = -1;
    int error = open_socket(client, err);
    if (error == 0 && (error = add_sources(client)) < 0)
        err_set(err, error, "io", "witness timers: %s", strerror(-error));
    if (error < 0) {
        witness_client_free(client);
        return error;
    }
    *ret = client;
    return 0;
}

void witness_client_free(struct witness_client *client)
{
    if (client == NULL)
        return;
    for (unsigned i = 0; i < WITNESS_CAS_MAX; i++)
        if (client->cas[i].request != NULL)
            control_fail(client->cas[i].request, "stopping", "hci-quorumd stops; repeat when it runs again");
    sd_event_source_disable_unref(client->io);
    sd_event_source_disable_unref(client->lease_timer);
    sd_event_source_disable_unref(client->repeat_timer);
    if (client->fd >= 0)
        close(client->fd);
    free(client);
}
