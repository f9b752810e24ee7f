/* The mirror link's messages by table: per kind its fields, in order, and what data follows it. */
#include "storaged/mirror/mirror_wire.h"

#include <errno.h>
#include <string.h>

#include "common/bytes.h"
#include "common/check.h"
#include "storaged/crc32c.h"

#define MAGIC 0x314d4348u /* "HCM1" */

enum field_type { FIELD_U8 = 1, FIELD_BOOL, FIELD_U32, FIELD_U64, FIELD_ID, FIELD_NAME, FIELD_AUTHORITY };

struct field {
    uint8_t type;
    uint16_t offset;
    uint32_t most; /* U8, U32: highest value allowed */
};

#define FIELD(kind, member, highest) {kind, offsetof(struct mirror_message, member), highest}
#define OF_GROUP FIELD(FIELD_ID, group, 0), FIELD(FIELD_U64, epoch, 0), FIELD(FIELD_ID, session, 0)
#define OF_STREAM OF_GROUP, FIELD(FIELD_U64, sequence, 0), FIELD(FIELD_U64, commit, 0)
#define OF_BLOCKS(highest) FIELD(FIELD_ID, volume, 0), FIELD(FIELD_U64, block, 0), FIELD(FIELD_U32, count, highest)
#define WRITE_BLOCKS_MAX (MIRROR_DATA_MAX / LUN_BLOCK_SIZE)

/* What data follows. */
enum data_rule {
    DATA_NONE,
    DATA_BLOCKS,  /* count blocks */
    DATA_HASHES,  /* count hashes */
    DATA_IDS,     /* count ids */
    DATA_TAIL,    /* count tail entries */
    DATA_SECTORS, /* FORWARD: what its opcode brings along (lun_bytes_out) */
    DATA_MAP,     /* up to MIRROR_MAP_MAX bytes of text */
    DATA_ANY,     /* up to MIRROR_DATA_MAX */
};

#define FIELDS_MAX 10
struct schema {
    const char *name;
    enum data_rule data;
    struct field fields[FIELDS_MAX];
};

