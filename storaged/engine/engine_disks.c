/* The pool's disks, as the rest of the daemon sees them: adding, removing, and telling of whatever changes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/check.h"
#include "common/log.h"
#include "storaged/engine/engine_private.h"

#define CHECK_MS 1000u

/* A disk on its way out. The call is answered when draining has begun, which is long before it is over. */
struct removal {
    struct engine *engine;
    struct list link;
    struct engine_call *call; /* NULL: answered */
    struct pool_disk_info disk;
};

/* ---- telling ----------------------------------------------------------------------------------------------------- */

static int find(const struct pool_disk_info *disks, unsigned count, const struct id *id)
{
    for (unsigned i = 0; i < count; i++)
        if (id_equal(&disks[i].id, id))
            return (int)i;
    return -1;
}

/* One that never was seen here has no path. */
static const char *name_of(const struct pool_disk_info *disk, char text[static ID_TEXT_SIZE])
{
    return disk->path[0] ? disk->path : id_format(&disk->id, text);
}

static const struct pool_disk_info *find_named(const struct engine *engine, const char *name)
{
    struct id id;
    bool is_id = id_parse(name, &id) == 0;
    for (unsigned i = 0; i < engine->disk_count; i++)
        if ((name[0] && strcmp(engine->disks[i].path, name) == 0) || (is_id && id_equal(&engine->disks[i].id, &id)))
            return &engine->disks[i];
    return NULL;
}

/* The rest is told by the pool as it does it. */
static void log_trouble(const struct pool_disk_info *disk)
{
    char text[ID_TEXT_SIZE];
    const char *name = name_of(disk, text);
    if (disk->state == POOL_DISK_FAILED)
        log_error("disk %s failed and was taken out of the pool; run 'hcictl disk replace %s NEW-PATH --lost'", name,
                  name);
    else if (disk->state == POOL_DISK_MISSING)
        log_error("disk %s is missing, and the pool goes on without it; run 'hcictl disk replace %s NEW-PATH --lost'",
                  name, name);
}

/* "A copy with holes is no member": the other node must not count on what was lost here, so it takes such a group over
 * while it still can. What was lost before this start is told to it when they compare their copies. Alone, there is
 * nobody to take it. */
static void group_check_lost(struct group *group)
{
    uint64_t lost = 0;
    for (unsigned i = 0; i < GROUP_VOLUMES_MAX; i++)
        if (group->volumes[i].used && group->volumes[i].stored)
            lost += pool_volume_lost_blocks(group->volumes[i].stored);
    bool alone = group->authority.role == AUTHORITY_SOLE; /* what is left of it is still served */
    if (group->lost_known && lost > group->lost_blocks && !alone)
        group_store_failed(group, -EIO, "a disk failed that held a part of it");
    group->lost_known = true;
    group->lost_blocks = lost;
}

static void tell(struct engine *engine, const struct pool_disk_info *disk, bool gone)
{
    if (!gone)
        log_trouble(disk);
    if (engine->options.port.disk_changed)
        engine->options.port.disk_changed(engine->options.port.userdata, disk, gone);
}

/* Against what was told last: a drain that went on after a restart ends without anybody's being called. */
static void disks_check(struct engine *engine)
{
    struct pool_disk_info now[POOL_DISKS_MAX], before[POOL_DISKS_MAX];
    int64_t since_s[POOL_DISKS_MAX];
    unsigned count = pool_disk_list(engine->pool, now), before_count = engine->disk_count;
    check(count <= POOL_DISKS_MAX);
    for (unsigned i = 0; i < count; i++) {
        int at = find(engine->disks, before_count, &now[i].id);
        bool same = at >= 0 && engine->disks[at].state == now[i].state;
        since_s[i] = same ? engine->disk_since_s[at] : (int64_t)time(NULL);
    }
    memcpy(before, engine->disks, sizeof before);
    memcpy(engine->disks, now, sizeof now[0] * count);
    memcpy(engine->disk_since_s, since_s, sizeof since_s[0] * count);
    engine->disk_count = count;
    for (unsigned i = 0; i < count; i++) {
        int at = find(before, before_count, &now[i].id);
        if (at < 0 || before[at].state != now[i].state)
            tell(engine, &now[i], false);
    }
    for (unsigned i = 0; i < before_count; i++)
        if (find(now, count, &before[i].id) < 0) {
            if (before[i].path[0] && find_named(engine, before[i].path))
                before[i].path[0] = 0;
            tell(engine, &before[i], true);
        }
}

static void groups_check(struct engine *engine)
{
    list_for_each(item, &engine->groups)
        group_check_lost(list_entry(item, struct group, link));
}

static void disk_changed(void *userdata, const struct pool_disk_info *disk)
{
    disks_check(userdata);
}

void engine_give_up_disks(struct engine *engine, const struct id *lost, unsigned count)
{
    check(count <= POOL_DISKS_MAX);
    memcpy(engine->lost_disks, lost, sizeof lost[0] * count);
    engine->lost_count = count;
}

/* What was so before this start is told too, when it is not as it should be. */
void disks_opened(struct engine *engine)
{
    engine->disk_count = pool_disk_list(engine->pool, engine->disks);
    memset(engine->disk_since_s, 0, sizeof engine->disk_since_s);
    for (unsigned i = 0; i < engine->disk_count; i++)
        if (engine->disks[i].state != POOL_DISK_OK)
            tell(engine, &engine->disks[i], false);
    pool_set_listener(engine->pool, disk_changed, engine);
}

