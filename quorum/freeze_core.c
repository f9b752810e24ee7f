/* Rule R11 on the node that loses its lease: what each guest lives on, who is frozen, what feeds the watchdog, who may
 * thaw. */
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

static bool is_among(const struct id *groups, unsigned count, const struct id *group)
{
    for (unsigned i = 0; i < count; i++)
        if (id_equal(&groups[i], group))
            return true;
    return false;
}

/* "except those whose group X holds as sole member: nobody else can start these". */
static bool is_sole(const struct freeze *freeze, const struct freeze_guest *guest)
{
    return is_among(freeze->sole, freeze->sole_count, &guest->group);
}

/* R11: W takes no group from a node that claims to be its primary while that node's lease is fresh. Where this node is
 * not the primary, the peer may restart the guest, and it counts nothing but its own promise (ii). A sole claim counts
 * only while the storaged that made it is there: it may have grown the group since. */
enum freeze_basis freeze_basis_of(const struct freeze *freeze, const struct freeze_guest *guest)
{
    if (!freeze->storage_gone && is_sole(freeze, guest))
        return FREEZE_ON_SOLE;
    return is_among(freeze->primary, freeze->primary_count, &guest->group) ? FREEZE_ON_LEASE : FREEZE_ON_PEER_LEASE;
}

const char *freeze_basis_name(enum freeze_basis basis)
{
    static const char *const names[] = {
        [FREEZE_ON_SOLE] = "sole", [FREEZE_ON_LEASE] = "lease", [FREEZE_ON_PEER_LEASE] = "peer lease",
    };
    return names[basis];
}

static bool holds(const struct freeze *freeze, enum freeze_basis basis)
{
    return basis == FREEZE_ON_SOLE || (basis == FREEZE_ON_LEASE ? freeze->lease_valid : freeze->peer_valid);
}

/* Whether the guest's own condition is fulfilled now. */
static bool lives(const struct freeze *freeze, const struct freeze_guest *guest)
{
    return holds(freeze, freeze_basis_of(freeze, guest));
}

static bool is_stopped(const struct freeze_guest *guest)
{
    return guest->state == FREEZE_FROZEN || guest->state == FREEZE_GONE;
}

/* R11: "The watchdog is fed only while every protected guest lives by this rule or is verified frozen or dead, and
 * while the lease is valid or nothing else is served." */
bool freeze_may_feed(const struct freeze *freeze)
{
    if (!freeze->lease_valid && freeze->serves_primary)
        return false;
    for (unsigned i = 0; i < freeze->guest_count; i++)
        if (!is_stopped(&freeze->guests[i]) && !lives(freeze, &freeze->guests[i]))
            return false;
    return true;
}

bool freeze_may_disarm(const struct freeze *freeze)
{
    struct freeze after = *freeze;
    after.lease_valid = after.peer_valid = false;
    return freeze_may_feed(&after);
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
    check(event->count <= FREEZE_GROUPS_MAX && event->primary_count <= FREEZE_GROUPS_MAX);
    freeze->serves_primary = event->serves_primary;
    for (unsigned i = 0; i < event->count; i++)
        freeze->sole[i] = event->groups[i];
    freeze->sole_count = event->count;
    for (unsigned i = 0; i < event->primary_count; i++)
        freeze->primary[i] = event->primary[i];
    freeze->primary_count = event->primary_count;
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

/* R11: a thaw needs the record's swap by the authority, which vmhad makes; here what the guest lives on is the
 * condition: W's lease alone would let it run beside the one that the peer starts. */
static void thaw(struct freeze *freeze, const struct freeze_event *event, struct freeze_actions *ret)
{
    struct freeze_guest *guest = guest_find(freeze, event->name);
    if (guest == NULL) {
        ret->thaw_unknown = true;
        return;
    }
    if (!lives(freeze, guest) || (event->stale && freeze_basis_of(freeze, guest) != FREEZE_ON_SOLE)) {
        ret->thaw_refused = true;
        ret->thaw_needs = freeze_basis_of(freeze, guest);
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

/* While a grace runs the watchdog is not fed, so the promise to the peer (T_kill) holds without the freezing. */
static bool is_spared(const struct freeze *freeze, const struct freeze_guest *guest)
{
    if (lives(freeze, guest) || in_grace(freeze, freeze->start_ns, freeze->config.start_grace_ms))
        return true;
    return freeze->storage_gone && is_sole(freeze, guest) &&
           in_grace(freeze, freeze->storage_gone_ns, freeze->config.sole_grace_ms);
}

/* R11: "When what it lives on is over, it is frozen." Nobody takes an order back: a guest whose lease
 * returns before the kernel said "frozen" is looked at until it is, so that vmhad hears of it and has it thawed. */
static void choose_freezing(struct freeze *freeze, struct freeze_actions *ret)
{
    for (unsigned i = 0; i < freeze->guest_count; i++) {
        struct freeze_guest *guest = &freeze->guests[i];
        bool spared = is_spared(freeze, guest);
        if (guest->signed_gone || (spared && guest->state != FREEZE_FREEZING))
            continue;
        if (spared || is_stopped(guest)) {
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
    freeze->peer_valid = event->peer_valid;
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
        freeze->primary_count = 0;
        freeze->storage_gone = true;
        freeze->storage_gone_ns = freeze->now_ns;
        break;
    case FREEZE_EV_RESULT:
        note_result(freeze, event, ret);
        break;
    case FREEZE_EV_THAW:
        thaw(freeze, event, ret);
        break;
    case FREEZE_EV_GUEST_GONE:
        note_gone(freeze, event, ret);
        break;
    }
    /* A result is the answer to an order just given: the next tick orders again. */
    if (event->kind != FREEZE_EV_RESULT)
        choose_freezing(freeze, ret);
    ret->feed = freeze_may_feed(freeze);
    check(ret->thaw < 0 || lives(freeze, &freeze->guests[ret->thaw]));
    check((ret->freeze & ret->verify) == 0);
}
