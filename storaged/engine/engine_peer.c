/* The engine and the other node: what the link brings goes to whom it concerns; questions and their answers. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/log.h"
#include "storaged/engine/engine_private.h"

/* ---- questions ------------------------------------------------------------------------------------------------------------- */

struct peer_call {
    struct list link;
    uint64_t tag;
    peer_answer *answer;
    void *userdata;
};

static unsigned count_calls(const struct engine *engine)
{
    unsigned count = 0;
    list_for_each(item, &engine->peer_calls)
        count++;
    return count;
}

void engine_ask_peer(struct engine *engine, struct mirror_message *message, const void *data, peer_answer *answer, void *userdata)
{
    bool possible = engine->link_up && count_calls(engine) < ENGINE_CALLS_MAX;
    struct peer_call *call = possible ? malloc(sizeof *call) : NULL;
    if (!call) {
        answer(engine, userdata, engine->link_up ? -EBUSY : -ENOTCONN, 0, NULL, 0);
        return;
    }
    *call = (struct peer_call){.tag = ++engine->tags, .answer = answer, .userdata = userdata};
    list_append(&engine->peer_calls, &call->link);
    message->tag = call->tag;
    mirror_link_post(engine->link, message, data);
}

void engine_answer_peer(struct engine *engine, uint64_t tag, int result, uint64_t version, const void *data, uint32_t size)
{
    struct mirror_message message = {.kind = MIRROR_DONE, .tag = tag, .result = result, .version = version, .data_size = size};
    mirror_link_post(engine->link, &message, data);
}

static void on_done(struct engine *engine, const struct mirror_message *message, const uint8_t *data)
{
    list_for_each(item, &engine->peer_calls) {
        struct peer_call *call = list_entry(item, struct peer_call, link);
        if (call->tag != message->tag)
            continue;
        list_remove(&call->link);
        call->answer(engine, call->userdata, message->result > 0 ? -EIO : message->result, message->version, data, message->data_size);
        free(call);
        return;
    }
}

static void fail_calls(struct engine *engine)
{
    while (!list_is_empty(&engine->peer_calls)) {
        struct peer_call *call = list_entry(engine->peer_calls.next, struct peer_call, link);
        list_remove(&call->link);
        call->answer(engine, call->userdata, -ENOTCONN, 0, NULL, 0);
        free(call);
    }
}

/* ---- meta.swap of the other node ---------------------------------------------------------------------------------------------- */

static void peer_swap_done(struct swap *swap, int result, uint64_t version)
{
    struct group *group = swap->userdata;
    uint8_t *map = NULL;
    struct bytes_writer writer = {0};
    if (result == -ESTALE && (map = malloc(MIRROR_MAP_MAX))) {
        writer = bytes_writer_of(map, MIRROR_MAP_MAX);
        metadata_encode(&group->metadata, &writer);
    }
    engine_answer_peer(group->engine, swap->tag, result, version, map, map ? (uint32_t)bytes_written(&writer) : 0);
    free(map);
    metadata_changes_clear(&swap->changes);
    free(swap);
}

static const char *on_swap(struct engine *engine, const struct mirror_message *message, const uint8_t *data)
{
    struct swap *swap = calloc(1, sizeof *swap);
    check(swap);
    struct bytes_reader reader = bytes_reader_of(data, message->data_size);
    if (metadata_changes_decode(&reader, &swap->changes) < 0 || !bytes_done(&reader)) {
        metadata_changes_clear(&swap->changes);
        free(swap);
        return "its changes are malformed";
    }
    struct group *group = engine_find_group(engine, &message->group);
    swap->tag = message->tag;
    swap->userdata = group;
    swap->done = peer_swap_done;
    list_init(&swap->link);
    int error = group ? meta_swap(group, swap) : -EAGAIN;
    if (error < 0) {
        engine_answer_peer(engine, message->tag, error, 0, NULL, 0);
        metadata_changes_clear(&swap->changes);
        free(swap);
    }
    return NULL;
}

/* ---- groups: both sides tell what they hold before anything else ------------------------------------------------------------------ */

static void link_opened(void *userdata)
{
    struct engine *engine = userdata;
    struct id ids[MIRROR_GROUPS_MAX];
    struct mirror_message message = {.kind = MIRROR_GROUPS};
    list_for_each(item, &engine->groups) {
        const struct group *group = list_entry(item, struct group, link);
        if (!group->dying && message.count < MIRROR_GROUPS_MAX)
            ids[message.count++] = group->id;
    }
    message.data_size = message.count * sizeof(struct id);
    mirror_link_post(engine->link, &message, ids);
}

