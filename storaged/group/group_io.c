/* The life of a request here: hold, lock, have it carried out (group_step.c), complete under R1's guard. */
#include <errno.h>
#include <string.h>

#include "common/check.h"
#include "common/log.h"
#include "storaged/engine/engine_private.h"

static void locked(struct operation *operation);
static void settled(struct ring_mail *mail);

/* ---- operations ------------------------------------------------------------------------------------------------------ */

struct operation *operation_new(struct group *group, struct group_volume *volume)
{
    struct engine *engine = group->engine;
    if (list_is_empty(&engine->free_operations))
        return NULL;
    struct operation *operation = list_entry(engine->free_operations.next, struct operation, link);
    list_remove(&operation->link);
    memset(operation, 0, sizeof *operation);
    list_init(&operation->link);
    list_init(&operation->flight.link);
    operation->group = group;
    operation->volume = volume;
    operation->arrival = ++group->arrivals;
    operation->held_since_ms = ring_now_ms(engine->ring);
    operation->mail.run = settled;
    /* Unique for as long as anything may refer to it: the slot and a count. */
    operation->tag = ++engine->operation_serial << 16 | (uint64_t)(operation - engine->operations);
    return operation;
}

static void release(struct operation *operation)
{
    struct engine *engine = operation->group->engine;
    if (operation->bounce)
        iobuf_put(engine->work, operation->bounce);
    operation->bounce = NULL;
    range_lock_release(&operation->volume->lock, &operation->lock);
}

static void feed_starved(struct engine *engine)
{
    while (!list_is_empty(&engine->starved) && !list_is_empty(&engine->free_operations)) {
        struct lun_request *request = list_entry(engine->starved.next, struct lun_request, link);
        struct lun *lun = request->nexus->lun;
        list_remove(&request->link);
        lun->submit(lun, request);
    }
}

void operation_free(struct operation *operation)
{
    struct engine *engine = operation->group->engine;
    check(!operation->io_busy && !operation->send_busy && !operation->lock.taken && !operation->bounce);
    list_remove(&operation->flight.link);
    list_remove(&operation->link);
    list_append(&engine->free_operations, &operation->link);
    feed_starved(engine);
}

static bool is_write(const struct operation *operation)
{
    return operation->opcode != LUN_READ && operation->opcode != LUN_FLUSH && operation->opcode != LUN_MAP &&
           operation->opcode != LUN_BARRIER;
}

static void leave_running(struct operation *operation)
{
    bool was_running = operation->state != OPERATION_HELD && operation->state != OPERATION_FORWARDED;
    if (was_running && is_write(operation)) {
        check(operation->group->writes_running > 0);
        operation->group->writes_running--;
    }
    list_remove(&operation->link);
}

void operation_finish(struct operation *operation, enum lun_status status)
{
    struct group *group = operation->group;
    struct lun_request *request = operation->request;
    leave_running(operation);
    operation->state = OPERATION_HELD; /* nowhere */
    release(operation);
    if (request) {
        request->status = status;
        request->bad_sector = operation->bad_sector;
        request->miscompare_offset = operation->miscompare_offset;
        request->mapped = operation->mapped;
        request->run_sectors = operation->run_sectors;
        operation_free(operation);
        request->done(request);
    } else {
        forward_answer(operation, status);
    }
    if (group->resync.active)
        resync_advance(group);
    group_check_quiesced(group);
}

/* R4: held, not failed; in order of arrival. Requests of the other node whose session is over are not kept: it closed
 * the connections they came from. */
void operation_hold(struct operation *operation)
{
    struct group *group = operation->group;
    bool nobody_waits = operation->orphan || (operation->request ? operation->request->nexus->dropped : operation->redo);
    if (nobody_waits) {
        operation->orphan = true;
        operation_finish(operation, LUN_DROPPED);
        return;
    }
    if (operation->state != OPERATION_HELD)
        leave_running(operation);
    release(operation);
    operation->state = OPERATION_HELD;
    operation->redo = false;
    operation->cursor = 0;
    struct list *at = group->held.previous;
    while (at != &group->held && list_entry(at, struct operation, link)->arrival > operation->arrival)
        at = at->previous;
    list_append(at->next, &operation->link); /* before the next one */
    if (group->resync.active)
        resync_advance(group);
    group_check_quiesced(group);
}

/* ---- R1: the guard stands where a request is completed --------------------------------------------------------------- */

bool group_may_complete(struct group *group)
{
    bool valid;
    uint64_t generation;
    engine_lease(group->engine, &valid, &generation);
    return group->serving && !group->quiescing && authority_may_serve(&group->authority, valid, generation);
}

static void settled(struct ring_mail *mail)
{
    struct operation *operation = list_entry(mail, struct operation, mail);
    release(operation);
    if (operation->redo || (operation->guarded && !group_may_complete(operation->group)))
        operation_hold(operation);
    else
        operation_finish(operation, operation->status);
}

/* At the end of the batch, so that nothing completes from within the call that submitted it. */
void operation_settle(struct operation *operation, enum lun_status status)
{
    check(operation->state != OPERATION_SETTLED);
    operation->state = OPERATION_SETTLED;
    operation->status = status;
    ring_defer(operation->group->engine->ring, &operation->mail);
}

/* ---- beginning --------------------------------------------------------------------------------------------------------- */

static void lock_granted(struct range_lock_entry *entry)
{
    struct operation *operation = list_entry(entry, struct operation, lock);
    if (operation->group->serving) /* else quiescing is about to come by */
        locked(operation);
}

void operation_begin(struct operation *operation)
{
    struct group *group = operation->group;
    if (!group->serving && group->forwarding && group->meta_known && operation->request) {
        forward_send(operation);
        return;
    }
    bool is_barrier = operation->opcode == LUN_BARRIER; /* may not pass writes that are held */
    if (!group->serving || (group->hold_writes && (is_write(operation) || is_barrier))) {
        operation_hold(operation);
        return;
    }
    list_remove(&operation->link);
    list_append(&group->running, &operation->link);
    operation->state = OPERATION_LOCKING;
    operation->guarded = true;
    group->writes_running += is_write(operation);
    if (operation->opcode == LUN_FLUSH || (operation->sectors == 0 && !is_barrier)) { /* whatever is done is durable */
        operation_settle(operation, LUN_OK);
        return;
    }
    if (operation->opcode == LUN_MAP) { /* a hint: what is under way may change it at once, so nothing is locked */
        step_map(operation);
        return;
    }
    operation->lock = (struct range_lock_entry){
        .block = operation->sector / GROUP_SECTORS_PER_BLOCK,
        .exclusive = is_write(operation) || is_barrier,
        .granted = lock_granted,
    };
    uint64_t end = (operation->sector + operation->sectors + GROUP_SECTORS_PER_BLOCK - 1) / GROUP_SECTORS_PER_BLOCK;
    operation->lock.count = is_barrier ? operation->volume->size_bytes / LUN_BLOCK_SIZE : end - operation->lock.block;
    if (range_lock_take(&operation->volume->lock, &operation->lock))
        locked(operation);
}

static void locked(struct operation *operation)
{
    operation->cursor = 0;
    operation->step_phase = 0;
    step_begin(operation);
}
