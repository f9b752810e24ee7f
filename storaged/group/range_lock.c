/* Range locks as one list in order of arrival: an entry waits for as many earlier ones as it is in conflict with. */
#include "storaged/group/range_lock.h"

#include "common/check.h"

static bool conflict(const struct range_lock_entry *left, const struct range_lock_entry *right)
{
    return (left->exclusive || right->exclusive) && left->block < right->block + right->count &&
           right->block < left->block + left->count;
}

void range_lock_init(struct range_lock *lock)
{
    list_init(&lock->entries);
}

bool range_lock_take(struct range_lock *lock, struct range_lock_entry *entry)
{
    check(!entry->taken && entry->count > 0 && entry->granted);
    entry->blockers = 0;
    entry->taken = true;
    list_init(&entry->ready);
    list_for_each(item, &lock->entries)
        entry->blockers += conflict(list_entry(item, struct range_lock_entry, link), entry);
    list_append(&lock->entries, &entry->link);
    return entry->blockers == 0;
}

/* Those that waited for nothing but `gone` come to the list `ready`. */
static void unblock(struct range_lock *lock, const struct range_lock_entry *gone, struct list *after, struct list *ready)
{
    for (struct list *item = after; item != &lock->entries; item = item->next) {
        struct range_lock_entry *entry = list_entry(item, struct range_lock_entry, link);
        if (!conflict(entry, gone))
            continue;
        check(entry->blockers > 0);
        if (--entry->blockers == 0)
            list_append(ready, &entry->ready);
    }
}

void range_lock_release(struct range_lock *lock, struct range_lock_entry *entry)
{
    if (!entry->taken)
        return;
    struct list ready, *after = entry->link.next;
    list_init(&ready);
    list_remove(&entry->link);
    list_remove(&entry->ready); /* granted, but not told yet */
    entry->taken = false;
    unblock(lock, entry, after, &ready);
    /* One at a time from the head: a callback may release others of this very list. */
    while (!list_is_empty(&ready)) {
        struct range_lock_entry *next = list_entry(ready.next, struct range_lock_entry, ready);
        list_remove(&next->ready);
        next->granted(next);
    }
}

bool range_lock_is_free(const struct range_lock *lock)
{
    return list_is_empty(&lock->entries);
}
