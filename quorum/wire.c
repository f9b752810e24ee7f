/* Encodes, decodes, seals and opens the datagrams of the quorum; the layout is told in wire.h. */
#include "quorum/wire.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "common/bytes.h"
#include "common/check.h"

#define WIRE_MAGIC 0x71494348u /* "HCIq" */

static_assert(WIRE_HEADER_SIZE + SEAL_OVERHEAD + WIRE_PLAIN_MAX == SEAL_DATAGRAM_MAX, "a datagram is ≤ 1200 bytes");
/* The largest: 56 bytes of request front, 27 fixed, and the claims. */
static_assert(1 + 56 + 1 + 4 + 4 + 8 + 1 + 16 * WIRE_CLAIMS_MAX <= WIRE_PLAIN_MAX, "a lease request fits");
static_assert(1 + 56 + 1 + 4 + 1 + 4 + 4 + 1 + WIRE_GONE_MAX * (16 + 8 + 1 + WIRE_NAME_MAX) <= WIRE_PLAIN_MAX,
              "a heartbeat fits");
static_assert(1 + 48 + 8 + 8 + 1 + 25 * WIRE_RECORDS_MAX <= WIRE_PLAIN_MAX, "a page of records fits");

static void put_id(struct bytes_writer *writer, const struct id *id)
{
    bytes_put(writer, id->bytes, sizeof id->bytes);
}

static void get_id(struct bytes_reader *reader, struct id *ret)
{
    bytes_get(reader, ret->bytes, sizeof ret->bytes);
}

/* A bool is 0 or 1: anything else is a message of another schema. */
static bool get_bool(struct bytes_reader *reader)
{
    uint8_t value = bytes_get_u8(reader);
    if (value > 1)
        reader->failed = true;
    return value == 1;
}

static uint8_t get_count(struct bytes_reader *reader, uint8_t limit)
{
    uint8_t count = bytes_get_u8(reader);
    if (count > limit) {
        reader->failed = true;
        return 0;
    }
    return count;
}

static void put_position(struct bytes_writer *writer, const struct wire_position *position)
{
    bytes_put_u64(writer, position->epoch);
    bytes_put_u8(writer, position->members);
}

static void get_position(struct bytes_reader *reader, struct wire_position *ret)
{
    ret->epoch = bytes_get_u64(reader);
    ret->members = get_count(reader, 3); /* bits of two nodes */
}

static bool is_request(enum wire_kind kind)
{
    return kind == WIRE_HEARTBEAT || kind == WIRE_LEASE || kind == WIRE_CAS || kind == WIRE_RECORDS;
}

static void put_front(struct bytes_writer *writer, const struct wire_message *message)
{
    bytes_put_u8(writer, (uint8_t)message->kind);
    if (is_request(message->kind)) {
        put_id(writer, &message->request.id);
        put_id(writer, &message->request.boot);
        put_id(writer, &message->request.answer);
        bytes_put_u64(writer, message->request.sequence);
    } else {
        put_id(writer, &message->reply.echo);
        put_id(writer, &message->reply.boot);
        put_id(writer, &message->reply.challenge);
    }
}

static void get_front(struct bytes_reader *reader, struct wire_message *ret)
{
    ret->kind = (enum wire_kind)bytes_get_u8(reader);
    if (is_request(ret->kind)) {
        get_id(reader, &ret->request.id);
        get_id(reader, &ret->request.boot);
        get_id(reader, &ret->request.answer);
        ret->request.sequence = bytes_get_u64(reader);
        /* A null id or boot could be taken for "none". */
        if (id_is_null(&ret->request.id) || id_is_null(&ret->request.boot))
            reader->failed = true;
    } else {
        get_id(reader, &ret->reply.echo);
        get_id(reader, &ret->reply.boot);
        get_id(reader, &ret->reply.challenge);
        if (id_is_null(&ret->reply.echo) || id_is_null(&ret->reply.boot))
            reader->failed = true;
    }
}

