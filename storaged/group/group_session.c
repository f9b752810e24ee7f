/* A mirror session's stream: sequence numbers, acknowledgements and commits at P; order, durability and acknowledgement
 * at S (R2); the exchange of tails (R7.2). */
#include <errno.h>
#include <string.h>

#include "common/bytes.h"
#include "common/check.h"
#include "common/log.h"
#include "common/seal.h"
#include "storaged/engine/engine_private.h"

/* ---- the stream at P -------------------------------------------------------------------------------------------------- */

void session_fill(const struct group *group, struct mirror_message *message, uint16_t kind)
{
    memset(message, 0, sizeof *message);
    message->kind = kind;
    message->group = group->id;
    message->epoch = group->session_epoch;
    message->session = group->session;
    message->commit = group->committed;
}

uint64_t session_next(struct group *group, struct flight *flight)
{
    flight->sequence = ++group->sequence;
    flight->stored = flight->acknowledged = false;
    list_append(&group->flights, &flight->link);
    return flight->sequence;
}

/* Everything before the first place that is not durable on both is committed. */
static void update_commit(struct group *group)
{
    uint64_t upto = group->sequence;
    if (!list_is_empty(&group->flights))
        upto = list_entry(group->flights.next, struct flight, link)->sequence - 1;
    if (upto <= group->committed)
        return;
    group->committed = upto;
    if (group->journaled)
        pool_session_commit(group->engine->pool, &group->id, upto);
}

static void landed(struct group *group, struct flight *flight)
{
    if (!flight->stored || !flight->acknowledged)
        return;
    list_remove(&flight->link);
    update_commit(group);
}

void session_stored(struct group *group, struct flight *flight)
{
    flight->stored = true;
    landed(group, flight);
}

static const char *on_ack(struct group *group, const struct mirror_message *message)
{
    list_for_each(item, &group->flights) {
        struct flight *flight = list_entry(item, struct flight, link);
        if (flight->sequence > message->sequence)
            break;
        if (flight->sequence < message->sequence)
            continue;
        if (flight->acknowledged)
            break;
        flight->acknowledged = true;
        void (*acked)(struct flight *) = flight->acked;
        landed(group, flight);
        acked(flight);
        return NULL;
    }
    return "it acknowledges what is not in flight";
}

static bool is_source(const struct group *group)
{
    return group->session_as == AUTHORITY_OPENING || group->session_as == AUTHORITY_SOLE || group->session_as == AUTHORITY_GROWING;
}

static bool is_receiver(const struct group *group)
{
    return group->session_as == AUTHORITY_SECONDARY || group->session_as == AUTHORITY_TARGET;
}

/* An idle stream tells its commits, too: the secondary's journal can let go of them. */
void session_commit_tick(struct group *group)
{
    if (id_is_null(&group->session) || !is_source(group) || group->committed <= group->commit_sent)
        return;
    struct mirror_message message;
    session_fill(group, &message, MIRROR_COMMIT);
    group->commit_sent = group->committed;
    mirror_link_post(group->engine->link, &message, NULL);
}

/* ---- beginning and end ---------------------------------------------------------------------------------------------------- */

static void mark_done(void *userdata, int result)
{
    struct group *group = userdata;
    check(group->tail_marks > 0);
    group->tail_marks--;
    if (result < 0)
        group_store_failed(group, result, "mark of dirty blocks");
    else if (group->tail_marks == 0 && group->tail_complete && !group->quiescing && !id_is_null(&group->session))
        group_tell(group, AUTHORITY_EV_TAIL_MERGED, true);
    group_check_quiesced(group);
}

static void mark(struct group *group, struct group_volume *volume, uint64_t block, uint64_t count)
{
    group->tail_marks++;
    pool_dirty_mark(group->engine->pool, volume->stored, block, count, mark_done, group);
}

/* R7.1: the copies' histories do not explain each other: everything is compared. */
void session_mark_everything(struct group *group)
{
    log_notice("group '%s': the two copies' histories do not explain each other; every block will be compared", group->name);
    for (unsigned i = 0; i < GROUP_VOLUMES_MAX; i++)
        if (group->volumes[i].used && group->volumes[i].stored)
            /* The size that both records have: room for more may be on one side only. */
            mark(group, &group->volumes[i], 0, group->volumes[i].size_bytes / LUN_BLOCK_SIZE);
}

void session_begin(struct group *group, const struct authority_action *action)
{
    check(!group->quiescing && list_is_empty(&group->flights));
    group->session = action->session;
    group->session_epoch = action->epoch;
    group->session_as = action->as;
    group->sequence = group->committed = group->commit_sent = 0;
    group->tail_complete = group->meta_known = false;
    group->dual = action->as == AUTHORITY_OPENING;
    group->journaled = action->as != AUTHORITY_SOLE; /* R3: a source's own writes carry the dirty mark instead */
    if (group->journaled)
        pool_session_begin(group->engine->pool, &group->id, &group->session);
    if (action->everything)
        session_mark_everything(group);
}