void disks_snapshot(struct engine *engine, struct engine_snapshot *ret)
{
    disks_check(engine);
    ret->disk_count = engine->disk_count;
    memcpy(ret->disks, engine->disks, sizeof ret->disks[0] * engine->disk_count);
    memcpy(ret->disk_since_s, engine->disk_since_s, sizeof ret->disk_since_s[0] * engine->disk_count);
}

/* ---- adding ------------------------------------------------------------------------------------------------------ */

static void added(void *userdata, int result)
{
    struct engine_call *call = userdata;
    if (result < 0) {
        call_fail(call, result, result == -ENOSPC ? "no_space" : "io", "disk '%s': it cannot join the pool: %s",
                  call->disk_name, result == -ENOSPC ? "the pool has as many disks as it can" : strerror(-result));
        return;
    }
    disks_check(call->engine);
    const struct pool_disk_info *disk = find_named(call->engine, call->disk_name);
    if (disk)
        call->disk = disk->id;
    call_done(call);
}

void disks_add(struct engine *engine, struct engine_call *call)
{
    struct pool_disk_prepared *prepared = call->prepared;
    call->prepared = NULL;
    if (engine->pool && !engine->stopping) {
        pool_disk_add(engine->pool, prepared, added, call);
        return;
    }
    pool_disk_prepared_free(prepared);
    call_fail(call, -ENODEV, engine->pool_error.code, "%s", engine->pool_error.text);
}

/* ---- removing ---------------------------------------------------------------------------------------------------- */

static void removal_failed(struct engine_call *call, const struct pool_disk_info *disk, int result)
{
    char text[ID_TEXT_SIZE];
    const char *path = name_of(disk, text);
    if (result == -ENOSPC)
        call_fail(call, result, "no_space",
                  "disk '%s': the other disks cannot take what it holds and is promised to volumes; add a disk first, "
                  "or use 'hcictl disk replace'",
                  path);
    else if (result == -EBUSY)
        call_fail(call, result, "busy", "disk '%s': it is being drained already; 'hcictl disk list' shows how far",
                  path);
    else if (result == -EINVAL)
        call_fail(call, result, "invalid",
                  "disk '%s': it is the pool's last disk; add another first, or use 'hcictl disk replace'", path);
    else if (result == -EIO && disk->state != POOL_DISK_OK)
        call_fail(call, result, "lost",
                  "disk '%s': it is %s, so what only it held cannot be moved; give that up with --lost (it reads as "
                  "errors until it is written again)",
                  path, disk->state == POOL_DISK_MISSING ? "missing" : "failed");
    else
        call_fail(call, result, "io", "disk '%s': it cannot be removed: %s", path, strerror(-result));
}

static void removed(void *userdata, int result)
{
    struct removal *removal = userdata;
    struct engine *engine = removal->engine;
    struct engine_call *call = removal->call;
    if (call && result < 0)
        removal_failed(call, &removal->disk, result);
    else if (call)
        call_done(call);
    else if (result < 0)
        log_error("disk %s: draining it ended: %s; run 'hcictl disk remove %s' again when that is mended",
                  removal->disk.path, strerror(-result), removal->disk.path);
    list_remove(&removal->link);
    free(removal);
    disks_check(engine);
}

static void answer_begun(struct engine *engine)
{
    list_for_each(item, &engine->removals)
    {
        struct removal *removal = list_entry(item, struct removal, link);
        int at = find(engine->disks, engine->disk_count, &removal->disk.id);
        struct engine_call *call = removal->call;
        if (!call || at < 0 || engine->disks[at].state != POOL_DISK_DRAINING)
            continue;
        removal->call = NULL;
        call_done(call);
    }
}

/* The pool was opened without it, which may have been its removal. */
static bool was_given_up(const struct engine *engine, struct engine_call *call)
{
    for (unsigned i = 0; i < engine->lost_count; i++)
        if (id_parse(call->disk_name, &call->disk) == 0 && id_equal(&engine->lost_disks[i], &call->disk))
            return true;
    return false;
}

void disks_remove(struct engine *engine, struct engine_call *call)
{
    if (!engine->pool) {
        call_fail(call, -ENODEV, engine->pool_error.code, "%s", engine->pool_error.text);
        return;
    }
    disks_check(engine);
    const struct pool_disk_info *disk = find_named(engine, call->disk_name);
    if (!disk && call->lost && was_given_up(engine, call)) {
        call_done(call);
        return;
    }
    if (!disk) {
        call_fail(call, -ENOENT, "not_found",
                  "disk '%s': the pool has none of that path or id; 'hcictl disk list' shows all", call->disk_name);
        return;
    }
    struct removal *removal = calloc(1, sizeof *removal);
    check(removal);
    *removal = (struct removal){.engine = engine, .call = call, .disk = *disk};
    list_append(&engine->removals, &removal->link);
    call->disk = disk->id;
    pool_disk_remove(engine->pool, &call->disk, call->lost, removed, removal);
    disks_check(engine);
    answer_begun(engine);
}

void disks_tick(struct engine *engine, uint64_t now_ms)
{
    if (!engine->pool || (list_is_empty(&engine->removals) && now_ms - engine->disks_checked_ms < CHECK_MS))
        return;
    engine->disks_checked_ms = now_ms;
    disks_check(engine);
    if (!engine->site->standalone)
        groups_check(engine);
    answer_begun(engine);
}