bool wire_name_is_valid(const char *name)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t length = strnlen(name, WIRE_NAME_MAX + 1);
    return length > 0 && length <= WIRE_NAME_MAX && strspn(name, allowed) == length;
}

static void put_heartbeat(struct bytes_writer *writer, const struct wire_message *message)
{
    bytes_put_u8(writer, message->link);
    bytes_put_u32(writer, message->t_kill_ms);
    bytes_put_u8(writer, message->wants_lease);
    bytes_put_u32(writer, message->lease_ms);
    bytes_put_u32(writer, message->promise_ms);
    bytes_put_u8(writer, message->gone_count);
    for (unsigned i = 0; i < message->gone_count; i++) {
        const struct wire_gone *gone = &message->gone[i];
        size_t length = strnlen(gone->guest, WIRE_NAME_MAX);
        put_id(writer, &gone->group);
        bytes_put_u64(writer, gone->incarnation);
        bytes_put_u8(writer, (uint8_t)length);
        bytes_put(writer, gone->guest, length);
    }
}

static void get_gone(struct bytes_reader *reader, struct wire_gone *ret)
{
    memset(ret, 0, sizeof *ret);
    get_id(reader, &ret->group);
    ret->incarnation = bytes_get_u64(reader);
    uint8_t length = get_count(reader, WIRE_NAME_MAX);
    bytes_get(reader, ret->guest, length);
    /* It goes into logs, events and questions to libvirt. A zero byte makes it shorter than it says. */
    if (strlen(ret->guest) != length || !wire_name_is_valid(ret->guest))
        reader->failed = true;
}

static void get_heartbeat(struct bytes_reader *reader, struct wire_message *ret)
{
    ret->link = get_count(reader, WIRE_LANES - 1);
    ret->t_kill_ms = bytes_get_u32(reader);
    ret->wants_lease = get_bool(reader);
    ret->lease_ms = bytes_get_u32(reader);
    ret->promise_ms = bytes_get_u32(reader);
    ret->gone_count = get_count(reader, WIRE_GONE_MAX);
    for (unsigned i = 0; i < ret->gone_count && !reader->failed; i++)
        get_gone(reader, &ret->gone[i]);
}

static void put_lease(struct bytes_writer *writer, const struct wire_message *message)
{
    bytes_put_u8(writer, message->wants_lease);
    bytes_put_u32(writer, message->lease_ms);
    bytes_put_u32(writer, message->promise_ms);
    bytes_put_u64(writer, message->counter);
    bytes_put_u8(writer, message->claim_count);
    for (unsigned i = 0; i < message->claim_count; i++)
        put_id(writer, &message->claims[i]);
}

static void get_lease(struct bytes_reader *reader, struct wire_message *ret)
{
    ret->wants_lease = get_bool(reader);
    ret->lease_ms = bytes_get_u32(reader);
    ret->promise_ms = bytes_get_u32(reader);
    ret->counter = bytes_get_u64(reader);
    ret->claim_count = get_count(reader, WIRE_CLAIMS_MAX);
    for (unsigned i = 0; i < ret->claim_count; i++)
        get_id(reader, &ret->claims[i]);
}

static void put_lease_ack(struct bytes_writer *writer, const struct wire_message *message)
{
    bytes_put_u8(writer, message->acknowledged);
    bytes_put_u8(writer, message->restored);
    put_id(writer, &message->incarnation);
    bytes_put_u64(writer, message->counter);
}

static void get_lease_ack(struct bytes_reader *reader, struct wire_message *ret)
{
    ret->acknowledged = get_bool(reader);
    ret->restored = get_bool(reader);
    get_id(reader, &ret->incarnation);
    ret->counter = bytes_get_u64(reader);
}

