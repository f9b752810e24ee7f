/* The conversation with the peer, both sides of it, over every link. */
#include "quorum/heartbeat.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/control.h"
#include "common/log.h"
#include "quorum/daemon.h"

static void send_message(struct heartbeat *heartbeat, unsigned link, const struct wire_message *message)
{
    const struct daemon *daemon = heartbeat->daemon;
    struct wire_header header = {
        .direction = WIRE_NODE_TO_NODE, .cluster = daemon->site.id, .node = site_self(&daemon->site)->id,
    };
    uint8_t data[SEAL_DATAGRAM_MAX];
    ssize_t size = wire_seal(daemon->secrets.to_peer, &header, message, data, sizeof data);
    check(size > 0);
    /* A link that is down is silence, which is what heartbeats are for. */
    (void)links_send(heartbeat->links, link, data, (size_t)size);
}

static void forget_old_gone(struct heartbeat *heartbeat, uint64_t now_ns)
{
    for (unsigned i = 0; i < heartbeat->gone_count;) {
        if (now_ns < heartbeat->gone[i].until_ns)
            i++;
        else
            heartbeat->gone[i] = heartbeat->gone[--heartbeat->gone_count];
    }
}

/* When there are more than fit they take turns. */
static void put_gone(struct heartbeat *heartbeat, struct wire_message *message)
{
    unsigned count = heartbeat->gone_count < WIRE_GONE_MAX ? heartbeat->gone_count : WIRE_GONE_MAX;
    for (unsigned i = 0; i < count; i++)
        message->gone[i] = heartbeat->gone[(heartbeat->next_gone + i) % heartbeat->gone_count].gone;
    message->gone_count = (uint8_t)count;
}

static void send_on_link(struct heartbeat *heartbeat, unsigned link, uint64_t now_ns, struct wire_message *message)
{
    struct heartbeat_link *state = &heartbeat->state[link];
    struct lease_event event = {.kind = LEASE_EV_SEND, .responder = LEASE_FROM_PEER, .id = id_random()};
    message->link = (uint8_t)link;
    message->request.id = event.id;
    message->wants_lease = daemon_lease_step(heartbeat->daemon, &event).ask;
    state->sent[state->next_sent].id = event.id;
    state->sent[state->next_sent].sent_ns = now_ns;
    state->next_sent = (state->next_sent + 1) % HEARTBEAT_SENT_MAX;
    send_message(heartbeat, link, message);
}

void heartbeat_send(struct heartbeat *heartbeat, uint64_t now_ns)
{
    const struct daemon *daemon = heartbeat->daemon;
    struct wire_message message = {
        .kind = WIRE_HEARTBEAT,
        .request = {.boot = daemon->boot, .answer = heartbeat->answer, .sequence = ++heartbeat->sequence},
        .t_kill_ms = watchdog_t_kill_ms(daemon->watchdog),
        .lease_ms = daemon->site.profile.lease_ms, .promise_ms = daemon->site.profile.promise_ms,
    };
    forget_old_gone(heartbeat, now_ns);
    put_gone(heartbeat, &message);
    for (unsigned link = 0; link < heartbeat->link_count; link++)
        send_on_link(heartbeat, link, now_ns, &message);
    if (heartbeat->gone_count > 0)
        heartbeat->next_gone = (heartbeat->next_gone + message.gone_count) % heartbeat->gone_count;
}

static void note_heard(struct heartbeat *heartbeat, unsigned link, uint64_t now_ns)
{
    struct lease_event event = {.kind = LEASE_EV_HEARD};
    heartbeat->state[link].heard_ns = now_ns;
    daemon_lease_step(heartbeat->daemon, &event);
}

static void take_gone(struct daemon *daemon, const struct wire_message *message)
{
    for (unsigned i = 0; i < message->gone_count; i++) {
        const struct wire_gone *gone = &message->gone[i];
        char group[ID_TEXT_SIZE];
        if (!peer_notes_take_gone(&daemon->notes, gone))
            continue;
        log_notice("guest '%s' incarnation %llu: node '%s' signs that it is gone there", gone->guest,
                   (unsigned long long)gone->incarnation, site_peer(&daemon->site)->name);
        control_publish(daemon->control, "gone", json_pack("{s:s, s:s, s:I}", "guest", gone->guest, "group",
                        id_format(&gone->group, group), "incarnation", (json_int_t)gone->incarnation));
    }
}

