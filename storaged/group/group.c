/* Drives a group's authority core: events in, its actions carried out in order, the story told. */
#include "storaged/group/group.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/log.h"
#include "storaged/engine/engine_private.h"

/* ---- telling ------------------------------------------------------------------------------------------------------------- */

const char *group_members_text(const struct group *group, uint8_t members, char text[static 160])
{
    const struct engine *engine = group->engine;
    if (members == AUTHORITY_BOTH)
        snprintf(text, 160, "%s and %s", engine_node_name(engine, 0), engine_node_name(engine, 1));
    else if (members == 0)
        snprintf(text, 160, "nobody");
    else
        snprintf(text, 160, "%s", engine_node_name(engine, members == 1 ? 0 : 1));
    return text;
}

static void state_of(const struct group *group, struct engine_group_state *ret)
{
    const struct authority *authority = &group->authority;
    *ret = (struct engine_group_state){
        .group = group->id,
        .role = (enum authority_role)authority->role,
        .serving = group->serving && authority_is_authority(authority),
        .local = authority_is_authority(authority),
        .gone = group->dying,
        .epoch = authority->record.epoch,
        .members = authority->record.members,
    };
    memcpy(ret->name, group->name, sizeof ret->name);
}

static void tell_changes(struct group *group)
{
    struct engine *engine = group->engine;
    struct engine_group_state state;
    state_of(group, &state);
    const struct engine_group_state *told = &group->told;
    bool changed = told->role != state.role || told->epoch != state.epoch || told->members != state.members ||
                   told->serving != state.serving || told->local != state.local || told->gone != state.gone;
    if (changed || group->told_reason != group->authority.reason) {
        char members[160];
        log_notice("group '%s': %s%s at epoch %llu with members %s: %s", group->name, fsm_name(&authority_roles, state.role),
                   state.serving ? ", serving," : "", (unsigned long long)state.epoch,
                   group_members_text(group, state.members, members), group->authority.reason);
        group->told_reason = group->authority.reason;
    }
    if (!changed)
        return;
    if (told->role != AUTHORITY_ROLE_COUNT && told->serving != state.serving) /* ALUA: lun->is_optimized */
        for (unsigned i = 0; i < GROUP_VOLUMES_MAX; i++)
            if (group->volumes[i].exported)
                lun_tell(&group->volumes[i].lun, LUN_ROLE_CHANGED);
    group->told = state;
    engine->options.port.group_changed(engine->options.port.userdata, &state);
    engine_roles_changed(engine);
}

void group_fill_info(struct group *group, struct engine_group_info *ret)
{
    memset(ret, 0, sizeof *ret);
    state_of(group, &ret->state);
    snprintf(ret->reason, sizeof ret->reason, "%s", group->authority.reason);
    ret->meta_version = group->metadata.version;
    ret->behind_bytes = group_dirty_blocks(group) * LUN_BLOCK_SIZE;
    for (unsigned i = 0; i < GROUP_VOLUMES_MAX; i++) {
        const struct group_volume *volume = &group->volumes[i];
        if (!volume->used)
            continue;
        struct engine_volume_info *info = &ret->volumes[ret->volume_count++];
        info->id = volume->id;
        memcpy(info->name, volume->name, sizeof info->name);
        info->size_bytes = volume->size_bytes;
        info->used_bytes = volume->stored ? pool_volume_used_bytes(volume->stored) : 0;
        info->lost_bytes = volume->stored ? pool_volume_lost_blocks(volume->stored) * POOL_BLOCK_SIZE : 0;
    }
    ret->resync_active = group->resync.active && !group->resync.reconciling;
    ret->resync_copied = group->resync.copied_blocks * LUN_BLOCK_SIZE;
    ret->resync_compared = group->resync.compared_blocks * LUN_BLOCK_SIZE;
    ret->resync_left = ret->behind_bytes;
    list_for_each(item, &group->held)
        ret->held++;
}

uint64_t group_dirty_blocks(const struct group *group)
{
    uint64_t blocks = 0;
    for (unsigned i = 0; i < GROUP_VOLUMES_MAX; i++)
        if (group->volumes[i].used && group->volumes[i].stored)
            blocks += pool_dirty_blocks(group->volumes[i].stored);
    return blocks;
}

/* ---- durable state ----------------------------------------------------------------------------------------------------------- */

