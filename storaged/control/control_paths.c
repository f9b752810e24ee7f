/* pool.json: which paths the pool's disks are at. The disks themselves say what belongs to the pool; a path too many is
 * ignored when the pool is opened, one too few would make a disk missing. So a path is added before its disk joins the
 * pool, and removed after its disk has left it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/check.h"
#include "common/files.h"
#include "common/log.h"
#include "storaged/control/control_private.h"

static int read_paths(const json_t *list, struct pool_places *ret)
{
    size_t index;
    json_t *item;
    if (json_array_size(list) == 0 || json_array_size(list) > POOL_DISKS_MAX)
        return -EINVAL;
    json_array_foreach((json_t *)list, index, item)
    {
        const char *path = json_string_value(item);
        if (!path || strlen(path) >= sizeof ret->paths[0])
            return -EINVAL;
        strcpy(ret->paths[ret->count++], path);
    }
    return 0;
}

static int read_lost(const json_t *list, struct pool_places *ret)
{
    size_t index;
    json_t *item;
    if (json_array_size(list) > POOL_DISKS_MAX)
        return -EINVAL;
    json_array_foreach((json_t *)list, index, item)
    {
        const char *text = json_string_value(item);
        if (!text || id_parse(text, &ret->lost[ret->lost_count++]) < 0)
            return -EINVAL;
    }
    return 0;
}

int control_load_pool_places(const struct site *site, struct pool_places *ret, struct err *err)
{
    char path[160], *text = NULL;
    size_t size;
    *ret = (struct pool_places){0};
    snprintf(path, sizeof path, "%s/pool.json", site->state_folder);
    if (access(path, F_OK) < 0 && errno == ENOENT)
        return 0;
    int error = files_read(path, 64 * 1024, &text, &size, err);
    if (error < 0)
        return error;
    json_t *json = json_loadb(text, size, 0, NULL);
    free(text);
    error = read_paths(json_object_get(json, "paths"), ret);
    if (error == 0)
        error = read_lost(json_object_get(json, "lost"), ret);
    json_decref(json);
    if (error < 0)
        return err_set(err, error, "invalid",
                       "file '%s': it does not list the pool's disks; restore it, or list them as {\"paths\":[…]}",
                       path);
    return 0;
}

static int save(const struct control *control, const struct pool_places *places, struct err *err)
{
    char path[160];
    json_t *paths = json_array(), *lost = json_array();
    for (unsigned i = 0; i < places->count; i++)
        json_array_append_new(paths, json_string(places->paths[i]));
    for (unsigned i = 0; i < places->lost_count; i++)
        json_array_append_new(lost, json_of_id(&places->lost[i]));
    json_t *json = json_pack("{s:o, s:o}", "paths", paths, "lost", lost);
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

int paths_save(const struct control *control, const char *const *paths, unsigned count, struct err *err)
{
    struct pool_places places = {.count = count};
    for (unsigned i = 0; i < count; i++)
        snprintf(places.paths[i], sizeof places.paths[i], "%s", paths[i]);
    return save(control, &places, err);
}

static int find(const struct pool_places *places, const char *path)
{
    for (unsigned i = 0; i < places->count; i++)
        if (strcmp(places->paths[i], path) == 0)
            return (int)i;
    return -1;
}

int paths_add(const struct control *control, const char *path, struct err *err)
{
    struct pool_places places;
    int error = control_load_pool_places(control->site, &places, err);
    if (error < 0 || find(&places, path) >= 0)
        return error;
    if (places.count == POOL_DISKS_MAX)
        return err_set(err, -ENOSPC, "no_space",
                       "disk '%s': the pool has %d disks already, which is the most; remove one first", path,
                       POOL_DISKS_MAX);
    snprintf(places.paths[places.count++], sizeof places.paths[0], "%s", path);
    return save(control, &places, err);
}

void paths_remove(const struct control *control, const char *path)
{
    struct pool_places places;
    struct err err;
    int error = control_load_pool_places(control->site, &places, &err);
    int at = error == 0 ? find(&places, path) : -1;
    if (at >= 0 && places.count > 1) {
        places.count--;
        memmove(places.paths[at], places.paths[at + 1], (places.count - (unsigned)at) * sizeof places.paths[0]);
        error = save(control, &places, &err);
    }
    if (error < 0)
        log_error("disk %s left the pool, but its path cannot be forgotten: %s", path, err.text);
}

int paths_give_up(const struct control *control, const struct id *disk, struct pool_places *ret, struct err *err)
{
    int error = control_load_pool_places(control->site, ret, err);
    for (unsigned i = 0; i < ret->lost_count && error == 0; i++)
        if (id_equal(&ret->lost[i], disk))
            return 0;
    if (error < 0)
        return error;
    if (ret->lost_count == POOL_DISKS_MAX)
        return err_set(err, -ENOSPC, "invalid", "file 'pool.json': %d disks were given up already, which is the most",
                       POOL_DISKS_MAX);
    ret->lost[ret->lost_count++] = *disk;
    return save(control, ret, err);
}
