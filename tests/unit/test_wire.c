/* The datagrams: every kind survives the round trip, nothing shortened, changed or invented does. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/seal.h"
#include "quorum/wire.h"

static void fill_common(struct wire_message *message)
{
    message->request = (struct wire_request){id_random(), id_random(), id_random(), 77};
    message->reply = (struct wire_reply){id_random(), id_random(), id_random()};
}

/* A message of each kind with every list at its limit. */
static struct wire_message make(enum wire_kind kind)
{
    struct wire_message message = {.kind = kind};
    bool request = kind == WIRE_HEARTBEAT || kind == WIRE_LEASE || kind == WIRE_CAS || kind == WIRE_RECORDS;
    fill_common(&message);
    if (request)
        memset(&message.reply, 0, sizeof message.reply);
    else
        memset(&message.request, 0, sizeof message.request);
    if (kind == WIRE_HEARTBEAT) {
        message.link = 3;
        message.t_kill_ms = 5300;
        message.gone_count = WIRE_GONE_MAX;
        for (unsigned i = 0; i < WIRE_GONE_MAX; i++) {
            message.gone[i] = (struct wire_gone){.group = id_random(), .incarnation = i + 1};
            memset(message.gone[i].guest, 'a' + (int)i, WIRE_NAME_MAX);
        }
    }
    if (kind == WIRE_HEARTBEAT || kind == WIRE_LEASE) {
        message.wants_lease = true;
        message.lease_ms = 2500;
        message.promise_ms = 2800;
    }
    if (kind == WIRE_LEASE) {
        message.claim_count = WIRE_CLAIMS_MAX;
        for (unsigned i = 0; i < WIRE_CLAIMS_MAX; i++)
            message.claims[i] = id_random();
    }
    if (kind != WIRE_HEARTBEAT && kind != WIRE_HEARTBEAT_ACK)
        message.counter = UINT64_C(0x1122334455667788);
    if (kind == WIRE_HEARTBEAT_ACK || kind == WIRE_LEASE_ACK)
        message.acknowledged = true;
    if (kind == WIRE_LEASE_ACK) {
        message.restored = true;
        message.incarnation = id_random();
    }
    if (kind == WIRE_CAS) {
        message.witness_boot = id_random();
        message.from_count = 2;
        message.from[0] = (struct wire_position){4, 1};
        message.from[1] = (struct wire_position){5, 3};
        message.to = (struct wire_position){6, 1};
        message.was_primary = true;
    }
    if (kind == WIRE_CAS || kind == WIRE_VERDICT)
        message.group = id_random();
    if (kind == WIRE_VERDICT) {
        message.verdict = WIRE_REFUSED;
        message.reason = WIRE_REASON_QUOTA;
        message.record = (struct wire_position){9, 2};
        message.wait_ms = 12;
        message.loser_ms = 34;
    }
    if (kind == WIRE_RECORDS)
        message.since = 5;
    if (kind == WIRE_RECORDS_REPLY) {
        message.up_to = 8;
        message.record_count = WIRE_RECORDS_MAX;
        for (unsigned i = 0; i < WIRE_RECORDS_MAX; i++)
            message.records[i] = (struct wire_record){id_random(), i, (uint8_t)(i % 4)};
    }
    return message;
}

static void each_kind_survives_the_round_trip(void **state)
{
    for (int kind = WIRE_HEARTBEAT; kind <= WIRE_RECORDS_REPLY; kind++) {
        struct wire_message message = make((enum wire_kind)kind), back;
        uint8_t plain[WIRE_PLAIN_MAX], again[WIRE_PLAIN_MAX];
        ssize_t size = wire_encode(&message, plain, sizeof plain);
        assert_true(size > 0);
        assert_int_equal(wire_decode(plain, (size_t)size, &back), 0);
        assert_int_equal(wire_encode(&back, again, sizeof again), size);
        assert_memory_equal(plain, again, (size_t)size);
        assert_int_equal(back.kind, message.kind);
        assert_int_equal(back.counter, message.counter);
        assert_memory_equal(&back.request, &message.request, sizeof message.request);
        assert_memory_equal(&back.reply, &message.reply, sizeof message.reply);
        assert_memory_equal(back.claims, message.claims, sizeof message.claims);
        assert_memory_equal(back.gone[7].guest, message.gone[7].guest, sizeof message.gone[7].guest);
        assert_int_equal(back.loser_ms, message.loser_ms);
        assert_int_equal(back.from[1].epoch, message.from[1].epoch);
        assert_int_equal(back.records[39].epoch, message.records[39].epoch);
    }
}

