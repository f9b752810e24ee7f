/* Requests at the node that is not the authority go to the one that is (R1), and its answers come back. What is under
 * way there when the session breaks is never sent a second time from here: its initiator's connection is closed, and
 * the initiator decides (iscsi.md, ghost writes). */
#include <string.h>

#include "common/check.h"
#include "common/log.h"
#include "storaged/engine/engine_private.h"

/* ---- asking ------------------------------------------------------------------------------------------------------------ */

static uint64_t bytes_of(const struct operation *operation)
{
    uint64_t in = operation->opcode == LUN_READ ? (uint64_t)operation->sectors * LUN_SECTOR_SIZE : 0;
    return in + lun_bytes_out(operation->opcode, operation->sectors);
}

static bool has_room(const struct engine *engine, const struct operation *operation)
{
    return engine->forward_count < ENGINE_FORWARDS_MAX && engine->forward_bytes + bytes_of(operation) <= ENGINE_FORWARD_BYTES_MAX;
}

static void forward_done(struct operation *operation, enum lun_status status)
{
    struct engine *engine = operation->group->engine;
    engine->forward_count--;
    engine->forward_bytes -= bytes_of(operation);
    operation_finish(operation, status);
}

static void sent(struct mirror_send *send)
{
    struct operation *operation = list_entry(send, struct operation, send);
    operation->send_busy = false;
    if (operation->redo)
        forward_done(operation, LUN_DROPPED);
}

void forward_send(struct operation *operation)
{
    struct group *group = operation->group;
    struct engine *engine = group->engine;
    if (!has_room(engine, operation) || !mirror_link_is_open(engine->link)) {
        operation_hold(operation); /* goes on as answers come in, or when somebody serves */
        return;
    }
    struct mirror_message message;
    session_fill(group, &message, MIRROR_FORWARD);
    message.volume = operation->volume->id;
    message.tag = operation->tag;
    message.opcode = (uint8_t)operation->opcode;
    message.sector = operation->sector;
    message.sectors = operation->sectors;
    message.tried = operation->tried;
    message.data_size = lun_bytes_out(operation->opcode, operation->sectors);
    list_remove(&operation->link);
    list_append(&group->forwarded, &operation->link);
    operation->state = OPERATION_FORWARDED;
    operation->send.done = sent;
    operation->send_busy = true;
    engine->forward_count++;
    engine->forward_bytes += bytes_of(operation);
    check(mirror_link_send(engine->link, &operation->send, &message, operation->data));
}

/* There is room again: those that wait go on, in their order. */
static void pump(struct engine *engine)
{
    list_for_each(item, &engine->groups) {
        struct group *group = list_entry(item, struct group, link);
        while (group->forwarding && group->meta_known && !list_is_empty(&group->held)) {
            struct operation *operation = list_entry(group->held.next, struct operation, link);
            if (!has_room(engine, operation) || !mirror_link_is_open(engine->link))
                break;
            forward_send(operation);
        }
    }
}

void forward_lose(struct group *group, const char *reason)
{
    list_for_each_safe(item, after, &group->forwarded) {
        struct operation *operation = list_entry(item, struct operation, link);
        struct engine *engine = group->engine;
        if (operation->send_busy && mirror_link_cancel(engine->link, &operation->send)) {
            /* Nothing of it has left this node: it may be held like any other. */
            operation->send_busy = false;
            engine->forward_count--;
            engine->forward_bytes -= bytes_of(operation);
            operation_hold(operation);
            continue;
        }
        struct lun_nexus *nexus = operation->request->nexus;
        if (!nexus->dropped)
            nexus->close(nexus, reason);
        if (operation->send_busy)
            operation->redo = true; /* its data is still being handed to the connection */
        else
            forward_done(operation, LUN_DROPPED);
    }
}

static struct operation *forwarded_by_tag(struct engine *engine, uint64_t tag)
{
    uint64_t index = tag & 0xffff;
    struct operation *operation = index < ENGINE_OPERATIONS_MAX ? &engine->operations[index] : NULL;
    bool found = operation && operation->tag == tag && operation->state == OPERATION_FORWARDED && !operation->redo;
    return found ? operation : NULL;
}