static void put_cas(struct bytes_writer *writer, const struct wire_message *message)
{
    put_id(writer, &message->witness_boot);
    put_id(writer, &message->group);
    bytes_put_u64(writer, message->counter);
    bytes_put_u8(writer, message->was_primary);
    put_position(writer, &message->to);
    bytes_put_u8(writer, message->from_count);
    for (unsigned i = 0; i < message->from_count; i++)
        put_position(writer, &message->from[i]);
}

static void get_cas(struct bytes_reader *reader, struct wire_message *ret)
{
    get_id(reader, &ret->witness_boot);
    get_id(reader, &ret->group);
    ret->counter = bytes_get_u64(reader);
    ret->was_primary = get_bool(reader);
    get_position(reader, &ret->to);
    ret->from_count = get_count(reader, WIRE_FROM_MAX);
    if (ret->from_count == 0 || id_is_null(&ret->group))
        reader->failed = true;
    for (unsigned i = 0; i < ret->from_count; i++)
        get_position(reader, &ret->from[i]);
}

static void put_verdict(struct bytes_writer *writer, const struct wire_message *message)
{
    put_id(writer, &message->group);
    bytes_put_u8(writer, (uint8_t)message->verdict);
    bytes_put_u8(writer, (uint8_t)message->reason);
    put_position(writer, &message->record);
    bytes_put_u32(writer, message->wait_ms);
    bytes_put_u32(writer, message->loser_ms);
    bytes_put_u64(writer, message->counter);
}

static void get_verdict(struct bytes_reader *reader, struct wire_message *ret)
{
    get_id(reader, &ret->group);
    ret->verdict = (enum wire_verdict)get_count(reader, WIRE_REBOUND);
    if (ret->verdict == 0)
        reader->failed = true;
    ret->reason = (enum wire_reason)get_count(reader, WIRE_REASON_CONFLICT);
    get_position(reader, &ret->record);
    ret->wait_ms = bytes_get_u32(reader);
    ret->loser_ms = bytes_get_u32(reader);
    ret->counter = bytes_get_u64(reader);
}

static void put_records_reply(struct bytes_writer *writer, const struct wire_message *message)
{
    bytes_put_u64(writer, message->counter);
    bytes_put_u64(writer, message->up_to);
    bytes_put_u8(writer, message->record_count);
    for (unsigned i = 0; i < message->record_count; i++) {
        const struct wire_record *record = &message->records[i];
        put_id(writer, &record->group);
        put_position(writer, &(struct wire_position){record->epoch, record->members});
    }
}

static void get_records_reply(struct bytes_reader *reader, struct wire_message *ret)
{
    ret->counter = bytes_get_u64(reader);
    ret->up_to = bytes_get_u64(reader);
    ret->record_count = get_count(reader, WIRE_RECORDS_MAX);
    for (unsigned i = 0; i < ret->record_count; i++) {
        struct wire_position position;
        get_id(reader, &ret->records[i].group);
        get_position(reader, &position);
        ret->records[i].epoch = position.epoch;
        ret->records[i].members = position.members;
    }
}

static bool within_limits(const struct wire_message *message)
{
    return message->gone_count <= WIRE_GONE_MAX && message->claim_count <= WIRE_CLAIMS_MAX &&
           message->from_count <= WIRE_FROM_MAX && message->record_count <= WIRE_RECORDS_MAX;
}

ssize_t wire_encode(const struct wire_message *message, uint8_t *out, size_t out_size)
{
    if (!within_limits(message))
        return -EMSGSIZE;
    struct bytes_writer writer = bytes_writer_of(out, out_size);
    put_front(&writer, message);
    switch (message->kind) {
    case WIRE_HEARTBEAT:
        put_heartbeat(&writer, message);
        break;
    case WIRE_HEARTBEAT_ACK:
        bytes_put_u8(&writer, message->acknowledged);
        break;
    case WIRE_LEASE:
        put_lease(&writer, message);
        break;
    case WIRE_LEASE_ACK:
        put_lease_ack(&writer, message);
        break;
    case WIRE_CAS:
        put_cas(&writer, message);
        break;
    case WIRE_VERDICT:
        put_verdict(&writer, message);
        break;
    case WIRE_RECORDS:
        bytes_put_u64(&writer, message->counter);
        bytes_put_u64(&writer, message->since);
        break;
    case WIRE_RECORDS_REPLY:
        put_records_reply(&writer, message);
        break;
    }
    return writer.failed ? -EMSGSIZE : (ssize_t)bytes_written(&writer);
}

