/* A volume grows: room first, on every member, then the records, and what initiators see last. A crash in between
 * leaves the smaller size, or on one member the larger one with the room for it; repeating the verb completes it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/log.h"
#include "storaged/engine/engine_private.h"

enum grow_step {
    GROW_ROOM,   /* in the pool */
    GROW_RECORD, /* in the group's record */
    GROW_EXPORT, /* to initiators */
};

struct growing {
    struct engine *engine;
    struct group_volume *volume;
    struct engine_call *call; /* NULL: the other node asked */
    uint64_t tag;
    uint64_t size_bytes, before_bytes;
    void (*done)(struct growing *growing, int result);
};

/* ---- one step on this node --------------------------------------------------------------------------------------- */

static void room_made(void *userdata, int result)
{
    struct growing *growing = userdata;
    growing->done(growing, result);
}

static void make_room(struct growing *growing)
{
    struct pool_volume *stored = growing->volume->stored;
    if (pool_volume_blocks(stored) * POOL_BLOCK_SIZE >= growing->size_bytes)
        growing->done(growing, 0);
    else
        pool_volume_grow(growing->engine->pool, stored, growing->size_bytes, room_made, growing);
}

static void recorded(void *userdata, int result)
{
    struct growing *growing = userdata;
    growing->volume->group->saves--;
    if (result < 0)
        growing->volume->size_bytes = growing->before_bytes;
    growing->done(growing, result);
}

static void record(struct growing *growing)
{
    struct group_volume *volume = growing->volume;
    growing->before_bytes = volume->size_bytes;
    volume->size_bytes = growing->size_bytes;
    volume->group->saves++;
    int error = group_save(volume->group, recorded, growing);
    if (error < 0)
        recorded(growing, error);
}

static void export_size(struct group_volume *volume)
{
    uint64_t sectors = volume->size_bytes / LUN_SECTOR_SIZE;
    if (volume->lun.sectors == sectors)
        return;
    volume->lun.sectors = sectors;
    log_notice("volume '%s' has grown to %llu MiB", volume->name, (unsigned long long)(volume->size_bytes >> 20));
    lun_tell(&volume->lun, LUN_CAPACITY_CHANGED);
}

/* ---- asked by the other node ------------------------------------------------------------------------------------- */

static void peer_step_done(struct growing *growing, int result)
{
    growing->volume->growing = false;
    engine_answer_peer(growing->engine, growing->tag, result, 0, NULL, 0);
    free(growing);
}

static int check_peer(struct engine *engine, const struct mirror_message *message, const struct group_volume *volume)
{
    if (!engine->pool)
        return -ENODEV;
    if (!volume || !volume->stored || volume->group->dying)
        return -ENOENT;
    if (message->size_bytes % LUN_BLOCK_SIZE || message->size_bytes < volume->size_bytes)
        return -EINVAL;
    /* A record of more than the pool has would be an error to a guest later. */
    if (message->count != GROW_ROOM && pool_volume_blocks(volume->stored) * POOL_BLOCK_SIZE < message->size_bytes)
        return -EINVAL;
    return volume->growing ? -EBUSY : 0;
}

void grow_peer(struct engine *engine, const struct mirror_message *message)
{
    struct group *group = engine_find_group(engine, &message->group);
    struct group_volume *volume = group ? group_volume_by_id(group, &message->volume) : NULL;
    int error = check_peer(engine, message, volume);
    if (error < 0 || message->count == GROW_EXPORT) {
        if (error == 0)
            export_size(volume);
        engine_answer_peer(engine, message->tag, error, 0, NULL, 0);
        return;
    }
    struct growing *growing = calloc(1, sizeof *growing);
    check(growing);
    *growing = (struct growing){.engine = engine,
                                .volume = volume,
                                .tag = message->tag,
                                .size_bytes = message->size_bytes,
                                .done = peer_step_done};
    volume->growing = true;
    if (message->count == GROW_ROOM)
        make_room(growing);
    else
        record(growing);
}

/* ---- volume.grow here: room there, room here, record there, record here, shown here, shown there ----------------- */

static void ask(struct growing *growing, enum grow_step step, peer_answer *answer)
{
    struct mirror_message message = {.kind = MIRROR_GROW,
                                     .group = growing->volume->group->id,
                                     .volume = growing->volume->id,
                                     .size_bytes = growing->size_bytes,
                                     .count = step};
    engine_ask_peer(growing->engine, &message, NULL, answer, growing);
}

static void over(struct growing *growing)
{
    growing->volume->growing = false;
    growing->engine->growing = NULL;
    free(growing);
}

static void fail_here(struct growing *growing, int result)
{
    struct engine_call *call = growing->call;
    over(growing);
    if (result == -ENOSPC)
        call_fail(call, result, "no_space",
                  "volume '%s': this node's pool has not enough free space; choose a smaller size, or 'hcictl disk "
                  "add' a disk",
                  call->name);
    else if (result == -ENOTSUP)
        call_fail(call, result, "unsupported",
                  "volume '%s': this pool cannot grow volumes; make a larger volume and copy the data", call->name);
    else
        call_fail(call, result, "io", "volume '%s': cannot grow on this node: %s", call->name, strerror(-result));
}

