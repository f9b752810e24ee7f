/* CHAP: only the right user with the right secret, on the challenge of this login, once. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "storaged/iscsi_chap.h"

static char reply[1024];

static int step(struct iscsi_chap *chap, const char *const *pairs, unsigned count)
{
    struct iscsi_text text = {0};
    struct iscsi_text_writer answer = {.data = reply, .size = sizeof(reply)};
    const char *reason = NULL;
    for (unsigned i = 0; i < count; i++)
        text.pairs[text.count++] = (struct iscsi_text_pair){.key = pairs[2 * i], .value = pairs[2 * i + 1]};
    memset(reply, 0, sizeof(reply));
    int r = iscsi_chap_step(chap, &text, &answer, &reason);
    assert_true(r == 0 || reason != NULL);
    return r;
}

static struct iscsi_chap start(const char *algorithms)
{
    struct iscsi_chap chap = {.user = "guest", .secret = "a secret of ours"};
    const char *const pairs[] = {"CHAP_A", algorithms};
    assert_int_equal(step(&chap, pairs, 1), 0);
    assert_int_equal(chap.state, ISCSI_CHAP_EXPECT_RESPONSE);
    return chap;
}

static int answer(struct iscsi_chap *chap, const char *user, const char *secret, bool mutual)
{
    uint8_t digest[ISCSI_CHAP_DIGEST_MAX];
    char text[2 * ISCSI_CHAP_DIGEST_MAX + 3] = "0x";
    size_t size = iscsi_chap_digest(chap->algorithm, chap->identifier, secret, chap->challenge, sizeof(chap->challenge), digest);
    for (size_t i = 0; i < size; i++)
        snprintf(text + 2 + 2 * i, 3, "%02x", digest[i]);
    const char *const pairs[] = {"CHAP_N", user, "CHAP_R", text, "CHAP_I", "1", "CHAP_C", "0x0102030405060708"};
    return step(chap, pairs, mutual ? 4 : 2);
}

static void digest_as_computed_elsewhere(void **state)
{
    /* md5(0x01 "secret" "challenge"), by md5sum */
    static const uint8_t expected[16] = {0x46, 0xe4, 0x77, 0x70, 0x03, 0x0e, 0x2b, 0x4e, 0x26, 0xa0, 0xdb, 0x72, 0xa7, 0xef, 0xec, 0x00};
    uint8_t digest[ISCSI_CHAP_DIGEST_MAX];
    assert_int_equal(iscsi_chap_digest(5, 1, "secret", (const uint8_t *)"challenge", 9, digest), 16);
    assert_memory_equal(digest, expected, 16);
    assert_int_equal(iscsi_chap_digest(7, 1, "secret", (const uint8_t *)"challenge", 9, digest), 32);
    assert_int_equal(iscsi_chap_digest(6, 1, "secret", (const uint8_t *)"challenge", 9, digest), 0);
}

static void right_secret_passes(void **state)
{
    const char *const offers[] = {"5", "7", "6,7,5", "5,7"};
    const uint8_t chosen[] = {5, 7, 7, 7};
    for (unsigned i = 0; i < 4; i++) {
        struct iscsi_chap chap = start(offers[i]);
        assert_int_equal(chap.algorithm, chosen[i]);
        assert_int_equal(answer(&chap, "guest", "a secret of ours", false), 0);
        assert_int_equal(chap.state, ISCSI_CHAP_DONE);
        assert_string_equal(chap.secret, "");
    }
}

static void wrong_answers_fail(void **state)
{
    struct iscsi_chap chap = start("5");
    assert_int_equal(answer(&chap, "guest", "a secret of theirs", false), -EACCES);
    assert_int_equal(answer(&chap, "guest", "a secret of ours", false), -EACCES); /* no second try */
    chap = start("5");
    assert_int_equal(answer(&chap, "gues", "a secret of ours", false), -EACCES);
    chap = start("7");
    const char *const empty[] = {"CHAP_N", "guest", "CHAP_R", "0x"};
    assert_int_equal(step(&chap, empty, 2), -EACCES);
    chap = start("7");
    const char *const nothing[] = {"CHAP_N", "guest"};
    assert_int_equal(step(&chap, nothing, 1), -EACCES);
    iscsi_chap_wipe(&chap);
}

static void challenges_differ(void **state)
{
    struct iscsi_chap first = start("5"), second = start("5");
    assert_memory_not_equal(first.challenge, second.challenge, sizeof(first.challenge));
}

/* RFC 7143 §12.1.3: mutual authentication would let an initiator reflect our challenge; it is refused outright. */
static void mutual_and_reflection_are_refused(void **state)
{
    struct iscsi_chap chap = start("5");
    assert_int_equal(answer(&chap, "guest", "a secret of ours", true), -EACCES);
}

static void unknown_algorithms_are_refused(void **state)
{
    struct iscsi_chap chap = {.user = "guest", .secret = "a secret of ours"};
    const char *const pairs[] = {"CHAP_A", "6,8,55"};
    assert_int_equal(step(&chap, pairs, 1), -EACCES);
    assert_int_equal(step(&chap, pairs, 0), -EACCES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digest_as_computed_elsewhere), cmocka_unit_test(right_secret_passes), cmocka_unit_test(wrong_answers_fail),
        cmocka_unit_test(challenges_differ), cmocka_unit_test(mutual_and_reflection_are_refused),
        cmocka_unit_test(unknown_algorithms_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