int group_save(struct group *group, pool_done *done, void *userdata)
{
    struct group_blob blob = {.record = group->authority.record};
    memcpy(blob.name, group->name, sizeof blob.name);
    for (unsigned i = 0; i < GROUP_VOLUMES_MAX; i++) {
        if (!group->volumes[i].used)
            continue;
        struct group_blob_volume *volume = &blob.volumes[blob.volume_count++];
        volume->id = group->volumes[i].id;
        memcpy(volume->name, group->volumes[i].name, sizeof volume->name);
        volume->size_bytes = group->volumes[i].size_bytes;
    }
    /* The newest of both: saves are carried out in order, and none may undo another. */
    blob.metadata = group->has_next ? group->next_metadata : group->metadata;
    uint8_t *bytes = malloc(POOL_GROUP_BLOB_MAX);
    check(bytes);
    int size = group_blob_encode(&blob, bytes, POOL_GROUP_BLOB_MAX);
    if (size > 0)
        pool_group_save(group->engine->pool, &group->id, bytes, (uint32_t)size, done, userdata);
    free(bytes);
    return size < 0 ? size : 0;
}

void group_store_failed(struct group *group, int result, const char *what)
{
    if (group->store_failed)
        return;
    group->store_failed = true;
    log_error("group '%s': its pool failed (%s: %s); this node leaves the group's session", group->name, what, strerror(-result));
    group_tell(group, AUTHORITY_EV_STORE_FAILED, true);
}

static void record_saved(void *userdata, int result)
{
    struct group *group = userdata;
    check(group->saves > 0);
    group->saves--;
    if (result < 0)
        group_store_failed(group, result, "write of the record");
    else
        group_tell(group, AUTHORITY_EV_SAVED, true);
}

static void act_save(struct group *group, const struct authority_action *action)
{
    check(group->saves == 0); /* one at a time */
    group->saves++;
    int result = group_save(group, record_saved, group);
    check(result == 0); /* the record's size is fixed, and the metadata fitted before */
}

/* ---- quiescing ----------------------------------------------------------------------------------------------------------------- */

bool group_is_drained(const struct group *group)
{
    return list_is_empty(&group->running) && list_is_empty(&group->forwarded) && group->receipts == 0 && group->tail_marks == 0 &&
           !group->tail_send_busy && resync_is_idle(group) && meta_is_idle(group);
}

void group_check_quiesced(struct group *group)
{
    if (!group->quiescing || !group_is_drained(group))
        return;
    group->quiescing = false;
    if (group->journaled)
        pool_session_end(group->engine->pool, &group->id); /* R4: dirty := everything in the tail */
    group->journaled = false;
    struct authority_event event = {
        .kind = AUTHORITY_EV_QUIESCED,
        .highest = pool_session_highest(group->engine->pool, &group->id, &group->authority.record.session),
        .committed = pool_session_committed(group->engine->pool, &group->id, &group->authority.record.session),
    };
    group_event(group, &event);
}

static void act_quiesce(struct group *group)
{
    group->serving = group->forwarding = group->hold_writes = false;
    group->quiescing = true;
    resync_stop(group);
    meta_hold(group);
    session_end(group);
    group_quiesce_operations(group);
    forward_lose(group, "the session with the node that serves the volume broke");
    group_check_quiesced(group);
}

static void act_end(struct group *group)
{
    group->hold_writes = false;
    resync_stop(group);
    meta_hold(group);
    session_end(group);
    group_drop_of_peer(group);
    group_run_held(group);
    meta_run(group);
}

/* ---- actions ------------------------------------------------------------------------------------------------------------------- */

static void act_send(struct group *group, const struct authority_action *action)
{
    struct mirror_message message = {.kind = MIRROR_AUTHORITY, .group = group->id, .authority = action->message};
    mirror_link_post(group->engine->link, &message, NULL);
}

static void act_cas(struct group *group, const struct authority_action *action)
{
    struct engine *engine = group->engine;
    struct engine_cas cas = {.group = group->id, .from_count = action->from_count, .was_primary = action->record.was_primary};
    for (unsigned i = 0; i < action->from_count; i++) {
        cas.from[i].epoch = action->from[i].epoch;
        cas.from[i].members = action->from[i].members;
    }
    cas.to.epoch = action->to.epoch;
    cas.to.members = action->to.members;
    char from[160], to[160];
    log_notice("group '%s': asking the witness for epoch %llu with %s (from epoch %llu with %s%s), %s the primary", group->name,
               (unsigned long long)cas.to.epoch, group_members_text(group, cas.to.members, to), (unsigned long long)cas.from[0].epoch,
               group_members_text(group, cas.from[0].members, from), cas.from_count > 1 ? ", or from the growth begun then" : "",
               cas.was_primary ? "was" : "was not");
    if (!engine->stopping)
        engine->options.port.cas(engine->options.port.userdata, &cas);
}

