/* Creating and deleting volumes on both nodes: what fails half-way is undone, what a crash interrupts is found when the
 * nodes compare their groups. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/log.h"
#include "storaged/engine/engine_private.h"

#define CREATE_MS 15000u

/* ---- one volume made on this node ---------------------------------------------------------------------------------------------- */

/* Listed in the group's record first, then made in the pool: after a crash it is at worst listed, and deleted by name. */
struct making {
    struct engine *engine;
    struct group *group;
    struct group_volume *volume;
    bool is_new; /* the group, too */
    uint64_t tag; /* the other node's question; 0: our own call */
    void (*done)(struct making *making, int result);
    int result;
};

static void undone(void *userdata, int result)
{
    struct making *making = userdata;
    if (making->group) {
        making->group->saves--;
        if (making->is_new)
            group_free(making->group);
    }
    making->done(making, making->result);
}

static void make_undo(struct making *making, int result)
{
    struct group *group = making->group;
    making->result = result;
    group_remove_volume(making->volume);
    group->saves++;
    if (making->is_new)
        pool_group_delete(making->engine->pool, &group->id, undone, making);
    else if (group_save(group, undone, making) < 0)
        undone(making, result);
}

static void made_volume(void *userdata, int result)
{
    struct making *making = userdata;
    if (result < 0) {
        make_undo(making, result);
        return;
    }
    making->volume->stored = pool_volume_find(making->engine->pool, &making->volume->id);
    check(making->volume->stored);
    making->done(making, 0);
}

static void made_record(void *userdata, int result)
{
    struct making *making = userdata;
    making->group->saves--;
    if (result < 0)
        make_undo(making, result);
    else
        pool_volume_create(making->engine->pool, &making->group->id, &making->volume->id, making->volume->size_bytes, made_volume, making);
}

static void make(struct making *making)
{
    struct group *group = making->group;
    group->saves++;
    if (group_save(group, made_record, making) < 0)
        made_record(making, -ENOSPC);
}

static struct authority_record founding_record(const struct engine *engine, uint8_t founding)
{
    if (engine->site->standalone) /* R1a: the only member needs neither the other nor the witness */
        return (struct authority_record){.epoch = 1, .members = engine_self_bit(engine), .was_primary = true};
    /* The node where the group was asked for becomes its primary. */
    return (struct authority_record){
        .epoch = 1, .members = AUTHORITY_BOTH, .founding = founding, .was_primary = founding == AUTHORITY_CREATOR};
}

/* ---- the other node's CREATE ------------------------------------------------------------------------------------------------------- */

const char *volume_explain(const struct engine *engine, int result)
{
    switch (result) {
    case -EEXIST: return "the name is taken there";
    case -ENOSPC: return "its pool has not enough free space, or too many volumes";
    case -ENODEV: return "it has no pool";
    case -EBUSY: return "it is busy with the volume";
    case -ENOTCONN: return "the connection to it broke";
    default: return strerror(-result);
    }
}

static void peer_made(struct making *making, int result)
{
    struct engine *engine = making->engine;
    struct group *group = making->group;
    engine_answer_peer(engine, making->tag, result, 0, NULL, 0);
    if (result == 0) {
        log_notice("volume '%s' of group '%s' was made for node %s", making->volume->name, group->name, site_peer(engine->site)->name);
        if (making->is_new) {
            struct authority_record record = group->authority.record;
            group_start(group, &record);
        }
        group_export(group);
    }
    free(making);
}

static bool name_is_text(const char *name)
{
    size_t length = strlen(name);
    return length > 0 && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-.@") == length;
}

static int check_peer_create(struct engine *engine, const struct mirror_message *message, struct group *group)
{
    if (!engine->pool)
        return -ENODEV;
    if (!name_is_text(message->name) || !name_is_text(message->group_name) || message->size_bytes == 0 ||
        message->size_bytes % LUN_BLOCK_SIZE)
        return -EINVAL;
    if (engine_find_volume(engine, message->name) || (message->is_new && (group || engine_find_group_by_name(engine, message->group_name))))
        return -EEXIST;
    if (message->is_new)
        return engine->group_count >= ENGINE_GROUPS_MAX ? -ENOSPC : 0;
    if (!group || group->dying || !group->founded)
        return -ENOENT;
    return group->saves ? -EBUSY : group_volume_count(group) == GROUP_VOLUMES_MAX ? -ENOSPC : 0;
}

