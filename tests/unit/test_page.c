/* The shared page: a reader sees its writer's words, and notices when the writer was replaced. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "quorum/page.h"

#define PATH_SIZE 64

static int setup(void **state)
{
    static char folder[PATH_SIZE];
    snprintf(folder, sizeof folder, "/tmp/hci-page-XXXXXX");
    *state = folder;
    return mkdtemp(folder) == NULL ? -1 : 0;
}

static const char *path_in(void **state)
{
    static char path[2 * PATH_SIZE];
    snprintf(path, sizeof path, "%s/test.page", (const char *)*state);
    return path;
}

static int teardown(void **state)
{
    unlink(path_in(state));
    return rmdir(*state);
}

static void a_reader_sees_what_the_writer_writes(void **state)
{
    void *made;
    const void *seen;
    struct stat status;
    assert_int_equal(page_make(path_in(state), &made, NULL), 0);
    assert_int_equal(page_open(path_in(state), &seen, NULL), 0);
    assert_int_equal(stat(path_in(state), &status), 0);
    assert_int_equal(status.st_mode & 0777, 0640);
    struct quorum_page *writer = made;
    const struct quorum_page *reader = seen;
    assert_false(quorum_page_lease_valid(reader, 1));
    atomic_store(&writer->peer_until_ns, 100);
    assert_true(quorum_page_lease_valid(reader, 99));
    assert_false(quorum_page_lease_valid(reader, 100));
    atomic_store(&writer->witness_until_ns, 200);
    assert_true(quorum_page_lease_valid(reader, 100));
    page_close(made);
    page_close(seen);
}

static void another_writer_is_noticed(void **state)
{
    void *first, *second;
    const void *seen;
    page_make(path_in(state), &first, NULL);
    page_open(path_in(state), &seen, NULL);
    assert_true(page_is_current(path_in(state), seen));
    assert_true(page_is_current(path_in(state), first));
    page_make(path_in(state), &second, NULL);
    assert_false(page_is_current(path_in(state), seen));
    assert_true(page_is_current(path_in(state), second));
    unlink(path_in(state));
    assert_false(page_is_current(path_in(state), second));
    page_close(first);
    page_close(second);
    page_close(seen);
}

static void no_page_is_no_entry(void **state)
{
    const void *seen = NULL;
    struct err err = {0};
    assert_int_equal(page_open(path_in(state), &seen, &err), -ENOENT);
    assert_string_equal(err.code, "unavailable");
    FILE *file = fopen(path_in(state), "w"); /* too short: a load from it would be SIGBUS */
    fclose(file);
    assert_int_equal(page_open(path_in(state), &seen, &err), -ENOENT);
    assert_null(seen);
    assert_false(page_is_current(path_in(state), NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_reader_sees_what_the_writer_writes, setup, teardown),
        cmocka_unit_test_setup_teardown(another_writer_is_noticed, setup, teardown),
        cmocka_unit_test_setup_teardown(no_page_is_no_entry, setup, teardown),
    };
    return cmocka_run_group_tests_name("page", tests, NULL, NULL);
}