static void act_serve(struct group *group)
{
    group->serving = true;
    group->hold_writes = false;
    group_run_held(group);
    meta_run(group);
}

static void act_forward(struct group *group)
{
    group->serving = false;
    group->forwarding = true;
    meta_lose(group);
    group_run_held(group);
}

static void act_drop_held(struct group *group)
{
    group_drop_held(group, "the group is served by the other node now");
    meta_lose(group);
}

static void act(struct group *group, const struct authority_action *action)
{
    struct engine *engine = group->engine;
    switch (action->kind) {
    case AUTHORITY_ACT_SAVE: act_save(group, action); break;
    case AUTHORITY_ACT_SEND: act_send(group, action); break;
    case AUTHORITY_ACT_CAS: act_cas(group, action); break;
    case AUTHORITY_ACT_QUIESCE: act_quiesce(group); break;
    case AUTHORITY_ACT_BEGIN: session_begin(group, action); break;
    case AUTHORITY_ACT_END: act_end(group); break;
    case AUTHORITY_ACT_SEND_TAIL: session_send_tail(group); break;
    case AUTHORITY_ACT_RECONCILE: resync_start(group, true); break;
    case AUTHORITY_ACT_RESYNC: resync_start(group, false); break;
    case AUTHORITY_ACT_FORGET_TAIL: session_forget_tail(group); break;
    case AUTHORITY_ACT_RAISE: session_raise(group, action); break;
    case AUTHORITY_ACT_SERVE: act_serve(group); break;
    case AUTHORITY_ACT_FORWARD: act_forward(group); break;
    case AUTHORITY_ACT_DROP_HELD: act_drop_held(group); break;
    case AUTHORITY_ACT_TIMER:
        if (action->delay_ms)
            ring_timer_start(engine->ring, &group->timer, action->delay_ms);
        else
            ring_timer_stop(&group->timer);
        break;
    case AUTHORITY_ACT_ASK_PEER_LEASE:
        if (!engine->stopping)
            engine->options.port.ask_peer_lease(engine->options.port.userdata, &group->id);
        break;
    case AUTHORITY_ACT_FOUNDED:
        group->founded = true;
        group_export(group);
        volumes_founded(group);
        break;
    }
}

/* ---- events ---------------------------------------------------------------------------------------------------------------------- */

/* What an action brings about at once (quiesced, saved) waits until the other actions are carried out. */
void group_event(struct group *group, struct authority_event *event)
{
    if (!group->started || group->dying)
        return;
    check(group->event_count < GROUP_EVENTS_MAX);
    event->fresh = id_random();
    group->events[(group->event_first + group->event_count++) % GROUP_EVENTS_MAX] = *event;
    if (group->stepping)
        return;
    group->stepping = true;
    while (group->event_count && !group->dying) {
        struct authority_event next = group->events[group->event_first];
        group->event_first = (group->event_first + 1) % GROUP_EVENTS_MAX;
        group->event_count--;
        struct authority_actions actions;
        authority_step(&group->authority, &next, &actions);
        for (unsigned i = 0; i < actions.count; i++)
            act(group, &actions.items[i]);
        tell_changes(group);
    }
    group->stepping = false;
}

void group_tell(struct group *group, enum authority_event_kind kind, bool up)
{
    struct authority_event event = {.kind = kind, .up = up};
    group_event(group, &event);
}

void group_tell_lease(struct group *group, bool valid, uint64_t generation)
{
    struct authority_event event = {.kind = AUTHORITY_EV_LEASE, .up = valid, .generation = generation};
    group_event(group, &event);
}

static void timer_expired(struct ring_timer *timer)
{
    group_tell(list_entry(timer, struct group, timer), AUTHORITY_EV_TIMER, true);
}

void group_start(struct group *group, const struct authority_record *record)
{
    struct engine *engine = group->engine;
    struct authority_event event = {
        .kind = AUTHORITY_EV_START,
        .record = *record,
        .highest = pool_session_highest(engine->pool, &group->id, &record->session),
        .committed = pool_session_committed(engine->pool, &group->id, &record->session),
    };
    group->started = true;
    admission_update(group);
    group_event(group, &event);
    group_tell(group, AUTHORITY_EV_WITNESS, engine->witness_up);
    group_tell(group, AUTHORITY_EV_PEER, !engine->peer_suspect);
    group_tell_lease(group, engine->lease_valid, engine->lease_generation);
    if (engine->link_up)
        group_tell(group, AUTHORITY_EV_LINK, true);
    if (engine->link_up && group->has_early) {
        struct authority_event hello = {.kind = AUTHORITY_EV_MESSAGE, .message = group->early};
        group_event(group, &hello);
    }
    group->has_early = false;
}