void volumes_peer_create(struct engine *engine, const struct mirror_message *message)
{
    struct group *group = engine_find_group(engine, &message->group);
    int error = check_peer_create(engine, message, group);
    struct making *making = error ? NULL : calloc(1, sizeof *making);
    if (making && message->is_new) {
        group = group_new(engine, &message->group, message->group_name);
        if (group)
            group->authority.record = founding_record(engine, AUTHORITY_FOLLOWER);
    }
    if (!making || !group) {
        free(making);
        engine_answer_peer(engine, message->tag, error ? error : -ENOMEM, 0, NULL, 0);
        return;
    }
    *making = (struct making){.engine = engine, .group = group, .is_new = message->is_new, .tag = message->tag, .done = peer_made};
    making->volume = group_add_volume(group, &message->volume, message->name, message->size_bytes);
    check(making->volume);
    make(making);
}

/* ---- volume.create here --------------------------------------------------------------------------------------------------------------- */

static void create_over(struct engine *engine)
{
    engine->creating = NULL;
    engine->creating_group = NULL;
    engine->creating_volume = NULL;
}

static void ignore_answer(struct engine *engine, void *userdata, int result, uint64_t version, const uint8_t *data, uint32_t size)
{
}

static void ask_remove(struct engine *engine, const struct id *group, const struct id *volume, peer_answer *answer, void *userdata)
{
    struct mirror_message message = {.kind = MIRROR_REMOVE, .group = *group, .volume = *volume};
    engine_ask_peer(engine, &message, NULL, answer, userdata);
}

static void here_made(struct making *making, int result)
{
    struct engine *engine = making->engine;
    struct engine_call *call = engine->creating;
    bool is_new = making->is_new;
    struct group *group = making->group;
    free(making);
    if (result < 0) {
        if (!engine->site->standalone)
            ask_remove(engine, &call->group, &call->volume, ignore_answer, NULL);
        create_over(engine);
        call_fail(call, result, result == -ENOSPC ? "no_space" : "io", "volume '%s': cannot be made on this node: %s; choose a smaller size", call->name,
                  result == -ENOSPC ? "its pool has not enough free space" : strerror(-result));
        return;
    }
    if (is_new) { /* the witness comes next; volumes_founded answers */
        struct authority_record record = group->authority.record;
        group_start(group, &record);
        return;
    }
    group_export(group);
    create_over(engine);
    call_done(call);
}

static void peer_created(struct engine *engine, void *userdata, int result, uint64_t version, const uint8_t *data, uint32_t size)
{
    struct engine_call *call = userdata;
    struct group *group = engine->creating_group;
    bool is_new = !group->started;
    struct making *making = result == 0 ? calloc(1, sizeof *making) : NULL;
    if (!making) {
        group_remove_volume(engine->creating_volume);
        if (is_new)
            group_free(group);
        create_over(engine);
        call_fail(call, result ? result : -ENOMEM, result == -ENOSPC ? "no_space" : result == -EEXIST ? "exists" : "peer_away",
                  "volume '%s': cannot be made on node %s: %s", call->name, site_peer(engine->site)->name, volume_explain(engine, result));
        return;
    }
    *making = (struct making){.engine = engine, .group = group, .volume = engine->creating_volume, .is_new = is_new, .done = here_made};
    make(making);
}

