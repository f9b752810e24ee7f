/* The two lasting connections: hci-storaged (groups, records) and hci-quorumd (leases, freezing, "guest gone"). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/log.h"
#include "vmha/cgroup.h"
#include "vmha/daemon.h"

/* What an answer needs to find its way back. */
struct call {
    struct daemon *daemon;
    struct id group;
    uint64_t serial, incarnation;
    struct record record;
    enum vmha_swap swap;
};

static struct call *call_new(struct daemon *daemon, const struct vmha_action *action)
{
    struct call *call = calloc(1, sizeof *call);

    check(call);
    call->daemon = daemon;
    if (action) {
        call->group = action->group;
        call->serial = action->serial;
        call->incarnation = action->incarnation;
        call->record = action->record;
        call->swap = action->swap;
    }
    return call;
}

/* Makes the event that answers `call` and frees it. */
static struct vmha_event call_end(struct call *call, enum vmha_event_kind kind, json_t *error)
{
    struct vmha_event event = daemon_event(kind);

    event.group = call->group;
    event.serial = call->serial;
    event.incarnation = call->incarnation;
    event.ok = !error;
    free(call);
    return event;
}

static const char *error_code(json_t *error)
{
    const char *code = json_string_value(json_object_get(error, "code"));

    return code ? code : "";
}

static const char *error_text(json_t *error)
{
    const char *text = json_string_value(json_object_get(error, "message"));

    return text ? text : "no reason given";
}

static json_t *group_params(const struct id *group)
{
    char text[ID_TEXT_SIZE];

    return json_pack("{s:s}", "group", id_format(group, text));
}

static void on_read(json_t *result, json_t *error, void *userdata)
{
    struct call *call = userdata;
    struct daemon *daemon = call->daemon;
    struct vmha_event event = call_end(call, VMHA_EVENT_META, error);

    if (event.ok)
        event.ok = !meta_read(daemon, &event.group, result, &event.meta);
    daemon_feed(daemon, &event);
}

void links_read(struct daemon *daemon, const struct vmha_action *action)
{
    control_client_call(daemon->storaged, "meta.get", group_params(&action->group), on_read, call_new(daemon, action));
}

/* After "changed": what it is now. When that cannot be read the swap counts as unanswered. */
static void on_changed(json_t *result, json_t *error, void *userdata)
{
    struct call *call = userdata;
    struct daemon *daemon = call->daemon;
    struct vmha_event event = call_end(call, VMHA_EVENT_SWAPPED, error);
    bool read = event.ok && !meta_read(daemon, &event.group, result, &event.meta);

    event.swap_result = read ? VMHA_SWAP_CHANGED : VMHA_SWAP_UNAVAILABLE;
    daemon_feed(daemon, &event);
}

static void swap_ok(struct call *call, json_t *result)
{
    struct daemon *daemon = call->daemon;
    struct definition *definition = daemon_definition(daemon, &call->group);
    const struct vmha_guest *guest = vmha_core_by_group(daemon->core, &call->group);
    struct record record = call->record;
    bool removed = call->swap == VMHA_SWAP_REMOVE;
    struct vmha_event event = call_end(call, VMHA_EVENT_SWAPPED, NULL);

    check(guest);
    event.swap_result = VMHA_SWAP_OK;
    event.meta.version = (uint64_t)json_integer_value(json_object_get(result, "version"));
    event.meta.has_record = !removed;
    strcpy(event.meta.name, guest->name);
    event.meta.record = record;
    if (removed && definition)
        meta_forget(definition);
    daemon_feed(daemon, &event);
}

static void on_swap(json_t *result, json_t *error, void *userdata)
{
    struct call *call = userdata;
    struct daemon *daemon = call->daemon;

    if (!error) {
        swap_ok(call, result);
    } else if (!strcmp(error_code(error), "changed")) {
        control_client_call(daemon->storaged, "meta.get", group_params(&call->group), on_changed, call);
    } else {
        log_notice("a guest's record was not changed: %s", error_text(error));
        struct vmha_event event = call_end(call, VMHA_EVENT_SWAPPED, error);
        event.swap_result = VMHA_SWAP_UNAVAILABLE;
        daemon_feed(daemon, &event);
    }
}

static json_t *change(const char *key, const char *expected, const char *value)
{
    return json_pack("{s:s, s:s?, s:s?}", "key", key, "expected", expected, "value", value);
}

