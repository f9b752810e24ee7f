/* The table of logical units and the life of a nexus: what the iSCSI target and the groups share. */
#include "storaged/lun.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"

struct lun_table {
    struct lun *luns[LUN_TABLE_MAX];
    unsigned count;
};

struct lun_table *lun_table_new(void)
{
    return calloc(1, sizeof(struct lun_table));
}

void lun_table_free(struct lun_table *table)
{
    free(table);
}

int lun_table_add(struct lun_table *table, struct lun *lun)
{
    check(lun->submit && lun->admit);
    if (lun_table_find(table, lun->name))
        return -EEXIST;
    if (table->count == LUN_TABLE_MAX)
        return -ENOSPC;
    list_init(&lun->nexuses);
    lun->closing = false;
    table->luns[table->count++] = lun;
    return 0;
}

/* Of a lun that is exported it stays: what initiators set outlives their sessions. */
static void free_unit(struct lun *lun)
{
    if (!lun->closing || !list_is_empty(&lun->nexuses) || !lun->unit)
        return;
    lun->unit_free(lun->unit);
    lun->unit = NULL;
}

void lun_table_remove(struct lun_table *table, struct lun *lun)
{
    for (unsigned i = 0; i < table->count; i++) {
        if (table->luns[i] != lun)
            continue;
        memmove(&table->luns[i], &table->luns[i + 1], (table->count - i - 1) * sizeof(table->luns[0]));
        table->count--;
        lun->closing = true;
        lun_expel(lun, NULL, "the volume is no longer exported");
        free_unit(lun);
        return;
    }
}

struct lun *lun_table_find(struct lun_table *table, const char *name)
{
    for (unsigned i = 0; i < table->count; i++) {
        if (strcmp(table->luns[i]->name, name) == 0)
            return table->luns[i];
    }
    return NULL;
}

struct lun *lun_table_at(struct lun_table *table, unsigned index)
{
    return index < table->count ? table->luns[index] : NULL;
}

void lun_nexus_open(struct lun_nexus *nexus, struct lun *lun)
{
    check(nexus->close && !lun->closing);
    nexus->lun = lun;
    nexus->dropped = false;
    list_append(&lun->nexuses, &nexus->link);
}

void lun_nexus_drop(struct lun_nexus *nexus)
{
    if (nexus->dropped)
        return;
    nexus->dropped = true;
    if (nexus->lun->drop)
        nexus->lun->drop(nexus->lun, nexus);
}

void lun_nexus_close(struct lun_nexus *nexus)
{
    check(nexus->dropped);
    list_remove(&nexus->link);
    free_unit(nexus->lun);
    nexus->lun = NULL;
}

void lun_expel(struct lun *lun, const char *except, const char *reason)
{
    list_for_each_safe(item, after, &lun->nexuses) {
        struct lun_nexus *nexus = list_entry(item, struct lun_nexus, link);
        if (!except || strcmp(nexus->initiator, except) != 0)
            nexus->close(nexus, reason);
    }
}

void lun_tell(struct lun *lun, enum lun_change change)
{
    list_for_each_safe(item, after, &lun->nexuses) {
        struct lun_nexus *nexus = list_entry(item, struct lun_nexus, link);
        if (nexus->changed && !nexus->dropped)
            nexus->changed(nexus, change);
    }
}