static void handle_heartbeat(struct heartbeat *heartbeat, unsigned link, const struct wire_message *message)
{
    struct daemon *daemon = heartbeat->daemon;
    struct id fresh = id_random();
    struct wire_message reply = {.kind = WIRE_HEARTBEAT_ACK, .reply = {.echo = message->request.id, .boot = daemon->boot}};
    /* The lane is what the sender sealed: the same heartbeat cannot be replayed into another link's order. */
    enum wire_admission admission = wire_guard_admit(&heartbeat->guard, &message->request, message->link, &fresh);
    if (admission == WIRE_REPEATED)
        return;
    if (admission == WIRE_CHALLENGED) {
        reply.reply.challenge = heartbeat->guard.challenge;
    } else {
        note_heard(heartbeat, link, clock_boottime_ns());
        peer_notes_take_t_kill(&daemon->notes, message->t_kill_ms);
        take_gone(daemon, message);
        if (message->wants_lease) {
            struct lease_event event = {
                .kind = LEASE_EV_REQUEST, .lease_ms = message->lease_ms, .promise_ms = message->promise_ms,
            };
            reply.acknowledged = daemon_lease_step(daemon, &event).acknowledge;
        }
    }
    send_message(heartbeat, link, &reply);
}

static void handle_ack(struct heartbeat *heartbeat, unsigned link, const struct wire_message *message)
{
    struct heartbeat_link *state = &heartbeat->state[link];
    unsigned i = 0;
    while (i < HEARTBEAT_SENT_MAX && !id_equal(&state->sent[i].id, &message->reply.echo))
        i++;
    if (i == HEARTBEAT_SENT_MAX)
        return; /* protocol "Datagrams": a reply counts only if it echoes an id outstanding in this boot */
    uint64_t now_ns = clock_boottime_ns();
    state->round_trip_ns = now_ns - state->sent[i].sent_ns;
    memset(&state->sent[i].id, 0, sizeof state->sent[i].id);
    note_heard(heartbeat, link, now_ns);
    if (!id_is_null(&message->reply.challenge))
        heartbeat->answer = message->reply.challenge;
    if (message->acknowledged) {
        struct lease_event event = {.kind = LEASE_EV_ACK, .responder = LEASE_FROM_PEER, .id = message->reply.echo};
        daemon_lease_step(heartbeat->daemon, &event);
    }
}

static void on_received(unsigned link, const uint8_t *data, size_t size, void *userdata)
{
    struct heartbeat *heartbeat = userdata;
    const struct daemon *daemon = heartbeat->daemon;
    struct wire_header header;
    struct wire_message message;
    if (wire_peek(data, size, &header) < 0 || header.direction != WIRE_NODE_TO_NODE ||
        !id_equal(&header.cluster, &daemon->site.id) || !id_equal(&header.node, &site_peer(&daemon->site)->id) ||
        wire_open(daemon->secrets.from_peer, data, size, &message) < 0)
        return;
    if (message.kind == WIRE_HEARTBEAT)
        handle_heartbeat(heartbeat, link, &message);
    else
        handle_ack(heartbeat, link, &message);
}

int heartbeat_start(struct heartbeat *heartbeat, struct daemon *daemon, struct err *err)
{
    struct id challenge = id_random();
    const struct site_node *own = site_self(&daemon->site), *peer = site_peer(&daemon->site);
    memset(heartbeat, 0, sizeof *heartbeat);
    heartbeat->daemon = daemon;
    heartbeat->link_count = own->link_count < peer->link_count ? own->link_count : peer->link_count;
    static_assert(WIRE_LANES >= SITE_LINKS_MAX, "each link is a lane");
    wire_guard_init(&heartbeat->guard, &challenge);
    return links_new(daemon->event, &daemon->site, on_received, heartbeat, &heartbeat->links, err);
}

void heartbeat_stop(struct heartbeat *heartbeat)
{
    links_free(heartbeat->links);
    heartbeat->links = NULL;
}

int heartbeat_sign_gone(struct heartbeat *heartbeat, const struct wire_gone *gone, uint64_t now_ns)
{
    unsigned slot = 0;
    while (slot < heartbeat->gone_count && strcmp(heartbeat->gone[slot].gone.guest, gone->guest) != 0)
        slot++;
    if (slot == HEARTBEAT_GONE_MAX)
        return -ENOSPC;
    if (slot == heartbeat->gone_count)
        heartbeat->gone_count++;
    heartbeat->gone[slot] = (struct heartbeat_gone){.gone = *gone, .until_ns = now_ns + HEARTBEAT_GONE_NS};
    return 0;
}
