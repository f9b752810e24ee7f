/* What a request does to the copies, in steps of whole blocks under its range lock: read, write, zero, compare and
 * write, or; here and, as a message of the stream, on the other node (R2). */
#include <errno.h>
#include <string.h>

#include "common/check.h"
#include "common/log.h"
#include "storaged/engine/engine_private.h"

#define STEP_ZERO_BLOCKS 256u /* others get their turn between the steps of a long UNMAP */

static void step_check(struct operation *operation);

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
    return operation->sector % GROUP_SECTORS_PER_BLOCK == 0 && operation->sectors % GROUP_SECTORS_PER_BLOCK == 0;
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
    uint64_t first = operation->step_block * GROUP_SECTORS_PER_BLOCK;
    uint64_t end = first + (uint64_t)operation->step_count * GROUP_SECTORS_PER_BLOCK;
    uint64_t from = operation->sector > first ? operation->sector : first;
    uint64_t to = operation->sector + operation->sectors < end ? operation->sector + operation->sectors : end;
    uint8_t *at = operation->bounce + (from - first) * LUN_SECTOR_SIZE;
    size_t size = (size_t)(to - from) * LUN_SECTOR_SIZE;
    if (operation->opcode == LUN_WRITE)
        memcpy(at, operation->data + (from - operation->sector) * LUN_SECTOR_SIZE, size);
    else
        memset(at, 0, size);
}

/* ---- steps that depend on what is there: serialised by the lock, the result is replicated like any write ------------------- */

static uint8_t *bounce_of_request(const struct operation *operation)
{
    return operation->bounce + (operation->sector % GROUP_SECTORS_PER_BLOCK) * LUN_SECTOR_SIZE;
}

static size_t first_difference(const uint8_t *left, const uint8_t *right, size_t size)
{
    size_t at = 0;
    while (at < size && left[at] == right[at])
        at++;
    return at;
}

/* False: settled. One that was held again after it had begun to write may meet its own result: that is success, not a
 * miscompare (R4: it is carried out anew by whoever serves next). Where another node served in between, it may as well
 * be somebody else's that wrote the same: no answer is given, lest two believe that they have the lock. */
static bool compare(struct operation *operation)
{
    size_t size = (size_t)operation->sectors * LUN_SECTOR_SIZE;
    const uint8_t *here = bounce_of_request(operation);
    size_t at = first_difference(here, operation->data, size);
    if (at == size)
        return true;
    if (operation->tried && memcmp(here, operation->data + size, size) == 0) {
        operation_settle(operation, operation->request ? LUN_OK : LUN_DROPPED);
        return false;
    }
    operation->miscompare_offset = (uint32_t)at;
    operation_settle(operation, LUN_MISCOMPARE);
    return false;
}

static void merge(struct operation *operation)
{
    size_t size = (size_t)operation->sectors * LUN_SECTOR_SIZE;
    uint8_t *here = bounce_of_request(operation);
    if (operation->opcode == LUN_COMPARE_WRITE) {
        memcpy(here, operation->data + size, size);
        operation->tried = true;
        return;
    }
    for (size_t i = 0; i < size; i++)
        here[i] |= operation->data[i];
}

static void step_depend(struct operation *operation)
{
    operation->step_block = operation->lock.block;
    operation->step_count = (uint32_t)operation->lock.count;
    if (!get_memory(operation, &operation->bounce, (size_t)operation->step_count * LUN_BLOCK_SIZE))
        return;
    if (operation->step_phase == PHASE_FIRST) {
        operation->step_phase = PHASE_WRITE; /* the next time */
        read_blocks(operation, operation->step_block, operation->step_count, operation->bounce);
        return;
    }
    if (operation->opcode == LUN_COMPARE_WRITE && !compare(operation))
        return;
    operation->step_phase = PHASE_WRITE + 1;
    merge(operation);
    write_blocks(operation, operation->step_block, operation->step_count, operation->bounce);
}

/* Sub-block writes: read the blocks that are covered partly, under the range lock. */
static void step_modify(struct operation *operation)
{
    if (!get_memory(operation, &operation->bounce, (size_t)operation->step_count * LUN_BLOCK_SIZE))
        return;
    uint64_t first = operation->step_block * GROUP_SECTORS_PER_BLOCK;
    uint64_t end = first + (uint64_t)operation->step_count * GROUP_SECTORS_PER_BLOCK;
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
    operation->step_block = at / GROUP_SECTORS_PER_BLOCK;
    if (at % GROUP_SECTORS_PER_BLOCK || left < GROUP_SECTORS_PER_BLOCK) {
        operation->step_count = 1;
        step_modify(operation);
        return;
    }
    uint64_t blocks = left / GROUP_SECTORS_PER_BLOCK;
    operation->step_count = (uint32_t)(blocks < STEP_ZERO_BLOCKS ? blocks : STEP_ZERO_BLOCKS);
    operation->step_phase = PHASE_WRITE + 1;
    write_blocks(operation, operation->step_block, operation->step_count, NULL);
}

void step_begin(struct operation *operation)
{
    switch (operation->opcode) {
    case LUN_READ: step_read(operation); break;
    case LUN_WRITE: step_write(operation); break;
    case LUN_UNMAP: step_unmap(operation); break;
    case LUN_COMPARE_WRITE:
    case LUN_OR_WRITE: step_depend(operation); break;
    case LUN_BARRIER: operation_settle(operation, LUN_OK); break; /* what came before has given its locks back */
    case LUN_FLUSH:
    case LUN_MAP: check(!"they need no steps");
    }
}

void step_map(struct operation *operation)
{
    uint64_t block = operation->sector / GROUP_SECTORS_PER_BLOCK, run;
    uint64_t end = (operation->sector + operation->sectors + GROUP_SECTORS_PER_BLOCK - 1) / GROUP_SECTORS_PER_BLOCK;
    operation->mapped = pool_volume_map(operation->volume->stored, block, end - block, &run);
    operation->run_sectors = (block + run) * GROUP_SECTORS_PER_BLOCK - operation->sector;
    if (operation->run_sectors > operation->sectors)
        operation->run_sectors = operation->sectors;
    operation_settle(operation, LUN_OK);
}

/* ---- the end of a step ------------------------------------------------------------------------------------------------------ */

static void medium_error(struct operation *operation)
{
    operation->bad_sector = operation->io.bad_block * GROUP_SECTORS_PER_BLOCK;
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
        size_t skip = (operation->sector % GROUP_SECTORS_PER_BLOCK) * LUN_SECTOR_SIZE;
        memcpy(operation->data, operation->bounce + skip, (size_t)operation->sectors * LUN_SECTOR_SIZE);
    }
    operation_settle(operation, LUN_OK);
}

static void write_done(struct operation *operation)
{
    uint64_t end = (operation->step_block + operation->step_count) * GROUP_SECTORS_PER_BLOCK;
    operation->cursor = end > operation->sector ? end - operation->sector : 0;
    if (operation->opcode != LUN_UNMAP || operation->cursor >= operation->sectors) {
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
    if (result < 0 && operation->group->engine->site->standalone) {
        /* Nobody else will ever serve it: the initiator must know. */
        operation->bad_sector = operation->sector;
        log_error("volume '%s': sector %llu cannot be %s: %s", operation->volume->name,
                  (unsigned long long)operation->sector, was_read ? "read" : "written", strerror(-result));
        operation_settle(operation, LUN_MEDIUM_ERROR);
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