static const struct schema schemas[] = {
    [MIRROR_HELLO] = {"HELLO", DATA_NONE,
                      {FIELD(FIELD_U32, protocol, UINT32_MAX), FIELD(FIELD_ID, cluster, 0), FIELD(FIELD_ID, node, 0),
                       FIELD(FIELD_ID, boot, 0)}},
    [MIRROR_PING] = {"PING", DATA_NONE, {{0}}},
    [MIRROR_GROUPS] = {"GROUPS", DATA_IDS, {FIELD(FIELD_U32, count, MIRROR_GROUPS_MAX)}},
    [MIRROR_AUTHORITY] = {"AUTHORITY", DATA_NONE, {FIELD(FIELD_ID, group, 0), FIELD(FIELD_AUTHORITY, authority, 0)}},
    [MIRROR_WRITE] = {"WRITE", DATA_BLOCKS, {OF_STREAM, OF_BLOCKS(WRITE_BLOCKS_MAX), FIELD(FIELD_BOOL, copy, 0)}},
    [MIRROR_ZERO] = {"ZERO", DATA_NONE, {OF_STREAM, OF_BLOCKS(WRITE_BLOCKS_MAX), FIELD(FIELD_BOOL, copy, 0)}},
    [MIRROR_META] = {"META", DATA_MAP, {OF_STREAM, FIELD(FIELD_U64, version, 0)}},
    [MIRROR_ACK] = {"ACK", DATA_NONE, {OF_GROUP, FIELD(FIELD_U64, sequence, 0)}},
    [MIRROR_COMMIT] = {"COMMIT", DATA_NONE, {OF_GROUP, FIELD(FIELD_U64, commit, 0)}},
    [MIRROR_COMPARE] = {"COMPARE", DATA_HASHES, {OF_GROUP, OF_BLOCKS(MIRROR_RUN_BLOCKS), FIELD(FIELD_U64, tag, 0)}},
    [MIRROR_NEED] = {"NEED", DATA_NONE, {OF_GROUP, FIELD(FIELD_U64, tag, 0), FIELD(FIELD_U64, bitmap, 0)}},
    [MIRROR_TAIL] = {"TAIL", DATA_TAIL, {OF_GROUP, FIELD(FIELD_U32, count, MIRROR_TAIL_ENTRIES), FIELD(FIELD_BOOL, last, 0)}},
    [MIRROR_FORWARD] = {"FORWARD", DATA_SECTORS,
                        {OF_GROUP, FIELD(FIELD_ID, volume, 0), FIELD(FIELD_U64, tag, 0), FIELD(FIELD_U8, opcode, LUN_BARRIER),
                         FIELD(FIELD_U64, sector, 0), FIELD(FIELD_U32, sectors, UINT32_MAX),
                         FIELD(FIELD_BOOL, tried, 0)}},
    [MIRROR_ANSWER] = {"ANSWER", DATA_ANY,
                       {FIELD(FIELD_ID, group, 0), FIELD(FIELD_U64, tag, 0), FIELD(FIELD_U8, status, LUN_DROPPED),
                        FIELD(FIELD_U64, sector, 0), FIELD(FIELD_U32, offset, LUN_COMPARE_MAX * LUN_SECTOR_SIZE - 1),
                        FIELD(FIELD_BOOL, mapped, 0), FIELD(FIELD_U64, run_sectors, 0)}},
    [MIRROR_SWAP] = {"SWAP", DATA_MAP, {FIELD(FIELD_ID, group, 0), FIELD(FIELD_U64, tag, 0)}},
    [MIRROR_CREATE] = {"CREATE", DATA_NONE,
                       {FIELD(FIELD_ID, group, 0), FIELD(FIELD_NAME, group_name, 0), FIELD(FIELD_ID, volume, 0),
                        FIELD(FIELD_NAME, name, 0), FIELD(FIELD_U64, size_bytes, 0), FIELD(FIELD_BOOL, is_new, 0),
                        FIELD(FIELD_U64, tag, 0)}},
    [MIRROR_REMOVE] = {"REMOVE", DATA_NONE, {FIELD(FIELD_ID, group, 0), FIELD(FIELD_ID, volume, 0), FIELD(FIELD_U64, tag, 0)}},
    [MIRROR_GROW] = {"GROW", DATA_NONE,
                     {FIELD(FIELD_ID, group, 0), FIELD(FIELD_ID, volume, 0), FIELD(FIELD_U64, size_bytes, 0), FIELD(FIELD_U32, count, 2),
                      FIELD(FIELD_U64, tag, 0)}},
    [MIRROR_DONE] = {"DONE", DATA_MAP,
                     {FIELD(FIELD_U64, tag, 0), FIELD(FIELD_U32, result, UINT32_MAX), FIELD(FIELD_U64, version, 0)}},
    [MIRROR_FETCH] = {"FETCH", DATA_NONE, {OF_GROUP, OF_BLOCKS(WRITE_BLOCKS_MAX), FIELD(FIELD_U64, tag, 0)}},
    [MIRROR_FETCHED] = {"FETCHED", DATA_ANY,
                        {FIELD(FIELD_ID, group, 0), FIELD(FIELD_U64, tag, 0), FIELD(FIELD_U32, result, UINT32_MAX)}},
};
#define KIND_END (sizeof schemas / sizeof schemas[0])

static const struct schema *schema_of(uint16_t kind)
{
    return kind < KIND_END && schemas[kind].name ? &schemas[kind] : NULL;
}

const char *mirror_wire_kind_name(uint16_t kind)
{
    const struct schema *schema = schema_of(kind);
    return schema ? schema->name : "unknown";
}

/* ---- authority messages ------------------------------------------------------------------------------------------ */

static void put_authority(struct bytes_writer *writer, const struct authority_message *message)
{
    const struct authority_record *record = &message->record;
    bytes_put_u8(writer, message->kind);
    bytes_put_u64(writer, message->epoch);
    bytes_put(writer, &message->session, sizeof message->session);
    bytes_put_u64(writer, record->epoch);
    bytes_put_u8(writer, record->members);
    bytes_put_u64(writer, record->pending);
    bytes_put_u8(writer, record->incomplete);
    bytes_put_u8(writer, record->founding);
    bytes_put_u8(writer, record->was_primary);
    bytes_put(writer, &record->session, sizeof record->session);
    bytes_put(writer, &record->previous_session, sizeof record->previous_session);
    bytes_put_u64(writer, message->highest);
    bytes_put_u64(writer, message->committed);
    bytes_put_u8(writer, message->role);
    bytes_put_u8(writer, message->busy);
    bytes_put_u8(writer, message->lease);
    bytes_put_u8(writer, message->failed);
}

