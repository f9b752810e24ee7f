/* Intrusive doubly linked lists: no allocation, one owner per list. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *next, *previous;
};

#define list_entry(pointer, type, member) ((type *)((char *)(pointer) - offsetof(type, member)))
#define list_for_each(item, head) for (struct list *item = (head)->next; item != (head); item = item->next)
/* `item` may be removed inside the loop. */
#define list_for_each_safe(item, after, head)                                                                         \
    for (struct list *item = (head)->next, *after = item->next; item != (head); item = after, after = after->next)

static inline void list_init(struct list *head) { head->next = head->previous = head; }
static inline bool list_is_empty(const struct list *head) { return head->next == head; }
static inline void list_append(struct list *head, struct list *item)
{
    item->next = head;
    item->previous = head->previous;
    head->previous->next = item;
    head->previous = item;
}
/* Leaves `item` as an empty list of its own: removing twice is harmless. */
static inline void list_remove(struct list *item)
{
    item->previous->next = item->next;
    item->next->previous = item->previous;
    list_init(item);
}