const char *forward_answered(struct engine *engine, const struct mirror_message *message, uint8_t *data)
{
    struct operation *operation = forwarded_by_tag(engine, message->tag);
    const char *refused = NULL;
    /* Not found: its session broke meanwhile; the connection it came from is closed. */
    if (operation) {
        bool with_data = operation->opcode == LUN_READ && message->status == LUN_OK;
        if (operation->send_busy || !id_equal(&message->group, &operation->group->id)) {
            refused = "it answers what was not asked";
        } else if (message->data_size != (with_data ? operation->sectors * LUN_SECTOR_SIZE : 0)) {
            refused = "its size is not what was asked for";
        } else {
            if (with_data)
                memcpy(operation->data, data, message->data_size);
            operation->bad_sector = message->sector;
            operation->miscompare_offset = message->offset;
            operation->mapped = message->mapped;
            operation->run_sectors = message->run_sectors < operation->sectors ? message->run_sectors : operation->sectors;
            struct lun_nexus *nexus = operation->request->nexus;
            if (message->status == LUN_DROPPED && !nexus->dropped)
                nexus->close(nexus, "the other node could not carry a request out");
            forward_done(operation, (enum lun_status)message->status);
            pump(engine);
        }
    }
    if (data)
        iobuf_put(engine->receive, data);
    return refused;
}

/* ---- answering ------------------------------------------------------------------------------------------------------------ */

static void free_answered(struct operation *operation)
{
    struct engine *engine = operation->group->engine;
    if (operation->data)
        iobuf_put(lun_bytes_out(operation->opcode, 1) ? engine->receive : engine->work, operation->data);
    operation->data = NULL;
    operation_free(operation);
}

static void answer_sent(struct mirror_send *send)
{
    struct operation *operation = list_entry(send, struct operation, send);
    operation->send_busy = false;
    operation->group->answers--;
    free_answered(operation);
}

void forward_answer(struct operation *operation, enum lun_status status)
{
    struct group *group = operation->group;
    if (operation->orphan) {
        free_answered(operation);
        return;
    }
    struct mirror_message message = {
        .kind = MIRROR_ANSWER,
        .group = group->id,
        .tag = operation->peer_tag,
        .status = (uint8_t)status,
        .sector = operation->bad_sector,
        .offset = operation->miscompare_offset,
        .mapped = operation->mapped,
        .run_sectors = operation->run_sectors,
    };
    if (status == LUN_OK && operation->opcode == LUN_READ)
        message.data_size = operation->sectors * LUN_SECTOR_SIZE;
    operation->send.done = answer_sent;
    operation->send_busy = mirror_link_send(group->engine->link, &operation->send, &message, operation->data);
    if (operation->send_busy)
        group->answers++;
    else
        free_answered(operation);
}

static void answer_at_once(struct group *group, const struct mirror_message *question, enum lun_status status, uint8_t *data)
{
    struct mirror_message message = {
        .kind = MIRROR_ANSWER, .group = group->id, .tag = question->tag, .status = (uint8_t)status, .sector = question->sector};
    mirror_link_post(group->engine->link, &message, NULL);
    if (data)
        iobuf_put(group->engine->receive, data);
}

static const char *accept(struct group *group, const struct mirror_message *message, uint8_t *data)
{
    struct group_volume *volume = group_volume_by_id(group, &message->volume);
    uint64_t sectors = volume && volume->stored ? volume->size_bytes / LUN_SECTOR_SIZE : 0;
    /* A crash while it grew may have left the larger size at one node: an error to who looks there, no broken link. */
    if (volume && (message->sector > sectors || message->sectors > sectors - message->sector)) {
        answer_at_once(group, message, LUN_MEDIUM_ERROR, data);
        return NULL;
    }
    struct operation *operation = volume ? operation_new(group, volume) : NULL;
    if (!operation) {
        answer_at_once(group, message, LUN_DROPPED, data);
        return NULL;
    }
    operation->peer_tag = message->tag;
    operation->opcode = (enum lun_opcode)message->opcode;
    operation->sector = message->sector;
    operation->sectors = message->sectors;
    operation->tried = message->tried;
    operation->data = data;
    operation_begin(operation);
    return NULL;
}

const char *forward_received(struct group *group, const struct mirror_message *message, uint8_t *data)
{
    bool ours = group->session_as == AUTHORITY_OPENING || group->session_as == AUTHORITY_SOLE || group->session_as == AUTHORITY_GROWING;
    const char *refused = NULL;
    if (session_matches(group, message)) {
        refused = ours ? accept(group, message, data) : "this node forwards itself";
        if (!refused)
            return NULL;
    }
    if (data)
        iobuf_put(group->engine->receive, data);
    return refused;
}
