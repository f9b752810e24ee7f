/* storaged's claims over the control socket: what does not fit is left out, never the whole. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "quorum/claims.h"

static json_t *ids(unsigned count, uint8_t kind)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < count; i++) {
        struct id id = {.bytes = {kind, (uint8_t)(i + 1)}};
        char text[ID_TEXT_SIZE];
        json_array_append_new(list, json_string(id_format(&id, text)));
    }
    return list;
}

static int take(json_t *primary, json_t *sole, struct claims *ret)
{
    json_t *params = json_pack("{s:o, s:o}", "primary", primary, "sole", sole);
    int error = claims_take(params, ret);
    json_decref(params);
    return error;
}

static void both_lists_are_taken(void **state)
{
    struct claims claims;
    assert_int_equal(take(ids(2, 1), ids(1, 2), &claims), 0);
    assert_int_equal(claims.primary_count, 2);
    assert_int_equal(claims.sole_count, 1);
    assert_int_equal(claims.sole[0].bytes[0], 2);
    assert_true(claims.serves_primary);
    assert_int_equal(claims.refused, 0);
    assert_int_equal(take(ids(0, 1), ids(1, 2), &claims), 0);
    assert_false(claims.serves_primary);
}

static void too_many_primaries_cost_no_sole_claim(void **state)
{
    struct claims claims;
    assert_int_equal(take(ids(WIRE_CLAIMS_MAX + 4, 1), ids(3, 2), &claims), 0);
    assert_int_equal(claims.primary_count, WIRE_CLAIMS_MAX);
    assert_true(claims.serves_primary);
    assert_int_equal(claims.sole_count, 3);
    assert_int_equal(claims.refused, 4);
}

static void too_many_soles_cost_no_primary_claim(void **state)
{
    struct claims claims;
    assert_int_equal(take(ids(1, 1), ids(FREEZE_GROUPS_MAX + 1, 2), &claims), 0);
    assert_int_equal(claims.primary_count, 1);
    assert_int_equal(claims.sole_count, FREEZE_GROUPS_MAX);
    assert_int_equal(claims.refused, 1);
}

static void what_is_malformed_is_refused(void **state)
{
    struct claims claims;
    assert_int_equal(take(json_string("x"), ids(1, 2), &claims), -EINVAL);
    assert_int_equal(take(ids(1, 1), json_pack("[s]", "not an id"), &claims), -EINVAL);
    assert_int_equal(take(json_pack("[i]", 7), ids(1, 2), &claims), -EINVAL);
}

static void a_fence_needs_its_group(void **state)
{
    struct id group, wanted = {.bytes = {9}}, null = {0};
    char text[ID_TEXT_SIZE];
    json_t *params = json_pack("{s:s}", "group", id_format(&wanted, text));
    assert_int_equal(claims_take_group(params, &group), 0);
    assert_true(id_equal(&group, &wanted));
    json_object_set_new(params, "group", json_string(id_format(&null, text)));
    assert_int_equal(claims_take_group(params, &group), -EINVAL);
    json_object_del(params, "group");
    assert_int_equal(claims_take_group(params, &group), -EINVAL);
    json_decref(params);
    assert_int_equal(claims_take_group(NULL, &group), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_lists_are_taken),
        cmocka_unit_test(too_many_primaries_cost_no_sole_claim),
        cmocka_unit_test(too_many_soles_cost_no_primary_claim),
        cmocka_unit_test(what_is_malformed_is_refused),
        cmocka_unit_test(a_fence_needs_its_group),
    };
    return cmocka_run_group_tests_name("claims", tests, NULL, NULL);
}
