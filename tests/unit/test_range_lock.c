/* Range locks: who waits for whom, in which order, and what a withdrawal sets free. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "storaged/group/range_lock.h"

static char story[64];

struct named {
    struct range_lock_entry entry;
    char name;
    struct range_lock *release_in; /* releases `other` when granted */
    struct named *other;
};

static void granted(struct range_lock_entry *entry)
{
    struct named *named = list_entry(entry, struct named, entry);
    size_t length = strlen(story);
    story[length] = named->name;
    if (named->release_in)
        range_lock_release(named->release_in, &named->other->entry);
}

static bool take(struct range_lock *lock, struct named *named, char name, uint64_t block, uint64_t count, bool exclusive)
{
    *named = (struct named){.entry = {.block = block, .count = count, .exclusive = exclusive, .granted = granted}, .name = name};
    return range_lock_take(lock, &named->entry);
}

static void fresh(struct range_lock *lock)
{
    memset(story, 0, sizeof story);
    range_lock_init(lock);
}

static void test_conflicts(void **state)
{
    struct range_lock lock;
    struct named read, read2, write, apart, write2;
    fresh(&lock);
    assert_true(take(&lock, &read, 'a', 0, 4, false));
    assert_true(take(&lock, &read2, 'b', 2, 4, false));  /* reads overlap */
    assert_false(take(&lock, &write, 'c', 3, 1, true));  /* waits for both */
    assert_true(take(&lock, &apart, 'd', 6, 10, true));  /* touches nothing */
    assert_false(take(&lock, &write2, 'e', 15, 3, true));
    range_lock_release(&lock, &read.entry);
    assert_string_equal(story, "");
    range_lock_release(&lock, &read2.entry);
    assert_string_equal(story, "c");
    range_lock_release(&lock, &apart.entry);
    assert_string_equal(story, "ce");
    range_lock_release(&lock, &write.entry);
    range_lock_release(&lock, &write2.entry);
    range_lock_release(&lock, &write2.entry); /* harmless */
    assert_true(range_lock_is_free(&lock));
}

/* A read does not overtake a waiting write: no writer starves. */
static void test_fair(void **state)
{
    struct range_lock lock;
    struct named first, write, read;
    fresh(&lock);
    assert_true(take(&lock, &first, 'a', 0, 8, false));
    assert_false(take(&lock, &write, 'b', 0, 8, true));
    assert_false(take(&lock, &read, 'c', 0, 8, false));
    range_lock_release(&lock, &first.entry);
    assert_string_equal(story, "b");
    range_lock_release(&lock, &write.entry);
    assert_string_equal(story, "bc");
    range_lock_release(&lock, &read.entry);
    assert_true(range_lock_is_free(&lock));
}

static void test_withdraw(void **state)
{
    struct range_lock lock;
    struct named first, write, read;
    fresh(&lock);
    assert_true(take(&lock, &first, 'a', 0, 8, false));
    assert_false(take(&lock, &write, 'b', 0, 8, true));
    assert_false(take(&lock, &read, 'c', 0, 8, false));
    range_lock_release(&lock, &write.entry); /* stops waiting: the read behind it may go */
    assert_string_equal(story, "c");
    range_lock_release(&lock, &first.entry);
    range_lock_release(&lock, &read.entry);
    assert_true(range_lock_is_free(&lock));
}

/* A callback may release what was granted with it but was not told yet. */
static void test_release_in_callback(void **state)
{
    struct range_lock lock;
    struct named first, left, right, behind;
    fresh(&lock);
    assert_true(take(&lock, &first, 'a', 0, 8, true));
    assert_false(take(&lock, &left, 'b', 0, 4, true));
    assert_false(take(&lock, &right, 'c', 4, 4, true));
    assert_false(take(&lock, &behind, 'd', 4, 4, true));
    left.release_in = &lock;
    left.other = &right;
    range_lock_release(&lock, &first.entry);
    assert_string_equal(story, "bd");
    range_lock_release(&lock, &left.entry);
    range_lock_release(&lock, &behind.entry);
    assert_true(range_lock_is_free(&lock));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conflicts),
        cmocka_unit_test(test_fair),
        cmocka_unit_test(test_withdraw),
        cmocka_unit_test(test_release_in_callback),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