static void no_shorter_and_no_longer_text_is_taken(void **state)
{
    for (int kind = WIRE_HEARTBEAT; kind <= WIRE_RECORDS_REPLY; kind++) {
        struct wire_message message = make((enum wire_kind)kind), back;
        uint8_t plain[WIRE_PLAIN_MAX + 1];
        ssize_t size = wire_encode(&message, plain, WIRE_PLAIN_MAX);
        for (ssize_t length = 0; length < size; length++)
            assert_int_equal(wire_decode(plain, (size_t)length, &back), -EBADMSG);
        plain[size] = 0;
        assert_int_equal(wire_decode(plain, (size_t)size + 1, &back), -EBADMSG);
    }
}

static void only_plain_guest_names_are_taken(void **state)
{
    static const char *const bad[] = {"", "a b", "a/b", "a\nb", "a'b", "\xc3\xa9", "a%s"};
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct wire_message message = make(WIRE_HEARTBEAT), back;
        uint8_t plain[WIRE_PLAIN_MAX];
        snprintf(message.gone[3].guest, sizeof message.gone[3].guest, "%s", bad[i]);
        ssize_t size = wire_encode(&message, plain, sizeof plain);
        assert_true(size > 0);
        assert_int_equal(wire_decode(plain, (size_t)size, &back), -EBADMSG);
        assert_false(wire_name_is_valid(bad[i]));
        snprintf(message.gone[3].guest, sizeof message.gone[3].guest, "Web-1_a.b");
        size = wire_encode(&message, plain, sizeof plain);
        assert_int_equal(wire_decode(plain, (size_t)size, &back), 0);
    }
}

static void too_small_a_buffer_is_refused(void **state)
{
    for (int kind = WIRE_HEARTBEAT; kind <= WIRE_RECORDS_REPLY; kind++) {
        struct wire_message message = make((enum wire_kind)kind);
        uint8_t plain[WIRE_PLAIN_MAX];
        ssize_t size = wire_encode(&message, plain, sizeof plain);
        for (ssize_t room = 0; room < size; room++)
            assert_int_equal(wire_encode(&message, plain, (size_t)room), -EMSGSIZE);
    }
    struct wire_message message = make(WIRE_LEASE);
    uint8_t plain[WIRE_PLAIN_MAX];
    message.claim_count = WIRE_CLAIMS_MAX + 1;
    assert_int_equal(wire_encode(&message, plain, sizeof plain), -EMSGSIZE);
}

/* What decodes must encode to the very same bytes: there is one form of each message. */
static void random_bytes_never_hurt(void **state)
{
    struct wire_message message;
    uint8_t plain[WIRE_PLAIN_MAX], again[WIRE_PLAIN_MAX];
    for (unsigned round = 0; round < 200000; round++) {
        uint16_t length;
        seal_random(&length, sizeof length);
        length %= 200;
        seal_random(plain, length);
        if (length > 0)
            plain[0] = (uint8_t)(plain[0] % 10);
        if (wire_decode(plain, length, &message) < 0)
            continue;
        assert_int_equal(wire_encode(&message, again, sizeof again), length);
        assert_memory_equal(plain, again, length);
    }
}

static void changed_bytes_decode_to_themselves_or_not_at_all(void **state)
{
    for (int kind = WIRE_HEARTBEAT; kind <= WIRE_RECORDS_REPLY; kind++) {
        struct wire_message message = make((enum wire_kind)kind), back;
        uint8_t plain[WIRE_PLAIN_MAX], again[WIRE_PLAIN_MAX];
        ssize_t size = wire_encode(&message, plain, sizeof plain);
        for (ssize_t i = 0; i < size; i++) {
            uint8_t before = plain[i];
            plain[i] ^= 0xff;
            if (wire_decode(plain, (size_t)size, &back) == 0) {
                assert_int_equal(wire_encode(&back, again, sizeof again), size);
                assert_memory_equal(plain, again, (size_t)size);
            }
            plain[i] = before;
        }
    }
}

static void datagrams_open_only_whole_and_with_their_key(void **state)
{
    uint8_t key[SEAL_KEY_SIZE], other[SEAL_KEY_SIZE], data[SEAL_DATAGRAM_MAX];
    struct wire_header header = {WIRE_NODE_TO_WITNESS, id_random(), id_random()}, seen;
    struct wire_message message = make(WIRE_LEASE), back;
    seal_random(key, sizeof key);
    seal_random(other, sizeof other);
    ssize_t size = wire_seal(key, &header, &message, data, sizeof data);
    assert_true(size > 0 && size <= (ssize_t)SEAL_DATAGRAM_MAX);
    assert_int_equal(wire_peek(data, (size_t)size, &seen), 0);
    assert_memory_equal(&seen.cluster, &header.cluster, sizeof seen.cluster);
    assert_memory_equal(&seen.node, &header.node, sizeof seen.node);
    assert_int_equal(wire_open(key, data, (size_t)size, &back), 0);
    assert_int_equal(wire_open(other, data, (size_t)size, &back), -EBADMSG);
    for (ssize_t length = 0; length < size; length++)
        assert_int_equal(wire_open(key, data, (size_t)length, &back), -EBADMSG);
    for (ssize_t i = 0; i < size; i++) { /* the clear header is authenticated too */
        data[i] ^= 1;
        assert_int_equal(wire_open(key, data, (size_t)size, &back), -EBADMSG);
        data[i] ^= 1;
    }
}

