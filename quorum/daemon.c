/* hci-quorumd's wiring: time and datagrams into the lease core, its decisions into the page, the guests and the events. */
#include "quorum/daemon.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/files.h"
#include "common/log.h"
#include "quorum/control.h"

#define USEC_PER_MSEC 1000ull
#define TIMER_ACCURACY_US 1000ull

json_t *daemon_peer_event(const struct daemon *daemon)
{
    return json_pack("{s:s}", "state", daemon->lease.peer_suspect ? "suspect" : "alive");
}

json_t *daemon_lease_event(const struct daemon *daemon)
{
    return json_pack("{s:b, s:I}", "valid", daemon->lease.valid, "generation", (json_int_t)daemon_guests_generation(daemon));
}

uint64_t daemon_guests_generation(const struct daemon *daemon)
{
    return daemon->lease.generation + daemon->lease.peer_lapses;
}

/* The generation goes first: whoever sees a new deadline must see that the lease lapsed in between (R8). */
static void publish_page(struct daemon *daemon)
{
    const struct lease *lease = &daemon->lease;
    atomic_store_explicit(&daemon->page->generation, lease->generation, memory_order_release);
    atomic_store_explicit(&daemon->page->peer_until_ns, lease->until_ns[LEASE_FROM_PEER], memory_order_release);
    atomic_store_explicit(&daemon->page->witness_until_ns, lease->until_ns[LEASE_FROM_WITNESS], memory_order_release);
}

static void tell_lease(struct daemon *daemon, const struct lease_actions *actions)
{
    struct freeze_event event = {.kind = FREEZE_EV_LEASE, .valid = daemon->lease.valid};
    if (actions->lapsed)
        log_warning("the lease is over: generation is now %llu", (unsigned long long)daemon->lease.generation);
    if (actions->obtained)
        log_notice("the lease is valid, generation %llu", (unsigned long long)daemon->lease.generation);
    control_publish(daemon->control, "lease", daemon_lease_event(daemon));
    guests_step(&daemon->guests, &event);
}

static void tell_peer(struct daemon *daemon)
{
    const char *name = site_peer(&daemon->site)->name;
    if (daemon->lease.peer_suspect)
        log_warning("node '%s' is suspected: no heartbeat on any link for %u ms", name, daemon->site.profile.suspect_ms);
    else
        log_notice("node '%s' is alive", name);
    control_publish(daemon->control, "peer", daemon_peer_event(daemon));
}

struct lease_actions daemon_lease_step(struct daemon *daemon, struct lease_event *event)
{
    struct lease_actions actions;
    event->now_ns = clock_boottime_ns();
    lease_step(&daemon->lease, event, &actions);
    if (actions.publish)
        publish_page(daemon);
    if (actions.lapsed || actions.obtained)
        tell_lease(daemon, &actions);
    else if (actions.peer_lapsed)
        control_publish(daemon->control, "lease", daemon_lease_event(daemon));
    if (actions.peer_changed)
        tell_peer(daemon);
    if (actions.storage_changed && daemon->lease.storage_alive)
        log_notice("storaged lives: the lease is asked for");
    else if (actions.storage_changed)
        log_warning("storaged makes no progress: the lease is not asked for any more");
    uint64_t next_ns = lease_next_ns(&daemon->lease);
    sd_event_source_set_time(daemon->lease_timer, next_ns == UINT64_MAX ? UINT64_MAX : (next_ns + 999) / 1000);
    sd_event_source_set_enabled(daemon->lease_timer, SD_EVENT_ONESHOT);
    return actions;
}

static int on_lease_timer(sd_event_source *source, uint64_t now, void *userdata)
{
    struct lease_event event = {.kind = LEASE_EV_TICK};
    daemon_lease_step(userdata, &event);
    return 0;
}

/* R8: "X asks only while its storage lives". */
static void look_at_storage(struct daemon *daemon)
{
    struct lease_event event = {.kind = LEASE_EV_BEAT};
    if (daemon->storage_page != NULL && !page_is_current(daemon->storage_page_path, daemon->storage_page)) {
        page_close(daemon->storage_page);
        daemon->storage_page = NULL;
    }
    const void *page;
    if (daemon->storage_page == NULL && page_open(daemon->storage_page_path, &page, NULL) == 0)
        daemon->storage_page = page;
    if (daemon->storage_page != NULL &&
        atomic_load_explicit(&daemon->storage_page->magic, memory_order_acquire) == PAGE_MAGIC) {
        event.present = true;
        event.boot = atomic_load_explicit(&daemon->storage_page->boot, memory_order_acquire);
        event.beat = atomic_load_explicit(&daemon->storage_page->beat, memory_order_acquire);
    }
    daemon_lease_step(daemon, &event);
}

static int on_heartbeat_timer(sd_event_source *source, uint64_t now, void *userdata)
{
    struct daemon *daemon = userdata;
    struct freeze_event tick = {.kind = FREEZE_EV_TICK};
    sd_event_source_set_time_relative(source, daemon->site.profile.heartbeat_ms * USEC_PER_MSEC);
    look_at_storage(daemon);
    heartbeat_send(&daemon->heartbeat, clock_boottime_ns());
    guests_step(&daemon->guests, &tick); /* last: the lease was looked at just now */
    return 0;
}

