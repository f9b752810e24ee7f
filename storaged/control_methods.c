/* The methods of storaged's control socket: parameters in, a call to the engine, its answer out. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/files.h"
#include "storaged/control_private.h"

typedef json_t *reply_maker(struct control *control, struct engine_call *call);

static struct pending *pending_new(struct control *control, struct control_request *request, int kind, reply_maker *reply)
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

static void pending_free(struct pending *pending)
{
    metadata_changes_clear(&pending->call.changes);
    metadata_clear(&pending->call.metadata);
    free(pending->call.snapshot);
    free(pending);
}

static void submit(struct pending *pending)
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
    if (call->result < 0)
        control_fail_err(pending->request, &call->err);
    else
        control_reply(pending->request, pending->reply(control, call));
    pending_free(pending);
}

/* NULL, and the request was answered, when it is missing or no text of that length. */
static const char *text_of(struct control_request *request, json_t *params, const char *key, size_t size)
{
    const char *text = json_string_value(json_object_get(params, key));
    if (text && strlen(text) > 0 && strlen(text) < size)
        return text;
    control_fail(request, "invalid", "parameter '%s': a text of 1 to %zu characters is needed", key, size - 1);
    return NULL;
}

/* ---- views -------------------------------------------------------------------------------------------------------------------- */

