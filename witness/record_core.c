/* The witness's judgement on one cluster's groups: compare-and-swap of (epoch, members), leases and their promises. */
#include "witness/record_core.h"

#include <errno.h>
#include <string.h>

#include "common/check.h"
#include "common/clock.h"

static uint64_t max_u64(uint64_t left, uint64_t right)
{
    return left > right ? left : right;
}

static uint64_t min_u64(uint64_t left, uint64_t right)
{
    return left < right ? left : right;
}

static uint64_t ns(uint32_t ms)
{
    return ms * NSEC_PER_MSEC;
}

static uint32_t left_ms(uint64_t until_ns, uint64_t now_ns)
{
    if (until_ns <= now_ns)
        return 0;
    return (uint32_t)min_u64((until_ns - now_ns + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC, UINT32_MAX);
}

static uint8_t bit(unsigned node)
{
    check(node < 2);
    return (uint8_t)(1u << node);
}

void record_init(struct record_cluster *cluster, struct record_group *groups, unsigned room, uint64_t now_ns)
{
    check(room <= RECORD_GROUPS_MAX);
    memset(cluster, 0, sizeof *cluster);
    cluster->groups = groups;
    cluster->group_room = room;
    cluster->start_ns = now_ns;
}

static struct record_group *group_find(struct record_cluster *cluster, const struct id *id)
{
    for (unsigned i = 0; i < cluster->group_count; i++)
        if (id_equal(&cluster->groups[i].id, id))
            return &cluster->groups[i];
    return NULL;
}

const struct record_group *record_find(const struct record_cluster *cluster, const struct id *id)
{
    return group_find((struct record_cluster *)cluster, id);
}

int record_load_group(struct record_cluster *cluster, const struct id *id, struct record_position position,
                      uint64_t changed)
{
    check(group_find(cluster, id) == NULL);
    if (cluster->group_count == cluster->group_room)
        return -ENOSPC;
    cluster->groups[cluster->group_count++] = (struct record_group){
        .id = *id, .position = position, .changed = changed,
    };
    return 0;
}

/* I12: "for G after start a responder neither grants an exclusion nor takes over": what it promised in its last boot is
 * forgotten. G is the largest that either node ever asked for. */
static uint64_t guard_until_ns(const struct record_cluster *cluster)
{
    uint32_t promise_ms = cluster->nodes[0].promise_ms > cluster->nodes[1].promise_ms ? cluster->nodes[0].promise_ms
                                                                                      : cluster->nodes[1].promise_ms;
    return cluster->start_ns + ns(promise_ms);
}

uint32_t record_guard_left_ms(const struct record_cluster *cluster, uint64_t now_ns)
{
    return left_ms(guard_until_ns(cluster), now_ns);
}

/* Until the lease that W acknowledged to `node` is surely over (R8: its last acknowledgement + G). */
static uint64_t promise_until_ns(const struct record_cluster *cluster, unsigned node)
{
    uint64_t until_ns = guard_until_ns(cluster);
    if (cluster->nodes[node].acknowledged_ns != 0)
        until_ns = max_u64(until_ns, cluster->nodes[node].acknowledged_ns + ns(cluster->nodes[node].promise_ms));
    return until_ns;
}

/* R4, R8: until when a node that is not the group's primary has to wait before it may exclude `other`: "WAIT, which ends
 * when G has passed since the other's last acknowledged lease, or since its last claim to be primary of that group". */
static uint64_t fresh_until_ns(const struct record_cluster *cluster, const struct record_group *group, unsigned other)
{
    uint64_t claim_until_ns = guard_until_ns(cluster);
    if (group->claimed_ns[other] != 0)
        claim_until_ns = max_u64(claim_until_ns, group->claimed_ns[other] + ns(cluster->nodes[other].promise_ms));
    return min_u64(promise_until_ns(cluster, other), claim_until_ns);
}

static void refuse(struct record_answer *ret, enum record_reason reason)
{
    ret->verdict = RECORD_REFUSED;
    ret->reason = reason;
}

/* A place for a new group: a free one, or that of the group retired longest ago. */
static struct record_group *place_new(struct record_cluster *cluster, const struct id *id, struct record_answer *ret)
{
    struct record_group *place = NULL;
    if (cluster->group_count < RECORD_GROUPS_MAX) {
        place = &cluster->groups[cluster->group_count++];
    } else {
        for (unsigned i = 0; i < cluster->group_count; i++) {
            struct record_group *group = &cluster->groups[i];
            if (group->position.members == 0 && (place == NULL || group->changed < place->changed))
                place = group;
        }
        if (place == NULL)
            return NULL;
        ret->evicted = true;
        ret->evicted_id = place->id;
    }
    memset(place, 0, sizeof *place);
    place->id = *id;
    return place;
}

static void commit(struct record_cluster *cluster, struct record_group *group, const struct record_event *event,
                   struct record_answer *ret)
{
    check(event->to.epoch > group->position.epoch); /* I4: epochs rise */
    uint8_t excluded = (uint8_t)(group->position.members & ~event->to.members);
    group->position = event->to;
    group->changed = ++cluster->counter;
    /* What W acknowledges to the loser from now on carries this change (R8), so only what it promised before counts. */
    group->loser_until_ns = 0;
    for (unsigned node = 0; node < 2; node++)
        if (excluded & bit(node))
            group->loser_until_ns = max_u64(group->loser_until_ns, promise_until_ns(cluster, node));
    ret->verdict = RECORD_OK;
    ret->persist_group = true;
    ret->group_index = (unsigned)(group - cluster->groups);
    ret->loser_ms = left_ms(group->loser_until_ns, event->now_ns);
}

/* A group that W does not know stands at (0, {}): its first record may name the asker alone or both. */
static void create(struct record_cluster *cluster, const struct record_event *event, struct record_answer *ret)
{
    if (!(event->to.members & bit(event->node))) {
        refuse(ret, RECORD_MEMBERS);
        return;
    }
    struct record_group *group = place_new(cluster, &event->group, ret);
    if (group == NULL) {
        refuse(ret, RECORD_QUOTA);
        return;
    }
    commit(cluster, group, event, ret);
}

/* The record equals one of the alternatives: may this node change it so? */
static void change(struct record_cluster *cluster, struct record_group *group, const struct record_event *event,
                   struct record_answer *ret)
{
    uint8_t self = bit(event->node), members = group->position.members;
    uint8_t added = (uint8_t)(event->to.members & ~members);
    uint8_t excluded = (uint8_t)(members & ~event->to.members & ~self);
    if (event->to.epoch <= group->position.epoch) {
        refuse(ret, RECORD_EPOCH); /* I4 */
        return;
    }
    if (added != 0 && members != self) {
        refuse(ret, RECORD_GROWTH); /* I5: "growth only by the sole authority" */
        return;
    }
    if (added != 0 && !(event->to.members & self)) {
        refuse(ret, RECORD_MEMBERS); /* handing a group to a node without a copy */
        return;
    }
    unsigned other = !event->node;
    uint64_t guard_ns = guard_until_ns(cluster);
    if (excluded != 0 && event->now_ns < guard_ns) {
        ret->verdict = RECORD_WAIT; /* I12 */
        ret->wait_ms = left_ms(guard_ns, event->now_ns);
        return;
    }
    /* R8: "W excludes a node whose lease it acknowledged within G only if the asker is that group's primary." */
    if (excluded != 0 && !event->was_primary && event->now_ns < fresh_until_ns(cluster, group, other)) {
        ret->verdict = RECORD_WAIT;
        ret->wait_ms = left_ms(fresh_until_ns(cluster, group, other), event->now_ns);
        return;
    }
    commit(cluster, group, event, ret);
}

/* R8: what is left of the lease of the node that the group's record leaves out. Granted before this boot: what W promised
 * then is forgotten, and over when the guard is. */
static uint32_t loser_left_ms(const struct record_cluster *cluster, const struct record_group *group, uint64_t now_ns)
{
    if (group->position.members == RECORD_BOTH)
        return 0;
    return left_ms(group->loser_until_ns != 0 ? group->loser_until_ns : guard_until_ns(cluster), now_ns);
}

/* R4: what to tell a node whose proposal does not start from W's record. */
static void explain(const struct record_cluster *cluster, const struct record_group *group,
                    const struct record_event *event, struct record_answer *ret)
{
    struct record_position record = group == NULL ? (struct record_position){0, 0} : group->position;
    uint64_t highest = 0;
    for (unsigned i = 0; i < event->from_count; i++)
        highest = max_u64(highest, event->from[i].epoch);
    if (record.epoch < highest)
        ret->verdict = RECORD_BEHIND; /* "BEHIND (e' < e): W must be seeded first" */
    else if (!(record.members & bit(event->node)))
        ret->verdict = RECORD_STALE; /* "STALE (X ∉ M'): never serve" */
    else if (record.epoch == highest)
        refuse(ret, RECORD_CONFLICT); /* I4: one M per epoch */
    else {
        ret->verdict = RECORD_ADOPT; /* "ADOPT (e' > e, X ∈ M')" */
        ret->loser_ms = loser_left_ms(cluster, group, event->now_ns);
    }
}

static bool position_equal(struct record_position left, struct record_position right)
{
    return left.epoch == right.epoch && left.members == right.members;
}

static void judge(struct record_cluster *cluster, const struct record_event *event, struct record_answer *ret)
{
    check(event->from_count >= 1 && event->from_count <= RECORD_FROM_MAX);
    check(event->to.members <= RECORD_BOTH);
    check(cluster->group_count < cluster->group_room || cluster->group_room == RECORD_GROUPS_MAX);
    struct record_group *group = group_find(cluster, &event->group);
    struct record_position record = group == NULL ? (struct record_position){0, 0} : group->position;
    /* R5: an old store "refuses every grant until seeded". */
    if (cluster->restored) {
        refuse(ret, RECORD_RESTORED);
        return;
    }
    if (event->to.epoch == 0 || event->to.epoch > INT64_MAX) { /* the store keeps 63 bits */
        refuse(ret, RECORD_EPOCH);
        return;
    }
    /* R4: "repeat (idempotent: OK when the record equals the proposal)". */
    if (position_equal(record, event->to)) {
        ret->verdict = RECORD_OK;
        ret->loser_ms = loser_left_ms(cluster, group, event->now_ns);
        return;
    }
    for (unsigned i = 0; i < event->from_count; i++) {
        if (!position_equal(record, event->from[i]))
            continue;
        if (group == NULL)
            create(cluster, event, ret);
        else if (!(record.members & bit(event->node)))
            ret->verdict = RECORD_STALE;
        else
            change(cluster, group, event, ret);
        return;
    }
    explain(cluster, group, event, ret);
}

/* R8: "acknowledges at once", the start guard included; R5: not out of an old store, which may have excluded the asker. */
static void acknowledge(struct record_cluster *cluster, const struct record_event *event, struct record_answer *ret)
{
    if (cluster->restored)
        return;
    struct record_node *node = &cluster->nodes[event->node];
    if (event->promise_ms > node->promise_ms) {
        node->promise_ms = event->promise_ms;
        ret->persist_node = true;
    }
    node->acknowledged_ns = event->now_ns;
    for (unsigned i = 0; i < event->claim_count; i++) {
        struct record_group *group = group_find(cluster, &event->claims[i]);
        if (group != NULL)
            group->claimed_ns[event->node] = event->now_ns;
    }
    ret->acknowledged = true;
}

void record_step(struct record_cluster *cluster, const struct record_event *event, struct record_answer *ret)
{
    check(event->node < 2);
    check(event->now_ns >= cluster->start_ns);
    memset(ret, 0, sizeof *ret);
    /* R5: "one that hears from a node a commit counter above its own (then it takes a new incarnation)". */
    if (event->counter > cluster->counter && !cluster->restored) {
        cluster->restored = true;
        ret->persist_restored = true;
    }
    if (event->kind == RECORD_EV_LEASE)
        acknowledge(cluster, event, ret);
    if (event->kind != RECORD_EV_CAS)
        return;
    judge(cluster, event, ret);
    const struct record_group *group = record_find(cluster, &event->group);
    if (group != NULL)
        ret->record = group->position;
    check(ret->verdict >= RECORD_OK && ret->verdict <= RECORD_REFUSED);
    check(!ret->persist_group || ret->verdict == RECORD_OK);
    check((ret->verdict == RECORD_WAIT) == (ret->wait_ms > 0));
}
