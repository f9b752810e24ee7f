/* Log lines on stderr: one line per sentence, with time, daemon and level; levels above the highest are dropped. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"

/* What log_write puts on stderr, as text. */
static void capture(enum log_level level, const char *sentence, char *ret, size_t size)
{
    int pipes[2], before = dup(STDERR_FILENO);

    assert_int_equal(pipe(pipes), 0);
    assert_true(dup2(pipes[1], STDERR_FILENO) >= 0);
    log_write(level, "%s", sentence);
    assert_true(dup2(before, STDERR_FILENO) >= 0);
    close(before);
    close(pipes[1]);
    ssize_t got = read(pipes[0], ret, size - 1);
    assert_true(got >= 0);
    ret[got] = '\0';
    close(pipes[0]);
}

static void test_line(void **state)
{
    char line[4096];

    capture(LOG_LEVEL_NOTICE, "group 'db1': serving", line, sizeof(line));
    assert_int_equal(strlen(line), strlen("2026-01-01T00:00:00.000000Z hci-test: group 'db1': serving\n"));
    assert_int_equal(line[10], 'T');
    assert_int_equal(line[26], 'Z');
    assert_string_equal(line + 28, "hci-test: group 'db1': serving\n");
    capture(LOG_LEVEL_ERROR, "disk gone", line, sizeof(line));
    assert_string_equal(line + 28, "hci-test: error: disk gone\n");
}

static void test_level(void **state)
{
    char line[4096];

    capture(LOG_LEVEL_INFO, "shown", line, sizeof(line));
    assert_non_null(strstr(line, "shown"));
    capture(LOG_LEVEL_DEBUG, "dropped", line, sizeof(line));
    assert_string_equal(line, "");
}

static void test_long_sentence_is_cut(void **state)
{
    char sentence[5000], line[8192];

    memset(sentence, 'x', sizeof(sentence) - 1);
    sentence[sizeof(sentence) - 1] = '\0';
    capture(LOG_LEVEL_WARNING, sentence, line, sizeof(line));
    assert_true(strlen(line) < 2300);
    assert_int_equal(line[strlen(line) - 1], '\n');
}

static void test_clock(void **state)
{
    uint64_t before_ns = clock_boottime_ns();
    usleep(2000);
    uint64_t after_ns = clock_boottime_ns();

    assert_true(after_ns - before_ns >= 2 * NSEC_PER_MSEC);
    assert_true(clock_boottime_ms() >= after_ns / NSEC_PER_MSEC);
}

static int set_up(void **state)
{
    unsetenv("JOURNAL_STREAM");
    log_init("hci-test", LOG_LEVEL_INFO);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_line),
        cmocka_unit_test(test_level),
        cmocka_unit_test(test_long_sentence_is_cut),
        cmocka_unit_test(test_clock),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
