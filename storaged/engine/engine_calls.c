/* What people ask of the engine, answered on its thread. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "storaged/engine/engine_private.h"

void call_fail(struct engine_call *call, int result, const char *code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    call->result = result;
    snprintf(call->err.code, sizeof call->err.code, "%s", code);
    vsnprintf(call->err.text, sizeof call->err.text, format, arguments);
    va_end(arguments);
    call->done(call);
}

void call_done(struct engine_call *call)
{
    call->result = 0;
    call->done(call);
}

/* ---- snapshot --------------------------------------------------------------------------------------------------------------- */

void engine_snapshot_fill(struct engine *engine, struct engine_snapshot *ret)
{
    memset(ret, 0, sizeof *ret);
    ret->has_pool = engine->pool != NULL;
    ret->link_up = engine->link_up;
    ret->lease_valid = engine->lease_valid;
    ret->peer_suspect = engine->peer_suspect;
    ret->pool_error = engine->pool_error;
    mirror_link_get_stats(engine->link, &ret->link);
    if (engine->target)
        iscsi_target_get_stats(engine->target, &ret->target);
    if (!engine->pool)
        return;
    pool_get_stats(engine->pool, &ret->pool);
    ret->pool_failure = pool_failure(engine->pool);
    disks_snapshot(engine, ret);
    list_for_each(item, &engine->groups) {
        struct group *group = list_entry(item, struct group, link);
        if (!group->dying && group->founded && ret->group_count < POOL_GROUPS_MAX)
            group_fill_info(group, &ret->groups[ret->group_count++]);
    }
}

/* ---- metadata ---------------------------------------------------------------------------------------------------------------- */

static void swap_answer(struct engine_call *call, int result, uint64_t version)
{
    const char *group = call->group_name;
    call->version = version;
    if (result == 0)
        call_done(call);
    else if (result == -ESTALE)
        call_fail(call, result, "changed", "group '%s': its metadata is not what was expected; read it again", group);
    else if (result == -EAGAIN || result == -ENOTCONN)
        call_fail(call, result, "unavailable", "group '%s': no node serves it now, or it changed hands; try again in a moment", group);
    else if (result == -EBUSY)
        call_fail(call, result, "busy", "group '%s': too many changes are under way; try again in a moment", group);
    else if (result == -ENOSPC)
        call_fail(call, result, "no_space", "group '%s': its metadata would exceed 40 KiB or 32 entries; remove some first", group);
    else
        call_fail(call, result, "io", "group '%s': its metadata cannot be changed: %s", group, strerror(-result));
}

static void here_swapped(struct swap *swap, int result, uint64_t version)
{
    struct engine_call *call = swap->userdata;
    struct group *group = engine_find_group(call->engine, &call->group);
    if (result == -ESTALE && group)
        metadata_copy(&group->metadata, &call->metadata);
    metadata_changes_clear(&swap->changes);
    free(swap);
    swap_answer(call, result, version);
}

static void peer_swapped(struct engine *engine, void *userdata, int result, uint64_t version, const uint8_t *data, uint32_t size)
{
    struct engine_call *call = userdata;
    struct bytes_reader reader = bytes_reader_of(data, size);
    if (result == -ESTALE && size && metadata_decode(&reader, &call->metadata) < 0)
        result = -EIO;
    swap_answer(call, result, version);
}

static void ask_peer_swap(struct engine *engine, struct group *group, struct engine_call *call)
{
    uint8_t *bytes = malloc(MIRROR_MAP_MAX);
    check(bytes);
    struct bytes_writer writer = bytes_writer_of(bytes, MIRROR_MAP_MAX);
    metadata_changes_encode(&call->changes, &writer);
    struct mirror_message message = {.kind = MIRROR_SWAP, .group = group->id, .data_size = (uint32_t)bytes_written(&writer)};
    if (writer.failed)
        swap_answer(call, -ENOSPC, 0);
    else
        engine_ask_peer(engine, &message, bytes, peer_swapped, call);
    free(bytes);
}

