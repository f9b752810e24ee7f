/* quorumd's control socket: takes requests apart, refuses what is malformed, hands the rest on. */
#include "quorum/control.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "quorum/claims.h"
#include "quorum/daemon.h"
#include "quorum/status.h"

/* "Never by time": far beyond any patience, and still an integer for every reader. */
#define NEVER_MS INT64_C(1000000000000)

static void on_claimant_closed(void *userdata)
{
    struct claimant *claimant = userdata;
    struct daemon *daemon = claimant->daemon;
    /* A later claim came over another connection: that one counts. */
    if (claimant != &daemon->claimants[daemon->claim_serial % CLAIMANTS])
        return;
    log_warning("storaged is gone: its claims are dropped");
    daemon_drop_claims(daemon);
}

static void note_claimant(struct daemon *daemon, struct control_request *request)
{
    struct claimant *claimant = &daemon->claimants[++daemon->claim_serial % CLAIMANTS];
    claimant->daemon = daemon;
    control_on_close(request, on_claimant_closed, claimant);
}

static void handle_claim(struct control_request *request, json_t *params, void *userdata)
{
    struct daemon *daemon = userdata;
    struct claims claims;
    if (claims_take(params, &claims) < 0) {
        control_fail(request, "invalid", "storage.claim: needs lists of group ids, primary and sole");
        return;
    }
    if (claims.refused > 0)
        log_error("storage.claim: %u groups do not fit (%u primary travel in one datagram, %u sole): their guests live "
                  "on the other node's acknowledgement alone; delete groups", claims.refused, WIRE_CLAIMS_MAX,
                  FREEZE_GROUPS_MAX);
    note_claimant(daemon, request);
    memcpy(daemon->claims, claims.primary, claims.primary_count * sizeof claims.primary[0]);
    daemon->claim_count = claims.primary_count;
    struct freeze_event event = {
        .kind = FREEZE_EV_CLAIMS, .serves_primary = claims.serves_primary, .groups = claims.sole,
        .count = claims.sole_count, .primary = claims.primary, .primary_count = claims.primary_count,
    };
    guests_step(&daemon->guests, &event);
    control_reply(request, json_pack("{s:i}", "refused", (int)claims.refused));
}

static bool take_position(json_t *object, struct wire_position *ret)
{
    json_t *epoch = json_object_get(object, "epoch"), *members = json_object_get(object, "members");
    if (!json_is_integer(epoch) || !json_is_integer(members) || json_integer_value(epoch) < 0 ||
        json_integer_value(members) < 0 || json_integer_value(members) > 3)
        return false;
    ret->epoch = (uint64_t)json_integer_value(epoch);
    ret->members = (uint8_t)json_integer_value(members);
    return true;
}

static bool take_cas(json_t *params, struct wire_message *ret)
{
    const char *group = json_string_value(json_object_get(params, "group"));
    json_t *from = json_object_get(params, "from"), *was_primary = json_object_get(params, "was_primary");
    size_t count = json_array_size(from);
    memset(ret, 0, sizeof *ret);
    if (group == NULL || id_parse(group, &ret->group) < 0 || id_is_null(&ret->group) || count < 1 ||
        count > WIRE_FROM_MAX || !take_position(json_object_get(params, "to"), &ret->to) || !json_is_boolean(was_primary))
        return false;
    for (size_t i = 0; i < count; i++)
        if (!take_position(json_array_get(from, i), &ret->from[i]))
            return false;
    ret->from_count = (uint8_t)count;
    ret->was_primary = json_is_true(was_primary);
    return true;
}

static void handle_cas(struct control_request *request, json_t *params, void *userdata)
{
    struct daemon *daemon = userdata;
    struct wire_message cas;
    if (!take_cas(params, &cas))
        control_fail(request, "invalid", "cas: needs group, from (1 or 2 of epoch and members), to and was_primary");
    else if (daemon->witness == NULL)
        control_fail(request, "no_witness", "no witness is enrolled for this cluster; run 'hcictl witness enroll'");
    else
        witness_client_cas(daemon->witness, &cas, request);
}

static void handle_applied(struct control_request *request, json_t *params, void *userdata)
{
    struct daemon *daemon = userdata;
    json_t *counter = json_object_get(params, "counter");
    if (!json_is_integer(counter) || json_integer_value(counter) < 0) {
        control_fail(request, "invalid", "records.applied: needs the counter");
        return;
    }
    struct lease_event event = {.kind = LEASE_EV_APPLIED, .counter = (uint64_t)json_integer_value(counter)};
    daemon_lease_step(daemon, &event);
    if (daemon->witness != NULL)
        witness_client_note_counter(daemon->witness, event.counter);
    control_reply(request, NULL);
}

static json_t *gone_list(const struct daemon *daemon)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < daemon->notes.gone_count; i++) {
        const struct wire_gone *gone = &daemon->notes.gone[i];
        char group[ID_TEXT_SIZE];
        json_array_append_new(list, json_pack("{s:s, s:s, s:I}", "guest", gone->guest, "group",
                              id_format(&gone->group, group), "incarnation", (json_int_t)gone->incarnation));
    }
    return list;
}

static void handle_peer_lease(struct control_request *request, json_t *params, void *userdata)
{
    struct daemon *daemon = userdata;
    uint64_t now_ns = clock_boottime_ns(), over_ms = lease_peer_over_in_ms(&daemon->lease, now_ns);
    bool dies = daemon->notes.t_kill_ms != WIRE_T_KILL_NONE;
    json_int_t killed_ms = dies ? (json_int_t)lease_peer_killed_in_ms(&daemon->lease, daemon->notes.t_kill_ms, now_ns)
                                : (json_int_t)NEVER_MS;
    control_reply(request, json_pack("{s:I, s:I, s:b, s:s, s:o}", "over_in_ms", (json_int_t)over_ms, "killed_in_ms",
                  killed_ms, "watchdog", dies, "peer", daemon->lease.peer_suspect ? "suspect" : "alive", "gone",
                  gone_list(daemon)));
}