static bool is_in(const struct id *id, const uint8_t *data, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (memcmp(id, data + i * sizeof *id, sizeof *id) == 0)
            return true;
    return false;
}

static void compare_groups(struct engine *engine, const uint8_t *data, uint32_t count)
{
    const char *peer = site_peer(engine->site)->name;
    list_for_each_safe(item, after, &engine->groups) {
        struct group *group = list_entry(item, struct group, link);
        if (group->dying || is_in(&group->id, data, count) || group == engine->creating_group)
            continue;
        if (group->authority.record.founding != AUTHORITY_FOUNDED)
            volumes_delete_group(group, "its creation was interrupted, and the other node does not know it");
        else
            log_warning("group '%s': node %s does not hold it; if it was deleted there, delete it here, too", group->name, peer);
    }
    for (uint32_t i = 0; i < count; i++) {
        struct id id;
        char text[ID_TEXT_SIZE];
        memcpy(&id, data + i * sizeof id, sizeof id);
        if (!engine_find_group(engine, &id))
            log_warning("group %s: node %s holds it, this node does not", id_format(&id, text), peer);
    }
}

static const char *on_groups(struct engine *engine, const struct mirror_message *message, const uint8_t *data)
{
    if (engine->link_up)
        return "it told its groups before";
    compare_groups(engine, data, message->count);
    engine->link_up = true;
    engine->options.port.link_changed(engine->options.port.userdata, true);
    list_for_each(item, &engine->groups)
        group_tell(list_entry(item, struct group, link), AUTHORITY_EV_LINK, true);
    return NULL;
}

static void link_closed(void *userdata, const char *reason)
{
    struct engine *engine = userdata;
    bool was_up = engine->link_up;
    engine->link_up = false;
    engine->draining = true;
    list_for_each(item, &engine->groups) {
        struct group *group = list_entry(item, struct group, link);
        group->has_early = false;
        group_tell(group, AUTHORITY_EV_LINK, false);
        group_drop_of_peer(group);
    }
    fail_calls(engine);
    if (was_up)
        engine->options.port.link_changed(engine->options.port.userdata, false);
    engine_check_drained(engine);
}

/* ---- messages ------------------------------------------------------------------------------------------------------------------------ */

/* Those that borrow their data. */
static const char *borrowing(struct engine *engine, const struct mirror_message *message, const uint8_t *data)
{
    struct group *group;
    switch (message->kind) {
    case MIRROR_GROUPS: return on_groups(engine, message, data);
    case MIRROR_SWAP: return on_swap(engine, message, data);
    case MIRROR_DONE: on_done(engine, message, data); return NULL;
    case MIRROR_CREATE: volumes_peer_create(engine, message); return NULL;
    case MIRROR_REMOVE: volumes_peer_remove(engine, message); return NULL;
    case MIRROR_GROW: grow_peer(engine, message); return NULL;
    case MIRROR_AUTHORITY:
        group = engine_find_group(engine, &message->group);
        if (group) /* else it was deleted a moment ago */
            group_message(group, &message->authority);
        return NULL;
    default: return "it is no message of this protocol";
    }
}

static bool takes_data(uint16_t kind)
{
    return kind == MIRROR_WRITE || kind == MIRROR_ZERO || kind == MIRROR_META || kind == MIRROR_ACK || kind == MIRROR_COMMIT ||
           kind == MIRROR_COMPARE || kind == MIRROR_NEED || kind == MIRROR_TAIL || kind == MIRROR_FETCH || kind == MIRROR_FORWARD;
}

static const char *link_message(void *userdata, const struct mirror_message *message, uint8_t *data)
{
    struct engine *engine = userdata;
    const char *refused = NULL;
    if (!engine->link_up && message->kind != MIRROR_GROUPS) {
        refused = "it came before the other node told its groups";
    } else if (message->kind == MIRROR_ANSWER) {
        return forward_answered(engine, message, data);
    } else if (message->kind == MIRROR_FETCHED) {
        return operation_fetched(engine, message, data);
    } else if (takes_data(message->kind)) {
        struct group *group = engine_find_group(engine, &message->group);
        if (group && !group->dying)
            return message->kind == MIRROR_FORWARD ? forward_received(group, message, data) : session_message(group, message, data);
    } else {
        refused = borrowing(engine, message, data);
    }
    if (data)
        iobuf_put(engine->receive, data);
    return refused;
}

const struct mirror_link_callbacks engine_link_callbacks = {link_opened, link_message, link_closed};
