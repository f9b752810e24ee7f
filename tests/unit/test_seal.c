/* Sealed datagrams: only what was sealed with the key, under the header, opens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "common/seal.h"

static const uint8_t key[SEAL_KEY_SIZE] = {1, 2, 3};
static const char header[] = "header";
static const char plain[] = "what only the peer may read";

static size_t seal(uint8_t sealed[static SEAL_DATAGRAM_MAX])
{
    return seal_close(key, header, sizeof(header), plain, sizeof(plain), sealed, SEAL_DATAGRAM_MAX);
}

static void test_round_trip(void **state)
{
    uint8_t sealed[SEAL_DATAGRAM_MAX];
    char opened[64];
    size_t size = seal(sealed);

    assert_int_equal(size, sizeof(plain) + SEAL_OVERHEAD);
    assert_int_equal(seal_open(key, header, sizeof(header), sealed, size, opened, sizeof(opened)), sizeof(plain));
    assert_string_equal(opened, plain);
}

static void test_every_changed_byte_is_refused(void **state)
{
    uint8_t sealed[SEAL_DATAGRAM_MAX];
    char opened[64];
    size_t size = seal(sealed);

    for (size_t index = 0; index < size; index++) {
        sealed[index] ^= 0x40;
        assert_int_equal(seal_open(key, header, sizeof(header), sealed, size, opened, sizeof(opened)), -EBADMSG);
        sealed[index] ^= 0x40;
    }
    assert_int_equal(seal_open(key, header, sizeof(header), sealed, size, opened, sizeof(opened)), sizeof(plain));
}

static void test_every_truncation_is_refused(void **state)
{
    uint8_t sealed[SEAL_DATAGRAM_MAX];
    char opened[64];
    size_t size = seal(sealed);

    for (size_t shorter = 0; shorter < size; shorter++)
        assert_int_equal(seal_open(key, header, sizeof(header), sealed, shorter, opened, sizeof(opened)), -EBADMSG);
}

static void test_other_key_header_or_room(void **state)
{
    const uint8_t other_key[SEAL_KEY_SIZE] = {1, 2, 4};
    uint8_t sealed[SEAL_DATAGRAM_MAX];
    char opened[64];
    size_t size = seal(sealed);

    assert_int_equal(seal_open(other_key, header, sizeof(header), sealed, size, opened, sizeof(opened)), -EBADMSG);
    assert_int_equal(seal_open(key, "Header", sizeof(header), sealed, size, opened, sizeof(opened)), -EBADMSG);
    assert_int_equal(seal_open(key, header, sizeof(header) - 1, sealed, size, opened, sizeof(opened)), -EBADMSG);
    assert_int_equal(seal_open(key, header, sizeof(header), sealed, size, opened, sizeof(plain) - 1), -EBADMSG);
}

static void test_nonces_differ(void **state)
{
    uint8_t one[SEAL_DATAGRAM_MAX], two[SEAL_DATAGRAM_MAX];

    seal(one);
    seal(two);
    assert_memory_not_equal(one, two, 24);
}

static void test_empty_plain(void **state)
{
    uint8_t sealed[SEAL_OVERHEAD];

    assert_int_equal(seal_close(key, NULL, 0, NULL, 0, sealed, sizeof(sealed)), SEAL_OVERHEAD);
    assert_int_equal(seal_open(key, NULL, 0, sealed, sizeof(sealed), NULL, 0), 0);
}

static void test_helpers(void **state)
{
    uint8_t one[16], two[16], wiped[16] = {1, 2, 3}, zero[16] = {0};

    seal_hash128("abc", 3, one);
    seal_hash128("abd", 3, two);
    assert_int_not_equal(seal_compare(one, two, sizeof(one)), 0);
    seal_hash128("abc", 3, two);
    assert_int_equal(seal_compare(one, two, sizeof(one)), 0);
    seal_wipe(wiped, sizeof(wiped));
    assert_memory_equal(wiped, zero, sizeof(zero));
}

static int set_up(void **state) { return seal_init(); }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_every_changed_byte_is_refused),
        cmocka_unit_test(test_every_truncation_is_refused),
        cmocka_unit_test(test_other_key_header_or_room),
        cmocka_unit_test(test_nonces_differ),
        cmocka_unit_test(test_empty_plain),
        cmocka_unit_test(test_helpers),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