void links_swap(struct daemon *daemon, const struct vmha_action *action)
{
    struct call *call = call_new(daemon, action);
    json_t *changes = json_array(), *params = group_params(&action->group);

    if (action->swap == VMHA_SWAP_REMOVE) {
        const struct definition *definition = daemon_definition(daemon, &action->group);
        check(definition && definition->guest_text);
        json_array_append_new(changes, change("owner", action->expected, NULL));
        json_array_append_new(changes, change("guest", definition->guest_text, NULL));
        if (definition->chap_text)
            json_array_append_new(changes, change("chap", definition->chap_text, NULL));
    } else {
        record_format(&call->record);
        json_array_append_new(changes, change("owner", action->expected, call->record.text));
    }
    check(params && !json_object_set_new(params, "changes", changes));
    control_client_call(daemon->storaged, "meta.swap", params, on_swap, call);
}

static void feed_gone(struct daemon *daemon, json_t *gone)
{
    struct vmha_event event = daemon_event(VMHA_EVENT_PEER_GONE);
    const char *guest = NULL, *group;
    json_int_t incarnation;

    if (json_unpack(gone, "{s?s, s:s, s:I}", "guest", &guest, "group", &group, "incarnation", &incarnation) ||
        incarnation < 1 || id_parse(group, &event.group))
        return;
    event.incarnation = (uint64_t)incarnation;
    log_info("the peer signed guest '%s' incarnation %llu gone", guest ? guest : "?", (unsigned long long)incarnation);
    daemon_feed(daemon, &event);
}

static void on_peer_lease(json_t *result, json_t *error, void *userdata)
{
    struct call *call = userdata;
    struct daemon *daemon = call->daemon;
    struct vmha_event event = call_end(call, VMHA_EVENT_PEER_LEASE, error);
    json_t *killed = json_object_get(result, "killed_in_ms"), *gone;
    size_t index;

    json_array_foreach(json_object_get(result, "gone"), index, gone)
        feed_gone(daemon, gone);
    event.ok = event.ok && json_is_integer(killed) && json_integer_value(killed) >= 0;
    if (event.ok)
        event.killed_in_ms = (uint64_t)json_integer_value(killed);
    daemon_feed(daemon, &event);
}

void links_ask_peer_lease(struct daemon *daemon)
{
    control_client_call(daemon->quorumd, "peer.lease", NULL, on_peer_lease, call_new(daemon, NULL));
}

static void on_registered(json_t *result, json_t *error, void *userdata)
{
    struct call *call = userdata;
    struct daemon *daemon = call->daemon;
    struct vmha_event event = call_end(call, VMHA_EVENT_REGISTERED, error);

    if (error && strcmp(error_code(error), "disconnected"))
        log_warning("hci-quorumd does not take the list of guests: %s", error_text(error));
    daemon_feed(daemon, &event);
}

void links_register(struct daemon *daemon, const struct vmha_action *action)
{
    json_t *guests = json_array();
    char path[CGROUP_PATH_MAX], group[ID_TEXT_SIZE];

    for (unsigned i = 0; i < VMHA_GROUPS_MAX; i++) {
        const struct vmha_guest *guest = &daemon->core->guests[i];
        if (!vmha_core_registers(guest))
            continue;
        cgroup_path(daemon->site.cgroup_root, guest->name, path);
        json_array_append_new(guests, json_pack("{s:s, s:s, s:I, s:s}", "name", guest->name, "group",
                                                id_format(&guest->group, group), "incarnation",
                                                (json_int_t)guest->here_incarnation, "cgroup", path));
    }
    control_client_call(daemon->quorumd, "guests.set", json_pack("{s:o}", "guests", guests), on_registered,
                        call_new(daemon, action));
}

static void on_thawed(json_t *result, json_t *error, void *userdata)
{
    struct call *call = userdata;
    struct daemon *daemon = call->daemon;
    struct vmha_event event = call_end(call, VMHA_EVENT_THAWED, error);

    daemon_feed(daemon, &event);
}

void links_thaw(struct daemon *daemon, const struct vmha_action *action)
{
    control_client_call(daemon->quorumd, "guest.thaw", json_pack("{s:s, s:I}", "name", action->name, "generation",
                        (json_int_t)action->generation), on_thawed,
                        call_new(daemon, action));
}