static int check_create(struct engine *engine, struct engine_call *call, struct group *group)
{
    const char *name = call->name;
    if (!engine->pool) {
        call_fail(call, -ENODEV, engine->pool_error.code, "%s", engine->pool_error.text);
        return -ENODEV;
    }
    int error = 0;
    if (!name_is_text(name) || (call->group_name[0] && !name_is_text(call->group_name)))
        call_fail(call, error = -EINVAL, "invalid", "volume '%s': a name is made of a-z, 0-9, '-', '.' and at most 63 characters long", name);
    else if (call->size_bytes == 0 || call->size_bytes % LUN_BLOCK_SIZE)
        call_fail(call, error = -EINVAL, "invalid", "volume '%s': size %llu is not a multiple of 4096 bytes; choose another size", name,
                  (unsigned long long)call->size_bytes);
    else if (engine_find_volume(engine, name))
        call_fail(call, error = -EEXIST, "exists", "volume '%s': the name is taken; choose another", name);
    else if (!call->group_name[0] && engine_find_group_by_name(engine, name))
        call_fail(call, error = -EEXIST, "exists", "volume '%s': a group has that name; choose another", name);
    else if (!engine->site->standalone && !engine->link_up)
        call_fail(call, error = -ENOTCONN, "peer_away", "volume '%s': node %s is not connected, and a volume is made on both nodes; try again when it is back",
                  name, site_peer(engine->site)->name);
    else if (engine->creating)
        call_fail(call, error = -EBUSY, "busy", "volume '%s': volume '%s' is being created; try again in a moment", name, engine->creating->name);
    else if (group && group->authority.role != (engine->site->standalone ? AUTHORITY_SOLE : AUTHORITY_PRIMARY))
        call_fail(call, error = -EAGAIN, "unavailable", "volume '%s': group '%s' is not primary on this node; ask the node that serves it, once both copies are current",
                  name, group->name);
    else if (group ? group_volume_count(group) == GROUP_VOLUMES_MAX : engine->group_count >= ENGINE_GROUPS_MAX)
        call_fail(call, error = -ENOSPC, "no_space", "volume '%s': no more %s are possible", name, group ? "volumes in its group" : "groups");
    return error;
}

void volumes_create(struct engine *engine, struct engine_call *call)
{
    struct group *group = call->group_name[0] ? engine_find_group_by_name(engine, call->group_name) : NULL;
    if (check_create(engine, call, group) < 0)
        return;
    bool is_new = group == NULL;
    struct id id = id_random();
    if (is_new)
        group = group_new(engine, &id, call->group_name[0] ? call->group_name : call->name);
    if (!group) {
        call_fail(call, -ENOMEM, "memory", "volume '%s': no memory", call->name);
        return;
    }
    if (is_new)
        group->authority.record = founding_record(engine, AUTHORITY_CREATOR);
    call->group = group->id;
    call->volume = id_random();
    call->deadline_ms = ring_now_ms(engine->ring) + CREATE_MS;
    engine->creating = call;
    engine->creating_group = group;
    engine->creating_volume = group_add_volume(group, &call->volume, call->name, call->size_bytes);
    check(engine->creating_volume);
    struct mirror_message message = {
        .kind = MIRROR_CREATE, .group = call->group, .volume = call->volume, .size_bytes = call->size_bytes, .is_new = is_new};
    memcpy(message.name, call->name, sizeof message.name);
    memcpy(message.group_name, group->name, sizeof message.group_name);
    if (engine->site->standalone)
        peer_created(engine, call, 0, 0, NULL, 0);
    else
        engine_ask_peer(engine, &message, NULL, peer_created, call);
}

void volumes_founded(struct group *group)
{
    struct engine *engine = group->engine;
    if (!engine->creating || engine->creating_group != group)
        return;
    struct engine_call *call = engine->creating;
    log_notice("group '%s' was founded: %s", group->name,
               engine->site->standalone ? "this node alone holds it" : "both nodes and the witness hold it");
    create_over(engine);
    call_done(call);
}

/* ---- deleting --------------------------------------------------------------------------------------------------------------------------- */

static bool is_in_use(const struct group_volume *volume)
{
    return volume->exported && !list_is_empty(&volume->lun.nexuses);
}

static void unexport(struct group_volume *volume)
{
    if (volume->exported)
        lun_table_remove(volume->group->engine->luns, &volume->lun);
    volume->exported = false;
}