int wire_decode(const uint8_t *plain, size_t size, struct wire_message *ret)
{
    struct bytes_reader reader = bytes_reader_of(plain, size);
    memset(ret, 0, sizeof *ret);
    get_front(&reader, ret);
    switch (ret->kind) {
    case WIRE_HEARTBEAT:
        get_heartbeat(&reader, ret);
        break;
    case WIRE_HEARTBEAT_ACK:
        ret->acknowledged = get_bool(&reader);
        break;
    case WIRE_LEASE:
        get_lease(&reader, ret);
        break;
    case WIRE_LEASE_ACK:
        get_lease_ack(&reader, ret);
        break;
    case WIRE_CAS:
        get_cas(&reader, ret);
        break;
    case WIRE_VERDICT:
        get_verdict(&reader, ret);
        break;
    case WIRE_RECORDS:
        ret->counter = bytes_get_u64(&reader);
        ret->since = bytes_get_u64(&reader);
        break;
    case WIRE_RECORDS_REPLY:
        get_records_reply(&reader, ret);
        break;
    default:
        return -EBADMSG;
    }
    return bytes_done(&reader) ? 0 : -EBADMSG;
}

static void put_header(const struct wire_header *header, uint8_t out[static WIRE_HEADER_SIZE])
{
    struct bytes_writer writer = bytes_writer_of(out, WIRE_HEADER_SIZE);
    bytes_put_u32(&writer, WIRE_MAGIC);
    bytes_put_u8(&writer, WIRE_VERSION);
    bytes_put_u8(&writer, (uint8_t)header->direction);
    bytes_put_u16(&writer, 0);
    put_id(&writer, &header->cluster);
    put_id(&writer, &header->node);
    check(!writer.failed && bytes_written(&writer) == WIRE_HEADER_SIZE);
}

static bool travels(enum wire_kind kind, enum wire_direction direction)
{
    switch (direction) {
    case WIRE_NODE_TO_NODE:
        return kind == WIRE_HEARTBEAT || kind == WIRE_HEARTBEAT_ACK;
    case WIRE_NODE_TO_WITNESS:
        return kind == WIRE_LEASE || kind == WIRE_CAS || kind == WIRE_RECORDS;
    case WIRE_WITNESS_TO_NODE:
        return kind == WIRE_LEASE_ACK || kind == WIRE_VERDICT || kind == WIRE_RECORDS_REPLY;
    }
    return false;
}

ssize_t wire_seal(const uint8_t key[static SEAL_KEY_SIZE], const struct wire_header *header,
                  const struct wire_message *message, uint8_t *out, size_t out_size)
{
    check(travels(message->kind, header->direction));
    check(out_size >= SEAL_DATAGRAM_MAX);
    uint8_t plain[WIRE_PLAIN_MAX];
    ssize_t plain_size = wire_encode(message, plain, sizeof plain);
    if (plain_size < 0)
        return plain_size;
    put_header(header, out);
    size_t sealed_size = seal_close(key, out, WIRE_HEADER_SIZE, plain, (size_t)plain_size, out + WIRE_HEADER_SIZE,
                                    out_size - WIRE_HEADER_SIZE);
    return (ssize_t)(WIRE_HEADER_SIZE + sealed_size);
}

