/* The sweep over the clusters: small steps, so that no lease waits for it. */
#include "witness/watch.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "witness/alert_text.h"

#define STEP_US UINT64_C(50000)
#define STEPS 16u /* a sweep takes 0.8 s */
#define GAP_NS (5 * NSEC_PER_SEC)

static_assert(SERVED_SLOTS % STEPS == 0, "the slices cover the table");

struct watch {
    struct server *server;
    struct store *store;
    const struct config *config;
    struct alerts *alerts;
    struct counters *counters;
    sd_event_source *timer;
    unsigned step;
    uint64_t last_ns;    /* of the last step */
    uint64_t resumed_ns; /* this process stood still until then: what it did not hear says nothing */
    bool was_full;
    time_t full_since;
    /* counted in this sweep */
    unsigned nodes_heard, restored, active;
};

static void look_at(struct watch *watch, struct served *served, uint64_t now_ns)
{
    const struct store_cluster *cluster = served->cluster;
    struct alert_facts facts = {
        .now_ns = now_ns, .start_ns = served->start_ns > watch->resumed_ns ? served->start_ns : watch->resumed_ns,
        .heard_ns = {served->members[0].heard_ns, served->members[1].heard_ns}, .groups = served->groups,
        .single = {served->single[0], served->single[1]},
    };
    const struct alert_names names = {cluster->name, {cluster->nodes[0].name, cluster->nodes[1].name}, cluster->id};
    struct alert_change changes[ALERT_KINDS];
    struct alert alert;
    for (unsigned node = 0; node < 2; node++)
        watch->nodes_heard += facts.heard_ns[node] != 0 &&
                              now_ns - facts.heard_ns[node] < watch->config->alert.lost_s * NSEC_PER_SEC;
    watch->restored += cluster->records.restored;
    if (cluster->unconfirmed) /* enrolled, not in service yet */
        return;
    unsigned count = alert_step(&served->alerts, &watch->config->alert, &facts, changes);
    for (unsigned i = 0; i < count; i++) {
        alert_describe(&changes[i], &facts, &names, time(NULL), &alert);
        alerts_tell(watch->alerts, &alert);
    }
    watch->active += (unsigned)__builtin_popcount(served->alerts.active);
}

static void look_at_own(struct watch *watch)
{
    struct alert alert;
    bool full = server_is_full(watch->server);
    if (full == watch->was_full)
        return;
    watch->was_full = full;
    if (full)
        watch->full_since = time(NULL);
    alert_describe_own("store_full", full, watch->full_since, time(NULL),
                       full ? "the witness's disk is full: no site can take over the groups of a lost node until there is room; "
                              "nothing stops while both nodes of a site are up, and records that exist are safe; make room on "
                              "the disk of the witness's state folder, it goes on by itself"
                            : "the witness's disk takes changes again: every site can take over the groups of a lost node", &alert);
    alerts_tell(watch->alerts, &alert);
}

static void end_sweep(struct watch *watch)
{
    count_set(watch->counters, COUNT_CLUSTERS, server_table(watch->server)->count);
    count_set(watch->counters, COUNT_NODES_HEARD, watch->nodes_heard);
    count_set(watch->counters, COUNT_CLUSTERS_RESTORED, watch->restored);
    count_set(watch->counters, COUNT_ALERTS_ACTIVE, watch->active + watch->was_full);
    count_set(watch->counters, COUNT_STORE_BYTES, store_size_bytes(watch->store));
    watch->nodes_heard = watch->restored = watch->active = 0;
    watch->step = 0;
}

static int on_step(sd_event_source *source, uint64_t now, void *userdata)
{
    struct watch *watch = userdata;
    const struct served_table *table = server_table(watch->server);
    uint64_t now_ns = clock_boottime_ns();
    /* Stopped, or its host suspended: every site seems silent for as long. */
    if (now_ns - watch->last_ns > GAP_NS)
        watch->resumed_ns = now_ns;
    watch->last_ns = now_ns;
    unsigned slice = SERVED_SLOTS / STEPS;
    for (unsigned i = watch->step * slice; i < (watch->step + 1) * slice; i++)
        if (table->slots[i] != NULL)
            look_at(watch, table->slots[i], now_ns);
    look_at_own(watch);
    if (++watch->step == STEPS)
        end_sweep(watch);
    sd_event_source_set_time_relative(source, STEP_US);
    return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

int watch_new(sd_event *event, struct server *server, struct store *store, const struct config *config,
              struct alerts *alerts, struct counters *counters, struct watch **ret, struct err *err)
{
    struct watch *watch = calloc(1, sizeof *watch);
    if (watch == NULL)
        return err_set(err, -ENOMEM, "no_memory", "hci-witnessd: out of memory");
    *watch = (struct watch){.server = server, .store = store, .config = config, .alerts = alerts, .counters = counters,
                            .last_ns = clock_boottime_ns()};
    int error = sd_event_add_time_relative(event, &watch->timer, CLOCK_BOOTTIME, STEP_US, 10000, on_step, watch);
    if (error < 0) {
        watch_free(watch);
        return err_set(err, error, "io", "alerts: %s", strerror(-error));
    }
    *ret = watch;
    return 0;
}

void watch_free(struct watch *watch)
{
    if (watch == NULL)
        return;
    sd_event_source_disable_unref(watch->timer);
    free(watch);
}
