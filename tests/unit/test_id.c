/* Identities: text and back, order, refusal of what is no UUID. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>

#include "common/id.h"

static void test_round_trip(void **state)
{
    for (int round = 0; round < 100; round++) {
        struct id id = id_random(), parsed;
        char text[ID_TEXT_SIZE];
        assert_int_equal(id_parse(id_format(&id, text), &parsed), 0);
        assert_true(id_equal(&id, &parsed));
        assert_int_equal(text[14], '4'); /* RFC 9562: version 4, variant 10 */
        assert_int_equal(id.bytes[8] & 0xc0, 0x80);
    }
}

static void test_known_text(void **state)
{
    struct id id;
    char text[ID_TEXT_SIZE];

    assert_int_equal(id_parse("0011AAbb-ccdd-4eff-8899-a0b1c2d3e4f5", &id), 0);
    assert_int_equal(id.bytes[0], 0x00);
    assert_int_equal(id.bytes[2], 0xaa);
    assert_int_equal(id.bytes[15], 0xf5);
    assert_string_equal(id_format(&id, text), "0011aabb-ccdd-4eff-8899-a0b1c2d3e4f5");
}

static void test_refused(void **state)
{
    static const char *const texts[] = {
        "", "0011aabb", "0011aabb-ccdd-4eff-8899-a0b1c2d3e4f", "0011aabb-ccdd-4eff-8899-a0b1c2d3e4f56",
        "0011aabbccdd-4eff-8899-a0b1c2d3e4f5-", "0011aabb-ccdd-4eff-8899-a0b1c2d3e4fg",
        "{011aabb-ccdd-4eff-8899-a0b1c2d3e4f}", "0011aabb+ccdd-4eff-8899-a0b1c2d3e4f5",
    };
    struct id id = id_random(), before = id;

    for (unsigned index = 0; index < sizeof(texts) / sizeof(texts[0]); index++)
        assert_int_equal(id_parse(texts[index], &id), -EINVAL);
    assert_int_equal(id_parse(NULL, &id), -EINVAL);
    assert_true(id_equal(&id, &before));
}

static void test_order(void **state)
{
    struct id low = {{1}}, high = {{0x80}}, null_id = {{0}};

    assert_true(id_compare(&low, &high) < 0); /* bytes are unsigned */
    assert_true(id_compare(&high, &low) > 0);
    assert_int_equal(id_compare(&low, &low), 0);
    assert_true(id_is_null(&null_id));
    assert_false(id_is_null(&low));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_known_text),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
