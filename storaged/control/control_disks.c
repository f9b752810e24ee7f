/* disk.list, add, remove, replace: the pool's disks while it serves. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/log.h"
#include "storaged/control/control_private.h"

/* Without a pool the reason is worth more than an empty list. */
static void then_list(struct control *control, struct pending *pending)
{
    const struct engine_snapshot *snapshot = pending->call.snapshot;
    if (snapshot->has_pool)
        control_reply(pending->request, json_of_disks(control, &pending->call));
    else
        control_fail_err(pending->request, &snapshot->pool_error);
    pending_free(pending);
}

void disk_list_method(struct control_request *request, json_t *params, void *userdata)
{
    struct pending *pending = pending_snapshot(userdata, request, NULL);
    pending->then = then_list;
    pending_submit(pending);
}

void disk_tell(struct control *control, const struct pool_disk_info *disk, bool gone)
{
    json_t *json = json_of_disk(disk, 0);
    if (gone)
        json_object_set_new(json, "state", json_string("removed"));
    if (gone && disk->path[0])
        paths_remove(control, disk->path);
    control_publish(control->server, "disk", json);
}

static json_t *disk_removed(struct control *control, struct engine_call *call)
{
    return json_pack("{s:o}", "disk", json_of_id(&call->disk));
}

/* Paths that lead to no disk of the pool would be warned of at every start. */
static void then_forget_paths(struct control *control, struct pending *pending)
{
    const struct engine_snapshot *snapshot = pending->call.snapshot;
    const char *kept[POOL_DISKS_MAX];
    unsigned count = 0;
    struct err err;
    for (unsigned i = 0; i < snapshot->disk_count; i++)
        if (snapshot->disks[i].path[0])
            kept[count++] = snapshot->disks[i].path;
    if (count && paths_save(control, kept, count, &err) < 0)
        log_warning("the paths of disks that were given up cannot be forgotten: %s", err.text);
    control_reply(pending->request, disk_removed(control, &pending->call));
    pending_free(pending);
}

static void then_look(struct control *control, struct pending *pending)
{
    pending->call.kind = ENGINE_SNAPSHOT;
    pending->then = then_forget_paths;
    pending_submit(pending);
}

/* The pool is open without it: now it is removed like one that went missing. */
static void then_remove_lost(struct control *control, struct pending *pending)
{
    pending->call.kind = ENGINE_DISK_REMOVE;
    pending->then = then_look;
    pending_submit(pending);
}

/* A pool that does not open because too many disks are missing: the person gives one up, and it is tried again. */
static void give_up(struct control *control, struct pending *pending)
{
    struct pool_places places;
    struct err err;
    int error = id_parse(pending->call.disk_name, &pending->call.disk);
    if (error < 0)
        err_set(&err, error, "invalid", "disk '%s': name the missing disk by its id, as 'hcictl status' does",
                pending->call.disk_name);
    if (error == 0)
        error = paths_give_up(control, &pending->call.disk, &places, &err);
    if (error < 0) {
        pending_fail(pending, &err);
        return;
    }
    memcpy(pending->paths, places.paths, sizeof places.paths);
    for (unsigned i = 0; i < places.count; i++)
        pending->path_list[i] = pending->paths[i];
    memcpy(pending->call.lost_disks, places.lost, sizeof places.lost);
    pending->call.lost_count = places.lost_count;
    pending->call.paths = pending->path_list;
    pending->call.path_count = places.count;
    pending->call.kind = ENGINE_POOL_OPEN;
    pending->then = then_remove_lost;
    pending_submit(pending);
}

static void then_remove(struct control *control, struct pending *pending)
{
    const struct engine_snapshot *snapshot = pending->call.snapshot;
    pending->then = NULL;
    if (!snapshot->has_pool && pending->call.lost && strcmp(snapshot->pool_error.code, "missing_disks") == 0) {
        give_up(control, pending);
        return;
    }
    pending->call.kind = ENGINE_DISK_REMOVE; /* without a pool it says why there is none */
    pending_submit(pending);
}

void disk_remove_method(struct control_request *request, json_t *params, void *userdata)
{
    const char *disk = request_text(request, params, "disk", 256);
    if (!disk)
        return;
    struct pending *pending = pending_snapshot(userdata, request, disk_removed);
    strcpy(pending->call.disk_name, disk);
    pending->call.lost = json_is_true(json_object_get(params, "lost"));
    pending->then = then_remove;
    pending_submit(pending);
}

/* ---- adding: look at the pool, format on a thread, name the path durably, join ----------------------------------- */

static json_t *disk_added(struct control *control, struct engine_call *call)
{
    struct pending *pending = call->userdata;
    return json_pack("{s:o}", "disk", json_of_id(&pending->pool));
}

static void then_remove_old(struct control *control, struct pending *pending)
{
    pending->pool = pending->call.disk; /* the new one's id, for the answer */
    pending->then = NULL;
    if (!pending->old_disk[0]) {
        control_reply(pending->request, disk_added(control, &pending->call));
        pending_free(pending);
        return;
    }
    pending->call.kind = ENGINE_DISK_REMOVE;
    strcpy(pending->call.disk_name, pending->old_disk);
    pending_submit(pending);
}

