/* CHAP: only the right user with the right secret, on the challenge of this login, once. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "storaged/iscsi/iscsi_chap.h"

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

static const char *to_hex(const uint8_t *data, size_t size, char *ret)
{
    strcpy(ret, "0x");
    for (size_t i = 0; i < size; i++)
        sprintf(ret + 2 + 2 * i, "%02x", data[i]);
    return ret;
}

/* With a challenge for the target, when it is not NULL. */
static int answer_and_ask(struct iscsi_chap *chap, const char *user, const char *secret, const char *identifier, const char *challenge)
{
    uint8_t digest[ISCSI_CHAP_DIGEST_MAX];
    char text[2 * ISCSI_CHAP_DIGEST_MAX + 3];
    size_t size = iscsi_chap_digest(chap->algorithm, chap->identifier, secret, chap->challenge, sizeof(chap->challenge), digest);
    const char *const pairs[] = {"CHAP_N", user, "CHAP_R", to_hex(digest, size, text), "CHAP_I", identifier, "CHAP_C", challenge};
    return step(chap, pairs, challenge ? 4 : 2);
}

static int answer(struct iscsi_chap *chap, const char *user, const char *secret)
{
    return answer_and_ask(chap, user, secret, NULL, NULL);
}

static void digest_as_computed_elsewhere(void **state)
{
    /* md5(0x01 "secret" "challenge"), by md5sum */
    static const uint8_t expected[16] = {0x46, 0xe4, 0x77, 0x70, 0x03, 0x0e, 0x2b, 0x4e, 0x26, 0xa0, 0xdb, 0x72, 0xa7, 0xef, 0xec, 0x00};
    uint8_t digest[ISCSI_CHAP_DIGEST_MAX];
    assert_int_equal(iscsi_chap_digest(5, 1, "secret", (const uint8_t *)"challenge", 9, digest), 16);
    assert_memory_equal(digest, expected, 16);
    assert_int_equal(iscsi_chap_digest(7, 1, "secret", (const uint8_t *)"challenge", 9, digest), 32);
    assert_int_equal(iscsi_chap_digest(8, 1, "secret", (const uint8_t *)"challenge", 9, digest), 32);
    assert_int_equal(iscsi_chap_digest(6, 1, "secret", (const uint8_t *)"challenge", 9, digest), 20);
    assert_int_equal(iscsi_chap_digest(4, 1, "secret", (const uint8_t *)"challenge", 9, digest), 0);
}

static void right_secret_passes(void **state)
{
    const char *const offers[] = {"5", "7", "6,7,5", "5,7", "5,6", "5,6,8"};
    const uint8_t chosen[] = {5, 7, 7, 7, 6, 8};
    for (unsigned i = 0; i < 6; i++) {
        struct iscsi_chap chap = start(offers[i]);
        assert_int_equal(chap.algorithm, chosen[i]);
        assert_int_equal(answer(&chap, "guest", "a secret of ours"), 0);
        assert_int_equal(chap.state, ISCSI_CHAP_DONE);
        assert_string_equal(chap.secret, "");
    }
}