/* R7.4: from now on writes go to both. */
void session_raise(struct group *group, const struct authority_action *action)
{
    check(id_equal(&group->session, &action->session));
    group->session_epoch = action->epoch;
    group->session_as = action->as;
    if (action->as != AUTHORITY_GROWING)
        return;
    check(list_is_empty(&group->flights));
    group->dual = true;
    group->journaled = true;
    pool_session_begin(group->engine->pool, &group->id, &group->session);
    pool_session_commit(group->engine->pool, &group->id, group->committed);
}

void session_end(struct group *group)
{
    while (!list_is_empty(&group->flights))
        list_remove(group->flights.next);
    group->session = (struct id){0};
    group->session_as = AUTHORITY_IDLE;
    group->dual = false;
    group->tail_complete = false;
    group->tail_sending = false;
    if (group->tail_send_busy && mirror_link_cancel(group->engine->link, &group->tail_send))
        group->tail_send_busy = false;
}

/* ---- tails ------------------------------------------------------------------------------------------------------------------ */

static void put_tail_entry(struct group *group, struct bytes_writer *writer, const struct group_volume *volume, uint64_t block, uint32_t count)
{
    bytes_put(writer, &volume->id, sizeof volume->id);
    bytes_put_u64(writer, block);
    bytes_put_u32(writer, count);
    group->tail_block = block + count;
}

/* The next part of the own dirty set; several messages when it is long, one at a time. */
static void send_tail_part(struct group *group)
{
    struct bytes_writer writer = bytes_writer_of(group->tail_buffer, MIRROR_TAIL_ENTRIES * MIRROR_TAIL_ENTRY_SIZE);
    uint32_t count = 0;
    while (group->tail_volume < GROUP_VOLUMES_MAX && count < MIRROR_TAIL_ENTRIES) {
        struct group_volume *volume = &group->volumes[group->tail_volume];
        uint64_t block;
        uint32_t length = 0;
        if (volume->used && volume->stored)
            length = pool_dirty_next(group->engine->pool, volume->stored, group->tail_block, UINT32_MAX, &block);
        if (length == 0) {
            group->tail_volume++;
            group->tail_block = 0;
            continue;
        }
        put_tail_entry(group, &writer, volume, block, length);
        count++;
    }
    struct mirror_message message;
    session_fill(group, &message, MIRROR_TAIL);
    message.count = count;
    message.data_size = count * MIRROR_TAIL_ENTRY_SIZE;
    message.last = group->tail_volume == GROUP_VOLUMES_MAX;
    group->tail_sending = !message.last;
    group->tail_send_busy = mirror_link_send(group->engine->link, &group->tail_send, &message, group->tail_buffer);
}

static void tail_sent(struct mirror_send *send)
{
    struct group *group = list_entry(send, struct group, tail_send);
    group->tail_send_busy = false;
    if (group->tail_sending && !group->quiescing)
        send_tail_part(group);
    group_check_quiesced(group);
}

void session_send_tail(struct group *group)
{
    check(!group->tail_send_busy);
    group->tail_send.done = tail_sent;
    group->tail_volume = 0;
    group->tail_block = 0;
    send_tail_part(group);
}

/* R7.2: the other side holds a superset durably. */
void session_forget_tail(struct group *group)
{
    for (unsigned i = 0; i < GROUP_VOLUMES_MAX; i++)
        if (group->volumes[i].used && group->volumes[i].stored)
            pool_dirty_clear(group->engine->pool, group->volumes[i].stored, 0, pool_volume_blocks(group->volumes[i].stored));
}

static const char *on_tail(struct group *group, const struct mirror_message *message, const uint8_t *data)
{
    if (group->tail_complete)
        return "its tail goes on after its end";
    struct bytes_reader reader = bytes_reader_of(data, message->data_size);
    for (uint32_t i = 0; i < message->count; i++) {
        struct id id;
        bytes_get(&reader, &id, sizeof id);
        uint64_t block = bytes_get_u64(&reader);
        uint32_t count = bytes_get_u32(&reader);
        struct group_volume *volume = group_volume_by_id(group, &id);
        uint64_t blocks = volume && volume->stored ? pool_volume_blocks(volume->stored) : 0;
        if (count == 0 || block >= blocks || count > blocks - block)
            return "its tail names blocks that do not exist";
        mark(group, volume, block, count);
    }
    group->tail_complete = message->last;
    if (group->tail_complete && group->tail_marks == 0)
        group_tell(group, AUTHORITY_EV_TAIL_MERGED, true);
    return NULL;
}

