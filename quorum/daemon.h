/* hci-quorumd's one object: the pure cores, the adapters around them, and who tells whom. */
#pragma once

#include <systemd/sd-event.h>

#include "common/control.h"
#include "common/site.h"
#include "quorum/corosync_view.h"
#include "quorum/guests.h"
#include "quorum/heartbeat.h"
#include "quorum/lease_core.h"
#include "quorum/page.h"
#include "quorum/peer_notes.h"
#include "quorum/watchdog.h"
#include "quorum/witness_client.h"

#define CLAIMANTS 64u

struct daemon {
    struct site site;
    struct site_secrets secrets;
    sd_event *event;
    struct id boot; /* of this start: every request carries it */
    struct lease lease;
    struct quorum_page *page;
    const struct storage_page *storage_page; /* NULL while storaged has not started */
    char storage_page_path[160];
    sd_event_source *heartbeat_timer, *lease_timer;
    struct heartbeat heartbeat;
    struct peer_notes notes;
    struct guests guests;
    struct watchdog *watchdog;
    struct witness_client *witness; /* NULL when none is configured */
    struct corosync_view *corosync; /* NULL when its thread could not start */
    struct control_server *control;
    struct id claims[WIRE_CLAIMS_MAX]; /* storaged's primary groups: they travel with the lease requests to W */
    unsigned claim_count;
    struct claimant { /* which claim a closing connection made: an old one's close means nothing */
        struct daemon *daemon;
    } claimants[CLAIMANTS];
    unsigned claim_serial;
};

/* `daemon->site` and `daemon->secrets` are filled in by the caller. On failure daemon_stop may still be called. */
int daemon_start(struct daemon *daemon, struct err *err);
/* Disarms the watchdog when rule R11 allows it. */
void daemon_stop(struct daemon *daemon);

/* Runs one event through the lease core and carries out what follows; `event->now_ns` is set here. */
struct lease_actions daemon_lease_step(struct daemon *daemon, struct lease_event *event);
/* storaged's connection closed, or another storaged took its place: its claims are void. */
void daemon_drop_claims(struct daemon *daemon);
/* Events for the control socket; new references. */
json_t *daemon_peer_event(const struct daemon *daemon);
json_t *daemon_lease_event(const struct daemon *daemon);
/* What vmhad's proofs are bound to: rises with every lapse of the lease, and of the part the peer acknowledged. */
uint64_t daemon_guests_generation(const struct daemon *daemon);
