/* Actions that end at the hypervisor, and what it says. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "vmha/cgroup.h"
#include "vmha/daemon.h"

struct job {
    struct daemon *daemon;
    enum vmha_event_kind kind;
    struct id group;
    uint64_t incarnation;
    char name[VMHA_NAME_MAX];
};

static struct job *job_new(struct daemon *daemon, const struct vmha_action *action, enum vmha_event_kind kind)
{
    struct job *job = calloc(1, sizeof *job);

    check(job);
    *job = (struct job){.daemon = daemon, .kind = kind, .group = action->group, .incarnation = action->incarnation};
    strcpy(job->name, action->name);
    return job;
}

static void on_done(const char *error, void *userdata)
{
    struct job *job = userdata;
    struct daemon *daemon = job->daemon;
    struct vmha_event event = daemon_event(job->kind);

    event.group = job->group;
    event.incarnation = job->incarnation;
    event.ok = !error;
    snprintf(event.reason, sizeof event.reason, "%.*s", RECORD_REASON_MAX - 1, error ? error : "");
    free(job);
    daemon_feed(daemon, &event);
}

static void on_shutdown_asked(const char *error, void *userdata)
{
    struct job *job = userdata;

    if (error)
        log_notice("guest '%s' could not be asked to shut down: %s", job->name, error);
    free(job);
}

int guests_volumes(json_t *groups, const struct id *group, struct domain_xml_volumes *ret, const char **ret_name)
{
    json_t *entry, *volume;
    size_t index, inner;

    json_array_foreach(json_object_get(groups, "groups"), index, entry) {
        const char *text = json_string_value(json_object_get(entry, "group"));
        struct id id;
        if (!text || id_parse(text, &id) || !id_equal(&id, group))
            continue;
        ret->count = 0;
        json_array_foreach(json_object_get(entry, "volumes"), inner, volume) {
            const char *name = json_string_value(json_object_get(volume, "name"));
            if (name && strlen(name) < DOMAIN_XML_NAME_MAX && ret->count < DOMAIN_XML_VOLUMES_MAX)
                strcpy(ret->names[ret->count++], name);
        }
        const char *name = json_string_value(json_object_get(entry, "name"));
        *ret_name = name ? name : "";
        return 0;
    }
    return -ENOENT;
}

int guests_plan(struct daemon *daemon, const char *guest, uint64_t incarnation, struct domain_xml_plan *ret,
                char initiator[static DOMAIN_XML_INITIATOR_MAX], struct err *err)
{
    *ret = (struct domain_xml_plan){.guest = guest, .incarnation = incarnation, .initiator = initiator};
    domain_xml_initiator(guest, incarnation, site_self(&daemon->site)->name, initiator);
    return domain_xml_portal(daemon->site.portals, daemon->site.portal_count, ret, err);
}

static int complete(struct job *job, json_t *groups, const struct definition *definition, char **ret_xml,
                    struct err *err)
{
    struct domain_xml_plan plan;
    struct domain_xml_volumes volumes;
    char initiator[DOMAIN_XML_INITIATOR_MAX];

    int r = guests_plan(job->daemon, job->name, job->incarnation, &plan, initiator, err);
    if (r)
        return r;
    if (guests_volumes(groups, &job->group, &volumes, &plan.group_name))
        return err_set(err, -ENOENT, "not_found", "its group is not known to hci-storaged any more");
    plan.group = job->group;
    plan.volumes = &volumes;
    plan.chap_user = definition->chap_user;
    plan.secret = &job->group; /* one secret per guest: the group's id serves as its name */
    return domain_xml_complete(definition->xml, &plan, ret_xml, err);
}

static void on_groups(json_t *result, json_t *error, void *userdata)
{
    struct job *job = userdata;
    struct daemon *daemon = job->daemon;
    const struct definition *definition = daemon_definition(daemon, &job->group);
    cleanup_free char *xml = NULL;
    struct err err = {.text = "hci-storaged does not answer"};

    if (error || !definition || !definition->xml || complete(job, result, definition, &xml, &err)) {
        on_done(err.text, job);
        return;
    }
    hypervisor_start(daemon->hypervisor, job->name, xml, &job->group, definition->chap_secret, on_done, job);
}

void guests_perform(struct daemon *daemon, const struct vmha_action *action)
{
    switch (action->kind) {
    case VMHA_ACTION_START:
        control_client_call(daemon->storaged, "group.list", NULL, on_groups, job_new(daemon, action,
                                                                                     VMHA_EVENT_STARTED));
        break;
    case VMHA_ACTION_RESUME:
        hypervisor_resume(daemon->hypervisor, action->name, on_done, job_new(daemon, action, VMHA_EVENT_RESUMED));
        break;
    case VMHA_ACTION_SHUTDOWN:
        hypervisor_shutdown(daemon->hypervisor, action->name, on_shutdown_asked, job_new(daemon, action,
                                                                                         VMHA_EVENT_TICK));
        break;
    case VMHA_ACTION_KILL:
        hypervisor_kill(daemon->hypervisor, action->name, on_done, job_new(daemon, action, VMHA_EVENT_KILLED));
        break;
    default: check(!"an action of the hypervisor");
    }
}

static void on_listed(const struct hypervisor_domain *domains, unsigned count, void *userdata)
{
    struct daemon *daemon = userdata;
    struct vmha_event event = daemon_event(VMHA_EVENT_LISTING);

    log_info("the hypervisor at '%s' is connected; %u guests of ours are there", daemon->site.libvirt_uri, count);
    daemon_feed(daemon, &event);
    for (unsigned i = 0; i < count; i++) {
        event = daemon_event(VMHA_EVENT_DOMAIN_FOUND);
        event.group = domains[i].group;
        event.incarnation = domains[i].incarnation;
        strcpy(event.name, domains[i].name);
        event.found.paused = domains[i].paused;
        event.found.frozen = domains[i].frozen;
        daemon_feed(daemon, &event);
        event.kind = VMHA_EVENT_IO_ERROR;
        if (domains[i].io_error)
            daemon_feed(daemon, &event);
    }
    event = daemon_event(VMHA_EVENT_LISTED);
    daemon_feed(daemon, &event);
}

static void on_lost(void *userdata)
{
    struct vmha_event event = daemon_event(VMHA_EVENT_HYPERVISOR_LOST);

    daemon_feed(userdata, &event);
}

static void feed_named(struct daemon *daemon, enum vmha_event_kind kind, const char *name, bool by_guest)
{
    const struct vmha_guest *guest = vmha_core_by_name(daemon->core, name);
    struct vmha_event event = daemon_event(kind);

    if (!guest)
        return; /* a domain that is none of ours */
    event.group = guest->group;
    event.by_guest = by_guest;
    daemon_feed(daemon, &event);
}

static void on_ended(const char *name, bool by_guest, void *userdata)
{
    feed_named(userdata, VMHA_EVENT_DOMAIN_ENDED, name, by_guest);
}

static void on_io_error(const char *name, void *userdata)
{
    log_warning("guest '%s' is paused by an I/O error; it goes on when its group serves", name);
    feed_named(userdata, VMHA_EVENT_IO_ERROR, name, false);
}

int guests_open(struct daemon *daemon, struct err *err)
{
    static const struct hypervisor_callbacks callbacks = {on_listed, on_lost, on_ended, on_io_error};

    int r = cgroup_prepare(daemon->site.cgroup_root, err);
    if (r)
        return r;
    return hypervisor_new(daemon->event, daemon->site.libvirt_uri, daemon->site.cgroup_root, &callbacks, daemon,
                          &daemon->hypervisor, err);
}