void group_message(struct group *group, const struct authority_message *message)
{
    struct authority_event event = {.kind = AUTHORITY_EV_MESSAGE, .message = *message};
    if (!group->started && message->kind == AUTHORITY_HELLO) {
        group->early = *message; /* a group that is being created: the other node was faster */
        group->has_early = true;
    }
    group_event(group, &event);
}

/* ---- volumes and life --------------------------------------------------------------------------------------------------------------- */

struct group *group_new(struct engine *engine, const struct id *id, const char *name)
{
    struct group *group = calloc(1, sizeof *group);
    if (!group)
        return NULL;
    group->resync.runs = calloc(RESYNC_RUNS, sizeof *group->resync.runs);
    group->tail_buffer = malloc(MIRROR_TAIL_ENTRIES * MIRROR_TAIL_ENTRY_SIZE);
    if (!group->resync.runs || !group->tail_buffer) {
        free(group->resync.runs);
        free(group->tail_buffer);
        free(group);
        return NULL;
    }
    group->engine = engine;
    group->id = *id;
    snprintf(group->name, sizeof group->name, "%s", name);
    authority_init(&group->authority, engine_self_bit(engine));
    group->told.role = AUTHORITY_ROLE_COUNT; /* nothing was told yet */
    group->timer.expired = timer_expired;
    list_init(&group->held);
    list_init(&group->running);
    list_init(&group->forwarded);
    list_init(&group->flights);
    list_init(&group->swaps);
    list_init(&group->meta_flight.link);
    resync_init(group);
    list_append(&engine->groups, &group->link);
    engine->group_count++;
    return group;
}

void group_free(struct group *group)
{
    check(group_is_drained(group) && list_is_empty(&group->held) && list_is_empty(&group->swaps) && group->answers == 0 && group->saves == 0);
    ring_timer_stop(&group->timer);
    ring_timer_stop(&group->resync.again);
    metadata_clear(&group->metadata);
    metadata_clear(&group->next_metadata);
    list_remove(&group->link);
    group->engine->group_count--;
    free(group->resync.runs);
    free(group->tail_buffer);
    free(group);
}

struct group_volume *group_add_volume(struct group *group, const struct id *id, const char *name, uint64_t size_bytes)
{
    for (unsigned i = 0; i < GROUP_VOLUMES_MAX; i++) {
        struct group_volume *volume = &group->volumes[i];
        if (volume->used)
            continue;
        *volume = (struct group_volume){.group = group, .id = *id, .size_bytes = size_bytes, .used = true};
        snprintf(volume->name, sizeof volume->name, "%s", name);
        volume->stored = pool_volume_find(group->engine->pool, id);
        range_lock_init(&volume->lock);
        group_init_lun(volume);
        return volume;
    }
    return NULL;
}

void group_remove_volume(struct group_volume *volume)
{
    check(!volume->exported && range_lock_is_free(&volume->lock) && list_is_empty(&volume->lun.nexuses));
    volume->used = false;
    volume->stored = NULL;
}

struct group_volume *group_volume_by_id(struct group *group, const struct id *id)
{
    for (unsigned i = 0; i < GROUP_VOLUMES_MAX; i++)
        if (group->volumes[i].used && id_equal(&group->volumes[i].id, id))
            return &group->volumes[i];
    return NULL;
}

unsigned group_volume_count(const struct group *group)
{
    unsigned count = 0;
    for (unsigned i = 0; i < GROUP_VOLUMES_MAX; i++)
        count += group->volumes[i].used;
    return count;
}

void group_export(struct group *group)
{
    for (unsigned i = 0; group->founded && i < GROUP_VOLUMES_MAX; i++) {
        struct group_volume *volume = &group->volumes[i];
        if (!volume->used || !volume->stored || volume->exported)
            continue;
        int error = lun_table_add(group->engine->luns, &volume->lun);
        if (error < 0)
            log_error("volume '%s': cannot be exported: %s", volume->name, error == -EEXIST ? "its name is exported already" : "too many volumes");
        else
            volume->exported = true;
    }
}