static void meta_swap_call(struct engine *engine, struct group *group, struct engine_call *call)
{
    if (!authority_is_authority(&group->authority) && group->forwarding) {
        ask_peer_swap(engine, group, call);
        return;
    }
    struct swap *swap = calloc(1, sizeof *swap);
    check(swap);
    list_init(&swap->link);
    swap->done = here_swapped;
    swap->userdata = call;
    swap->changes = call->changes; /* moved */
    call->changes = (struct metadata_changes){0};
    int error = meta_swap(group, swap);
    if (error < 0)
        here_swapped(swap, error, 0);
}

static void meta_call(struct engine *engine, struct engine_call *call)
{
    struct group *group = engine_find_group_by_name(engine, call->group_name);
    if (!group || !group->founded || group->dying) {
        call_fail(call, -ENOENT, "not_found", "group '%s': there is none of that name; 'hcictl volume list' shows all", call->group_name);
        return;
    }
    call->group = group->id;
    if (call->kind == ENGINE_META_SWAP) {
        meta_swap_call(engine, group, call);
        return;
    }
    int error = metadata_copy(&group->metadata, &call->metadata);
    if (error < 0)
        call_fail(call, error, "memory", "group '%s': no memory for its metadata", group->name);
    else
        call_done(call);
}

/* ---- targets ----------------------------------------------------------------------------------------------------------------- */

static void list_sessions(const struct group_volume *volume, struct engine_call *call)
{
    list_for_each(item, &volume->lun.nexuses) {
        const struct lun_nexus *nexus = list_entry(item, struct lun_nexus, link);
        if (nexus->dropped || call->session_count == ENGINE_SESSIONS_MAX)
            continue;
        struct engine_session_info *session = &call->sessions[call->session_count++];
        snprintf(session->initiator, sizeof session->initiator, "%s", nexus->initiator);
        snprintf(session->address, sizeof session->address, "%s", nexus->address);
    }
}

static void target_call(struct engine *engine, struct engine_call *call)
{
    struct group_volume *volume = engine->pool ? engine_find_volume(engine, call->name) : NULL;
    if (!engine->pool) {
        call_fail(call, -ENODEV, engine->pool_error.code, "%s", engine->pool_error.text);
        return;
    }
    if (!volume || volume->group->dying || !volume->group->founded) {
        call_fail(call, -ENOENT, "not_found", "target '%s': there is no volume of that name; 'hcictl volume list' shows all", call->name);
        return;
    }
    call->group = volume->group->id;
    call->volume = volume->id;
    memcpy(call->group_name, volume->group->name, sizeof call->group_name);
    list_sessions(volume, call);
    int error = metadata_copy(&volume->group->metadata, &call->metadata);
    if (error < 0)
        call_fail(call, error, "memory", "target '%s': no memory for its settings", call->name);
    else
        call_done(call);
}

/* ---- all --------------------------------------------------------------------------------------------------------------------- */

void calls_run(struct engine *engine, struct engine_call *call)
{
    switch (call->kind) {
    case ENGINE_SNAPSHOT:
        engine_snapshot_fill(engine, call->snapshot);
        call_done(call);
        break;
    case ENGINE_POOL_OPEN:
        engine_give_up_disks(engine, call->lost_disks, call->lost_count);
        call->result = engine_open_pool(engine, call->paths, call->path_count, &call->err);
        call->done(call);
        break;
    case ENGINE_VOLUME_CREATE: volumes_create(engine, call); break;
    case ENGINE_VOLUME_DELETE: volumes_delete(engine, call); break;
    case ENGINE_VOLUME_GROW: grow_call(engine, call); break;
    case ENGINE_DISK_ADD: disks_add(engine, call); break;
    case ENGINE_DISK_REMOVE: disks_remove(engine, call); break;
    case ENGINE_TARGET: target_call(engine, call); break;
    case ENGINE_META_GET:
    case ENGINE_META_SWAP: meta_call(engine, call); break;
    }
}

static void call_mailed(struct ring_mail *mail)
{
    struct engine_call *call = list_entry(mail, struct engine_call, mail);
    calls_run(call->engine, call);
}

void engine_submit(struct engine *engine, struct engine_call *call)
{
    call->engine = engine;
    call->mail.run = call_mailed;
    ring_post(engine->ring, &call->mail);
}