static void fail_there(struct growing *growing, int result)
{
    struct engine_call *call = growing->call;
    struct engine *engine = growing->engine;
    over(growing);
    call_fail(call, result,
              result == -ENOSPC  ? "no_space"
              : result == -EBUSY ? "busy"
                                 : "peer_away",
              "volume '%s': cannot grow on node %s: %s; its size is as before, try again when that is mended",
              call->name, site_peer(engine->site)->name, volume_explain(engine, result));
}

/* The other node shows the new size with its next start, should it not hear of this. */
static void shown_there(struct engine *engine, void *userdata, int result, uint64_t version, const uint8_t *data,
                        uint32_t size)
{
    struct growing *growing = userdata;
    struct engine_call *call = growing->call;
    over(growing);
    call_done(call);
}

static void recorded_here(struct growing *growing, int result)
{
    if (result < 0) {
        fail_here(growing, result);
        return;
    }
    export_size(growing->volume);
    if (growing->engine->site->standalone)
        shown_there(growing->engine, growing, 0, 0, NULL, 0);
    else
        ask(growing, GROW_EXPORT, shown_there);
}

static void recorded_there(struct engine *engine, void *userdata, int result, uint64_t version, const uint8_t *data,
                           uint32_t size)
{
    struct growing *growing = userdata;
    growing->done = recorded_here;
    if (result < 0)
        fail_there(growing, result);
    else
        record(growing);
}

static void room_here(struct growing *growing, int result)
{
    if (result < 0)
        fail_here(growing, result);
    else if (growing->engine->site->standalone)
        recorded_there(growing->engine, growing, 0, 0, NULL, 0);
    else
        ask(growing, GROW_RECORD, recorded_there);
}

static void room_there(struct engine *engine, void *userdata, int result, uint64_t version, const uint8_t *data,
                       uint32_t size)
{
    struct growing *growing = userdata;
    growing->done = room_here;
    if (result < 0)
        fail_there(growing, result);
    else
        make_room(growing);
}

static int check_size(struct engine_call *call, const struct group_volume *volume)
{
    if (call->size_bytes % LUN_BLOCK_SIZE)
        call_fail(call, -EINVAL, "invalid",
                  "volume '%s': size %llu is not a multiple of 4096 bytes; choose another size", call->name,
                  (unsigned long long)call->size_bytes);
    else if (call->size_bytes < volume->size_bytes)
        call_fail(call, -EINVAL, "invalid",
                  "volume '%s': it has %llu MiB already and a volume only grows; choose a larger size", call->name,
                  (unsigned long long)(volume->size_bytes >> 20));
    else
        return 0;
    return -EINVAL;
}

static int check_grow(struct engine *engine, struct engine_call *call, const struct group_volume *volume)
{
    bool alone = engine->site->standalone;
    if (!engine->pool)
        call_fail(call, -ENODEV, engine->pool_error.code, "%s", engine->pool_error.text);
    else if (!volume || volume->group->dying || !volume->stored || !volume->group->founded)
        call_fail(call, -ENOENT, "not_found", "volume '%s': there is none of that name; 'hcictl volume list' shows all",
                  call->name);
    else if (check_size(call, volume) < 0)
        return -EINVAL;
    else if (engine->growing || volume->growing || engine->creating_volume == volume || volume->group->delete_busy)
        call_fail(call, -EBUSY, "busy",
                  "volume '%s': a volume is being created, grown or deleted; try again in a moment", call->name);
    else if (!alone && !engine->link_up)
        call_fail(call, -ENOTCONN, "peer_away",
                  "volume '%s': node %s is not connected, and a volume grows on both nodes; try again when it is back",
                  call->name, site_peer(engine->site)->name);
    else if (volume->group->authority.role != (alone ? AUTHORITY_SOLE : AUTHORITY_PRIMARY))
        call_fail(call, -EAGAIN, "unavailable",
                  "volume '%s': this node does not serve it as primary; ask the node that 'hcictl volume list' calls "
                  "its primary, once both copies are current",
                  call->name);
    else
        return 0;
    return -EINVAL;
}

void grow_call(struct engine *engine, struct engine_call *call)
{
    struct group_volume *volume = engine->pool ? engine_find_volume(engine, call->name) : NULL;
    if (check_grow(engine, call, volume) < 0)
        return;
    struct growing *growing = calloc(1, sizeof *growing);
    check(growing);
    *growing = (struct growing){.engine = engine, .volume = volume, .call = call, .size_bytes = call->size_bytes};
    call->group = volume->group->id;
    call->volume = volume->id;
    engine->growing = call;
    volume->growing = true;
    if (engine->site->standalone)
        room_there(engine, growing, 0, 0, NULL, 0);
    else
        ask(growing, GROW_ROOM, room_there);
}