static void ask_snapshot(struct control_request *request, struct control *control, reply_maker *reply)
{
    struct pending *pending = pending_new(control, request, ENGINE_SNAPSHOT, reply);
    pending->call.snapshot = calloc(1, sizeof *pending->call.snapshot);
    check(pending->call.snapshot);
    submit(pending);
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

static json_t *pool_or_nothing(struct control *control, struct engine_call *call)
{
    if (call->snapshot->has_pool)
        return json_of_pool(control, call);
    const struct err *error = &call->snapshot->pool_error;
    return json_pack("{s:n, s:s, s:s}", "pool", "code", error->code, "message", error->text);
}

static void pool_show(struct control_request *request, json_t *params, void *userdata)
{
    ask_snapshot(request, userdata, pool_or_nothing);
}

static void subscribe(struct control_request *request, json_t *params, void *userdata)
{
    struct control *control = userdata;
    for (unsigned i = 0; i < control->state_count; i++)
        control_send_event(request, "group", json_of_group_state(control, &control->states[i]));
    control_send_event(request, "link", json_pack("{s:b}", "connected", control->link_up));
    control_reply(request, NULL);
}

/* ---- pool.create ------------------------------------------------------------------------------------------------------------------ */

static int remember_paths(const struct control *control, const struct pending *pending, struct err *err)
{
    char path[160];
    json_t *paths = json_array();
    for (unsigned i = 0; i < pending->call.path_count; i++)
        json_array_append_new(paths, json_string(pending->paths[i]));
    json_t *json = json_pack("{s:o}", "paths", paths);
    char *text = json_dumps(json, JSON_INDENT(1));
    json_decref(json);
    check(text);
    snprintf(path, sizeof path, "%s/pool.json", control->site->state_folder);
    int error = files_make_folder(control->site->state_folder, 0700, err);
    if (error == 0)
        error = files_replace(path, text, strlen(text), 0600, err);
    free(text);
    return error;
}

static json_t *pool_created(struct control *control, struct engine_call *call)
{
    struct pending *pending = call->userdata;
    return json_pack("{s:o}", "pool", json_of_id(&pending->pool));
}

static int read_paths(struct pending *pending, json_t *params, struct err *err)
{
    json_t *paths = json_object_get(params, "paths");
    size_t count = json_array_size(paths);
    if (count == 0 || count > POOL_DISKS_MAX)
        return err_set(err, -EINVAL, "invalid", "parameter 'paths': 1 to %d files or disks are needed", POOL_DISKS_MAX);
    for (size_t i = 0; i < count; i++) {
        const char *path = json_string_value(json_array_get(paths, i));
        if (!path || path[0] != '/' || strlen(path) >= sizeof pending->paths[0])
            return err_set(err, -EINVAL, "invalid", "parameter 'paths': '%s' is not an absolute path", path ? path : "?");
        strcpy(pending->paths[i], path);
        pending->path_list[i] = pending->paths[i];
    }
    pending->call.path_count = (unsigned)count;
    pending->call.paths = pending->path_list;
    return 0;
}

static int refuse_second_pool(struct control *control, struct err *err)
{
    char paths[POOL_DISKS_MAX][256];
    unsigned count;
    int error = control_load_pool_paths(control->site, paths, &count, err);
    if (error == 0 && count)
        return err_set(err, -EEXIST, "exists", "this node has a pool already (on %s); 'hcictl pool show' tells more", paths[0]);
    return error;
}

static void pool_create_method(struct control_request *request, json_t *params, void *userdata)
{
    struct control *control = userdata;
    struct pending *pending = pending_new(control, request, ENGINE_POOL_OPEN, pool_created);
    struct err err = {0};
    int error = read_paths(pending, params, &err);
    if (error == 0)
        error = refuse_second_pool(control, &err);
    json_int_t file_bytes = json_integer_value(json_object_get(params, "file_bytes"));
    struct pool_create_options options = {
        .paths = pending->path_list,
        .path_count = pending->call.path_count,
        .file_bytes = file_bytes > 0 ? (uint64_t)file_bytes : 0,
        .node = site_self(control->site)->id,
        .force = json_is_true(json_object_get(params, "force")),
    };
    if (error == 0)
        error = pool_create(&options, &pending->pool, &err);
    if (error == 0)
        error = remember_paths(control, pending, &err);
    if (error < 0) {
        control_fail_err(request, &err);
        pending_free(pending);
        return;
    }
    submit(pending);
}

/* ---- volumes ------------------------------------------------------------------------------------------------------------------------- */

static json_t *volume_created(struct control *control, struct engine_call *call)
{
    return json_pack("{s:o, s:o}", "volume", json_of_id(&call->volume), "group", json_of_id(&call->group));
}

static void volume_create(struct control_request *request, json_t *params, void *userdata)
{
    const char *name = text_of(request, params, "name", GROUP_NAME_SIZE);
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
    submit(pending);
}

static json_t *nothing(struct control *control, struct engine_call *call)
{
    return NULL;
}

static void volume_delete(struct control_request *request, json_t *params, void *userdata)
{
    const char *name = text_of(request, params, "name", GROUP_NAME_SIZE);
    if (!name)
        return;
    struct pending *pending = pending_new(userdata, request, ENGINE_VOLUME_DELETE, nothing);
    strcpy(pending->call.name, name);
    submit(pending);
}

/* ---- metadata ------------------------------------------------------------------------------------------------------------------------ */

static json_t *meta_got(struct control *control, struct engine_call *call)
{
    return json_pack("{s:o, s:I, s:o}", "group", json_of_id(&call->group), "version", (json_int_t)call->metadata.version, "entries",
                     json_of_metadata(&call->metadata));
}

static void meta_get(struct control_request *request, json_t *params, void *userdata)
{
    const char *group = text_of(request, params, "group", GROUP_NAME_SIZE);
    if (!group)
        return;
    struct pending *pending = pending_new(userdata, request, ENGINE_META_GET, meta_got);
    strcpy(pending->call.group_name, group);
    submit(pending);
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
    const char *group = text_of(request, params, "group", GROUP_NAME_SIZE);
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
    submit(pending);
}

const struct control_method control_methods[] = {
    {"pool.create", pool_create_method},
    {"pool.show", pool_show},
    {"volume.create", volume_create},
    {"volume.list", volume_list},
    {"volume.delete", volume_delete},
    {"group.list", group_list},
    {"meta.get", meta_get},
    {"meta.swap", meta_swap_method},
    {"status", status},
    {"subscribe", subscribe},
    {NULL, NULL},
};
