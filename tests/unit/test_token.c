/* Enrolment tokens: text and back, refusal of what is no token. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "common/seal.h"
#include "common/token.h"

static void test_round_trip(void **state)
{
    for (int round = 0; round < 100; round++) {
        uint8_t sha256[32];
        struct token token, parsed;
        char text[TOKEN_TEXT_SIZE];

        seal_random(sha256, sizeof(sha256));
        token_new(&token, sha256);
        token_format(&token, text);
        assert_int_equal(strlen(text), 5 + 77);
        assert_memory_equal(text, "hci1-", 5);
        assert_int_equal(token_parse(text, &parsed), 0);
        assert_memory_equal(&token, &parsed, sizeof(token));
        assert_memory_equal(parsed.ca_sha256, sha256, sizeof(sha256));
    }
}

static void test_known_text(void **state)
{
    struct token token = {0};
    char text[TOKEN_TEXT_SIZE];

    token.ca_sha256[0] = 0xf8; /* five one bits, then zeros */
    token.secret[15] = 0x01;
    token_format(&token, text);
    assert_memory_equal(text, "hci1-7aaa", 9);
    assert_string_equal(text + strlen(text) - 3, "aac"); /* 384 = 76·5 + 4: the last digit holds four bits */
}

static void test_refused(void **state)
{
    struct token token, parsed;
    uint8_t sha256[32] = {0};
    char text[TOKEN_TEXT_SIZE], changed[TOKEN_TEXT_SIZE + 1];

    token_new(&token, sha256);
    token_format(&token, text);
    assert_int_equal(token_parse(NULL, &parsed), -EINVAL);
    assert_int_equal(token_parse("", &parsed), -EINVAL);
    memcpy(changed, text, sizeof(text));
    changed[3] = '2'; /* another version */
    assert_int_equal(token_parse(changed, &parsed), -EINVAL);
    memcpy(changed, text, sizeof(text));
    changed[20] = '1'; /* no digit of base32 */
    assert_int_equal(token_parse(changed, &parsed), -EINVAL);
    memcpy(changed, text, sizeof(text));
    changed[strlen(text) - 1] = '\0';
    assert_int_equal(token_parse(changed, &parsed), -EINVAL);
    memcpy(changed, text, sizeof(text));
    strcat(changed, "a");
    assert_int_equal(token_parse(changed, &parsed), -EINVAL);
    memcpy(changed, text, sizeof(text));
    changed[strlen(text) - 1] = 'b'; /* the bit beyond the payload is set */
    assert_int_equal(token_parse(changed, &parsed), -EINVAL);
}

static int set_up(void **state) { return seal_init(); }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_known_text),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
