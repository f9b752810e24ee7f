/* pool.create and pool.show: making this node's pool. */
#include <errno.h>
#include <string.h>

#include "storaged/control/control_private.h"

static json_t *pool_or_nothing(struct control *control, struct engine_call *call)
{
    if (call->snapshot->has_pool)
        return json_of_pool(control, call);
    const struct err *error = &call->snapshot->pool_error;
    return json_pack("{s:n, s:s, s:s}", "pool", "code", error->code, "message", error->text);
}

void pool_show_method(struct control_request *request, json_t *params, void *userdata)
{
    pending_submit(pending_snapshot(userdata, request, pool_or_nothing));
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
            return err_set(err, -EINVAL, "invalid",
                           "parameter 'paths': '%s' is not an absolute path of at most %zu characters",
                           path ? path : "?", sizeof pending->paths[0] - 1);
        strcpy(pending->paths[i], path);
        pending->path_list[i] = pending->paths[i];
    }
    pending->call.path_count = (unsigned)count;
    pending->call.paths = pending->path_list;
    return 0;
}

static int refuse_second_pool(struct control *control, struct err *err)
{
    struct pool_places places;
    int error = control_load_pool_places(control->site, &places, err);
    if (error == 0 && places.count)
        return err_set(
            err, -EEXIST, "exists",
            "this node has a pool already (on %s); 'hcictl pool show' tells more, 'hcictl disk add' enlarges it",
            places.paths[0]);
    return error;
}

static void create_run(struct work *work)
{
    struct pending *pending = list_entry(work, struct pending, work);
    struct pool_create_options options = {
        .paths = pending->path_list,
        .path_count = pending->call.path_count,
        .file_bytes = pending->file_bytes,
        .journal_bytes = pending->journal_bytes,
        .node = site_self(work->control->site)->id, /* is not changed while the daemon runs */
        .force = pending->force,
    };
    pending->work_result = pool_create(&options, &pending->pool, &pending->work_err);
}

static void create_done(struct control *control, struct work *work)
{
    struct pending *pending = list_entry(work, struct pending, work);
    if (pending->work_result == 0 && !control->stopping)
        pending->work_result = paths_save(control, pending->path_list, pending->call.path_count, &pending->work_err);
    if (pending->work_result < 0 || control->stopping)
        pending_fail(pending, &pending->work_err);
    else
        pending_submit(pending);
}

static uint64_t number_of(json_t *params, const char *key)
{
    json_int_t number = json_integer_value(json_object_get(params, key));
    return number > 0 ? (uint64_t)number : 0;
}

void pool_create_method(struct control_request *request, json_t *params, void *userdata)
{
    struct control *control = userdata;
    struct pending *pending = pending_new(control, request, ENGINE_POOL_OPEN, pool_created);
    struct err err = {0};
    pending->file_bytes = number_of(params, "file_bytes");
    pending->journal_bytes = number_of(params, "journal_bytes");
    pending->force = json_is_true(json_object_get(params, "force"));
    pending->work.run = create_run;
    pending->work.done = create_done;
    int error = read_paths(pending, params, &err);
    if (error == 0)
        error = refuse_second_pool(control, &err);
    if (error == 0)
        error = work_start(control, &pending->work, &err);
    if (error < 0)
        pending_fail(pending, &err);
}