void volumes_delete_group(struct group *group, const char *why)
{
    log_notice("group '%s' is deleted here: %s", group->name, why);
    group->dying = true;
    group->serving = group->forwarding = group->hold_writes = false;
    group->quiescing = true;
    for (unsigned i = 0; i < GROUP_VOLUMES_MAX; i++)
        if (group->volumes[i].used)
            unexport(&group->volumes[i]);
    resync_stop(group);
    meta_hold(group);
    meta_lose(group);
    session_end(group);
    group_quiesce_operations(group);
    forward_lose(group, "the volume was deleted");
    group_drop_held(group, "the volume was deleted");
    struct engine_group_state state = {.group = group->id, .gone = true};
    memcpy(state.name, group->name, sizeof state.name);
    group->engine->options.port.group_changed(group->engine->options.port.userdata, &state);
}

static void group_deleted(void *userdata, int result)
{
    struct group *group = userdata;
    struct engine *engine = group->engine;
    struct engine_call *call = group->delete_call;
    if (result < 0)
        log_error("group '%s': its record cannot be deleted: %s", group->name, strerror(-result));
    if (group->delete_tag)
        engine_answer_peer(engine, group->delete_tag, result, 0, NULL, 0);
    for (unsigned i = 0; i < GROUP_VOLUMES_MAX; i++)
        if (group->volumes[i].used)
            group_remove_volume(&group->volumes[i]);
    group_free(group);
    engine_roles_changed(engine);
    if (call && result < 0)
        call_fail(call, result, "io", "volume '%s': cannot be deleted: %s", call->name, strerror(-result));
    else if (call)
        call_done(call);
}

static void volume_deleted(void *userdata, int result)
{
    struct group *group = userdata;
    group->delete_busy = false;
    if (result < 0)
        log_error("group '%s': a volume cannot be deleted: %s", group->name, strerror(-result));
}

/* A dying group goes piece by piece, once nothing of it is under way. */
static void delete_step(struct group *group)
{
    struct pool *pool = group->engine->pool;
    if (group->delete_busy || !group_is_drained(group) || group->saves || group->answers || !list_is_empty(&group->held))
        return;
    for (unsigned i = 0; i < GROUP_VOLUMES_MAX; i++)
        if (group->volumes[i].used && (!list_is_empty(&group->volumes[i].lun.nexuses) || !range_lock_is_free(&group->volumes[i].lock)))
            return;
    group->delete_busy = true;
    for (unsigned i = 0; i < GROUP_VOLUMES_MAX; i++) {
        struct pool_volume *stored = group->volumes[i].used ? group->volumes[i].stored : NULL;
        if (!stored)
            continue;
        group->volumes[i].stored = NULL;
        pool_volume_delete(pool, stored, volume_deleted, group);
        return;
    }
    pool_group_delete(pool, &group->id, group_deleted, group);
}

struct removing {
    struct engine *engine;
    struct group *group;
    struct engine_call *call;
    uint64_t tag;
};

static void removal_over(struct removing *removing, int result)
{
    removing->group->delete_busy = false;
    if (removing->tag)
        engine_answer_peer(removing->engine, removing->tag, result, 0, NULL, 0);
    if (removing->call && result < 0)
        call_fail(removing->call, result, "io", "volume '%s': cannot be deleted: %s", removing->call->name, strerror(-result));
    else if (removing->call)
        call_done(removing->call);
    free(removing);
}

static void removal_saved(void *userdata, int result)
{
    struct removing *removing = userdata;
    removing->group->saves--;
    removal_over(removing, result);
}

static void removed_volume(void *userdata, int result)
{
    struct removing *removing = userdata;
    removing->group->saves++;
    if (result < 0 || (result = group_save(removing->group, removal_saved, removing)) < 0)
        removal_saved(removing, result);
}

