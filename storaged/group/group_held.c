/* Requests that wait: held when nobody may serve (R4), run again, dropped; and the logical unit they come from. */
#include <string.h>

#include "common/log.h"
#include "storaged/engine/engine_private.h"

void group_run_held(struct group *group)
{
    struct list held;
    list_init(&held);
    while (!list_is_empty(&group->held)) {
        struct list *item = group->held.next;
        list_remove(item);
        list_append(&held, item);
    }
    while (!list_is_empty(&held)) {
        struct operation *operation = list_entry(held.next, struct operation, link);
        list_remove(&operation->link);
        operation_begin(operation);
    }
}

/* R4: nothing more completes; what runs is held again as soon as nothing local is at it. */
void group_quiesce_operations(struct group *group)
{
    list_for_each_safe(item, after, &group->running) {
        struct operation *operation = list_entry(item, struct operation, link);
        operation->redo = true;
        if (operation->state == OPERATION_SETTLED)
            continue; /* its mail holds it */
        operation->ack_wanted = false;
        list_remove(&operation->flight.link);
        if (operation->send_busy && mirror_link_cancel(group->engine->link, &operation->send))
            operation->send_busy = false;
        if (operation->state == OPERATION_MEMORY)
            iobuf_wait_cancel(group->engine->work, &operation->waiter);
        if (!operation->io_busy && !operation->send_busy)
            operation_hold(operation);
    }
    group_drop_of_peer(group);
}

void group_drop_of_peer(struct group *group)
{
    list_for_each_safe(item, after, &group->held) {
        struct operation *operation = list_entry(item, struct operation, link);
        if (operation->request)
            continue;
        operation->orphan = true;
        operation_finish(operation, LUN_DROPPED);
    }
    list_for_each(item, &group->running) {
        struct operation *operation = list_entry(item, struct operation, link);
        if (!operation->request)
            operation->orphan = true;
    }
}

static void drop(struct operation *operation, const char *reason)
{
    struct lun_request *request = operation->request;
    if (request && !request->nexus->dropped)
        request->nexus->close(request->nexus, reason);
    operation->orphan = !request;
    operation_finish(operation, LUN_DROPPED);
}

void group_drop_held(struct group *group, const char *reason)
{
    /* From the head each time: a connection that is closed may take others along. */
    while (!list_is_empty(&group->held))
        drop(list_entry(group->held.next, struct operation, link), reason);
}

void group_expire_held(struct group *group, uint64_t now_ms)
{
    while (!list_is_empty(&group->held)) {
        struct operation *operation = list_entry(group->held.next, struct operation, link);
        if (now_ms < operation->held_since_ms + GROUP_HELD_MS)
            return;
        log_warning("group '%s': a request was held for %u s; closing its initiator's connection", group->name, GROUP_HELD_MS / 1000);
        drop(operation, "the volume could not be served for 25 s");
    }
}

/* ---- the logical unit ------------------------------------------------------------------------------------------------------------- */

static void lun_submitted(struct lun *lun, struct lun_request *request)
{
    struct group_volume *volume = list_entry(lun, struct group_volume, lun);
    struct operation *operation = operation_new(volume->group, volume);
    if (!operation) {
        list_append(&volume->group->engine->starved, &request->link);
        return;
    }
    operation->request = request;
    operation->opcode = request->opcode;
    operation->sector = request->sector;
    operation->sectors = request->sectors;
    operation->data = request->data;
    operation_begin(operation);
}

static void drop_starved(struct engine *engine, struct lun_nexus *nexus)
{
    list_for_each_safe(item, after, &engine->starved) {
        struct lun_request *request = list_entry(item, struct lun_request, link);
        if (request->nexus != nexus)
            continue;
        list_remove(&request->link);
        request->status = LUN_DROPPED;
        request->done(request);
    }
}

static struct operation *held_of(struct group *group, const struct lun_nexus *nexus)
{
    list_for_each(item, &group->held) {
        struct operation *operation = list_entry(item, struct operation, link);
        if (operation->request && operation->request->nexus == nexus)
            return operation;
    }
    return NULL;
}

static void nexus_dropped(struct lun *lun, struct lun_nexus *nexus)
{
    struct group *group = list_entry(lun, struct group_volume, lun)->group;
    drop_starved(group->engine, nexus);
    struct operation *operation;
    while ((operation = held_of(group, nexus)))
        operation_finish(operation, LUN_DROPPED);
}

static bool is_optimized(struct lun *lun)
{
    const struct group *group = list_entry(lun, struct group_volume, lun)->group;
    return group->serving && authority_is_authority(&group->authority);
}

void group_init_lun(struct group_volume *volume)
{
    struct lun *lun = &volume->lun;
    *lun = (struct lun){
        .volume = volume->id,
        .sectors = volume->size_bytes / LUN_SECTOR_SIZE,
        .submit = lun_submitted,
        .drop = nexus_dropped,
        .admit = admission_check,
        .is_optimized = is_optimized,
        .state = group_state_get,
        .state_swap = group_state_swap,
    };
    memcpy(lun->name, volume->name, sizeof lun->name);
    list_init(&lun->nexuses);
}