static bool get_bool(struct bytes_reader *reader)
{
    uint8_t value = bytes_get_u8(reader);
    reader->failed |= value > 1;
    return value == 1;
}

static uint8_t get_u8_up_to(struct bytes_reader *reader, uint8_t least, uint8_t most)
{
    uint8_t value = bytes_get_u8(reader);
    reader->failed |= value < least || value > most;
    return value;
}

static void get_authority(struct bytes_reader *reader, struct authority_message *ret)
{
    struct authority_record *record = &ret->record;
    ret->kind = get_u8_up_to(reader, AUTHORITY_HELLO, AUTHORITY_CLOSE);
    ret->epoch = bytes_get_u64(reader);
    bytes_get(reader, &ret->session, sizeof ret->session);
    record->epoch = bytes_get_u64(reader);
    record->members = get_u8_up_to(reader, 0, AUTHORITY_BOTH);
    record->pending = bytes_get_u64(reader);
    record->incomplete = get_bool(reader);
    record->founding = get_u8_up_to(reader, AUTHORITY_FOUNDED, AUTHORITY_FOLLOWER);
    record->was_primary = get_bool(reader);
    bytes_get(reader, &record->session, sizeof record->session);
    bytes_get(reader, &record->previous_session, sizeof record->previous_session);
    ret->highest = bytes_get_u64(reader);
    ret->committed = bytes_get_u64(reader);
    ret->role = get_u8_up_to(reader, 0, AUTHORITY_ROLE_COUNT - 1);
    ret->busy = get_bool(reader);
    ret->lease = get_bool(reader);
    ret->failed = get_bool(reader);
}

/* ---- fields -------------------------------------------------------------------------------------------------------- */

static void put_field(struct bytes_writer *writer, const struct field *field, const struct mirror_message *message)
{
    const void *at = (const char *)message + field->offset;
    switch ((enum field_type)field->type) {
    case FIELD_U8:
        check(*(const uint8_t *)at <= field->most);
        bytes_put_u8(writer, *(const uint8_t *)at);
        break;
    case FIELD_BOOL:
        check(*(const uint8_t *)at <= 1);
        bytes_put_u8(writer, *(const uint8_t *)at);
        break;
    case FIELD_U32:
        check(*(const uint32_t *)at <= field->most);
        bytes_put_u32(writer, *(const uint32_t *)at);
        break;
    case FIELD_U64: bytes_put_u64(writer, *(const uint64_t *)at); break;
    case FIELD_ID: bytes_put(writer, at, sizeof(struct id)); break;
    case FIELD_NAME: bytes_put(writer, at, sizeof message->name); break;
    case FIELD_AUTHORITY: put_authority(writer, at); break;
    }
}

static void get_field(struct bytes_reader *reader, const struct field *field, struct mirror_message *message)
{
    void *at = (char *)message + field->offset;
    switch ((enum field_type)field->type) {
    case FIELD_U8: *(uint8_t *)at = get_u8_up_to(reader, 0, (uint8_t)field->most); break;
    case FIELD_BOOL: *(uint8_t *)at = get_bool(reader); break;
    case FIELD_U32: {
        uint32_t value = bytes_get_u32(reader);
        reader->failed |= value > field->most;
        *(uint32_t *)at = value;
        break;
    }
    case FIELD_U64: *(uint64_t *)at = bytes_get_u64(reader); break;
    case FIELD_ID: bytes_get(reader, at, sizeof(struct id)); break;
    case FIELD_NAME:
        bytes_get(reader, at, sizeof message->name);
        reader->failed |= memchr(at, 0, sizeof message->name) == NULL;
        break;
    case FIELD_AUTHORITY: get_authority(reader, at); break;
    }
}

