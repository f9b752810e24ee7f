/* Bounded cursors, errors and state tables: nothing is read, written or moved beyond what is allowed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/bytes.h"
#include "common/err.h"
#include "common/fsm.h"
#include "common/list.h"

static void test_round_trip(void **state)
{
    uint8_t data[32];
    struct bytes_writer writer = bytes_writer_of(data, sizeof(data));

    bytes_put_u8(&writer, 0x12);
    bytes_put_u16(&writer, 0x3456);
    bytes_put_u32(&writer, 0x789abcde);
    bytes_put_u64(&writer, 0x1122334455667788);
    bytes_put(&writer, "abc", 3);
    assert_false(writer.failed);
    assert_int_equal(bytes_written(&writer), 18);
    assert_int_equal(data[1], 0x56); /* little-endian */

    struct bytes_reader reader = bytes_reader_of(data, bytes_written(&writer));
    char text[4] = "";
    assert_int_equal(bytes_get_u8(&reader), 0x12);
    assert_int_equal(bytes_get_u16(&reader), 0x3456);
    assert_int_equal(bytes_get_u32(&reader), 0x789abcde);
    assert_true(bytes_get_u64(&reader) == 0x1122334455667788);
    assert_false(bytes_done(&reader));
    bytes_get(&reader, text, 3);
    assert_string_equal(text, "abc");
    assert_true(bytes_done(&reader));
}

static void test_read_past_end(void **state)
{
    const uint8_t data[3] = {1, 2, 3};
    struct bytes_reader reader = bytes_reader_of(data, sizeof(data));
    uint8_t rest[2] = {9, 9};

    assert_int_equal(bytes_get_u32(&reader), 0);
    assert_true(reader.failed);
    assert_int_equal(bytes_get_u8(&reader), 0); /* stays failed although three bytes are there */
    bytes_get(&reader, rest, sizeof(rest));
    assert_int_equal(rest[0] + rest[1], 0);
    assert_int_equal(bytes_left(&reader), 0);
    assert_null(bytes_take(&reader, 1));
    assert_false(bytes_done(&reader));
}

static void test_read_of_huge_size(void **state)
{
    const uint8_t data[3] = {1, 2, 3};
    struct bytes_reader reader = bytes_reader_of(data, sizeof(data));

    assert_null(bytes_take(&reader, SIZE_MAX));
    assert_true(reader.failed);
}

static void test_empty(void **state)
{
    struct bytes_reader reader = bytes_reader_of(NULL, 0);
    struct bytes_writer writer = bytes_writer_of(NULL, 0);

    bytes_get(&reader, NULL, 0);
    assert_true(bytes_done(&reader));
    bytes_put(&writer, NULL, 0);
    assert_false(writer.failed);
    bytes_put_u8(&writer, 1);
    assert_true(writer.failed);
    assert_int_equal(bytes_written(&writer), 0);
}

static void test_write_past_end(void **state)
{
    uint8_t data[4] = {0, 0, 0, 0xee};
    struct bytes_writer writer = bytes_writer_of(data, 3);

    bytes_put_u16(&writer, 0x0201);
    bytes_put_u16(&writer, 0x0403);
    assert_true(writer.failed);
    bytes_put_u8(&writer, 5); /* would fit, but a gap must not arise */
    assert_int_equal(bytes_written(&writer), 2);
    assert_int_equal(data[2], 0);
    assert_int_equal(data[3], 0xee);
}

static void test_big_endian(void **state)
{
    uint8_t data[8];

    put_be64(data, 0x0102030405060708);
    assert_int_equal(data[0], 1);
    assert_true(be64_at(data) == 0x0102030405060708);
    assert_int_equal(be24_at(data + 5), 0x060708);
    put_be24(data, 0xffeedd);
    assert_int_equal(be32_at(data), 0xffeedd04);
    put_be32(data, 0xfedcba98);
    assert_true(be32_at(data) == 0xfedcba98);
    put_be16(data, 0xfffe);
    assert_int_equal(be16_at(data), 0xfffe);
}

static void test_err(void **state)
{
    struct err err;
    char longest[3000];

    assert_int_equal(err_set(&err, -EEXIST, "exists", "volume '%s': exists", "db1"), -EEXIST);
    assert_string_equal(err.code, "exists");
    assert_int_equal(err_prefix(&err, -EEXIST, "node %s", "b"), -EEXIST);
    assert_string_equal(err.text, "node b: volume 'db1': exists");
    assert_int_equal(err_set(&err, -EIO, "io", "again: %s", err.text), -EIO); /* from itself */
    assert_string_equal(err.text, "again: node b: volume 'db1': exists");
    assert_int_equal(err_set(NULL, -EIO, "io", "nobody reads"), -EIO);
    assert_int_equal(err_prefix(NULL, -EIO, "nobody reads"), -EIO);

    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    err_set(&err, -EIO, "a code that is far too long to fit", "%s", longest);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    err_prefix(&err, -EIO, "%s", longest);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    assert_int_equal(strlen(err.code), sizeof(err.code) - 1);
}

enum { IDLE, RUNNING, ENDED };
static const struct fsm_state states[] = {
    [IDLE] = {"idle", FSM_BIT(RUNNING), "nothing happened yet"},
    [RUNNING] = {"running", FSM_BIT(ENDED) | FSM_BIT(IDLE), "it runs"},
    [ENDED] = {"ended", 0, "it is over"},
};
static const struct fsm_table table = {.name = "test", .count = 3, .states = states};

static void test_fsm_allowed(void **state)
{
    int current = IDLE;

    fsm_move(&table, &current, RUNNING);
    fsm_move(&table, &current, IDLE);
    fsm_move(&table, &current, RUNNING);
    fsm_move(&table, &current, ENDED);
    assert_string_equal(fsm_name(&table, current), "ended");
}

static void test_fsm_forbidden_move_aborts(void **state)
{
    pid_t child = fork();
    int status = 0, current = IDLE;

    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        close(STDERR_FILENO);
        fsm_move(&table, &current, ENDED);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void test_list(void **state)
{
    struct entry {
        int value;
        struct list item;
    } entries[3] = {{.value = 1}, {.value = 2}, {.value = 4}};
    struct list head;
    int sum = 0;

    list_init(&head);
    for (int index = 0; index < 3; index++)
        list_append(&head, &entries[index].item);
    list_for_each_safe(item, after, &head) {
        sum = sum * 10 + list_entry(item, struct entry, item)->value;
        list_remove(item);
        list_remove(item);
    }
    assert_int_equal(sum, 124);
    assert_true(list_is_empty(&head));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),      cmocka_unit_test(test_read_past_end),
        cmocka_unit_test(test_read_of_huge_size), cmocka_unit_test(test_empty),
        cmocka_unit_test(test_write_past_end),  cmocka_unit_test(test_big_endian),
        cmocka_unit_test(test_err),             cmocka_unit_test(test_fsm_allowed),
        cmocka_unit_test(test_fsm_forbidden_move_aborts), cmocka_unit_test(test_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
