/* Small files: limits, atomic replacement, modes, folders. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/err.h"
#include "common/files.h"

static char folder[] = "/tmp/hci-test-files.XXXXXX";

static const char *path_of(const char *name)
{
    static char path[256];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

static unsigned count_entries(void)
{
    unsigned count = 0;
    DIR *directory = opendir(folder);

    assert_non_null(directory);
    while (readdir(directory) != NULL)
        count++;
    closedir(directory);
    return count - 2; /* . and .. */
}

static void test_replace_and_read(void **state)
{
    struct err err;
    struct stat status;
    cleanup_free char *data = NULL;
    size_t size = 0;

    assert_int_equal(files_replace(path_of("one"), "old", 3, 0644, &err), 0);
    assert_int_equal(files_replace(path_of("one"), "newer\0x", 7, 0600, &err), 0);
    assert_int_equal(files_read(path_of("one"), 7, &data, &size, &err), 0);
    assert_int_equal(size, 7);
    assert_memory_equal(data, "newer\0x\0", 8);
    assert_int_equal(stat(path_of("one"), &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_int_equal(count_entries(), 1); /* no temporary file stays */
    unlink(path_of("one"));
}

static void test_read_limit(void **state)
{
    struct err err;
    char *data = NULL;

    assert_int_equal(files_replace(path_of("big"), "12345678", 8, 0600, &err), 0);
    assert_int_equal(files_read(path_of("big"), 7, &data, NULL, &err), -EFBIG);
    assert_null(data);
    assert_string_equal(err.code, "too_large");
    assert_non_null(strstr(err.text, "big: is larger than 7 bytes"));
    unlink(path_of("big"));
}

static void test_read_missing_and_empty(void **state)
{
    struct err err;
    char *data = NULL;
    size_t size = 9;

    assert_int_equal(files_read(path_of("none"), 10, &data, &size, &err), -ENOENT);
    assert_string_equal(err.code, "missing");
    assert_int_equal(files_replace(path_of("empty"), "", 0, 0600, &err), 0);
    assert_int_equal(files_read(path_of("empty"), 0, &data, &size, &err), 0);
    assert_int_equal(size, 0);
    assert_string_equal(data, "");
    free(data);
    unlink(path_of("empty"));
}

static void test_read_larger_than_a_step(void **state)
{
    struct err err;
    enum { SIZE = 100 * 1000 };
    cleanup_free char *written = malloc(SIZE);
    cleanup_free char *data = NULL;
    size_t size = 0;

    for (int index = 0; index < SIZE; index++)
        written[index] = (char)(index * 7);
    assert_int_equal(files_replace(path_of("steps"), written, SIZE, 0600, &err), 0);
    assert_int_equal(files_read(path_of("steps"), SIZE, &data, &size, &err), 0);
    assert_int_equal(size, SIZE);
    assert_memory_equal(data, written, SIZE);
    unlink(path_of("steps"));
}

static void test_replace_in_missing_folder(void **state)
{
    struct err err;

    assert_int_equal(files_replace(path_of("no/where"), "x", 1, 0600, &err), -ENOENT);
    assert_string_equal(err.code, "io");
}

static void test_make_folder(void **state)
{
    struct err err;
    struct stat status;

    assert_int_equal(files_make_folder(path_of("a/b/c"), 0700, &err), 0);
    assert_int_equal(files_make_folder(path_of("a/b/c"), 0700, &err), 0);
    assert_int_equal(stat(path_of("a/b/c"), &status), 0);
    assert_int_equal(status.st_mode & 07777, 0700);
    assert_int_equal(files_replace(path_of("a/file"), "x", 1, 0600, &err), 0);
    assert_int_equal(files_make_folder(path_of("a/file"), 0700, &err), -ENOTDIR);
    assert_int_equal(files_make_folder(path_of("a/file/b"), 0700, &err), -ENOTDIR);
    unlink(path_of("a/file"));
    rmdir(path_of("a/b/c"));
    rmdir(path_of("a/b"));
    rmdir(path_of("a"));
}

static int set_up(void **state) { return mkdtemp(folder) == NULL; }
static int tear_down(void **state) { return rmdir(folder); }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replace_and_read),          cmocka_unit_test(test_read_limit),
        cmocka_unit_test(test_read_missing_and_empty),    cmocka_unit_test(test_read_larger_than_a_step),
        cmocka_unit_test(test_replace_in_missing_folder), cmocka_unit_test(test_make_folder),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
