/* Rule R8 for one node: who asked, who acknowledged, until when, and what was promised. */
#include "quorum/lease_core.h"

#include <string.h>

#include "common/check.h"
#include "common/clock.h"

#define DRIFT_PER_1000 20u /* 2ρ, ρ = 1 %: both clocks may be wrong, in opposite directions */
#define EPSILON_MS 200u

static uint64_t ms(uint32_t value)
{
    return value * NSEC_PER_MSEC;
}

static uint64_t max_u64(uint64_t left, uint64_t right)
{
    return left > right ? left : right;
}

static uint64_t left_ms(uint64_t until_ns, uint64_t now_ns)
{
    return until_ns <= now_ns ? 0 : (until_ns - now_ns + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC;
}

uint32_t lease_promise_for(uint32_t lease_ms, uint32_t promise_ms)
{
    check(lease_ms <= LEASE_MS_MAX);
    uint32_t least = lease_ms + (lease_ms * DRIFT_PER_1000 + 999) / 1000 + EPSILON_MS;
    return promise_ms > least ? promise_ms : least;
}

void lease_init(struct lease *lease, const struct lease_config *config, uint64_t now_ns)
{
    check(config->lease_ms > 0 && config->lease_ms <= LEASE_MS_MAX);
    check(config->promise_ms > config->lease_ms && config->promise_ms <= LEASE_PROMISE_MS_MAX);
    check(config->suspect_ms > 0);
    memset(lease, 0, sizeof *lease);
    lease->config = *config;
    lease->start_ns = lease->now_ns = now_ns;
    lease->generation = 1;
}

static uint64_t lease_until_ns(const struct lease *lease)
{
    return max_u64(lease->until_ns[LEASE_FROM_PEER], lease->until_ns[LEASE_FROM_WITNESS]);
}

/* R8: "valid while the peer's or W's is"; "a lapse raises X's lease generation". Runs before every event is looked at:
 * a lease that lapses and renews unseen would let a session of the old generation go on. */
static void pass_time(struct lease *lease, struct lease_actions *ret)
{
    if (lease->valid && lease->now_ns >= lease_until_ns(lease)) {
        lease->valid = false;
        lease->generation++;
        ret->lapsed = ret->publish = true;
    }
    if (lease->peer_valid && lease->now_ns >= lease->until_ns[LEASE_FROM_PEER]) {
        lease->peer_valid = false;
        lease->peer_lapses++;
        ret->peer_lapsed = true;
    }
}

/* After start a silent peer is suspected only after G: it may be as busy starting as we are (I12). */
static uint64_t suspect_at_ns(const struct lease *lease)
{
    return lease->heard_ns == 0 ? lease->start_ns + ms(lease->config.promise_ms)
                                : lease->heard_ns + ms(lease->config.suspect_ms);
}

static void judge_peer(struct lease *lease, struct lease_actions *ret)
{
    bool suspect = lease->now_ns >= suspect_at_ns(lease);
    if (suspect != lease->peer_suspect) {
        lease->peer_suspect = suspect;
        ret->peer_changed = true;
    }
}

/* R8: "X asks only while its storage lives: every data thread of storaged has advanced its counter within 2L." */
static void judge_storage(struct lease *lease, struct lease_actions *ret)
{
    bool alive = lease->storage_seen && lease->storage_advanced_ns != 0 &&
                 lease->now_ns < lease->storage_advanced_ns + 2 * ms(lease->config.lease_ms);
    if (alive != lease->storage_alive) {
        lease->storage_alive = alive;
        ret->storage_changed = true;
    }
}

static void note_beat(struct lease *lease, const struct lease_event *event)
{
    if (!event->present) {
        lease->storage_seen = false;
        lease->storage_advanced_ns = 0;
        return;
    }
    if (!lease->storage_seen || lease->storage_boot != event->boot) {
        /* A first look proves no progress: it lives once its beat is seen to advance. */
        lease->storage_seen = true;
        lease->storage_boot = event->boot;
        lease->storage_advanced_ns = 0;
    } else if (lease->storage_beat != event->beat) {
        lease->storage_advanced_ns = lease->now_ns;
    }
    lease->storage_beat = event->beat;
}

static void note_sent(struct lease *lease, const struct lease_event *event, struct lease_actions *ret)
{
    check(event->responder < LEASE_RESPONDERS);
    check(!id_is_null(&event->id));
    if (!lease->storage_alive)
        return;
    /* The oldest makes room: its answer would be worth least. */
    lease->outstanding[lease->next_outstanding] = (struct lease_outstanding){
        .id = event->id, .sent_ns = lease->now_ns, .responder = (uint8_t)event->responder, .used = true,
    };
    lease->next_outstanding = (lease->next_outstanding + 1) % LEASE_OUTSTANDING_MAX;
    ret->ask = true;
}

/* R8: "(send time of X's last request that r acknowledged) + L": the time of sending, never of the answer. */
static void extend(struct lease *lease, enum lease_responder responder, uint64_t until_ns, struct lease_actions *ret)
{
    if (until_ns <= lease->until_ns[responder] || until_ns <= lease->now_ns)
        return;
    lease->until_ns[responder] = until_ns;
    lease->peer_valid |= responder == LEASE_FROM_PEER;
    ret->publish = true;
    if (!lease->valid) {
        lease->valid = true;
        ret->obtained = true;
    }
}

/* Keeps the best deadline per counter; when full, the deadline that ends first gives way. */
static void postpone(struct lease *lease, uint64_t counter, uint64_t until_ns)
{
    for (unsigned i = 0; i < lease->pending_count; i++)
        if (lease->pending[i].counter == counter) {
            lease->pending[i].until_ns = max_u64(lease->pending[i].until_ns, until_ns);
            return;
        }
    unsigned slot = lease->pending_count;
    if (slot == LEASE_PENDING_MAX) {
        slot = 0;
        for (unsigned i = 1; i < LEASE_PENDING_MAX; i++)
            if (lease->pending[i].until_ns < lease->pending[slot].until_ns)
                slot = i;
    } else {
        lease->pending_count++;
    }
    lease->pending[slot] = (struct lease_pending){.counter = counter, .until_ns = until_ns};
}

static void note_ack(struct lease *lease, const struct lease_event *event, struct lease_actions *ret)
{
    check(event->responder < LEASE_RESPONDERS);
    for (unsigned i = 0; i < LEASE_OUTSTANDING_MAX; i++) {
        struct lease_outstanding *request = &lease->outstanding[i];
        if (!request->used || request->responder != event->responder || !id_equal(&request->id, &event->id))
            continue;
        request->used = false;
        uint64_t until_ns = request->sent_ns + ms(lease->config.lease_ms);
        /* R8: "W's acknowledgement carries its commit counter and extends the lease only once X has applied every
         * exclusion up to it." */
        if (event->responder == LEASE_FROM_WITNESS && event->counter > lease->applied)
            postpone(lease, event->counter, until_ns);
        else
            extend(lease, event->responder, until_ns, ret);
        return;
    }
    /* Protocol "Datagrams": a reply counts only if it echoes an id outstanding in this boot of the asker. */
}

static void note_applied(struct lease *lease, uint64_t counter, struct lease_actions *ret)
{
    lease->applied = max_u64(lease->applied, counter);
    for (unsigned i = 0; i < lease->pending_count;) {
        struct lease_pending *pending = &lease->pending[i];
        if (pending->counter > lease->applied) {
            i++;
            continue;
        }
        extend(lease, LEASE_FROM_WITNESS, pending->until_ns, ret);
        *pending = lease->pending[--lease->pending_count];
    }
}

static bool is_fenced(const struct lease *lease)
{
    for (unsigned i = 0; i < LEASE_FENCES_MAX; i++)
        if (lease->now_ns < lease->fences[i].until_ns)
            return true;
    return false;
}

/* R8: "r promises not to let X be replaced and served before (its last acknowledgement + G)"; "Requests carry L,
 * promises follow it". Acknowledged at once even within the start guard (I12). */
static void note_request(struct lease *lease, const struct lease_event *event, struct lease_actions *ret)
{
    if (event->lease_ms == 0 || event->lease_ms > LEASE_MS_MAX || event->promise_ms > LEASE_PROMISE_MS_MAX)
        return;
    if (is_fenced(lease))
        return; /* W's acknowledgement, which carries the exclusion, can keep the peer's lease alive */
    uint32_t promise_ms = lease_promise_for(event->lease_ms, event->promise_ms);
    lease->promise_until_ns = max_u64(lease->promise_until_ns, lease->now_ns + ms(promise_ms));
    ret->acknowledge = true;
}

static uint64_t guard_until_ns(const struct lease *lease)
{
    return lease->start_ns + ms(lease_promise_for(lease->config.lease_ms, lease->config.promise_ms));
}

static struct lease_fence *fence_find(struct lease *lease, const struct id *group)
{
    for (unsigned i = 0; i < LEASE_FENCES_MAX; i++)
        if (id_equal(&lease->fences[i].group, group))
            return &lease->fences[i];
    return NULL;
}

/* A place for the group: its own, or the one that ended first (a free one ended at 0). Where all still stand, the last
 * to end stands for this group too: it waits longer than it must, never shorter. */
static struct lease_fence *fence_place(struct lease *lease, const struct id *group)
{
    struct lease_fence *own = fence_find(lease, group), *first = &lease->fences[0], *last = first;
    for (unsigned i = 1; i < LEASE_FENCES_MAX; i++) {
        struct lease_fence *fence = &lease->fences[i];
        first = fence->until_ns < first->until_ns ? fence : first;
        last = fence->until_ns > last->until_ns ? fence : last;
    }
    if (own != NULL)
        return own;
    if (first->until_ns > lease->now_ns)
        return last;
    *first = (struct lease_fence){.group = *group};
    return first;
}

/* R8: "r promises not to let X be replaced and served before (its last acknowledgement + G)". A peer that lives and renews
 * for the sake of other groups would make that for ever; so the last acknowledgement is the one before the fence. Each
 * group has its own: what was acknowledged after another group's fence is a promise for this one. */
static void begin_fence(struct lease *lease, const struct lease_event *event, struct lease_actions *ret)
{
    check(!id_is_null(&event->group));
    struct lease_fence *fence = fence_place(lease, &event->group);
    uint64_t until_ns = max_u64(max_u64(guard_until_ns(lease), lease->promise_until_ns),
                                lease->now_ns + ms(event->least_ms));
    fence->until_ns = max_u64(fence->until_ns, until_ns);
    ret->fence_ms = left_ms(fence->until_ns, lease->now_ns);
}

/* The answer "over" is given once: the next question is about another takeover. An answer that nobody fetched in time
 * is none, for the peer has been acknowledged since. */
static void ask_fence(struct lease *lease, const struct lease_event *event, struct lease_actions *ret)
{
    struct lease_fence *fence = fence_find(lease, &event->group);
    if (fence == NULL || lease->now_ns >= fence->until_ns + ms(LEASE_FENCE_KEPT_MS))
        begin_fence(lease, event, ret);
    else
        ret->fence_ms = left_ms(fence->until_ns, lease->now_ns);
    fence = fence_find(lease, &event->group);
    if (fence != NULL && fence->until_ns <= lease->now_ns)
        *fence = (struct lease_fence){0};
}

void lease_step(struct lease *lease, const struct lease_event *event, struct lease_actions *ret)
{
    check(event->now_ns >= lease->now_ns);
    memset(ret, 0, sizeof *ret);
    lease->now_ns = event->now_ns;
    pass_time(lease, ret);
    if (event->kind == LEASE_EV_BEAT)
        note_beat(lease, event);
    judge_storage(lease, ret);
    switch (event->kind) {
    case LEASE_EV_TICK:
    case LEASE_EV_BEAT:
        break;
    case LEASE_EV_SEND:
        note_sent(lease, event, ret);
        break;
    case LEASE_EV_ACK:
        note_ack(lease, event, ret);
        break;
    case LEASE_EV_APPLIED:
        note_applied(lease, event->counter, ret);
        break;
    case LEASE_EV_FORGOTTEN:
        lease->applied = 0;
        break;
    case LEASE_EV_HEARD:
        lease->heard_ns = lease->now_ns;
        break;
    case LEASE_EV_REQUEST:
        note_request(lease, event, ret);
        break;
    case LEASE_EV_TAKE_OVER:
        begin_fence(lease, event, ret);
        break;
    case LEASE_EV_FENCE:
        ask_fence(lease, event, ret);
        break;
    }
    judge_peer(lease, ret);
    check(lease->valid == (lease->now_ns < lease_until_ns(lease)));
    check(lease->generation > 0);
}

uint64_t lease_left_ms(const struct lease *lease, uint64_t now_ns)
{
    return left_ms(lease_until_ns(lease), now_ns);
}

/* I12: "for G after start a responder neither grants an exclusion nor takes over": it forgot what it promised. */
static uint64_t peer_over_ns(const struct lease *lease)
{
    return max_u64(guard_until_ns(lease), lease->promise_until_ns);
}

uint64_t lease_peer_over_in_ms(const struct lease *lease, uint64_t now_ns)
{
    return left_ms(peer_over_ns(lease), now_ns);
}

uint64_t lease_peer_killed_in_ms(const struct lease *lease, uint32_t t_kill_ms, uint64_t now_ns)
{
    return left_ms(peer_over_ns(lease) + ms(t_kill_ms), now_ns);
}

uint64_t lease_next_ns(const struct lease *lease)
{
    uint64_t next = UINT64_MAX;
    if (lease->valid)
        next = lease_until_ns(lease);
    if (!lease->peer_suspect && suspect_at_ns(lease) < next)
        next = suspect_at_ns(lease);
    if (lease->storage_alive) {
        uint64_t dies_ns = lease->storage_advanced_ns + 2 * ms(lease->config.lease_ms);
        next = dies_ns < next ? dies_ns : next;
    }
    return next;
}