/* ---- the stream at S ------------------------------------------------------------------------------------------------------------ */

struct receipt *receipt_new(struct group *group, const struct mirror_message *message, uint8_t *data)
{
    struct engine *engine = group->engine;
    if (list_is_empty(&engine->free_receipts))
        return NULL;
    struct receipt *receipt = list_entry(engine->free_receipts.next, struct receipt, link);
    list_remove(&receipt->link);
    receipt->group = group;
    receipt->session = message->session;
    receipt->epoch = message->epoch;
    receipt->sequence = message->sequence;
    receipt->tag = message->tag;
    receipt->data = data;
    receipt->own = NULL;
    group->receipts++;
    return receipt;
}

void receipt_free(struct receipt *receipt)
{
    struct group *group = receipt->group;
    if (receipt->data)
        iobuf_put(group->engine->receive, receipt->data);
    if (receipt->own)
        iobuf_put(group->engine->work, receipt->own);
    receipt->data = receipt->own = NULL;
    list_append(&group->engine->free_receipts, &receipt->link);
    check(group->receipts > 0);
    group->receipts--;
    group_check_quiesced(group);
}

bool receipt_is_current(const struct receipt *receipt)
{
    return !receipt->group->quiescing && id_equal(&receipt->session, &receipt->group->session);
}

void session_acknowledge(struct receipt *receipt)
{
    struct group *group = receipt->group;
    if (!receipt_is_current(receipt))
        return;
    struct mirror_message message;
    session_fill(group, &message, MIRROR_ACK);
    message.sequence = receipt->sequence;
    mirror_link_post(group->engine->link, &message, NULL);
}

static void stored(struct pool_io *io, int result)
{
    struct receipt *receipt = list_entry(io, struct receipt, io);
    struct group *group = receipt->group;
    if (result == 0)
        session_acknowledge(receipt);
    receipt_free(receipt);
    if (result < 0)
        group_store_failed(group, result, "mirrored write");
}

/* NULL when the message's blocks are not in the group. */
static struct group_volume *volume_of(struct group *group, const struct mirror_message *message)
{
    struct group_volume *volume = group_volume_by_id(group, &message->volume);
    uint64_t blocks = volume && volume->stored ? pool_volume_blocks(volume->stored) : 0;
    bool inside = message->count > 0 && message->block < blocks && message->count <= blocks - message->block;
    return inside ? volume : NULL;
}

static const char *take_sequence(struct group *group, const struct mirror_message *message)
{
    if (message->sequence != group->sequence + 1)
        return "its sequence number is not the next";
    group->sequence = message->sequence;
    return NULL;
}

/* R2: S checks (e, session) — the caller did — journals durably, acknowledges. That nothing of it overlaps what is
 * un-done is P's range lock's doing. */
static const char *on_write(struct group *group, const struct mirror_message *message, uint8_t *data)
{
    struct group_volume *volume = volume_of(group, message);
    const char *refused = volume ? take_sequence(group, message) : "its blocks do not exist";
    struct receipt *receipt = refused ? NULL : receipt_new(group, message, data);
    if (!receipt) {
        if (data)
            iobuf_put(group->engine->receive, data);
        return refused ? refused : "more writes are under way than the protocol allows";
    }
    if (message->copy)
        group->resync.copied_blocks += message->count;
    receipt->kind = RECEIPT_WRITE;
    receipt->io = (struct pool_io){
        .done = stored,
        .volume = volume->stored,
        .block = message->block,
        .count = message->count,
        .data = data,
        .session = message->session,
        .sequence = message->sequence,
        .copy = message->copy != 0,
    };
    if (data)
        pool_write(group->engine->pool, &receipt->io);
    else
        pool_zero(group->engine->pool, &receipt->io);
    return NULL;
}

static const char *on_commit(struct group *group, const struct mirror_message *message)
{
    if (message->commit > group->sequence)
        return "it commits what it never sent";
    if (message->commit > group->committed) {
        group->committed = message->commit;
        pool_session_commit(group->engine->pool, &group->id, message->commit);
    }
    return NULL;
}

/* ---- reads for the other node: comparing and repair -------------------------------------------------------------------------------- */

static void answer_compare(struct receipt *receipt, int result)
{
    struct mirror_message message;
    session_fill(receipt->group, &message, MIRROR_NEED);
    message.tag = receipt->tag;
    for (uint32_t i = 0; i < receipt->io.count; i++) {
        uint8_t hash[MIRROR_HASH_SIZE];
        if (result == 0)
            seal_hash128(receipt->own + (size_t)i * LUN_BLOCK_SIZE, LUN_BLOCK_SIZE, hash);
        /* A block that does not match its own checksum here is needed, whatever the source has. */
        if (result < 0 || memcmp(hash, receipt->hashes + (size_t)i * MIRROR_HASH_SIZE, sizeof hash) != 0)
            message.bitmap |= UINT64_C(1) << i;
    }
    mirror_link_post(receipt->group->engine->link, &message, NULL);
}