/* For a group this node is the only member of: until the peer can surely serve it no longer (R8). */
static void handle_peer_fence(struct control_request *request, json_t *params, void *userdata)
{
    struct daemon *daemon = userdata;
    struct lease_event fence = {.kind = LEASE_EV_FENCE};
    if (claims_take_group(params, &fence.group) < 0)
        control_fail(request, "invalid", "peer.fence: needs the id of the group that this node holds alone");
    else
        control_reply(request, json_pack("{s:I}", "over_in_ms",
                      (json_int_t)daemon_lease_step(daemon, &fence).fence_ms));
}

static void handle_guests(struct control_request *request, json_t *params, void *userdata)
{
    struct daemon *daemon = userdata;
    struct err err = {0};
    if (guests_set(&daemon->guests, json_object_get(params, "guests"), &err) < 0)
        control_fail_err(request, &err);
    else
        control_reply(request, NULL);
}

static void handle_thaw(struct control_request *request, json_t *params, void *userdata)
{
    struct daemon *daemon = userdata;
    const char *name = json_string_value(json_object_get(params, "name"));
    json_t *generation = json_object_get(params, "generation");
    struct freeze_event event = {.kind = FREEZE_EV_THAW, .name = name == NULL ? "" : name};
    struct lease_event tick = {.kind = LEASE_EV_TICK};
    daemon_lease_step(daemon, &tick); /* a lease that just ended must not thaw */
    /* R11: the proof is of the time before a lapse that its asker slept through: the other node may have moved the record. */
    event.stale = (uint64_t)json_integer_value(generation) != daemon_guests_generation(daemon);
    struct freeze_actions actions = guests_step(&daemon->guests, &event);
    if (actions.thaw_unknown)
        control_fail(request, "unknown", "guest '%.63s': is not registered here; register it with guests.set", event.name);
    else if (actions.thaw_refused && event.stale)
        control_fail(request, "lease", "guest '%.63s': stays frozen because a lease of this node ended since its record was "
                     "proved; prove it again", event.name);
    else if (actions.thaw_refused && actions.thaw_needs == FREEZE_ON_LEASE)
        control_fail(request, "lease", "guest '%.63s': stays frozen because this node has no lease; wait until the other "
                     "node or the witness answers", event.name);
    else if (actions.thaw_refused)
        control_fail(request, "lease", "guest '%.63s': stays frozen because this node does not serve its group and the "
                     "other node, which may start it, does not acknowledge this node's lease; wait until it does or "
                     "this node serves the group", event.name);
    else
        control_reply(request, NULL);
}

static void handle_gone(struct control_request *request, json_t *params, void *userdata)
{
    struct daemon *daemon = userdata;
    struct wire_gone gone = {0};
    const char *name = json_string_value(json_object_get(params, "name"));
    const char *group = json_string_value(json_object_get(params, "group"));
    json_int_t incarnation = json_integer_value(json_object_get(params, "incarnation"));
    if (name == NULL || !wire_name_is_valid(name) || group == NULL || id_parse(group, &gone.group) < 0 ||
        incarnation < 0) {
        control_fail(request, "invalid", "guest.gone: needs name (at most %u letters, digits, '.', '_' and '-'), group "
                     "and incarnation", WIRE_NAME_MAX);
        return;
    }
    strcpy(gone.guest, name);
    gone.incarnation = (uint64_t)incarnation;
    if (heartbeat_sign_gone(&daemon->heartbeat, &gone, clock_boottime_ns()) < 0) {
        control_fail(request, "busy", "guest '%s': %u other notices are being sent; repeat in some seconds", name,
                     HEARTBEAT_GONE_MAX);
        return;
    }
    struct freeze_event event = {.kind = FREEZE_EV_GUEST_GONE, .name = gone.guest, .incarnation = gone.incarnation};
    guests_step(&daemon->guests, &event);
    control_reply(request, NULL);
}

static void handle_status(struct control_request *request, json_t *params, void *userdata)
{
    control_reply(request, quorum_status(userdata));
}

/* A newcomer first learns how things stand. */
static void handle_subscribe(struct control_request *request, json_t *params, void *userdata)
{
    struct daemon *daemon = userdata;
    control_send_event(request, "peer", daemon_peer_event(daemon));
    control_send_event(request, "lease", daemon_lease_event(daemon));
    control_send_event(request, "guests", guests_event(&daemon->guests));
    if (daemon->witness != NULL) {
        json_t *records = witness_client_records(daemon->witness);
        control_send_event(request, "witness", json_pack("{s:b}", "reachable",
                           witness_client_is_reachable(daemon->witness)));
        if (records != NULL)
            control_send_event(request, "records", records);
    }
    control_reply(request, NULL);
}

int quorum_control_new(struct daemon *daemon, struct err *err)
{
    static const struct control_method methods[] = {
        {"storage.claim", handle_claim},   {"cas", handle_cas},               {"records.applied", handle_applied},
        {"peer.lease", handle_peer_lease}, {"peer.fence", handle_peer_fence}, {"guests.set", handle_guests},
        {"guest.thaw", handle_thaw},       {"guest.gone", handle_gone},       {"status", handle_status},
        {"subscribe", handle_subscribe},
        {NULL, NULL},
    };
    char path[160];
    snprintf(path, sizeof path, "%s/quorumd.sock", daemon->site.run_folder);
    return control_server_new(daemon->event, path, methods, daemon, &daemon->control, err);
}
