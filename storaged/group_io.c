/* The life of a request here: hold, lock, carry out on one copy or both, complete under R1's guard. */
#include <errno.h>
#include <string.h>

#include "common/check.h"
#include "common/log.h"
#include "storaged/engine_private.h"

#define SECTORS_PER_BLOCK (LUN_BLOCK_SIZE / LUN_SECTOR_SIZE)
#define ZERO_STEP_BLOCKS 256u

static void locked(struct operation *operation);
static void step_begin(struct operation *operation);
static void step_check(struct operation *operation);
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
    return operation->opcode == LUN_WRITE || operation->opcode == LUN_UNMAP;
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
    if (!group->serving && group->forwarding && operation->request) {
        forward_send(operation);
        return;
    }
    if (!group->serving || (group->hold_writes && is_write(operation))) {
        operation_hold(operation);
        return;
    }
    list_remove(&operation->link);
    list_append(&group->running, &operation->link);
    operation->state = OPERATION_LOCKING;
    operation->guarded = true;
    group->writes_running += is_write(operation);
    if (operation->opcode == LUN_FLUSH || operation->sectors == 0) { /* whatever is done is durable */
        operation_settle(operation, LUN_OK);
        return;
    }
    operation->lock = (struct range_lock_entry){
        .block = operation->sector / SECTORS_PER_BLOCK,
        .exclusive = is_write(operation),
        .granted = lock_granted,
    };
    uint64_t end = (operation->sector + operation->sectors + SECTORS_PER_BLOCK - 1) / SECTORS_PER_BLOCK;
    operation->lock.count = end - operation->lock.block;
    if (range_lock_take(&operation->volume->lock, &operation->lock))
        locked(operation);
}

static void locked(struct operation *operation)
{
    operation->cursor = 0;
    operation->step_phase = 0;
    step_begin(operation);
}

/* ---- memory -------------------------------------------------------------------------------------------------------------- */

static void memory_came_back(struct iobuf_waiter *waiter)
{
    struct operation *operation = list_entry(waiter, struct operation, waiter);
    operation->state = OPERATION_LOCKING;
    step_begin(operation);
}

/* False: step_begin is called again when there is memory. */
static bool get_memory(struct operation *operation, uint8_t **ret, size_t size)
{
    if (*ret)
        return true;
    struct engine *engine = operation->group->engine;
    *ret = iobuf_get(engine->work, size);
    if (*ret)
        return true;
    operation->state = OPERATION_MEMORY;
    operation->waiter.retry = memory_came_back;
    iobuf_wait(engine->work, &operation->waiter);
    return false;
}

/* ---- one step: a read, or a write of whole blocks ------------------------------------------------------------------------- */

enum { PHASE_FIRST, PHASE_LAST, PHASE_WRITE }; /* of a write: read its first and last block, when it covers them partly */

static bool is_aligned(const struct operation *operation)
{
    return operation->sector % SECTORS_PER_BLOCK == 0 && operation->sectors % SECTORS_PER_BLOCK == 0;
}

static void pool_io_done(struct pool_io *io, int result)
{
    struct operation *operation = list_entry(io, struct operation, io);
    operation->io_busy = false;
    operation->io_result = result;
    if (result == 0 && !list_is_empty(&operation->flight.link))
        session_stored(operation->group, &operation->flight);
    step_check(operation);
}

static void read_blocks(struct operation *operation, uint64_t block, uint32_t count, uint8_t *at)
{
    operation->state = OPERATION_RUNNING;
    operation->io = (struct pool_io){
        .done = pool_io_done, .volume = operation->volume->stored, .block = block, .count = count, .data = at};
    operation->io_busy = true;
    operation->io_result = 0;
    pool_read(operation->group->engine->pool, &operation->io);
}

static void mirror_sent(struct mirror_send *send)
{
    struct operation *operation = list_entry(send, struct operation, send);
    operation->send_busy = false;
    step_check(operation);
}

static void mirror_acked(struct flight *flight)
{
    struct operation *operation = list_entry(flight, struct operation, flight);
    operation->ack_wanted = false;
    step_check(operation);
}

/* R2: journal locally ∥ send; done only when both are durable. */
static void send_to_secondary(struct operation *operation, const uint8_t *data)
{
    struct group *group = operation->group;
    struct mirror_message message;
    operation->flight.acked = mirror_acked;
    operation->io.session = group->session;
    operation->io.sequence = session_next(group, &operation->flight);
    session_fill(group, &message, data ? MIRROR_WRITE : MIRROR_ZERO);
    message.sequence = operation->io.sequence;
    message.volume = operation->volume->id;
    message.block = operation->io.block;
    message.count = operation->io.count;
    message.data_size = data ? operation->io.count * LUN_BLOCK_SIZE : 0;
    operation->ack_wanted = true;
    operation->send.done = mirror_sent;
    /* Without a link the session is about to be lost: the operation waits for that. */
    operation->send_busy = mirror_link_send(group->engine->link, &operation->send, &message, data);
}