static void prepare_run(struct work *work)
{
    struct pending *pending = list_entry(work, struct pending, work);
    struct pool_disk_prepare_options options = {
        .path = pending->paths[0],
        .file_bytes = pending->file_bytes,
        .journal_bytes = pending->journal_bytes,
        .pool = pending->pool,
        .node = site_self(work->control->site)->id,
        .force = pending->force,
    };
    pending->work_result = pool_disk_prepare(&options, &pending->call.prepared, &pending->work_err);
}

static void prepare_done(struct control *control, struct work *work)
{
    struct pending *pending = list_entry(work, struct pending, work);
    /* The path first: a disk of the pool that no path leads to would be missing after a crash. */
    if (pending->work_result == 0 && !control->stopping)
        pending->work_result = paths_add(control, pending->paths[0], &pending->work_err);
    if (pending->work_result < 0 || control->stopping) {
        pending_fail(pending, &pending->work_err);
        return;
    }
    pending->call.kind = ENGINE_DISK_ADD;
    strcpy(pending->call.disk_name, pending->paths[0]);
    pending->then = then_remove_old;
    pending_submit(pending);
}

static const struct pool_disk_info *find_disk(const struct engine_snapshot *snapshot, const char *name)
{
    struct id id;
    bool is_id = id_parse(name, &id) == 0;
    for (unsigned i = 0; i < snapshot->disk_count; i++)
        if (strcmp(snapshot->disks[i].path, name) == 0 || (is_id && id_equal(&snapshot->disks[i].id, &id)))
            return &snapshot->disks[i];
    return NULL;
}

/* What would fail once the new disk is in is refused before: half of a replacement is worse than none. */
static int check_old_disk(struct pending *pending, struct err *err)
{
    const struct pool_disk_info *old = find_disk(pending->call.snapshot, pending->old_disk);
    if (!old)
        return err_set(err, -ENOENT, "not_found",
                       "disk '%s': the pool has none of that path or id; 'hcictl disk list' shows all",
                       pending->old_disk);
    if (old->state == POOL_DISK_DRAINING)
        return err_set(err, -EBUSY, "busy",
                       "disk '%s': it is being drained already; 'hcictl disk add' brings another one", old->path);
    if (old->state != POOL_DISK_OK && !pending->call.lost)
        return err_set(err, -EIO, "lost",
                       "disk '%s': it is %s, so what only it held cannot be moved; give that up with --lost (it reads "
                       "as errors until it is written "
                       "again)",
                       old->path, old->state == POOL_DISK_MISSING ? "missing" : "failed");
    if (old->state != POOL_DISK_MISSING && strcmp(old->path, pending->paths[0]) == 0)
        return err_set(err, -EINVAL, "invalid", "disk '%s': it cannot replace itself; name another path", old->path);
    id_format(&old->id, pending->old_disk); /* the path may be the new disk's as well */
    return 0;
}

static int check_add(struct pending *pending, struct err *err)
{
    const struct engine_snapshot *snapshot = pending->call.snapshot;
    const struct pool_disk_info *there = find_disk(snapshot, pending->paths[0]);
    if (!snapshot->has_pool)
        return err_set(err, -ENODEV, snapshot->pool_error.code, "%s", snapshot->pool_error.text);
    if (pending->old_disk[0]) {
        int error = check_old_disk(pending, err);
        if (error < 0)
            return error;
    }
    if (there && there->state != POOL_DISK_MISSING)
        return err_set(err, -EEXIST, "exists", "disk '%s': it is in the pool already; 'hcictl disk list' shows all",
                       there->path);
    if (snapshot->disk_count == POOL_DISKS_MAX)
        return err_set(err, -ENOSPC, "no_space",
                       "disk '%s': the pool has %d disks already, which is the most; remove one first",
                       pending->paths[0], POOL_DISKS_MAX);
    pending->pool = snapshot->pool.id;
    return 0;
}

static void then_prepare(struct control *control, struct pending *pending)
{
    struct err err;
    int error = check_add(pending, &err);
    if (error == 0)
        error = work_start(control, &pending->work, &err);
    if (error < 0)
        pending_fail(pending, &err);
}

static void add(struct control *control, struct control_request *request, json_t *params, const char *old_disk)
{
    const char *path = request_text(request, params, "path", 256);
    json_int_t file_bytes = json_integer_value(json_object_get(params, "file_bytes"));
    if (!path)
        return;
    if (path[0] != '/') {
        control_fail(request, "invalid", "disk '%s': it is not an absolute path; write it from the root", path);
        return;
    }
    struct pending *pending = pending_snapshot(control, request, disk_added);
    strcpy(pending->paths[0], path);
    strcpy(pending->old_disk, old_disk);
    pending->file_bytes = file_bytes > 0 ? (uint64_t)file_bytes : 0;
    pending->force = json_is_true(json_object_get(params, "force"));
    pending->call.lost = json_is_true(json_object_get(params, "lost"));
    pending->then = then_prepare;
    pending->work.run = prepare_run;
    pending->work.done = prepare_done;
    pending_submit(pending);
}

void disk_add_method(struct control_request *request, json_t *params, void *userdata)
{
    add(userdata, request, params, "");
}

void disk_replace_method(struct control_request *request, json_t *params, void *userdata)
{
    const char *disk = request_text(request, params, "disk", 256);
    if (disk)
        add(userdata, request, params, disk);
}