/* Validity condition 5: does data of this size belong to a message of these fields? */
static bool data_fits(const struct schema *schema, const struct mirror_message *message)
{
    uint64_t size = message->data_size;
    switch (schema->data) {
    case DATA_NONE: return size == 0;
    case DATA_BLOCKS: return message->count > 0 && size == (uint64_t)message->count * LUN_BLOCK_SIZE;
    case DATA_HASHES: return message->count > 0 && size == (uint64_t)message->count * MIRROR_HASH_SIZE;
    case DATA_IDS: return size == (uint64_t)message->count * sizeof(struct id);
    case DATA_TAIL: return size == (uint64_t)message->count * MIRROR_TAIL_ENTRY_SIZE;
    case DATA_SECTORS: {
        uint64_t bytes = (uint64_t)message->sectors * LUN_SECTOR_SIZE;
        uint64_t most = message->opcode == LUN_COMPARE_WRITE ? LUN_COMPARE_MAX * LUN_SECTOR_SIZE : LUN_REQUEST_MAX;
        bool moves_data = message->opcode == LUN_READ || lun_bytes_out(message->opcode, 1);
        if (moves_data && (bytes == 0 || bytes > most))
            return false;
        return size == lun_bytes_out(message->opcode, message->sectors);
    }
    case DATA_MAP: return size <= MIRROR_MAP_MAX;
    case DATA_ANY: return size <= MIRROR_DATA_MAX;
    }
    return false;
}

size_t mirror_wire_encode(const struct mirror_message *message, const void *data, uint8_t out[static MIRROR_FRAME_MAX])
{
    const struct schema *schema = schema_of(message->kind);
    check(schema && data_fits(schema, message));
    struct bytes_writer body = bytes_writer_of(out + MIRROR_HEAD_SIZE, MIRROR_BODY_MAX);
    for (unsigned i = 0; i < FIELDS_MAX && schema->fields[i].type; i++)
        put_field(&body, &schema->fields[i], message);
    check(!body.failed);
    size_t body_size = bytes_written(&body);
    struct bytes_writer head = bytes_writer_of(out, MIRROR_HEAD_SIZE);
    bytes_put_u32(&head, MAGIC);
    bytes_put_u16(&head, message->kind);
    bytes_put_u16(&head, (uint16_t)body_size);
    bytes_put_u32(&head, message->data_size);
    bytes_put_u32(&head, message->data_size ? crc32c(data, message->data_size) : 0);
    bytes_put_u32(&head, crc32c(out + MIRROR_HEAD_SIZE, body_size));
    bytes_put_u32(&head, crc32c(out, 20));
    check(!head.failed);
    return MIRROR_HEAD_SIZE + body_size;
}

static int bad(const char **ret_reason, const char *reason)
{
    *ret_reason = reason;
    return -EBADMSG;
}

int mirror_wire_decode_head(const uint8_t *bytes, struct mirror_head *ret, const char **ret_reason)
{
    struct bytes_reader reader = bytes_reader_of(bytes, MIRROR_HEAD_SIZE);
    uint32_t magic = bytes_get_u32(&reader);
    struct mirror_head head = {.kind = bytes_get_u16(&reader), .body_size = bytes_get_u16(&reader)};
    head.data_size = bytes_get_u32(&reader);
    head.data_crc = bytes_get_u32(&reader);
    head.body_crc = bytes_get_u32(&reader);
    if (magic != MAGIC)
        return bad(ret_reason, "a frame does not begin with the magic number");
    if (bytes_get_u32(&reader) != crc32c(bytes, 20))
        return bad(ret_reason, "a frame's head has a wrong checksum");
    if (!schema_of(head.kind))
        return bad(ret_reason, "a frame is of an unknown kind");
    if (head.body_size > MIRROR_BODY_MAX || head.data_size > MIRROR_DATA_MAX)
        return bad(ret_reason, "a frame is longer than allowed");
    *ret = head;
    return 0;
}

int mirror_wire_decode_body(const struct mirror_head *head, const uint8_t *body, struct mirror_message *ret, const char **ret_reason)
{
    const struct schema *schema = schema_of(head->kind);
    check(schema);
    if (crc32c(body, head->body_size) != head->body_crc)
        return bad(ret_reason, "a frame's body has a wrong checksum");
    struct mirror_message message = {.kind = head->kind, .data_size = head->data_size};
    struct bytes_reader reader = bytes_reader_of(body, head->body_size);
    for (unsigned i = 0; i < FIELDS_MAX && schema->fields[i].type; i++)
        get_field(&reader, &schema->fields[i], &message);
    if (!bytes_done(&reader))
        return bad(ret_reason, "a frame's body does not fit its kind");
    if (!data_fits(schema, &message))
        return bad(ret_reason, "a frame's data does not fit its fields");
    *ret = message;
    return 0;
}

int mirror_wire_check_data(const struct mirror_head *head, const void *data)
{
    return crc32c(data, head->data_size) == head->data_crc ? 0 : -EBADMSG;
}