void daemon_drop_claims(struct daemon *daemon)
{
    struct freeze_event gone = {.kind = FREEZE_EV_STORAGE_GONE};
    struct lease_event forgotten = {.kind = LEASE_EV_FORGOTTEN};
    daemon->claim_count = 0;
    daemon_lease_step(daemon, &forgotten);
    guests_step(&daemon->guests, &gone);
}

static int start_page(struct daemon *daemon, struct err *err)
{
    char path[160];
    void *page;
    uint64_t boot;
    int error = files_make_folder(daemon->site.run_folder, 0755, err);
    if (error == 0)
        error = files_make_folder(daemon->site.state_folder, 0700, err);
    if (error < 0)
        return error;
    snprintf(path, sizeof path, "%s/quorum.page", daemon->site.run_folder);
    snprintf(daemon->storage_page_path, sizeof daemon->storage_page_path, "%s/storaged.page", daemon->site.run_folder);
    error = page_make(path, &page, err);
    if (error < 0)
        return error;
    daemon->page = page;
    memcpy(&boot, daemon->boot.bytes, sizeof boot);
    atomic_store_explicit(&daemon->page->boot, boot, memory_order_relaxed);
    publish_page(daemon);
    atomic_store_explicit(&daemon->page->magic, PAGE_MAGIC, memory_order_release);
    return 0;
}

static int start_timers(struct daemon *daemon, struct err *err)
{
    int error = sd_event_add_time(daemon->event, &daemon->lease_timer, CLOCK_BOOTTIME, UINT64_MAX, 1, on_lease_timer, daemon);
    if (error >= 0)
        error = sd_event_add_time_relative(daemon->event, &daemon->heartbeat_timer, CLOCK_BOOTTIME, 0, TIMER_ACCURACY_US,
                                           on_heartbeat_timer, daemon);
    if (error >= 0)
        error = sd_event_source_set_enabled(daemon->heartbeat_timer, SD_EVENT_ON);
    /* When much is due at once, a lease that ends goes before everything else. */
    if (error >= 0)
        error = sd_event_source_set_priority(daemon->lease_timer, SD_EVENT_PRIORITY_IMPORTANT);
    return error < 0 ? err_set(err, error, "io", "timers: %s", strerror(-error)) : 0;
}

static void start_corosync(struct daemon *daemon)
{
    int error = corosync_view_new(&daemon->corosync);
    if (error < 0)
        log_warning("corosync is not watched (%s); nothing depends on it", strerror(-error));
}

int daemon_start(struct daemon *daemon, struct err *err)
{
    const struct site_profile *profile = &daemon->site.profile;
    struct lease_config config = {profile->lease_ms, profile->promise_ms, profile->suspect_ms};
    daemon->boot = id_random();
    lease_init(&daemon->lease, &config, clock_boottime_ns());
    int error = sd_event_default(&daemon->event);
    if (error < 0)
        return err_set(err, error, "io", "event loop: %s", strerror(-error));
    error = start_page(daemon, err);
    if (error == 0 && (error = watchdog_new(&daemon->site, &daemon->watchdog)) < 0)
        err_set(err, error, "no_memory", "hci-quorumd: out of memory");
    if (error == 0) {
        peer_notes_load(&daemon->notes, daemon->site.state_folder);
        error = quorum_control_new(daemon, err);
    }
    if (error == 0) {
        guests_start(&daemon->guests, daemon);
        error = heartbeat_start(&daemon->heartbeat, daemon, err);
    }
    if (error == 0 && daemon->site.has_witness)
        error = witness_client_new(daemon, &daemon->witness, err);
    if (error == 0)
        error = start_timers(daemon, err);
    if (error == 0)
        start_corosync(daemon);
    return error;
}

static void stop_watchdog(struct daemon *daemon)
{
    if (daemon->watchdog == NULL)
        return;
    /* R11: after us nobody renews the lease; who still runs here must be ended by the watchdog. */
    if (freeze_may_disarm(&daemon->guests.freeze))
        watchdog_disarm(daemon->watchdog);
    else if (watchdog_t_kill_ms(daemon->watchdog) != WIRE_T_KILL_NONE)
        log_warning("guests run or groups are served here: the watchdog stays armed and resets this node unless "
                    "hci-quorumd starts again in time");
    watchdog_free(daemon->watchdog);
}

void daemon_stop(struct daemon *daemon)
{
    witness_client_free(daemon->witness);
    heartbeat_stop(&daemon->heartbeat);
    sd_event_source_disable_unref(daemon->lease_timer);
    sd_event_source_disable_unref(daemon->heartbeat_timer);
    stop_watchdog(daemon);
    control_server_free(daemon->control);
    /* No lease outlives its keeper: storaged stops serving at once instead of at the deadline. */
    if (daemon->page != NULL) {
        daemon->lease.generation++;
        memset(daemon->lease.until_ns, 0, sizeof daemon->lease.until_ns);
        publish_page(daemon);
    }
    page_close(daemon->page);
    page_close(daemon->storage_page);
    /* Last: it waits for a thread in corosync's libraries, which may hang, and then the armed watchdog would end a node
     * that was stopped cleanly. */
    corosync_view_free(daemon->corosync);
    sd_event_unref(daemon->event);
    seal_wipe(&daemon->secrets, sizeof daemon->secrets);
}
