/* The mirror link's messages: round trips of every kind, and refusal of everything that is cut, changed or out of bounds. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/bytes.h"
#include "storaged/crc32c.h"
#include "storaged/mirror/mirror_wire.h"

static struct id id_of(uint8_t value)
{
    struct id id;
    memset(&id, value, sizeof id);
    return id;
}

/* Every field set: what a kind's schema leaves out must come back zero. */
static struct mirror_message full(uint16_t kind)
{
    struct mirror_message message = {
        .kind = kind, .group = id_of(1), .epoch = 2, .session = id_of(3), .sequence = 4, .commit = 5, .volume = id_of(6), .block = 7,
        .count = 3, .tag = 8, .bitmap = 0x8000000000000001, .last = 1, .copy = 1, .opcode = LUN_READ, .status = LUN_NO_SPACE,
        .sector = 9, .sectors = 16, .tried = 1, .offset = 23, .mapped = 1, .run_sectors = 24, .result = -EIO, .version = 10, .size_bytes = 11, .is_new = 1, .name = "vol", .group_name = "group",
        .protocol = 12, .cluster = id_of(13), .node = id_of(14), .boot = id_of(15),
    };
    message.authority = (struct authority_message){
        .kind = AUTHORITY_HELLO, .epoch = 16, .session = id_of(17), .highest = 18, .role = AUTHORITY_SOLE, .busy = true, .lease = true,
        .committed = 15, .failed = true,
        .record = {.epoch = 19, .members = 2, .pending = 20, .incomplete = true, .founding = AUTHORITY_FOLLOWER, .was_primary = true,
                   .session = id_of(21), .previous_session = id_of(22)},
    };
    switch (kind) {
    case MIRROR_WRITE: message.data_size = 3 * 4096; break;
    case MIRROR_COMPARE: message.data_size = 3 * MIRROR_HASH_SIZE; break;
    case MIRROR_GROUPS: message.data_size = 3 * sizeof(struct id); break;
    case MIRROR_TAIL: message.data_size = 3 * MIRROR_TAIL_ENTRY_SIZE; break;
    case MIRROR_META: message.data_size = 100; break;
    case MIRROR_GROW: message.count = 2; break;
    default: break;
    }
    return message;
}

static int decode(const uint8_t *frame, size_t size, struct mirror_message *ret)
{
    struct mirror_head head;
    const char *reason = NULL;
    int error = size < MIRROR_HEAD_SIZE ? -EBADMSG : mirror_wire_decode_head(frame, &head, &reason);
    if (error == 0 && size != MIRROR_HEAD_SIZE + head.body_size)
        return -EBADMSG;
    return error ? error : mirror_wire_decode_body(&head, frame + MIRROR_HEAD_SIZE, ret, &reason);
}

static void test_round_trips(void **state)
{
    static uint8_t data[3 * 4096];
    for (uint16_t kind = MIRROR_HELLO; kind <= MIRROR_GROW; kind++) {
        uint8_t frame[MIRROR_FRAME_MAX], again[MIRROR_FRAME_MAX];
        struct mirror_message message = full(kind), back, twice;
        size_t size = mirror_wire_encode(&message, data, frame);
        assert_int_equal(decode(frame, size, &back), 0);
        assert_int_equal(back.kind, kind);
        assert_int_equal(back.data_size, message.data_size);
        /* What came back encodes to the same bytes. */
        assert_int_equal(mirror_wire_encode(&back, data, again), size);
        assert_memory_equal(again, frame, size);
        assert_int_equal(decode(again, size, &twice), 0);
        assert_string_not_equal(mirror_wire_kind_name(kind), "unknown");
    }
}

static void test_fields_arrive(void **state)
{
    static uint8_t data[3 * 4096];
    uint8_t frame[MIRROR_FRAME_MAX];
    struct mirror_message message = full(MIRROR_WRITE), back;
    size_t size = mirror_wire_encode(&message, data, frame);
    assert_int_equal(decode(frame, size, &back), 0);
    assert_true(id_equal(&back.group, &message.group) && id_equal(&back.session, &message.session) && id_equal(&back.volume, &message.volume));
    assert_int_equal(back.epoch, 2);
    assert_int_equal(back.sequence, 4);
    assert_int_equal(back.commit, 5);
    assert_int_equal(back.block, 7);
    assert_int_equal(back.count, 3);
    assert_int_equal(back.copy, 1);
    message = full(MIRROR_AUTHORITY);
    size = mirror_wire_encode(&message, NULL, frame);
    assert_int_equal(decode(frame, size, &back), 0);
    assert_int_equal(back.authority.highest, 18);
    assert_int_equal(back.authority.committed, 15);
    assert_true(back.authority.failed);
    assert_int_equal(back.authority.record.pending, 20);
    assert_int_equal(back.authority.record.founding, AUTHORITY_FOLLOWER);
    assert_true(back.authority.busy && back.authority.lease && back.authority.record.incomplete);
    assert_true(id_equal(&back.authority.record.previous_session, &message.authority.record.previous_session));
}

static void test_truncated(void **state)
{
    static uint8_t data[3 * 4096];
    for (uint16_t kind = MIRROR_HELLO; kind <= MIRROR_GROW; kind++) {
        uint8_t frame[MIRROR_FRAME_MAX];
        struct mirror_message message = full(kind), back;
        size_t size = mirror_wire_encode(&message, data, frame);
        for (size_t length = 0; length < size; length++) {
            uint8_t *cut = malloc(length + 1); /* so that a read past the end is seen */
            memcpy(cut, frame, length);
            assert_int_equal(decode(cut, length, &back), -EBADMSG);
            free(cut);
        }
    }
}