static void answer_fetch(struct receipt *receipt, int result)
{
    struct mirror_message message = {
        .kind = MIRROR_FETCHED,
        .group = receipt->group->id,
        .tag = receipt->tag,
        .result = result,
        .data_size = result ? 0 : receipt->io.count * LUN_BLOCK_SIZE,
    };
    mirror_link_post(receipt->group->engine->link, &message, receipt->own);
}

static void read_for_peer(struct pool_io *io, int result)
{
    struct receipt *receipt = list_entry(io, struct receipt, io);
    struct group *group = receipt->group;
    bool bad_checksum = result == -EBADMSG;
    if (receipt_is_current(receipt) && (result == 0 || bad_checksum)) {
        if (receipt->kind == RECEIPT_COMPARE)
            answer_compare(receipt, result);
        else
            answer_fetch(receipt, result);
    }
    receipt_free(receipt);
    if (result < 0 && !bad_checksum)
        group_store_failed(group, result, "read for the other node");
}

static void begin_read(struct receipt *receipt);

static void memory_came_back(struct iobuf_waiter *waiter)
{
    begin_read(list_entry(waiter, struct receipt, waiter));
}

static void begin_read(struct receipt *receipt)
{
    struct engine *engine = receipt->group->engine;
    receipt->own = iobuf_get(engine->work, (size_t)receipt->io.count * LUN_BLOCK_SIZE);
    if (!receipt->own) {
        receipt->waiter.retry = memory_came_back;
        iobuf_wait(engine->work, &receipt->waiter);
        return;
    }
    receipt->io.data = receipt->own;
    pool_read(engine->pool, &receipt->io);
}

static const char *on_read(struct group *group, const struct mirror_message *message, uint8_t *data)
{
    struct group_volume *volume = volume_of(group, message);
    struct receipt *receipt = volume ? receipt_new(group, message, NULL) : NULL;
    if (receipt && message->kind == MIRROR_COMPARE)
        memcpy(receipt->hashes, data, message->data_size);
    if (data)
        iobuf_put(group->engine->receive, data);
    if (!receipt)
        return volume ? "more reads are under way than the protocol allows" : "its blocks do not exist";
    receipt->kind = message->kind == MIRROR_COMPARE ? RECEIPT_COMPARE : RECEIPT_FETCH;
    receipt->io = (struct pool_io){.done = read_for_peer, .volume = volume->stored, .block = message->block, .count = message->count};
    begin_read(receipt);
    return NULL;
}

/* ---- every message of a session ------------------------------------------------------------------------------------------------------ */

/* "Every mirror message carries (group, e, session …); anything that does not match is dropped." */
bool session_matches(const struct group *group, const struct mirror_message *message)
{
    return !group->quiescing && !group->dying && !id_is_null(&group->session) && id_equal(&group->session, &message->session) &&
           group->session_epoch == message->epoch;
}

static const char *receive(struct group *group, const struct mirror_message *message, uint8_t *data)
{
    const char *refused = on_commit(group, message);
    if (message->kind == MIRROR_COMMIT || (refused && !data))
        return refused;
    if (refused) {
        iobuf_put(group->engine->receive, data);
        return refused;
    }
    switch (message->kind) {
    case MIRROR_WRITE:
    case MIRROR_ZERO: return on_write(group, message, data);
    case MIRROR_META: {
        refused = take_sequence(group, message);
        if (!refused)
            return meta_received(group, message, data);
        if (data)
            iobuf_put(group->engine->receive, data);
        return refused;
    }
    default: return on_read(group, message, data);
    }
}

const char *session_message(struct group *group, const struct mirror_message *message, uint8_t *data)
{
    bool from_source = message->kind == MIRROR_WRITE || message->kind == MIRROR_ZERO || message->kind == MIRROR_META ||
                       message->kind == MIRROR_COMMIT || message->kind == MIRROR_COMPARE || message->kind == MIRROR_FETCH;
    const char *refused = NULL;
    if (session_matches(group, message)) {
        if (from_source && is_receiver(group))
            return receive(group, message, data);
        if (from_source || !is_source(group))
            refused = "it is not this node's to send";
        else if (message->kind == MIRROR_ACK)
            refused = on_ack(group, message);
        else if (message->kind == MIRROR_NEED)
            refused = resync_need(group, message);
        else if (message->kind == MIRROR_TAIL)
            refused = on_tail(group, message, data);
        else
            refused = "it is no message of a session";
    }
    if (data)
        iobuf_put(group->engine->receive, data);
    return refused;
}
