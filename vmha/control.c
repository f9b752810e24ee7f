/* The methods of vmhad.sock. */
#include <stdio.h>
#include <string.h>

#include "common/check.h"
#include "vmha/daemon.h"

json_t *control_describe(struct daemon *daemon, const struct vmha_guest *guest)
{
    const char *reason = guest->record.reason[0] ? guest->record.reason : guest->reason;
    bool here = guest->here_incarnation != 0;

    json_t *json = json_pack("{s:s, s:s, s:s, s:I, s:b, s:s, s:s}", "name", guest->name, "state",
                             vmha_core_state_name(guest), "node", vmha_core_node_name(daemon->core,
                                                                                      guest), "incarnation",
                             (json_int_t)(here ? guest->here_incarnation : guest->record.incarnation), "here", here,
                             "group", guest->view.name, "reason", reason);
    check(json);
    return json;
}

static bool read_name(struct control_request *request, json_t *params, const char **ret)
{
    struct err err;
    const char *name = json_string_value(json_object_get(params, "name"));

    if (!name) {
        control_fail(request, "invalid", "the name of the guest is missing; give \"name\"");
        return false;
    }
    if (domain_xml_check_name(name, &err)) {
        control_fail_err(request, &err);
        return false;
    }
    *ret = name;
    return true;
}

static void command(struct control_request *request, json_t *params, void *userdata, enum vmha_event_kind kind)
{
    struct vmha_event event = daemon_event(kind);
    const char *name;

    if (!read_name(request, params, &name))
        return;
    strcpy(event.name, name);
    event.force = json_is_true(json_object_get(params, "force"));
    event.token = (uintptr_t)request; /* comes back exactly once, in control_answer_command */
    daemon_feed(userdata, &event);
}

void control_answer_command(struct daemon *daemon, const struct vmha_action *action)
{
    struct control_request *request = (struct control_request *)(uintptr_t)action->token;

    if (action->ok)
        control_reply(request, json_pack("{s:s}", "message", action->text));
    else
        control_fail(request, action->code, "%s", action->text);
}

static void on_start(struct control_request *request, json_t *params, void *userdata)
{
    command(request, params, userdata, VMHA_EVENT_ASKED_START);
}

static void on_stop(struct control_request *request, json_t *params, void *userdata)
{
    command(request, params, userdata, VMHA_EVENT_ASKED_STOP);
}

static void on_remove(struct control_request *request, json_t *params, void *userdata)
{
    command(request, params, userdata, VMHA_EVENT_ASKED_REMOVE);
}

static void on_list(struct control_request *request, json_t *params, void *userdata)
{
    struct daemon *daemon = userdata;
    json_t *guests = json_array();

    for (unsigned i = 0; i < VMHA_GROUPS_MAX; i++) {
        const struct vmha_guest *guest = &daemon->core->guests[i];
        if (guest->used && guest->name[0])
            json_array_append_new(guests, control_describe(daemon, guest));
    }
    control_reply(request, json_pack("{s:o}", "guests", guests));
}

static void on_show(struct control_request *request, json_t *params, void *userdata)
{
    struct daemon *daemon = userdata;
    const char *name;

    if (!read_name(request, params, &name))
        return;
    const struct vmha_guest *guest = vmha_core_by_name(daemon->core, name);
    if (!guest) {
        control_fail(request, "not_found", "guest '%s' does not exist; 'hcictl vm list' shows all", name);
        return;
    }
    const struct definition *definition = daemon_definition(daemon, &guest->group);
    char group[ID_TEXT_SIZE];
    json_t *json = control_describe(daemon, guest);
    json_object_set_new(json, "group_id", json_string(id_format(&guest->group, group)));
    json_object_set_new(json, "owner", json_string(guest->record.text));
    if (definition && definition->xml)
        json_object_set_new(json, "xml", json_string(definition->xml));
    control_reply(request, json);
}

static void on_status(struct control_request *request, json_t *params, void *userdata)
{
    struct daemon *daemon = userdata;
    const struct vmha_core *core = daemon->core;
    json_int_t here = 0, known = 0;

    for (unsigned i = 0; i < VMHA_GROUPS_MAX; i++) {
        known += core->guests[i].used && core->guests[i].defined;
        here += core->guests[i].used && core->guests[i].here_incarnation;
    }
    control_reply(request, json_pack("{s:s, s:s, s:b, s:b, s:s, s:b, s:b, s:I, s:I}", "version", HCI_VERSION, "node",
                                     core->self_name, "storaged", core->storage_up, "quorumd", core->quorum_up,
                                     "libvirt_uri", daemon->site.libvirt_uri, "hypervisor", core->hypervisor_up,
                                     "lease_valid", core->lease_valid, "guests", known, "guests_here", here));
}

const struct control_method control_methods[] = {
    {"vm.add", control_vm_add},
    {"vm.start", on_start},
    {"vm.stop", on_stop},
    {"vm.remove", on_remove},
    {"vm.list", on_list},
    {"vm.show", on_show},
    {"status", on_status},
    {NULL, NULL},
};
