/* Rule R11 on the node that loses its lease: who is frozen, what feeds the watchdog, who may thaw. */
#include "quorum/freeze_core.h"

#include <assert.h>
#include <string.h>

#include "common/check.h"
#include "common/clock.h"

static_assert(FREEZE_GUESTS_MAX <= 64, "actions are bit sets of 64");

void freeze_init(struct freeze *freeze, const struct freeze_config *config, uint64_t now_ns)
{
    memset(freeze, 0, sizeof *freeze);
    freeze->config = *config;
    freeze->start_ns = freeze->now_ns = now_ns;
}

/* "except those whose group X holds as sole member: nobody else can start these". */
static bool is_sole(const struct freeze *freeze, const struct freeze_guest *guest)
{
    for (unsigned i = 0; i < freeze->sole_count; i++)
        if (id_equal(&freeze->sole[i], &guest->group))
            return true;
    return false;
}

static bool is_stopped(const struct freeze_guest *guest)
{
    return guest->state == FREEZE_FROZEN || guest->state == FREEZE_GONE;
}

/* R11: "The watchdog is fed only while (lease valid) or (every other HA guest is verified frozen or dead and nothing else
 * is served)." A sole claim counts only while the storaged that made it is there: it may have grown the group since. */
bool freeze_may_feed(const struct freeze *freeze, bool lease_valid)
{
    if (lease_valid)
        return true;
    if (freeze->serves_primary)
        return false;
    for (unsigned i = 0; i < freeze->guest_count; i++) {
        const struct freeze_guest *guest = &freeze->guests[i];
        if (!is_stopped(guest) && (freeze->storage_gone || !is_sole(freeze, guest)))
            return false;
    }
    return true;
}

static struct freeze_guest *guest_find(struct freeze *freeze, const char *name)
{
    for (unsigned i = 0; i < freeze->guest_count; i++)
        if (strcmp(freeze->guests[i].name, name) == 0)
            return &freeze->guests[i];
    return NULL;
}

/* The state of a guest that stays on the list is kept: a new list does not thaw anybody. */
static void replace_guests(struct freeze *freeze, const struct freeze_event *event, struct freeze_actions *ret)
{
    check(event->count <= FREEZE_GUESTS_MAX);
    struct freeze_guest merged[FREEZE_GUESTS_MAX];
    for (unsigned i = 0; i < event->count; i++) {
        merged[i] = event->guests[i];
        merged[i].state = FREEZE_RUNNING;
        merged[i].signed_gone = false;
        const struct freeze_guest *known = guest_find(freeze, merged[i].name);
        if (known != NULL && known->incarnation == merged[i].incarnation && strcmp(known->cgroup, merged[i].cgroup) == 0)
            merged[i] = *known;
    }
    memcpy(freeze->guests, merged, event->count * sizeof merged[0]);
    freeze->guest_count = event->count;
    ret->frozen_changed = true;
}

static void replace_claims(struct freeze *freeze, const struct freeze_event *event)
{
    check(event->count <= FREEZE_GROUPS_MAX);
    freeze->serves_primary = event->serves_primary;
    memcpy(freeze->sole, event->groups, event->count * sizeof event->groups[0]);
    freeze->sole_count = event->count;
    freeze->storage_gone = false;
}

static void note_result(struct freeze *freeze, const struct freeze_event *event, struct freeze_actions *ret)
{
    check(event->index < freeze->guest_count);
    struct freeze_guest *guest = &freeze->guests[event->index];
    if (guest->signed_gone)
        return;
    enum freeze_state result = event->result;
    /* Not yet frozen, though ordered: the kernel is still at it. */
    if (result == FREEZE_RUNNING && guest->state == FREEZE_FREEZING)
        result = FREEZE_FREEZING;
    if (guest->state != result && (guest->state == FREEZE_FROZEN || result == FREEZE_FROZEN))
        ret->frozen_changed = true;
    guest->state = result;
}

/* R11: a thaw needs the record's swap by the authority, which vmhad makes; here the lease is the condition. */
static void thaw(struct freeze *freeze, const char *name, struct freeze_actions *ret)
{
    struct freeze_guest *guest = guest_find(freeze, name);
    if (guest == NULL) {
        ret->thaw_unknown = true;
        return;
    }
    if (!freeze->lease_valid) {
        ret->thaw_refused = true;
        return;
    }
    if (guest->state == FREEZE_FROZEN || guest->state == FREEZE_FREEZING) {
        ret->thaw = (int)(guest - freeze->guests);
        ret->frozen_changed = true;
        guest->state = FREEZE_RUNNING;
    }
}

static void note_gone(struct freeze *freeze, const struct freeze_event *event, struct freeze_actions *ret)
{
    struct freeze_guest *guest = guest_find(freeze, event->name);
    if (guest != NULL && guest->incarnation <= event->incarnation && !guest->signed_gone) {
        guest->state = FREEZE_GONE;
        guest->signed_gone = true;
        ret->frozen_changed = true;
    }
}

static bool in_grace(const struct freeze *freeze, uint64_t since_ns, uint32_t grace_ms)
{
    return freeze->now_ns < since_ns + grace_ms * NSEC_PER_MSEC;
}

/* R11: "at lease end … freeze every HA guest, except those whose group X holds as sole member". While a grace runs the
 * watchdog is not fed, so the promise to the peer (T_kill) holds without the freezing. */
static void choose_freezing(struct freeze *freeze, struct freeze_actions *ret)
{
    if (freeze->lease_valid || in_grace(freeze, freeze->start_ns, freeze->config.start_grace_ms))
        return;
    bool sole_counts = !freeze->storage_gone || in_grace(freeze, freeze->storage_gone_ns, freeze->config.sole_grace_ms);
    for (unsigned i = 0; i < freeze->guest_count; i++) {
        struct freeze_guest *guest = &freeze->guests[i];
        if (guest->signed_gone || (sole_counts && is_sole(freeze, guest)))
            continue;
        if (is_stopped(guest)) {
            ret->verify |= UINT64_C(1) << i;
        } else {
            ret->freeze |= UINT64_C(1) << i;
            guest->state = FREEZE_FREEZING;
        }
    }
}

void freeze_step(struct freeze *freeze, const struct freeze_event *event, struct freeze_actions *ret)
{
    check(event->now_ns >= freeze->now_ns);
    memset(ret, 0, sizeof *ret);
    ret->thaw = -1;
    freeze->now_ns = event->now_ns;
    switch (event->kind) {
    case FREEZE_EV_TICK:
        break;
    case FREEZE_EV_LEASE:
        freeze->lease_valid = event->valid;
        break;
    case FREEZE_EV_GUESTS:
        replace_guests(freeze, event, ret);
        break;
    case FREEZE_EV_CLAIMS:
        replace_claims(freeze, event);
        break;
    case FREEZE_EV_STORAGE_GONE:
        freeze->serves_primary = false;
        freeze->storage_gone = true;
        freeze->storage_gone_ns = freeze->now_ns;
        break;
    case FREEZE_EV_RESULT:
        note_result(freeze, event, ret);
        break;
    case FREEZE_EV_THAW:
        thaw(freeze, event->name, ret);
        break;
    case FREEZE_EV_GUEST_GONE:
        note_gone(freeze, event, ret);
        break;
    }
    /* A result is the answer to an order just given: the next tick orders again. */
    if (event->kind != FREEZE_EV_RESULT)
        choose_freezing(freeze, ret);
    ret->feed = freeze_may_feed(freeze, freeze->lease_valid);
    check(!(ret->thaw >= 0 && !freeze->lease_valid));
    check((ret->freeze & ret->verify) == 0);
}