static void write_blocks(struct operation *operation, uint64_t block, uint32_t count, uint8_t *data)
{
    struct group *group = operation->group;
    operation->state = OPERATION_RUNNING;
    operation->io = (struct pool_io){
        .done = pool_io_done,
        .volume = operation->volume->stored,
        .block = block,
        .count = count,
        .data = data,
        .dirty = !group->dual && !group->engine->site->standalone, /* R3 */
        .unmirrored = group->engine->site->standalone,
    };
    operation->io_busy = true;
    operation->io_result = 0;
    if (group->dual)
        send_to_secondary(operation, data);
    if (data)
        pool_write(group->engine->pool, &operation->io);
    else
        pool_zero(group->engine->pool, &operation->io);
}

static void step_read(struct operation *operation)
{
    uint32_t count = (uint32_t)operation->lock.count;
    uint8_t **at = &operation->bounce;
    if (is_aligned(operation))
        at = &operation->data;
    if (get_memory(operation, at, (size_t)count * LUN_BLOCK_SIZE))
        read_blocks(operation, operation->lock.block, count, *at);
}

/* The part of the request that step_block … step_block + step_count covers, in sectors from the bounce's beginning. */
static void fill_bounce(struct operation *operation)
{
    uint64_t first = operation->step_block * SECTORS_PER_BLOCK, end = first + (uint64_t)operation->step_count * SECTORS_PER_BLOCK;
    uint64_t from = operation->sector > first ? operation->sector : first;
    uint64_t to = operation->sector + operation->sectors < end ? operation->sector + operation->sectors : end;
    uint8_t *at = operation->bounce + (from - first) * LUN_SECTOR_SIZE;
    size_t size = (size_t)(to - from) * LUN_SECTOR_SIZE;
    if (operation->opcode == LUN_WRITE)
        memcpy(at, operation->data + (from - operation->sector) * LUN_SECTOR_SIZE, size);
    else
        memset(at, 0, size);
}

/* Sub-block writes: read the blocks that are covered partly, under the range lock. */
static void step_modify(struct operation *operation)
{
    if (!get_memory(operation, &operation->bounce, (size_t)operation->step_count * LUN_BLOCK_SIZE))
        return;
    uint64_t first = operation->step_block * SECTORS_PER_BLOCK, end = first + (uint64_t)operation->step_count * SECTORS_PER_BLOCK;
    if (operation->step_phase == PHASE_FIRST) {
        operation->step_phase = PHASE_LAST;
        bool partly = operation->sector > first || (operation->step_count == 1 && operation->sector + operation->sectors < end);
        if (partly) {
            read_blocks(operation, operation->step_block, 1, operation->bounce);
            return;
        }
    }
    if (operation->step_phase == PHASE_LAST) {
        operation->step_phase = PHASE_WRITE;
        if (operation->step_count > 1 && operation->sector + operation->sectors < end) {
            uint32_t last = operation->step_count - 1;
            read_blocks(operation, operation->step_block + last, 1, operation->bounce + (size_t)last * LUN_BLOCK_SIZE);
            return;
        }
    }
    operation->step_phase = PHASE_WRITE + 1;
    fill_bounce(operation);
    write_blocks(operation, operation->step_block, operation->step_count, operation->bounce);
}

static void step_write(struct operation *operation)
{
    operation->step_block = operation->lock.block;
    operation->step_count = (uint32_t)operation->lock.count;
    if (!is_aligned(operation)) {
        step_modify(operation);
        return;
    }
    operation->step_phase = PHASE_WRITE + 1;
    write_blocks(operation, operation->step_block, operation->step_count, operation->data);
}

/* Whole blocks are zeroed in pieces that a record holds; partly covered ones are written. */
static void step_unmap(struct operation *operation)
{
    uint64_t at = operation->sector + operation->cursor, left = operation->sectors - operation->cursor;
    operation->step_block = at / SECTORS_PER_BLOCK;
    if (at % SECTORS_PER_BLOCK || left < SECTORS_PER_BLOCK) {
        operation->step_count = 1;
        step_modify(operation);
        return;
    }
    uint64_t blocks = left / SECTORS_PER_BLOCK;
    operation->step_count = (uint32_t)(blocks < ZERO_STEP_BLOCKS ? blocks : ZERO_STEP_BLOCKS);
    operation->step_phase = PHASE_WRITE + 1;
    write_blocks(operation, operation->step_block, operation->step_count, NULL);
}

