/* Sizes on the command line: binary units in, sentences for junk, never more told than there is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>

#include "cli/size.h"

static uint64_t parsed(const char *text)
{
    struct err err = {0};
    uint64_t bytes = 0;
    assert_int_equal(size_parse(text, &bytes, &err), 0);
    return bytes;
}

static void refused(const char *text, const char *why)
{
    struct err err = {0};
    uint64_t bytes = 77;
    assert_int_equal(size_parse(text, &bytes, &err), -EINVAL);
    assert_int_equal(bytes, 77);
    assert_string_equal(err.code, "invalid");
    if (!strstr(err.text, why))
        fail_msg("'%s': \"%s\" does not say \"%s\"", text, err.text, why);
}

static void test_units_are_binary(void **state)
{
    assert_int_equal(parsed("64K"), UINT64_C(64) << 10);
    assert_int_equal(parsed("512M"), UINT64_C(512) << 20);
    assert_int_equal(parsed("10G"), UINT64_C(10) << 30);
    assert_int_equal(parsed("1T"), UINT64_C(1) << 40);
    assert_int_equal(parsed("2p"), UINT64_C(2) << 50);
    assert_int_equal(parsed("10g"), UINT64_C(10) << 30);
    assert_int_equal(parsed("10GiB"), UINT64_C(10) << 30);
    assert_int_equal(parsed("0010M"), UINT64_C(10) << 20);
}

static void test_junk_is_refused_with_a_sentence(void **state)
{
    refused("", "does not begin with a number");
    refused("G", "does not begin with a number");
    refused("-1G", "does not begin with a number");
    refused(" 1G", "does not begin with a number");
    refused("10", "no unit");
    refused("1.5T", "not a whole number");
    refused("1,5T", "not a whole number");
    refused("10X", "unit is not known");
    refused("10B", "unit is not known");
    refused("10GB", "decimal units");
    refused("10G ", "something follows");
    refused("10GG", "something follows");
    refused("0G", "nothing");
}

static void test_the_largest_are_refused_without_overflow(void **state)
{
    assert_int_equal(parsed("4096P"), UINT64_C(1) << 62);
    refused("4097P", "too large");
    refused("18446744073709551616K", "too large");
    refused("18446744073709551615K", "too large");
    refused("99999999999999999999999G", "too large");
}

static const char *formatted(uint64_t bytes)
{
    static char text[SIZE_TEXT_MAX];
    return size_format(bytes, text);
}

static void test_sizes_are_told_rounded_down(void **state)
{
    assert_string_equal(formatted(0), "0 B");
    assert_string_equal(formatted(1023), "1023 B");
    assert_string_equal(formatted(1024), "1 KiB");
    assert_string_equal(formatted(1536), "1.5 KiB");
    assert_string_equal(formatted(UINT64_C(10) << 30), "10 GiB");
    assert_string_equal(formatted((UINT64_C(10) << 30) - 1), "9.9 GiB");
    assert_string_equal(formatted(UINT64_C(3) << 49), "1.5 PiB");
    assert_string_equal(formatted(UINT64_MAX), "16383.9 PiB");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_units_are_binary),
        cmocka_unit_test(test_junk_is_refused_with_a_sentence),
        cmocka_unit_test(test_the_largest_are_refused_without_overflow),
        cmocka_unit_test(test_sizes_are_told_rounded_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
