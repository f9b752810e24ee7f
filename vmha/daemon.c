/* Wires the core to its adapters: one event in, its actions out, the next deadline armed. */
#include "vmha/daemon.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/log.h"

struct vmha_event daemon_event(enum vmha_event_kind kind)
{
    return (struct vmha_event){.kind = kind};
}

struct definition *daemon_definition(struct daemon *daemon, const struct id *group)
{
    for (unsigned i = 0; i < VMHA_GROUPS_MAX; i++)
        if (daemon->definitions[i].used && id_equal(&daemon->definitions[i].group, group))
            return &daemon->definitions[i];
    return NULL;
}

static void perform(struct daemon *daemon, const struct vmha_action *action)
{
    switch (action->kind) {
    case VMHA_ACTION_READ: links_read(daemon, action); break;
    case VMHA_ACTION_SWAP: links_swap(daemon, action); break;
    case VMHA_ACTION_ASK_PEER_LEASE: links_ask_peer_lease(daemon); break;
    case VMHA_ACTION_REGISTER: links_register(daemon, action); break;
    case VMHA_ACTION_THAW: links_thaw(daemon, action); break;
    case VMHA_ACTION_SIGN_GONE: links_sign_gone(daemon, action); break;
    case VMHA_ACTION_START:
    case VMHA_ACTION_RESUME:
    case VMHA_ACTION_SHUTDOWN:
    case VMHA_ACTION_KILL: guests_perform(daemon, action); break;
    case VMHA_ACTION_ANSWER: control_answer_command(daemon, action); break;
    case VMHA_ACTION_PUBLISH:
        control_publish(daemon->server, "guest", control_describe(daemon, vmha_core_by_group(daemon->core,
                                                                                             &action->group)));
        break;
    case VMHA_ACTION_NOTE: log_notice("%s", action->text); break;
    }
}

static void arm(struct daemon *daemon)
{
    uint64_t deadline_ms = vmha_core_deadline_ms(daemon->core);

    if (deadline_ms == UINT64_MAX) {
        sd_event_source_set_enabled(daemon->timer, SD_EVENT_OFF);
        return;
    }
    sd_event_source_set_time(daemon->timer, deadline_ms * 1000);
    sd_event_source_set_enabled(daemon->timer, SD_EVENT_ONESHOT);
}

void daemon_feed(struct daemon *daemon, struct vmha_event *event)
{
    event->now_ms = clock_boottime_ms();
    vmha_core_step(daemon->core, event, daemon->actions);
    /* No action answers before the loop runs again, so the list is not overwritten meanwhile. */
    for (unsigned i = 0; i < daemon->actions->count; i++)
        perform(daemon, &daemon->actions->list[i]);
    arm(daemon);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct vmha_event event = daemon_event(VMHA_EVENT_TICK);

    daemon_feed(userdata, &event);
    return 0;
}

int daemon_new(sd_event *event, const struct site *site, struct daemon **ret, struct err *err)
{
    struct daemon *daemon = calloc(1, sizeof *daemon);
    char path[sizeof site->run_folder + 16];

    check(daemon);
    daemon->site = *site;
    daemon->event = event;
    daemon->core = calloc(1, sizeof *daemon->core);
    daemon->actions = calloc(1, sizeof *daemon->actions);
    check(daemon->core && daemon->actions);
    vmha_core_init(daemon->core, &site_self(site)->id, site_self(site)->name, &site_peer(site)->id,
                   site_peer(site)->name);
    check(sd_event_add_time(event, &daemon->timer, CLOCK_BOOTTIME, 0, 1000, on_timer, daemon) >= 0);
    sd_event_source_set_enabled(daemon->timer, SD_EVENT_OFF);
    snprintf(path, sizeof path, "%s/vmhad.sock", site->run_folder);
    int r = control_server_new(event, path, control_methods, daemon, &daemon->server, err);
    if (!r)
        r = guests_open(daemon, err);
    if (!r && links_open(daemon))
        r = err_set(err, -EIO, "socket", "the control sockets in '%s' cannot be watched", site->run_folder);
    if (r) {
        daemon_free(daemon);
        return r;
    }
    *ret = daemon;
    return 0;
}

void daemon_free(struct daemon *daemon)
{
    if (!daemon)
        return;
    hypervisor_free(daemon->hypervisor);
    if (daemon->storaged)
        control_client_free(daemon->storaged);
    if (daemon->quorumd)
        control_client_free(daemon->quorumd);
    if (daemon->server)
        control_server_free(daemon->server);
    sd_event_source_unref(daemon->timer);
    for (unsigned i = 0; i < VMHA_GROUPS_MAX; i++)
        meta_forget(&daemon->definitions[i]);
    free(daemon->actions);
    free(daemon->core);
    free(daemon);
}