int wire_peek(const uint8_t *datagram, size_t size, struct wire_header *ret)
{
    if (size < WIRE_HEADER_SIZE + SEAL_OVERHEAD + 1 || size > SEAL_DATAGRAM_MAX)
        return -EBADMSG;
    struct bytes_reader reader = bytes_reader_of(datagram, WIRE_HEADER_SIZE);
    uint32_t magic = bytes_get_u32(&reader);
    uint8_t version = bytes_get_u8(&reader), direction = bytes_get_u8(&reader);
    uint16_t reserved = bytes_get_u16(&reader);
    if (magic != WIRE_MAGIC || version != WIRE_VERSION || direction < WIRE_NODE_TO_NODE ||
        direction > WIRE_WITNESS_TO_NODE || reserved != 0)
        return -EBADMSG;
    ret->direction = (enum wire_direction)direction;
    get_id(&reader, &ret->cluster);
    get_id(&reader, &ret->node);
    return 0;
}

int wire_open(const uint8_t key[static SEAL_KEY_SIZE], const uint8_t *datagram, size_t size, struct wire_message *ret)
{
    struct wire_header header;
    int error = wire_peek(datagram, size, &header);
    if (error < 0)
        return error;
    uint8_t plain[WIRE_PLAIN_MAX];
    ssize_t plain_size = seal_open(key, datagram, WIRE_HEADER_SIZE, datagram + WIRE_HEADER_SIZE,
                                   size - WIRE_HEADER_SIZE, plain, sizeof plain);
    if (plain_size < 0)
        return -EBADMSG;
    error = wire_decode(plain, (size_t)plain_size, ret);
    if (error < 0)
        return error;
    return travels(ret->kind, header.direction) ? 0 : -EBADMSG;
}

const char *wire_verdict_name(enum wire_verdict verdict)
{
    static const char *const names[] = {
        [WIRE_OK] = "ok", [WIRE_STALE] = "stale", [WIRE_ADOPT] = "adopt", [WIRE_BEHIND] = "behind", [WIRE_WAIT] = "wait",
        [WIRE_REFUSED] = "refused", [WIRE_REBOUND] = "no_answer",
    };
    check(verdict >= WIRE_OK && verdict <= WIRE_REBOUND);
    return names[verdict];
}

const char *wire_reason_sentence(enum wire_reason reason)
{
    static const char *const sentences[] = {
        [WIRE_REASON_NONE] = "",
        [WIRE_REASON_RESTORED] = "the witness holds an older store than this cluster has seen; it must be seeded first",
        [WIRE_REASON_QUOTA] = "the witness already holds 64 groups of this cluster; delete volumes that are not needed",
        [WIRE_REASON_EPOCH] = "the proposed epoch is not above the witness's",
        [WIRE_REASON_GROWTH] = "only the sole member may let a group grow",
        [WIRE_REASON_MEMBERS] = "the proposed members leave nobody who could serve, and the asker is not the primary",
        [WIRE_REASON_CONFLICT] = "the witness holds other members for the same epoch",
    };
    check(reason <= WIRE_REASON_CONFLICT);
    return sentences[reason];
}

void wire_guard_init(struct wire_guard *guard, const struct id *challenge)
{
    check(!id_is_null(challenge));
    memset(guard, 0, sizeof *guard);
    guard->challenge = *challenge;
}

enum wire_admission wire_guard_admit(struct wire_guard *guard, const struct wire_request *request, unsigned lane,
                                     const struct id *fresh)
{
    check(lane < WIRE_LANES);
    check(!id_is_null(fresh));
    if (!id_equal(&request->boot, &guard->boot)) {
        if (!id_equal(&request->answer, &guard->challenge))
            return WIRE_CHALLENGED;
        guard->boot = request->boot;
        guard->challenge = *fresh;
        memset(guard->highest, 0, sizeof guard->highest);
    }
    if (request->sequence <= guard->highest[lane])
        return WIRE_REPEATED;
    guard->highest[lane] = request->sequence;
    return WIRE_ADMITTED;
}