/* A body of any other length, with checksums that are right. */
static void test_wrong_body_size(void **state)
{
    static uint8_t data[3 * 4096];
    for (uint16_t kind = MIRROR_HELLO; kind <= MIRROR_GROW; kind++) {
        uint8_t frame[MIRROR_FRAME_MAX] = {0};
        struct mirror_message message = full(kind), back;
        size_t body = mirror_wire_encode(&message, data, frame) - MIRROR_HEAD_SIZE;
        for (size_t length = 0; length <= MIRROR_BODY_MAX; length++) {
            struct mirror_head head = {.kind = kind, .body_size = (uint16_t)length, .data_size = message.data_size};
            const char *reason;
            uint8_t *cut = malloc(length + 1);
            memcpy(cut, frame + MIRROR_HEAD_SIZE, length);
            head.body_crc = crc32c(cut, length);
            assert_int_equal(mirror_wire_decode_body(&head, cut, &back, &reason), length == body ? 0 : -EBADMSG);
            free(cut);
        }
    }
}

static void test_flipped_bits(void **state)
{
    static uint8_t data[3 * 4096];
    for (uint16_t kind = MIRROR_HELLO; kind <= MIRROR_GROW; kind++) {
        uint8_t frame[MIRROR_FRAME_MAX];
        struct mirror_message message = full(kind), back;
        size_t size = mirror_wire_encode(&message, data, frame);
        for (size_t bit = 0; bit < size * 8; bit++) {
            frame[bit / 8] ^= (uint8_t)(1 << bit % 8);
            assert_int_equal(decode(frame, size, &back), -EBADMSG);
            frame[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
    }
}

/* Fields within their checksums but out of their bounds. */
static void refuse_body_byte(uint16_t kind, size_t offset, uint8_t value)
{
    static uint8_t data[3 * 4096];
    uint8_t frame[MIRROR_FRAME_MAX];
    struct mirror_message message = full(kind), back;
    struct mirror_head head;
    const char *reason = NULL;
    mirror_wire_encode(&message, data, frame);
    assert_int_equal(mirror_wire_decode_head(frame, &head, &reason), 0);
    frame[MIRROR_HEAD_SIZE + offset] = value;
    head.body_crc = crc32c(frame + MIRROR_HEAD_SIZE, head.body_size);
    assert_int_equal(mirror_wire_decode_body(&head, frame + MIRROR_HEAD_SIZE, &back, &reason), -EBADMSG);
    assert_non_null(reason);
}

static void test_out_of_bounds(void **state)
{
    refuse_body_byte(MIRROR_AUTHORITY, 16, 0);    /* its kind */
    refuse_body_byte(MIRROR_AUTHORITY, 16, 11);
    refuse_body_byte(MIRROR_AUTHORITY, 16 + 1 + 8 + 16 + 8, 4); /* members */
    refuse_body_byte(MIRROR_GROUPS, 0, 65);       /* more groups than there are, and than the data holds */
    refuse_body_byte(MIRROR_WRITE, 56 + 24, 4);   /* count: more than the data */
    refuse_body_byte(MIRROR_WRITE, 56 + 28, 2);   /* a bool */
    refuse_body_byte(MIRROR_TAIL, 40, 4);
    refuse_body_byte(MIRROR_FORWARD, 64, LUN_BARRIER + 1); /* opcode */
    refuse_body_byte(MIRROR_FORWARD, 64, LUN_WRITE);   /* a write without data */
    refuse_body_byte(MIRROR_FORWARD, 64, LUN_COMPARE_WRITE);
    refuse_body_byte(MIRROR_FORWARD, 64, LUN_OR_WRITE);
    refuse_body_byte(MIRROR_ANSWER, 35, 1);            /* the miscompare lies beyond what can be compared */
    refuse_body_byte(MIRROR_ANSWER, 37, 2);            /* a bool */
    struct mirror_message message = full(MIRROR_CREATE), back;
    uint8_t frame[MIRROR_FRAME_MAX];
    struct mirror_head head;
    const char *reason = NULL;
    mirror_wire_encode(&message, NULL, frame);
    assert_int_equal(mirror_wire_decode_head(frame, &head, &reason), 0);
    memset(frame + MIRROR_HEAD_SIZE + 16, 'x', 64); /* a name without its end */
    head.body_crc = crc32c(frame + MIRROR_HEAD_SIZE, head.body_size);
    assert_int_equal(mirror_wire_decode_body(&head, frame + MIRROR_HEAD_SIZE, &back, &reason), -EBADMSG);
}

static void test_data(void **state)
{
    uint8_t data[4096] = {1, 2, 3}, frame[MIRROR_FRAME_MAX];
    struct mirror_message message = full(MIRROR_WRITE);
    struct mirror_head head;
    const char *reason;
    message.count = 1;
    message.data_size = sizeof data;
    mirror_wire_encode(&message, data, frame);
    assert_int_equal(mirror_wire_decode_head(frame, &head, &reason), 0);
    assert_int_equal(mirror_wire_check_data(&head, data), 0);
    data[4095] ^= 1;
    assert_int_equal(mirror_wire_check_data(&head, data), -EBADMSG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trips),     cmocka_unit_test(test_fields_arrive), cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_wrong_body_size), cmocka_unit_test(test_flipped_bits),  cmocka_unit_test(test_out_of_bounds),
        cmocka_unit_test(test_data),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