static void a_kind_travels_in_its_direction_only(void **state)
{
    uint8_t key[SEAL_KEY_SIZE], data[SEAL_DATAGRAM_MAX], forged[SEAL_DATAGRAM_MAX], plain[WIRE_PLAIN_MAX];
    struct wire_header header = {WIRE_NODE_TO_NODE, id_random(), id_random()};
    struct wire_message message = make(WIRE_HEARTBEAT), cas = make(WIRE_CAS), back;
    seal_random(key, sizeof key);
    assert_true(wire_seal(key, &header, &message, data, sizeof data) > 0);
    ssize_t plain_size = wire_encode(&cas, plain, sizeof plain);
    memcpy(forged, data, WIRE_HEADER_SIZE);
    size_t sealed = seal_close(key, forged, WIRE_HEADER_SIZE, plain, (size_t)plain_size, forged + WIRE_HEADER_SIZE,
                               sizeof forged - WIRE_HEADER_SIZE);
    assert_int_equal(wire_open(key, forged, WIRE_HEADER_SIZE + sealed, &back), -EBADMSG);
}

static struct wire_request request(struct id boot, struct id answer, uint64_t sequence)
{
    return (struct wire_request){.id = id_random(), .boot = boot, .answer = answer, .sequence = sequence};
}

static enum wire_admission admit(struct wire_guard *guard, struct wire_request asked, unsigned lane)
{
    struct id fresh = id_random();
    return wire_guard_admit(guard, &asked, lane, &fresh);
}

static void a_boot_counts_only_after_its_challenge(void **state)
{
    struct wire_guard guard;
    struct id challenge = id_random(), boot = id_random(), none = {0};
    wire_guard_init(&guard, &challenge);
    assert_int_equal(admit(&guard, request(boot, none, 1), 0), WIRE_CHALLENGED);
    assert_int_equal(admit(&guard, request(boot, id_random(), 2), 0), WIRE_CHALLENGED);
    assert_int_equal(admit(&guard, request(boot, challenge, 3), 0), WIRE_ADMITTED);
    assert_int_equal(admit(&guard, request(boot, none, 4), 0), WIRE_ADMITTED);
}

static void recordings_of_an_earlier_boot_never_pass(void **state)
{
    struct wire_guard guard;
    struct id challenge = id_random(), first = id_random(), second = id_random();
    wire_guard_init(&guard, &challenge);
    struct wire_request recorded = request(first, challenge, 1);
    assert_int_equal(admit(&guard, recorded, 0), WIRE_ADMITTED);
    struct id next = guard.challenge;
    assert_int_equal(admit(&guard, request(second, next, 1), 0), WIRE_ADMITTED);
    assert_int_equal(admit(&guard, recorded, 0), WIRE_CHALLENGED);
    assert_int_equal(admit(&guard, request(second, next, 2), 0), WIRE_ADMITTED);
}

static void a_repeated_request_does_not_count_on_its_lane(void **state)
{
    struct wire_guard guard;
    struct id challenge = id_random(), boot = id_random();
    wire_guard_init(&guard, &challenge);
    struct wire_request asked = request(boot, challenge, 5);
    assert_int_equal(admit(&guard, asked, 0), WIRE_ADMITTED);
    assert_int_equal(admit(&guard, asked, 0), WIRE_REPEATED);
    assert_int_equal(admit(&guard, request(boot, challenge, 4), 0), WIRE_REPEATED);
    assert_int_equal(admit(&guard, request(boot, challenge, 4), 1), WIRE_ADMITTED); /* a slower link */
}

static int setup(void **state)
{
    return seal_init();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_kind_survives_the_round_trip),
        cmocka_unit_test(no_shorter_and_no_longer_text_is_taken),
        cmocka_unit_test(only_plain_guest_names_are_taken),
        cmocka_unit_test(too_small_a_buffer_is_refused),
        cmocka_unit_test(random_bytes_never_hurt),
        cmocka_unit_test(changed_bytes_decode_to_themselves_or_not_at_all),
        cmocka_unit_test(datagrams_open_only_whole_and_with_their_key),
        cmocka_unit_test(a_kind_travels_in_its_direction_only),
        cmocka_unit_test(a_boot_counts_only_after_its_challenge),
        cmocka_unit_test(recordings_of_an_earlier_boot_never_pass),
        cmocka_unit_test(a_repeated_request_does_not_count_on_its_lane),
    };
    return cmocka_run_group_tests_name("wire", tests, setup, NULL);
}
