/* Everything quorumd knows, for `hcictl status`. */
#include "quorum/status.h"

#include "common/clock.h"
#include "quorum/daemon.h"

static json_int_t ms_ago(uint64_t then_ns, uint64_t now_ns)
{
    return then_ns == 0 ? -1 : (json_int_t)((now_ns - then_ns) / NSEC_PER_MSEC);
}

static json_int_t ms_left(uint64_t until_ns, uint64_t now_ns)
{
    return until_ns <= now_ns ? 0 : (json_int_t)((until_ns - now_ns) / NSEC_PER_MSEC);
}

static json_t *lease_status(const struct daemon *daemon, uint64_t now_ns)
{
    const struct lease *lease = &daemon->lease;
    return json_pack("{s:b, s:I, s:I, s:I, s:b, s:I, s:i}", "valid", lease->valid, "generation",
                     (json_int_t)lease->generation, "from_peer_ms", ms_left(lease->until_ns[LEASE_FROM_PEER], now_ns),
                     "from_witness_ms", ms_left(lease->until_ns[LEASE_FROM_WITNESS], now_ns), "storage_alive",
                     lease->storage_alive, "records_applied", (json_int_t)lease->applied, "primary_claims",
                     (int)daemon->claim_count);
}

static json_t *links_status(const struct daemon *daemon, uint64_t now_ns)
{
    json_t *links = json_array();
    for (unsigned i = 0; i < daemon->heartbeat.link_count; i++) {
        const struct heartbeat_link *link = &daemon->heartbeat.state[i];
        bool up = link->heard_ns != 0 && now_ns < link->heard_ns + daemon->site.profile.suspect_ms * NSEC_PER_MSEC;
        json_array_append_new(links, json_pack("{s:s, s:s, s:b, s:I, s:f}", "own", site_self(&daemon->site)->links[i],
                              "peer", site_peer(&daemon->site)->links[i], "up", up, "heard_ms_ago",
                              ms_ago(link->heard_ns, now_ns), "rtt_ms", (double)link->round_trip_ns / NSEC_PER_MSEC));
    }
    return links;
}

static json_t *peer_status(const struct daemon *daemon, uint64_t now_ns)
{
    uint32_t t_kill_ms = daemon->notes.t_kill_ms;
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:o}", "name", site_peer(&daemon->site)->name, "state",
                     daemon->lease.peer_suspect ? "suspect" : "alive", "heard_ms_ago",
                     ms_ago(daemon->lease.heard_ns, now_ns), "lease_over_in_ms",
                     (json_int_t)lease_peer_over_in_ms(&daemon->lease, now_ns), "t_kill_ms",
                     t_kill_ms == WIRE_T_KILL_NONE ? (json_int_t)-1 : (json_int_t)t_kill_ms, "links",
                     links_status(daemon, now_ns));
}

static json_t *guests_status(const struct daemon *daemon)
{
    static const char *const states[] = {
        [FREEZE_RUNNING] = "running", [FREEZE_FREEZING] = "freezing", [FREEZE_FROZEN] = "frozen", [FREEZE_GONE] = "gone",
    };
    json_t *guests = json_array();
    for (unsigned i = 0; i < daemon->guests.freeze.guest_count; i++) {
        const struct freeze_guest *guest = &daemon->guests.freeze.guests[i];
        char group[ID_TEXT_SIZE];
        json_array_append_new(guests, json_pack("{s:s, s:s, s:I, s:s, s:s}", "name", guest->name, "group",
                              id_format(&guest->group, group), "incarnation", (json_int_t)guest->incarnation, "state",
                              states[guest->state], "lives_on",
                              freeze_basis_name(freeze_basis_of(&daemon->guests.freeze, guest))));
    }
    return guests;
}

static json_t *watchdog_status(const struct daemon *daemon)
{
    uint32_t t_kill_ms = watchdog_t_kill_ms(daemon->watchdog);
    return json_pack("{s:b, s:I, s:s}", "armed", t_kill_ms != WIRE_T_KILL_NONE, "t_kill_ms",
                     t_kill_ms == WIRE_T_KILL_NONE ? (json_int_t)-1 : (json_int_t)t_kill_ms, "sentence",
                     watchdog_sentence(daemon->watchdog));
}

json_t *quorum_status(struct daemon *daemon)
{
    uint64_t now_ns = clock_boottime_ns();
    const struct site_profile *profile = &daemon->site.profile;
    json_t *witness = daemon->witness == NULL ? json_null() : witness_client_status(daemon->witness);
    json_t *corosync = daemon->corosync == NULL ? json_null() : corosync_view_status(daemon->corosync);
    return json_pack("{s:s, s:s, s:s, s:{s:s, s:i, s:i, s:i, s:i}, s:o, s:o, s:o, s:o, s:o, s:o}", "version", HCI_VERSION,
                     "cluster", daemon->site.name, "node", site_self(&daemon->site)->name, "profile", "name", profile->name,
                     "lease_ms", (int)profile->lease_ms, "promise_ms", (int)profile->promise_ms, "heartbeat_ms",
                     (int)profile->heartbeat_ms, "suspect_ms", (int)profile->suspect_ms, "lease",
                     lease_status(daemon, now_ns), "peer", peer_status(daemon, now_ns), "witness", witness, "watchdog",
                     watchdog_status(daemon), "guests", guests_status(daemon), "corosync", corosync);
}
