/* The table of clusters: filled at the start, changed only by enrolment and removal. */
#include "witness/served.h"

#include <stdlib.h>
#include <string.h>

#include "common/check.h"

static unsigned slot_of(const struct id *cluster)
{
    uint32_t hash;
    memcpy(&hash, cluster->bytes, sizeof hash); /* a random UUID is its own hash */
    return hash % SERVED_SLOTS;
}

struct served *served_find(const struct served_table *table, const struct id *cluster)
{
    for (unsigned i = slot_of(cluster); table->slots[i] != NULL; i = (i + 1) % SERVED_SLOTS)
        if (id_equal(&table->slots[i]->cluster->id, cluster))
            return table->slots[i];
    return NULL;
}

static void place(struct served_table *table, struct served *served)
{
    unsigned slot = slot_of(&served->cluster->id);
    while (table->slots[slot] != NULL)
        slot = (slot + 1) % SERVED_SLOTS;
    table->slots[slot] = served;
}

struct served *served_add(struct served_table *table, struct store_cluster *cluster, uint64_t now_ns)
{
    check(table->count < STORE_CLUSTERS_MAX);
    struct served *served = calloc(1, sizeof *served);
    check(served != NULL);
    served->cluster = cluster;
    served->start_ns = now_ns;
    for (unsigned i = 0; i < 2; i++) {
        struct id challenge = id_random();
        wire_guard_init(&served->members[i].guard, &challenge);
    }
    served_count_groups(served);
    place(table, served);
    table->count++;
    return served;
}

static void release(struct served *served)
{
    store_cluster_free(served->cluster);
    free(served);
}

void served_remove(struct served_table *table, struct served *served)
{
    unsigned slot = slot_of(&served->cluster->id);
    while (table->slots[slot] != served)
        slot = (slot + 1) % SERVED_SLOTS;
    table->slots[slot] = NULL;
    table->count--;
    /* Whoever stood behind it may have been pushed there by it. */
    for (unsigned i = (slot + 1) % SERVED_SLOTS; table->slots[i] != NULL; i = (i + 1) % SERVED_SLOTS) {
        struct served *moved = table->slots[i];
        table->slots[i] = NULL;
        place(table, moved);
    }
    release(served);
}

void served_clear(struct served_table *table)
{
    for (unsigned i = 0; i < SERVED_SLOTS; i++)
        if (table->slots[i] != NULL)
            release(table->slots[i]);
    memset(table, 0, sizeof *table);
}

void served_count_groups(struct served *served)
{
    const struct record_cluster *records = &served->cluster->records;
    served->groups = served->single[0] = served->single[1] = 0;
    for (unsigned i = 0; i < records->group_count; i++) {
        uint8_t members = records->groups[i].position.members;
        served->groups += members != 0;
        served->single[0] += members == 1;
        served->single[1] += members == 2;
    }
}
