/* The methods of quorumd's control socket, with its guest list and freeze core behind them; the network is left out. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "quorum/control.h"
#include "quorum/daemon.h"
#include "tests/fuzz/control_talk.h"

/* --- what the methods call, less the network ---------------------------------------------------------------------- */

struct lease_actions daemon_lease_step(struct daemon *daemon, struct lease_event *event)
{
    struct lease_actions actions;
    event->now_ns = clock_boottime_ns();
    lease_step(&daemon->lease, event, &actions);
    return actions;
}

void daemon_drop_claims(struct daemon *daemon) { daemon->claim_count = 0; }
uint64_t daemon_guests_generation(const struct daemon *daemon) { return daemon->lease.generation; }
json_t *daemon_peer_event(const struct daemon *daemon) { return json_object(); }
json_t *daemon_lease_event(const struct daemon *daemon) { return json_object(); }
void watchdog_feed(struct watchdog *watchdog, uint64_t now_ns) { }
uint32_t watchdog_t_kill_ms(const struct watchdog *watchdog) { return WIRE_T_KILL_NONE; }
const char *watchdog_sentence(const struct watchdog *watchdog) { return "none"; }
json_t *corosync_view_status(struct corosync_view *view) { return json_object(); }
void witness_client_note_counter(struct witness_client *client, uint64_t counter) { }
json_t *witness_client_records(const struct witness_client *client) { return json_object(); }
bool witness_client_is_reachable(const struct witness_client *client) { return false; }
json_t *witness_client_status(const struct witness_client *client) { return json_object(); }

int heartbeat_sign_gone(struct heartbeat *heartbeat, const struct wire_gone *gone, uint64_t now_ns)
{
    check(wire_name_is_valid(gone->guest));
    fuzz_planted(gone->incarnation > 1);
    return 0;
}

/* What goes to the witness fits the wire. */
void witness_client_cas(struct witness_client *client, const struct wire_message *cas, struct control_request *request)
{
    struct wire_message message = *cas;
    uint8_t plain[WIRE_PLAIN_MAX];
    message.kind = WIRE_CAS;
    check(wire_encode(&message, plain, sizeof(plain)) > 0);
    control_reply(request, NULL);
}

/* --- one daemon for all inputs ------------------------------------------------------------------------------------ */

struct bench {
    struct daemon daemon;
    char folder[48];
};

static struct bench *bench_of_process(void)
{
    static struct bench bench;
    struct site *site = &bench.daemon.site;
    struct err err;
    if (bench.daemon.control)
        return &bench;
    snprintf(bench.folder, sizeof(bench.folder), "%s/quorumd-%d", fuzz_folder(), (int)getpid());
    check(mkdir(bench.folder, 0700) == 0);
    snprintf(site->run_folder, sizeof(site->run_folder), "%s", bench.folder);
    strcpy(site->cgroup_root, "/none/hci");
    check(site_profile_by_name("default", &site->profile) == 0);
    bench.daemon.witness = (struct witness_client *)&bench; /* only ever handed to the functions above */
    check(sd_event_new(&bench.daemon.event) >= 0);
    check(quorum_control_new(&bench.daemon, &err) == 0);
    return &bench;
}

/* Every input begins with the same daemon. */
static void forget(struct bench *bench)
{
    char list[80];
    const struct site_profile *profile = &bench->daemon.site.profile;
    struct lease_config config = {profile->lease_ms, profile->promise_ms, profile->suspect_ms};
    snprintf(list, sizeof(list), "%s/quorumd-guests.json", bench->folder);
    unlink(list);
    lease_init(&bench->daemon.lease, &config, clock_boottime_ns());
    guests_start(&bench->daemon.guests, &bench->daemon);
    bench->daemon.claim_count = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bench *bench = bench_of_process();
    char path[80];
    forget(bench);
    snprintf(path, sizeof(path), "%s/quorumd.sock", bench->folder);
    control_talk(bench->daemon.event, path, data, size);
    return 0;
}