static void on_signed(json_t *result, json_t *error, void *userdata)
{
    struct call *call = userdata;
    struct daemon *daemon = call->daemon;
    struct vmha_event event = call_end(call, VMHA_EVENT_SIGNED, error);

    daemon_feed(daemon, &event);
}

void links_sign_gone(struct daemon *daemon, const struct vmha_action *action)
{
    json_t *params = group_params(&action->group);

    json_object_set_new(params, "name", json_string(action->name));
    json_object_set_new(params, "incarnation", json_integer((json_int_t)action->incarnation));
    control_client_call(daemon->quorumd, "guest.gone", params, on_signed, call_new(daemon, action));
}

static void feed_link(struct daemon *daemon, enum vmha_event_kind kind, bool up)
{
    struct vmha_event event = daemon_event(kind);

    event.up = up;
    daemon_feed(daemon, &event);
}

static void storage_connected(void *userdata) { feed_link(userdata, VMHA_EVENT_STORAGE, true); }
static void storage_disconnected(void *userdata) { feed_link(userdata, VMHA_EVENT_STORAGE, false); }
static void quorum_connected(void *userdata) { feed_link(userdata, VMHA_EVENT_QUORUM, true); }
static void quorum_disconnected(void *userdata) { feed_link(userdata, VMHA_EVENT_QUORUM, false); }

static void feed_group(struct daemon *daemon, const struct id *group, json_t *data)
{
    struct vmha_event event = daemon_event(VMHA_EVENT_GROUP);
    const char *name = json_string_value(json_object_get(data, "name"));
    json_t *member;
    size_t index;

    event.group = *group;
    snprintf(event.view.name, sizeof event.view.name, "%s", name ? name : "");
    event.view.serving = json_is_true(json_object_get(data, "serving"));
    event.view.local = json_is_true(json_object_get(data, "local"));
    json_array_foreach(json_object_get(data, "members"), index, member) {
        const char *node = json_string_value(member);
        event.view.member |= node && !strcmp(node, site_self(&daemon->site)->name);
        event.view.peer_member |= node && !strcmp(node, site_peer(&daemon->site)->name);
    }
    daemon_feed(daemon, &event);
}

static void storage_event(const char *name, json_t *data, void *userdata)
{
    const char *text = json_string_value(json_object_get(data, "group"));
    struct vmha_event event = daemon_event(VMHA_EVENT_META_CHANGED);

    if (!text || id_parse(text, &event.group))
        return;
    if (!strcmp(name, "group"))
        feed_group(userdata, &event.group, data);
    else if (!strcmp(name, "meta"))
        daemon_feed(userdata, &event);
}

static void feed_frozen(struct daemon *daemon, json_t *names)
{
    struct vmha_event event = daemon_event(VMHA_EVENT_FROZEN);
    const char *frozen[VMHA_GROUPS_MAX];
    json_t *name;
    size_t index;

    json_array_foreach(names, index, name)
        if (json_is_string(name) && event.frozen.count < VMHA_GROUPS_MAX)
            frozen[event.frozen.count++] = json_string_value(name);
    event.frozen.names = frozen;
    daemon_feed(daemon, &event);
}

static void quorum_event(const char *name, json_t *data, void *userdata)
{
    if (!strcmp(name, "lease")) {
        struct vmha_event event = daemon_event(VMHA_EVENT_LEASE);
        event.lease.valid = json_is_true(json_object_get(data, "valid"));
        event.lease.generation = (uint64_t)json_integer_value(json_object_get(data, "generation"));
        daemon_feed(userdata, &event);
    } else if (!strcmp(name, "gone")) {
        feed_gone(userdata, data);
    } else if (!strcmp(name, "guests")) {
        feed_frozen(userdata, json_object_get(data, "frozen"));
    }
}

int links_open(struct daemon *daemon)
{
    static const struct control_client_callbacks storage = {storage_connected, storage_disconnected, storage_event};
    static const struct control_client_callbacks quorum = {quorum_connected, quorum_disconnected, quorum_event};
    char path[sizeof daemon->site.run_folder + 16];

    snprintf(path, sizeof path, "%s/storaged.sock", daemon->site.run_folder);
    int r = control_client_new(daemon->event, path, &storage, daemon, &daemon->storaged);
    if (r)
        return r;
    snprintf(path, sizeof path, "%s/quorumd.sock", daemon->site.run_folder);
    return control_client_new(daemon->event, path, &quorum, daemon, &daemon->quorumd);
}