static void wrong_answers_fail(void **state)
{
    struct iscsi_chap chap = start("5");
    assert_int_equal(answer(&chap, "guest", "a secret of theirs"), -EACCES);
    assert_int_equal(answer(&chap, "guest", "a secret of ours"), -EACCES); /* no second try */
    chap = start("5");
    assert_int_equal(answer(&chap, "gues", "a secret of ours"), -EACCES);
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

static struct iscsi_chap start_mutual(const char *algorithm, const char *secret)
{
    struct iscsi_chap chap = start(algorithm);
    chap.mutual = true;
    strcpy(chap.mutual_user, "target");
    strcpy(chap.mutual_secret, secret);
    return chap;
}

static void the_target_proves_itself(void **state)
{
    static const char *const offers[] = {"5", "6", "7", "8"};
    for (unsigned i = 0; i < 4; i++) {
        struct iscsi_chap chap = start_mutual(offers[i], "another secret");
        uint8_t algorithm = chap.algorithm, digest[ISCSI_CHAP_DIGEST_MAX];
        char expected[128], hex[80];
        assert_int_equal(answer_and_ask(&chap, "guest", "a secret of ours", "200", "0x0102030405060708"), 0);
        assert_int_equal(chap.state, ISCSI_CHAP_DONE);
        size_t size = iscsi_chap_digest(algorithm, 200, "another secret", (const uint8_t *)"\1\2\3\4\5\6\7\10", 8, digest);
        sprintf(expected, "CHAP_R=%s", to_hex(digest, size, hex));
        assert_string_equal(reply, "CHAP_N=target");
        assert_string_equal(reply + strlen(reply) + 1, expected);
        assert_string_equal(chap.mutual_secret, "");
    }
}

/* RFC 7143 §12.1.3: neither a stranger nor one who sends our own challenge gets an answer to learn from. */
static void nobody_else_gets_an_answer(void **state)
{
    char own[2 * ISCSI_CHAP_CHALLENGE_SIZE + 3];
    struct iscsi_chap chap = start_mutual("5", "another secret");
    assert_int_equal(answer_and_ask(&chap, "guest", "a wrong secret", "1", "0x0102030405060708"), -EACCES);
    assert_string_equal(reply, "");
    chap = start_mutual("5", "another secret");
    to_hex(chap.challenge, sizeof(chap.challenge), own);
    assert_int_equal(answer_and_ask(&chap, "guest", "a secret of ours", "1", own), -EACCES);
    assert_string_equal(reply, "");
    chap = start_mutual("5", "a secret of ours"); /* the same both ways */
    assert_int_equal(answer_and_ask(&chap, "guest", "a secret of ours", "1", "0x0102030405060708"), -EACCES);
    assert_string_equal(reply, "");
    chap = start("5"); /* none set */
    assert_int_equal(answer_and_ask(&chap, "guest", "a secret of ours", "1", "0x0102030405060708"), -EACCES);
    static const char *const identifiers[] = {"256", "x", ""};
    for (unsigned i = 0; i < 3; i++) {
        chap = start_mutual("5", "another secret");
        assert_int_equal(answer_and_ask(&chap, "guest", "a secret of ours", identifiers[i], "0x0102030405060708"), -EACCES);
        assert_string_equal(reply, "");
    }
}

/* Who has no secret set has none that could be guessed. */
static void empty_credentials_pass_nobody(void **state)
{
    struct iscsi_chap chap = {.user = "", .secret = ""};
    const char *const pairs[] = {"CHAP_A", "5"};
    assert_int_equal(step(&chap, pairs, 1), 0);
    assert_int_equal(answer(&chap, "", ""), -EACCES);
}

static void credentials_are_known_again(void **state)
{
    struct iscsi_credential credential = {0};
    assert_false(iscsi_credential_is(&credential, "", ""));
    assert_int_equal(iscsi_credential_keep(&credential, "guest", "a secret of ours"), 0);
    assert_true(iscsi_credential_is(&credential, "guest", "a secret of ours"));
    assert_false(iscsi_credential_is(&credential, "guest", "a secret of theirs"));
    assert_false(iscsi_credential_is(&credential, "other", "a secret of ours"));
}

static void unknown_algorithms_are_refused(void **state)
{
    struct iscsi_chap chap = {.user = "guest", .secret = "a secret of ours"};
    const char *const pairs[] = {"CHAP_A", "1,4,55"};
    assert_int_equal(step(&chap, pairs, 1), -EACCES);
    assert_int_equal(step(&chap, pairs, 0), -EACCES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digest_as_computed_elsewhere), cmocka_unit_test(right_secret_passes), cmocka_unit_test(wrong_answers_fail),
        cmocka_unit_test(challenges_differ), cmocka_unit_test(the_target_proves_itself),
        cmocka_unit_test(nobody_else_gets_an_answer), cmocka_unit_test(empty_credentials_pass_nobody),
        cmocka_unit_test(credentials_are_known_again),
        cmocka_unit_test(unknown_algorithms_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
