/* Mirror sessions as the journal sees them: which records' commit is not known yet (the tail), and what becomes of
 * them when the session is over (R2, R4). */
#include "common/check.h"
#include "storaged/pool/pool_internal.h"

struct pool_session *pool_session_find(struct pool *pool, const struct id *group)
{
    for (unsigned index = 0; index < POOL_GROUPS_MAX; index++)
        if (pool->sessions[index].used && id_equal(&pool->sessions[index].group, group))
            return &pool->sessions[index];
    return NULL;
}

static bool group_is_stored(const struct pool *pool, const struct id *group)
{
    for (unsigned index = 0; index < POOL_GROUPS_MAX; index++)
        if (pool->groups[index].used && id_equal(&pool->groups[index].id, group))
            return true;
    return false;
}

/* NULL: as many groups as there may be are stored, and this is none of them. */
static struct pool_session *session_get(struct pool *pool, const struct id *group)
{
    struct pool_session *slot = pool_session_find(pool, group);
    for (unsigned index = 0; !slot && index < POOL_GROUPS_MAX; index++)
        if (!pool->sessions[index].used)
            slot = &pool->sessions[index];
    for (unsigned index = 0; !slot && index < POOL_GROUPS_MAX; index++)
        if (!pool->sessions[index].live && !group_is_stored(pool, &pool->sessions[index].group))
            slot = &pool->sessions[index]; /* of a group that is gone */
    if (slot && (!slot->used || !id_equal(&slot->group, group)))
        *slot = (struct pool_session){.group = *group, .used = true};
    return slot;
}

struct pool_session *pool_session_get(struct pool *pool, const struct id *group)
{
    struct pool_session *slot = session_get(pool, group);
    check(slot); /* there are as many slots as groups */
    return slot;
}

bool pool_session_covers(const struct pool_op *op)
{
    const struct pool_session *slot = op->session_slot;
    return !op->dirty && !op->unmirrored && pool_session_is_live(op) && op->sequence > slot->commit;
}

bool pool_session_is_live(const struct pool_op *op)
{
    const struct pool_session *slot = op->session_slot;
    return slot && slot->live && id_equal(&slot->session, &op->session);
}

/* Sessions are numbered when their first write goes into a journal: of several that the journals tell of, it says which
 * came last. */
uint64_t pool_session_order(struct pool *pool, const struct id *group, const struct id *session)
{
    struct pool_session *slot = pool_session_get(pool, group);
    if (id_equal(&slot->seen, session))
        return slot->order;
    if (!id_equal(&slot->coming, session)) {
        slot->coming = *session;
        slot->coming_order = ++pool->birth;
    }
    return slot->coming_order;
}

void pool_session_saw(struct pool *pool, const struct id *group, const struct id *session, uint64_t order,
                      uint64_t sequence)
{
    struct pool_session *slot = session_get(pool, group);
    if (order > pool->birth)
        pool->birth = order;
    if (!slot)
        return; /* a journal still tells of a group that was deleted */
    if (!id_equal(&slot->seen, session)) {
        if (order < slot->order)
            return; /* another came since */
        slot->seen = *session;
        slot->order = order;
        slot->highest = slot->committed = 0;
    }
    if (sequence > slot->highest)
        slot->highest = sequence;
}

/* A number that this journal has not seen (a copy, the metadata) says nothing about who was set back. */
void pool_session_knows(struct pool_session *slot, const struct id *session, uint64_t upto)
{
    if (id_equal(&slot->seen, session) && slot->highest <= upto)
        slot->committed = slot->highest;
}

void pool_session_begin(struct pool *pool, const struct id *group, const struct id *session)
{
    check(!id_is_null(session));
    pool_session_end(pool, group);
    struct pool_session *slot = pool_session_get(pool, group);
    slot->live = true;
    slot->session = *session;
    slot->commit = 0;
}

void pool_session_commit(struct pool *pool, const struct id *group, uint64_t sequence)
{
    struct pool_session *slot = pool_session_find(pool, group);
    if (!slot || !slot->live || sequence <= slot->commit)
        return;
    slot->commit = sequence;
    pool_session_knows(slot, &slot->session, sequence);
    pool_for_each_disk(pool, disk)
        if (disk->journal.space_waiting)
            pool_wake(pool);
}

/* R4: dirty := everything in the tail. What is not yet durable (there should be nothing) is marked when it is. */
void pool_session_mark(struct pool_journal *journal, const struct pool_session *slot)
{
    list_for_each(item, &journal->live) {
        struct pool_part *part = pool_part_of(item);
        struct pool_op *op = part->op;
        bool is_known = part->durable && op->volume && (part->kind != PART_INTENT || part->placed);
        if (op->session_slot == slot && is_known && pool_session_covers(op))
            pool_dirty_set(op->volume, part->block, part->count);
    }
}

void pool_session_end(struct pool *pool, const struct id *group)
{
    struct pool_session *slot = pool_session_find(pool, group);
    if (!slot || !slot->live)
        return;
    for (unsigned index = 0; index < POOL_DISKS_MAX; index++) /* one that has just failed as well */
        if (pool->disks[index].journal.live.next)
            pool_session_mark(&pool->disks[index].journal, slot);
    slot->live = false; /* and with it nothing covers them any more */
}

uint64_t pool_session_highest(struct pool *pool, const struct id *group, const struct id *session)
{
    const struct pool_session *slot = pool_session_find(pool, group);
    return slot && id_equal(&slot->seen, session) ? slot->highest : 0;
}

uint64_t pool_session_committed(struct pool *pool, const struct id *group, const struct id *session)
{
    const struct pool_session *slot = pool_session_find(pool, group);
    return slot && id_equal(&slot->seen, session) ? slot->committed : 0;
}
