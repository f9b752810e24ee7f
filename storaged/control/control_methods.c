/* The methods of storaged's control socket: parameters in, a call to the engine, its answer out. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "storaged/control/control_private.h"

struct pending *pending_new(struct control *control, struct control_request *request, int kind, reply_maker *reply)
{
    struct pending *pending = calloc(1, sizeof *pending);
    check(pending);
    pending->control = control;
    pending->request = request;
    pending->reply = reply;
    pending->call.kind = kind;
    pending->call.done = pending_done;
    pending->call.userdata = pending;
    return pending;
}

void pending_free(struct pending *pending)
{
    metadata_changes_clear(&pending->call.changes);
    metadata_clear(&pending->call.metadata);
    free(pending->call.snapshot);
    free(pending->call.sessions);
    if (pending->call.prepared)
        pool_disk_prepared_free(pending->call.prepared);
    json_decref(pending->params);
    free(pending);
}

void pending_submit(struct pending *pending)
{
    engine_submit(pending->control->engine, &pending->call);
}

void pending_done(struct engine_call *call)
{
    struct pending *pending = call->userdata;
    control_post_call(pending->control, call);
}

void pending_answer(struct control *control, struct engine_call *call)
{
    struct pending *pending = call->userdata;
    if (call->result < 0) {
        pending_fail(pending, &call->err);
    } else if (pending->then && !control->stopping) {
        pending->then(control, pending);
    } else {
        control_reply(pending->request, pending->then ? NULL : pending->reply(control, call));
        pending_free(pending);
    }
}

void pending_fail(struct pending *pending, const struct err *err)
{
    control_fail_err(pending->request, err);
    pending_free(pending);
}

const char *request_text(struct control_request *request, json_t *params, const char *key, size_t size)
{
    const char *text = json_string_value(json_object_get(params, key));
    if (text && strlen(text) > 0 && strlen(text) < size)
        return text;
    control_fail(request, "invalid", "parameter '%s': a text of 1 to %zu characters is needed", key, size - 1);
    return NULL;
}

/* ---- views -------------------------------------------------------------------------------------------------------------------- */

struct pending *pending_snapshot(struct control *control, struct control_request *request, reply_maker *reply)
{
    struct pending *pending = pending_new(control, request, ENGINE_SNAPSHOT, reply);
    pending->call.snapshot = calloc(1, sizeof *pending->call.snapshot);
    check(pending->call.snapshot);
    return pending;
}

static void ask_snapshot(struct control_request *request, struct control *control, reply_maker *reply)
{
    pending_submit(pending_snapshot(control, request, reply));
}

static void volume_list(struct control_request *request, json_t *params, void *userdata)
{
    ask_snapshot(request, userdata, json_of_volumes);
}

static void group_list(struct control_request *request, json_t *params, void *userdata)
{
    ask_snapshot(request, userdata, json_of_groups);
}

static void status(struct control_request *request, json_t *params, void *userdata)
{
    ask_snapshot(request, userdata, json_of_status);
}

static void subscribe(struct control_request *request, json_t *params, void *userdata)
{
    struct control *control = userdata;
    for (unsigned i = 0; i < control->state_count; i++)
        control_send_event(request, "group", json_of_group_state(control, &control->states[i]));
    control_send_event(request, "link", json_pack("{s:b}", "connected", control->link_up));
    control_reply(request, NULL);
}

/* ---- volumes ------------------------------------------------------------------------------------------------------------------------- */

static json_t *volume_created(struct control *control, struct engine_call *call)
{
    return json_pack("{s:o, s:o}", "volume", json_of_id(&call->volume), "group", json_of_id(&call->group));
}

static void volume_create(struct control_request *request, json_t *params, void *userdata)
{
    const char *name = request_text(request, params, "name", GROUP_NAME_SIZE);
    if (!name)
        return;
    const char *group = json_string_value(json_object_get(params, "group"));
    json_int_t size = json_integer_value(json_object_get(params, "size_bytes"));
    if ((group && strlen(group) >= GROUP_NAME_SIZE) || size <= 0) {
        control_fail(request, "invalid", "volume '%s': size_bytes must be a positive number, and a group's name shorter than %u", name, GROUP_NAME_SIZE);
        return;
    }
    struct pending *pending = pending_new(userdata, request, ENGINE_VOLUME_CREATE, volume_created);
    strcpy(pending->call.name, name);
    strcpy(pending->call.group_name, group ? group : "");
    pending->call.size_bytes = (uint64_t)size;
    pending_submit(pending);
}

json_t *reply_nothing(struct control *control, struct engine_call *call)
{
    return NULL;
}

static void volume_delete(struct control_request *request, json_t *params, void *userdata)
{
    const char *name = request_text(request, params, "name", GROUP_NAME_SIZE);
    if (!name)
        return;
    struct pending *pending = pending_new(userdata, request, ENGINE_VOLUME_DELETE, reply_nothing);
    strcpy(pending->call.name, name);
    pending_submit(pending);
}