static void step_begin(struct operation *operation)
{
    if (operation->opcode == LUN_READ)
        step_read(operation);
    else if (operation->opcode == LUN_WRITE)
        step_write(operation);
    else
        step_unmap(operation);
}

/* ---- the end of a step ------------------------------------------------------------------------------------------------------ */

static void medium_error(struct operation *operation)
{
    operation->bad_sector = operation->io.bad_block * SECTORS_PER_BLOCK;
    if (operation->bad_sector < operation->sector)
        operation->bad_sector = operation->sector;
    log_error("volume '%s': block %llu does not match its checksum", operation->volume->name,
              (unsigned long long)operation->io.bad_block);
    operation_settle(operation, LUN_MEDIUM_ERROR);
}

/* A bad copy is known to be the bad one: the other node's is asked for. */
static bool fetch_from_secondary(struct operation *operation)
{
    struct group *group = operation->group;
    if (!group->dual || operation->send_busy)
        return false;
    struct mirror_message message;
    session_fill(group, &message, MIRROR_FETCH);
    message.volume = operation->volume->id;
    message.block = operation->io.block;
    message.count = operation->io.count;
    message.tag = operation->tag;
    operation->send.done = mirror_sent;
    operation->io_result = 0;
    operation->ack_wanted = true;
    operation->send_busy = mirror_link_send(group->engine->link, &operation->send, &message, NULL);
    return true;
}

const char *operation_fetched(struct engine *engine, const struct mirror_message *message, uint8_t *data)
{
    uint64_t index = message->tag & 0xffff;
    struct operation *operation = index < ENGINE_OPERATIONS_MAX ? &engine->operations[index] : NULL;
    bool wanted = operation && operation->tag == message->tag && operation->ack_wanted && operation->state == OPERATION_RUNNING;
    if (wanted && (message->result == 0) != (message->data_size == operation->io.count * LUN_BLOCK_SIZE)) {
        iobuf_put(engine->receive, data);
        return "its size is not what was asked for";
    }
    if (wanted) {
        operation->ack_wanted = false;
        if (message->result == 0)
            memcpy(operation->io.data, data, message->data_size);
        operation->io_result = message->result ? -EIO : 0; /* both copies are bad */
        log_warning("volume '%s': block %llu does not match its checksum here; %s", operation->volume->name,
                    (unsigned long long)operation->io.bad_block,
                    message->result ? "the other node's copy is bad, too" : "read from the other node");
        if (operation->io_result)
            medium_error(operation);
        else
            step_check(operation);
    }
    iobuf_put(engine->receive, data);
    return NULL;
}

static void read_done(struct operation *operation)
{
    if (operation->bounce) {
        if (!operation->data && !get_memory(operation, &operation->data, (size_t)operation->sectors * LUN_SECTOR_SIZE))
            return;
        size_t skip = (operation->sector % SECTORS_PER_BLOCK) * LUN_SECTOR_SIZE;
        memcpy(operation->data, operation->bounce + skip, (size_t)operation->sectors * LUN_SECTOR_SIZE);
    }
    operation_settle(operation, LUN_OK);
}

static void write_done(struct operation *operation)
{
    uint64_t end = (operation->step_block + operation->step_count) * SECTORS_PER_BLOCK;
    operation->cursor = end > operation->sector ? end - operation->sector : 0;
    if (operation->opcode == LUN_WRITE || operation->cursor >= operation->sectors) {
        operation_settle(operation, LUN_OK);
        return;
    }
    operation->step_phase = PHASE_FIRST;
    step_begin(operation);
}

static void step_check(struct operation *operation)
{
    if (operation->io_busy || operation->send_busy || operation->ack_wanted || operation->state != OPERATION_RUNNING)
        return;
    if (operation->redo) {
        operation_hold(operation);
        return;
    }
    int result = operation->io_result;
    bool was_read = operation->opcode == LUN_READ || operation->step_phase <= PHASE_WRITE;
    if (result == -EBADMSG && was_read) {
        if (!fetch_from_secondary(operation))
            medium_error(operation);
        return;
    }
    if (result < 0) {
        /* R2: a failure to store is never the initiator's: leave the session with consent, keep the request. */
        struct group *group = operation->group;
        operation->redo = true;
        operation_hold(operation);
        group_store_failed(group, result, was_read ? "read" : "write");
        return;
    }
    if (operation->opcode == LUN_READ)
        read_done(operation);
    else if (operation->step_phase <= PHASE_WRITE)
        step_begin(operation);
    else
        write_done(operation);
}