/* The group's last volume takes the group along. */
static int remove_here(struct group_volume *volume, const char *why, struct engine_call *call, uint64_t tag)
{
    struct group *group = volume->group;
    if (is_in_use(volume) || group->delete_busy || group->dying || volume->growing)
        return -EBUSY;
    if (group_volume_count(group) == 1) {
        group->delete_call = call;
        group->delete_tag = tag;
        volumes_delete_group(group, why);
        return 0;
    }
    if (group->resync.active || group->saves || !range_lock_is_free(&volume->lock))
        return -EBUSY;
    struct removing *removing = calloc(1, sizeof *removing);
    if (!removing)
        return -ENOMEM;
    *removing = (struct removing){.engine = group->engine, .group = group, .call = call, .tag = tag};
    struct pool_volume *stored = volume->stored;
    unexport(volume);
    group_state_forget(group, volume->name);
    group_remove_volume(volume);
    group->delete_busy = true;
    if (stored)
        pool_volume_delete(group->engine->pool, stored, removed_volume, removing);
    else
        removed_volume(removing, 0);
    return 0;
}

void volumes_peer_remove(struct engine *engine, const struct mirror_message *message)
{
    struct group *group = engine_find_group(engine, &message->group);
    struct group_volume *volume = group ? group_volume_by_id(group, &message->volume) : NULL;
    int result = volume ? remove_here(volume, "the other node deleted it", NULL, message->tag) : 0;
    if (!volume || result < 0)
        engine_answer_peer(engine, message->tag, result, 0, NULL, 0);
}

static void peer_removed(struct engine *engine, void *userdata, int result, uint64_t version, const uint8_t *data, uint32_t size)
{
    struct engine_call *call = userdata;
    struct group_volume *volume = engine_find_volume(engine, call->name);
    if (result < 0) {
        call_fail(call, result, result == -EBUSY ? "in_use" : "peer_away", "volume '%s': node %s did not delete it: %s", call->name,
                  site_peer(engine->site)->name, volume_explain(engine, result));
        return;
    }
    result = volume ? remove_here(volume, "it was asked for", call, 0) : -ENOENT;
    if (result < 0)
        call_fail(call, result, "in_use", "volume '%s': it is in use here; try again%s", call->name,
                  engine->site->standalone ? "" : " (it is deleted on the other node already)");
}

void volumes_delete(struct engine *engine, struct engine_call *call)
{
    struct group_volume *volume = engine->pool ? engine_find_volume(engine, call->name) : NULL;
    if (!engine->pool)
        call_fail(call, -ENODEV, engine->pool_error.code, "%s", engine->pool_error.text);
    else if (!volume || volume->group->dying)
        call_fail(call, -ENOENT, "not_found", "volume '%s': there is none of that name; 'hcictl volume list' shows all", call->name);
    else if (is_in_use(volume))
        call_fail(call, -EBUSY, "in_use", "volume '%s': initiators are connected; stop the guest that uses it first", call->name);
    else if (volume == engine->creating_volume || volume->growing || volume->group->resync.active)
        call_fail(call, -EBUSY, "busy", "volume '%s': it is being created, grown or resynced; try again when that is over", call->name);
    else if (engine->site->standalone)
        peer_removed(engine, call, 0, 0, NULL, 0);
    else if (!engine->link_up)
        call_fail(call, -ENOTCONN, "peer_away", "volume '%s': node %s is not connected, and a volume is deleted on both nodes; try again when it is back",
                  call->name, site_peer(engine->site)->name);
    else
        ask_remove(engine, &volume->group->id, &volume->id, peer_removed, call);
}

void volumes_tick(struct engine *engine, uint64_t now_ms)
{
    list_for_each_safe(item, after, &engine->groups) {
        struct group *group = list_entry(item, struct group, link);
        if (group->dying)
            delete_step(group);
    }
    struct engine_call *call = engine->creating;
    if (!call || now_ms < call->deadline_ms || !engine->creating_group->started)
        return;
    create_over(engine);
    call_fail(call, -ETIMEDOUT, "unavailable",
              "volume '%s': the witness has not registered its group yet; it becomes usable by itself as soon as the witness answers", call->name);
}