static json_t *volume_shown(struct control *control, struct engine_call *call)
{
    json_t *all = json_of_volumes(control, call), *volume, *found = NULL;
    size_t index;
    json_array_foreach(json_object_get(all, "volumes"), index, volume)
        if (strcmp(json_string_value(json_object_get(volume, "name")), call->name) == 0)
            found = json_incref(volume);
    json_decref(all);
    return found;
}

static void show_volume(struct control *control, struct pending *pending)
{
    json_t *volume = volume_shown(control, &pending->call);
    if (volume)
        control_reply(pending->request, volume);
    else
        control_fail(pending->request, "not_found", "volume '%s': there is none of that name; 'hcictl volume list' shows all", pending->call.name);
    pending_free(pending);
}

static void volume_show(struct control_request *request, json_t *params, void *userdata)
{
    const char *name = request_text(request, params, "name", GROUP_NAME_SIZE);
    if (!name)
        return;
    struct pending *pending = pending_snapshot(userdata, request, NULL);
    strcpy(pending->call.name, name);
    pending->then = show_volume;
    pending_submit(pending);
}

static void volume_grow(struct control_request *request, json_t *params, void *userdata)
{
    const char *name = request_text(request, params, "name", GROUP_NAME_SIZE);
    json_int_t size = json_integer_value(json_object_get(params, "size_bytes"));
    if (!name)
        return;
    if (size <= 0) {
        control_fail(request, "invalid", "volume '%s': size_bytes must be a positive number", name);
        return;
    }
    struct pending *pending = pending_new(userdata, request, ENGINE_VOLUME_GROW, volume_created);
    strcpy(pending->call.name, name);
    pending->call.size_bytes = (uint64_t)size;
    pending_submit(pending);
}

/* ---- metadata ------------------------------------------------------------------------------------------------------------------------ */

static json_t *meta_got(struct control *control, struct engine_call *call)
{
    return json_pack("{s:o, s:I, s:o}", "group", json_of_id(&call->group), "version", (json_int_t)call->metadata.version, "entries",
                     json_of_metadata(&call->metadata));
}

static void meta_get(struct control_request *request, json_t *params, void *userdata)
{
    const char *group = request_text(request, params, "group", GROUP_NAME_SIZE);
    if (!group)
        return;
    struct pending *pending = pending_new(userdata, request, ENGINE_META_GET, meta_got);
    strcpy(pending->call.group_name, group);
    pending_submit(pending);
}

static json_t *meta_swapped(struct control *control, struct engine_call *call)
{
    return json_pack("{s:I}", "version", (json_int_t)call->version);
}

static int read_changes(struct metadata_changes *changes, json_t *params)
{
    json_t *list = json_object_get(params, "changes"), *item;
    size_t index;
    if (json_array_size(list) == 0)
        return -EINVAL;
    json_array_foreach(list, index, item) {
        const char *key = json_string_value(json_object_get(item, "key"));
        json_t *expected = json_object_get(item, "expected"), *value = json_object_get(item, "value");
        bool valid = key && (json_is_string(expected) || !expected || json_is_null(expected)) &&
                     (json_is_string(value) || !value || json_is_null(value));
        int error = valid ? metadata_changes_add(changes, key, json_string_value(expected), json_string_value(value)) : -EINVAL;
        if (error < 0)
            return error;
    }
    return 0;
}

static void meta_swap_method(struct control_request *request, json_t *params, void *userdata)
{
    const char *group = request_text(request, params, "group", GROUP_NAME_SIZE);
    if (!group)
        return;
    struct pending *pending = pending_new(userdata, request, ENGINE_META_SWAP, meta_swapped);
    strcpy(pending->call.group_name, group);
    int error = read_changes(&pending->call.changes, params);
    if (error < 0) {
        control_fail(request, "invalid", "group '%s': 'changes' must be 1 to %u items {key, expected, value} of texts of at most 40 KiB (%s)", group,
                     METADATA_CHANGES_MAX, strerror(-error));
        pending_free(pending);
        return;
    }
    pending_submit(pending);
}

const struct control_method control_methods[] = {
    {"pool.create", pool_create_method},
    {"pool.show", pool_show_method},
    {"disk.list", disk_list_method},
    {"disk.add", disk_add_method},
    {"disk.remove", disk_remove_method},
    {"disk.replace", disk_replace_method},
    {"volume.create", volume_create},
    {"volume.list", volume_list},
    {"volume.show", volume_show},
    {"volume.grow", volume_grow},
    {"volume.delete", volume_delete},
    {"target.show", target_show_method},
    {"target.set", target_set_method},
    {"target.chap", target_chap_method},
    {"group.list", group_list},
    {"meta.get", meta_get},
    {"meta.swap", meta_swap_method},
    {"status", status},
    {"subscribe", subscribe},
    {NULL, NULL},
};
