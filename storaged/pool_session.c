/* Mirror sessions as the journal sees them: which records' commit is not known yet (the tail), and what becomes of
 * them when the session is over (R2, R4). */
#include "common/check.h"
#include "storaged/pool_internal.h"

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

struct pool_session *pool_session_get(struct pool *pool, const struct id *group)
{
    struct pool_session *slot = pool_session_find(pool, group);
    for (unsigned index = 0; !slot && index < POOL_GROUPS_MAX; index++)
        if (!pool->sessions[index].used)
            slot = &pool->sessions[index];
    for (unsigned index = 0; !slot && index < POOL_GROUPS_MAX; index++)
        if (!pool->sessions[index].live && !group_is_stored(pool, &pool->sessions[index].group))
            slot = &pool->sessions[index]; /* of a group that is gone */
    check(slot); /* there are as many slots as groups */
    if (!slot->used || !id_equal(&slot->group, group))
        *slot = (struct pool_session){.group = *group, .used = true};
    return slot;
}

bool pool_session_covers(const struct pool_op *op)
{
    const struct pool_session *slot = op->session_slot;
    return slot && slot->live && !op->dirty && id_equal(&slot->session, &op->session) && op->sequence > slot->commit;
}

void pool_session_saw(struct pool *pool, const struct id *group, const struct id *session, uint64_t sequence)
{
    struct pool_session *slot = pool_session_get(pool, group);
    if (!id_equal(&slot->seen, session)) {
        slot->seen = *session;
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
    if (pool->space_waiting)
        pool_wake(pool);
}

/* R4: dirty := everything in the tail. What is not yet durable (there should be nothing) is marked when it is. */
static void tail_mark(struct pool_session *slot, struct list *ops)
{
    list_for_each(item, ops) {
        struct pool_op *op = list_entry(item, struct pool_op, link);
        if (op->session_slot != slot || !pool_session_covers(op))
            continue;
        if (op->durable && op->volume)
            pool_extents_set_dirty(op->volume, op->block, op->count);
        op->dirty = true;
    }
}

void pool_session_end(struct pool *pool, const struct id *group)
{
    struct pool_session *slot = pool_session_find(pool, group);
    if (!slot || !slot->live)
        return;
    tail_mark(slot, &pool->live);
    tail_mark(slot, &pool->accept);
    slot->live = false;
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
