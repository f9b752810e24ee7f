/* Decides who may serve a group: events, W's verdicts and takeovers (R1, R4, R6); sessions are in authority_session.c. */
#include "quorum/authority_core.h"

#include <string.h>

#include "quorum/authority_steps.h"

/* How long a node that was not the primary leaves the peer alone before it asks W for the group: the primary asks at
 * once (R4), and two hosts that start together find each other within the second delay. Neither is a safety rule. */
#define ASK_AS_SECONDARY_MS 500u
#define ASK_AFTER_START_MS 5000u
#define ASK_AGAIN_MS 1000u

static const struct fsm_state roles[AUTHORITY_ROLE_COUNT] = {
    [AUTHORITY_IDLE] = {"idle",
                        FSM_BIT(AUTHORITY_OPENING) | FSM_BIT(AUTHORITY_SECONDARY) | FSM_BIT(AUTHORITY_SOLE) |
                            FSM_BIT(AUTHORITY_TARGET),
                        "serves nothing; requests are held"},
    [AUTHORITY_OPENING] = {"opening", FSM_BIT(AUTHORITY_PRIMARY) | FSM_BIT(AUTHORITY_IDLE),
                           "chosen as primary; both tails are being copied before it serves"},
    [AUTHORITY_PRIMARY] = {"primary", FSM_BIT(AUTHORITY_IDLE), "orders all writes; both copies are current"},
    [AUTHORITY_SECONDARY] = {"secondary", FSM_BIT(AUTHORITY_IDLE), "mirrors the primary and forwards to it"},
    [AUTHORITY_SOLE] = {"sole", FSM_BIT(AUTHORITY_GROWING) | FSM_BIT(AUTHORITY_IDLE),
                        "the only current copy; serves alone and brings the other up to date"},
    [AUTHORITY_GROWING] = {"growing", FSM_BIT(AUTHORITY_PRIMARY) | FSM_BIT(AUTHORITY_IDLE),
                           "writes to both copies again; the witness has not confirmed yet"},
    [AUTHORITY_TARGET] = {"target", FSM_BIT(AUTHORITY_SECONDARY) | FSM_BIT(AUTHORITY_IDLE),
                          "is being brought up to date and forwards"},
};
const struct fsm_table authority_roles = {"authority", AUTHORITY_ROLE_COUNT, roles};

/* ---- small steps ------------------------------------------------------------------------------------------------ */

struct authority_action *authority_emit(struct authority_work *work, enum authority_action_kind kind)
{
    check(work->out->count < AUTHORITY_ACTIONS_MAX);
    struct authority_action *action = &work->out->items[work->out->count++];
    memset(action, 0, sizeof *action);
    action->kind = kind;
    return action;
}

void authority_enter(struct authority *authority, enum authority_role role, const char *reason)
{
    fsm_move(&authority_roles, &authority->role, role);
    authority->reason = reason;
}

void authority_save(struct authority_work *work, const struct authority_record *record, enum authority_after_save after)
{
    struct authority *a = work->authority;
    check(!a->saving);
    check(record->epoch >= a->record.epoch); /* I4: epochs rise */
    check(record->pending == 0 || record->pending == record->epoch + 1);
    a->record = *record;
    a->saving = true;
    a->after_save = after;
    a->save_session = a->session;
    authority_emit(work, AUTHORITY_ACT_SAVE)->record = *record;
}

void authority_send(struct authority_work *work, enum authority_message_kind kind, uint64_t epoch, const struct id *session)
{
    struct authority_action *action = authority_emit(work, AUTHORITY_ACT_SEND);
    action->message.kind = (uint8_t)kind;
    action->message.epoch = epoch;
    action->message.session = *session;
}

void authority_timer(struct authority_work *work, uint32_t delay_ms)
{
    check(delay_ms > 0);
    work->authority->timer_running = true;
    authority_emit(work, AUTHORITY_ACT_TIMER)->delay_ms = delay_ms;
}

bool authority_is_free(const struct authority *a)
{
    return !a->saving && !a->quiescing && !a->cas_outstanding && !a->storage_failed;
}

bool authority_is_authority(const struct authority *a)
{
    return a->role == AUTHORITY_PRIMARY || a->role == AUTHORITY_SOLE || a->role == AUTHORITY_GROWING;
}

bool authority_may_serve(const struct authority *a, bool lease_valid, uint64_t generation)
{
    switch (a->role) {
    case AUTHORITY_SOLE: /* R1a; needs neither W nor peer. I9: pend≠0 and inc=1 never serve as sole. */
        check(!a->record.incomplete);
        return true;
    case AUTHORITY_PRIMARY:
    case AUTHORITY_GROWING: /* R1b, R8: the lease is valid and of the session's generation */
        return lease_valid && generation == a->session_generation;
    default:
        return false;
    }
}

static void forget_session(struct authority *a)
{
    a->session = (struct id){0};
    a->targeted = a->tail_merged = a->opened = false;
    a->peer_known = false;
    a->announced.kind = 0; /* say HELLO again, whatever it says */
}

void authority_lose_session(struct authority_work *work, const char *reason, bool tell)
{
    struct authority *a = work->authority;
    if (tell && a->link_up && !id_is_null(&a->session))
        authority_send(work, AUTHORITY_CLOSE, a->record.epoch, &a->session);
    if (a->role == AUTHORITY_SOLE) {
        if (!id_is_null(&a->session))
            authority_emit(work, AUTHORITY_ACT_END);
        forget_session(a);
        return;
    }
    if (a->role == AUTHORITY_IDLE) {
        forget_session(a);
        return;
    }
    bool authority_lost = a->role == AUTHORITY_PRIMARY || a->role == AUTHORITY_GROWING;
    forget_session(a);
    authority_enter(a, AUTHORITY_IDLE, reason);
    a->quiescing = true;
    authority_emit(work, AUTHORITY_ACT_QUIESCE);
    a->ask_now = false;
    if (!authority_lost)
        authority_timer(work, ASK_AS_SECONDARY_MS);
}

/* ---- HELLO: what the other side should know ----------------------------------------------------------------------- */

static void announce(struct authority_work *work)
{
    struct authority *a = work->authority;
    if (!a->link_up || !id_is_null(&a->session) || (a->role != AUTHORITY_IDLE && a->role != AUTHORITY_SOLE))
        return;
    struct authority_message hello = {
        .kind = AUTHORITY_HELLO,
        .epoch = a->record.epoch,
        .record = a->record,
        .highest = a->highest,
        .committed = a->committed,
        .role = (uint8_t)a->role,
        .busy = !authority_is_free(a),
        .lease = a->lease_valid,
        .failed = a->storage_failed,
    };
    const struct authority_message *last = &a->announced;
    bool same = last->kind == hello.kind && last->epoch == hello.epoch && last->highest == hello.highest &&
                last->role == hello.role && last->busy == hello.busy && last->lease == hello.lease &&
                last->failed == hello.failed && last->committed == hello.committed &&
                last->record.members == hello.record.members && last->record.pending == hello.record.pending &&
                last->record.incomplete == hello.record.incomplete && last->record.founding == hello.record.founding &&
                last->record.was_primary == hello.record.was_primary &&
                id_equal(&last->record.session, &hello.record.session) &&
                id_equal(&last->record.previous_session, &hello.record.previous_session);
    if (same)
        return;
    a->announced = hello;
    authority_emit(work, AUTHORITY_ACT_SEND)->message = hello;
}

/* ---- asking W ------------------------------------------------------------------------------------------------------ */

void authority_ask_witness(struct authority_work *work, uint64_t to_epoch, uint8_t to_members)
{
    struct authority *a = work->authority;
    check(!a->cas_outstanding);
    a->cas_outstanding = true;
    a->cas_is_growth = a->role == AUTHORITY_GROWING;
    struct authority_action *action = authority_emit(work, AUTHORITY_ACT_CAS);
    action->record = a->record; /* was_primary: "telling the role held in the last session" */
    action->from[0].epoch = a->record.epoch;
    action->from[0].members = a->record.members;
    action->from_count = 1;
    if (a->record.founding == AUTHORITY_CREATOR) {
        action->from[0].epoch = 0;
        action->from[0].members = 0;
    } else if (a->record.pending && to_epoch == a->record.pending + 1) {
        /* R7.6, in doubt: {(e,{X}) or (e+1,{A,B})} → (e+2,{X}) */
        action->from[1].epoch = a->record.pending;
        action->from[1].members = AUTHORITY_BOTH;
        action->from_count = 2;
    }
    action->to.epoch = to_epoch;
    action->to.members = to_members;
}

void authority_serve_sole_or_wait(struct authority_work *work)
{
    struct authority *a = work->authority;
    check(authority_is_only_member(a) && !a->record.pending && !a->record.incomplete);
    if (a->record.was_primary) { /* R1a: nothing to wait for when X itself was the primary */
        authority_enter(a, AUTHORITY_SOLE, "it holds the only current copy");
        authority_emit(work, AUTHORITY_ACT_SERVE);
        return;
    }
    a->asking_peer_lease = true;
    a->reason = "it holds the only current copy; waiting until the other node's lease is surely over";
    if (a->serve_after_ms)
        authority_timer(work, a->serve_after_ms);
    else
        authority_emit(work, AUTHORITY_ACT_ASK_PEER_LEASE);
    a->serve_after_ms = 0;
}

static void adopt_sole(struct authority_work *work, uint64_t epoch)
{
    struct authority *a = work->authority;
    struct authority_record record = a->record;
    record.epoch = epoch;
    record.members = a->self;
    record.pending = 0;
    a->reason = "the witness made it the sole holder; storing that";
    authority_save(work, &record, AUTHORITY_SAVED_SOLE);
}

/* ---- deciding, whenever idle and free -------------------------------------------------------------------------------- */

static void decide_founding(struct authority_work *work)
{
    struct authority *a = work->authority;
    if (!a->peer_known)
        return;
    if (a->record.founding == AUTHORITY_CREATOR) {
        if (!a->timer_running)
            authority_ask_witness(work, 1, AUTHORITY_BOTH);
    } else if (a->peer.record.founding == AUTHORITY_FOUNDED) {
        struct authority_record record = a->record;
        record.founding = AUTHORITY_FOUNDED;
        authority_save(work, &record, AUTHORITY_SAVED_FOUNDED);
    }
}

static void decide_both(struct authority_work *work)
{
    struct authority *a = work->authority;
    if (a->excluded)
        return;
    if (a->link_up && a->peer_known && a->peer.failed && !a->timer_running)
        a->ask_now = true;
    if (a->ask_now) {
        a->reason = "the session with the other node is lost; asking the witness for the group";
        authority_ask_witness(work, a->record.epoch + 1, a->self);
        return;
    }
    if (a->link_up && a->peer_known) {
        authority_session_try_join(work);
        if (a->ask_now) /* the other side's copy cannot be joined as an equal: exclude it, then resync it */
            authority_ask_witness(work, a->record.epoch + 1, a->self);
        return;
    }
    if (!a->timer_running && !a->link_up)
        authority_timer(work, ASK_AGAIN_MS);
}

static void decide(struct authority_work *work)
{
    struct authority *a = work->authority;
    if (!authority_is_free(a))
        return;
    if (a->role == AUTHORITY_SOLE) {
        if (id_is_null(&a->session) && a->link_up && a->peer_known && !a->timer_running)
            authority_session_try_resync(work);
        return;
    }
    if (a->role != AUTHORITY_IDLE)
        return;
    if (a->record.founding != AUTHORITY_FOUNDED) {
        decide_founding(work);
    } else if (a->record.incomplete) {
        a->reason = "its copy is incomplete; waiting for the other node to bring it up to date"; /* I9 */
    } else if (a->known_epoch > a->record.epoch && !a->excluded) {
        adopt_sole(work, a->known_epoch);
    } else if (a->record.pending) {
        if (!a->excluded && !a->timer_running) {
            a->reason = "a growth was interrupted; asking the witness"; /* R7.6: never resume sole on e */
            authority_ask_witness(work, a->record.pending + 1, a->self);
        }
    } else if (authority_is_only_member(a)) {
        if (!a->asking_peer_lease && !a->excluded)
            authority_serve_sole_or_wait(work);
    } else if (a->record.members == AUTHORITY_BOTH) {
        decide_both(work);
    }
}

/* ---- events ----------------------------------------------------------------------------------------------------------- */

static void on_start(struct authority_work *work)
{
    struct authority *a = work->authority;
    a->record = work->event->record;
    a->highest = work->event->highest;
    a->committed = work->event->committed;
    a->reason = "starting; looking for the other node";
    if (a->record.founding == AUTHORITY_FOUNDED) {
        a->founded_told = true;
        authority_emit(work, AUTHORITY_ACT_FOUNDED);
        if (a->record.members == AUTHORITY_BOTH && !a->peer_suspect)
            authority_timer(work, ASK_AFTER_START_MS);
    }
}

static void on_link(struct authority_work *work)
{
    struct authority *a = work->authority;
    if (a->link_up == work->event->up)
        return;
    a->link_up = work->event->up;
    a->announced.kind = 0;
    if (a->link_up)
        return;
    bool was_authority = a->role == AUTHORITY_PRIMARY || a->role == AUTHORITY_GROWING;
    a->peer_known = false;
    if (!id_is_null(&a->session))
        authority_lose_session(work, "the mirror link is gone", false);
    if (was_authority || a->peer_suspect)
        a->ask_now = true; /* R4: P asks as soon as it suspects */
    else if (a->role == AUTHORITY_IDLE && !a->timer_running)
        authority_timer(work, ASK_AS_SECONDARY_MS);
}

static void on_peer(struct authority_work *work)
{
    struct authority *a = work->authority;
    a->peer_suspect = !work->event->up;
    if (a->peer_suspect && a->role == AUTHORITY_IDLE)
        a->ask_now = true;
    if (!a->peer_suspect && a->link_up)
        a->ask_now = false;
}

static void on_lease(struct authority_work *work)
{
    struct authority *a = work->authority;
    a->lease_valid = work->event->up;
    a->lease_generation = work->event->generation;
    bool leased = a->role == AUTHORITY_PRIMARY || a->role == AUTHORITY_GROWING || a->role == AUTHORITY_OPENING;
    if (leased && (!a->lease_valid || a->lease_generation != a->session_generation))
        authority_lose_session(work, "its own lease has lapsed", true); /* R1b, R8 */
}

static void become_excluded(struct authority_work *work, const char *reason)
{
    struct authority *a = work->authority;
    a->excluded = true;
    a->ask_now = false;
    a->asking_peer_lease = false;
    if (a->role == AUTHORITY_SOLE) {
        authority_lose_session(work, reason, true);
        authority_enter(a, AUTHORITY_IDLE, reason);
        a->quiescing = true;
        authority_emit(work, AUTHORITY_ACT_QUIESCE);
    } else if (a->role != AUTHORITY_IDLE) {
        authority_lose_session(work, reason, true);
    }
    a->reason = reason;
    authority_emit(work, AUTHORITY_ACT_DROP_HELD);
}

static void on_record(struct authority_work *work)
{
    struct authority *a = work->authority;
    uint64_t epoch = work->event->epoch;
    uint8_t members = work->event->members;
    if (epoch <= a->record.epoch)
        return;
    if (!(members & a->self)) {
        if (!a->excluded && a->role != AUTHORITY_TARGET && !a->record.incomplete)
            become_excluded(work, "the witness gave the group to the other node");
    } else if (members == a->self && !a->record.incomplete) {
        /* A takeover asked for earlier was granted after all: carry it out (R4 ADOPT). */
        a->known_epoch = epoch;
        if (a->role == AUTHORITY_PRIMARY || a->role == AUTHORITY_SECONDARY || a->role == AUTHORITY_OPENING)
            authority_lose_session(work, "the witness granted an earlier takeover", true);
    }
}

void authority_peer_lease_over(struct authority_work *work)
{
    struct authority *a = work->authority;
    a->asking_peer_lease = false;
    a->timer_running = false;
    if (a->role == AUTHORITY_IDLE && authority_is_free(a) && authority_is_only_member(a) && !a->record.pending &&
        !a->record.incomplete) {
        authority_enter(a, AUTHORITY_SOLE, "it holds the only current copy, and the other node can serve it no longer");
        authority_emit(work, AUTHORITY_ACT_SERVE);
    }
}

static void on_peer_lease(struct authority_work *work)
{
    if (!work->authority->asking_peer_lease)
        return;
    if (work->event->wait_ms)
        authority_timer(work, work->event->wait_ms);
    else
        authority_peer_lease_over(work);
}

static void on_timer(struct authority_work *work)
{
    struct authority *a = work->authority;
    if (!a->timer_running)
        return;
    a->timer_running = false;
    if (a->asking_peer_lease)
        authority_emit(work, AUTHORITY_ACT_ASK_PEER_LEASE);
    else if (a->role == AUTHORITY_IDLE && !a->link_up)
        a->ask_now = true;
    else if (a->role == AUTHORITY_GROWING && !a->cas_outstanding && !a->saving && a->opened)
        authority_ask_witness(work, a->record.pending, AUTHORITY_BOTH);
}

static void on_takeover_verdict(struct authority_work *work)
{
    struct authority *a = work->authority;
    const struct authority_event *event = work->event;
    if (a->role != AUTHORITY_IDLE || a->quiescing || a->saving)
        return; /* joined meanwhile; if it was granted after all, W's record tells (on_record) */
    switch (event->verdict) {
    case AUTHORITY_OK:
        if (a->record.founding == AUTHORITY_CREATOR) {
            struct authority_record record = a->record;
            record.founding = AUTHORITY_FOUNDED;
            authority_save(work, &record, AUTHORITY_SAVED_FOUNDED);
            return;
        }
        check(event->epoch > a->record.epoch && event->members == a->self);
        a->serve_after_ms = event->serve_after_ms;
        adopt_sole(work, event->epoch);
        return;
    case AUTHORITY_ADOPT:
        if (event->epoch > a->record.epoch && event->members == a->self && !a->record.incomplete) {
            a->serve_after_ms = event->serve_after_ms;
            adopt_sole(work, event->epoch);
            return;
        }
        /* W knows both as members at an epoch this copy has not seen: this copy was set back; never serve it. */
        become_excluded(work, "the witness knows a newer state than this copy; it must be resynced");
        return;
    case AUTHORITY_STALE:
        if (a->record.founding == AUTHORITY_CREATOR) {
            struct authority_record record = a->record;
            record.founding = AUTHORITY_FOUNDED;
            authority_save(work, &record, AUTHORITY_SAVED_FOUNDED);
        }
        become_excluded(work, "the witness gave the group to the other node");
        return;
    case AUTHORITY_WAIT:
        a->reason = "the other node may still be serving; waiting as the witness says";
        a->ask_now = false;
        authority_timer(work, event->wait_ms ? event->wait_ms : ASK_AGAIN_MS);
        return;
    case AUTHORITY_NO_ANSWER:
        a->reason = "the witness does not answer and the other node is away; writes are held";
        a->ask_now = !a->link_up;
        if (a->record.founding == AUTHORITY_CREATOR)
            authority_timer(work, ASK_AGAIN_MS);
        return;
    case AUTHORITY_BEHIND:
    case AUTHORITY_REFUSED:
        a->reason = event->verdict == AUTHORITY_BEHIND ? "the witness is behind this copy and must be told first"
                                                       : "the witness refused; see its reason in the log";
        a->ask_now = false;
        authority_timer(work, ASK_AGAIN_MS);
        return;
    }
}

static void on_verdict(struct authority_work *work)
{
    struct authority *a = work->authority;
    if (!a->cas_outstanding)
        return;
    a->cas_outstanding = false;
    if (!a->cas_is_growth)
        on_takeover_verdict(work);
    else if (a->role == AUTHORITY_GROWING)
        authority_session_growth_verdict(work);
    /* else the session broke while W was asked: in doubt, R7.6, decided anew */
}

static void on_saved(struct authority_work *work)
{
    struct authority *a = work->authority;
    check(a->saving);
    a->saving = false;
    enum authority_after_save after = (enum authority_after_save)a->after_save;
    a->after_save = AUTHORITY_SAVED_NOTHING;
    switch (after) {
    case AUTHORITY_SAVED_NOTHING:
        return;
    case AUTHORITY_SAVED_FOUNDED:
        if (!a->founded_told) {
            a->founded_told = true;
            authority_emit(work, AUTHORITY_ACT_FOUNDED);
        }
        return;
    case AUTHORITY_SAVED_SOLE:
        if (a->role == AUTHORITY_IDLE && !a->quiescing && !a->excluded)
            authority_serve_sole_or_wait(work);
        return;
    default:
        authority_session_saved(work, after);
    }
}

static void on_store_failed(struct authority_work *work)
{
    struct authority *a = work->authority;
    a->storage_failed = true;
    if (a->role == AUTHORITY_SOLE) {
        authority_lose_session(work, "its own storage failed", true);
        authority_enter(a, AUTHORITY_IDLE, "its own storage failed");
        a->quiescing = true;
        authority_emit(work, AUTHORITY_ACT_QUIESCE);
    } else if (a->role != AUTHORITY_IDLE) {
        authority_lose_session(work, "its own storage failed", true);
    }
    a->reason = "its own storage failed";
}

void authority_init(struct authority *authority, uint8_t self)
{
    check(self == 1 || self == 2);
    memset(authority, 0, sizeof *authority);
    authority->self = self;
    authority->role = AUTHORITY_IDLE;
    authority->reason = "starting";
    authority->witness_up = true;
}

void authority_step(struct authority *authority, const struct authority_event *event, struct authority_actions *ret)
{
    struct authority_work work = {authority, event, ret};
    ret->count = 0;
    switch (event->kind) {
    case AUTHORITY_EV_START: on_start(&work); break;
    case AUTHORITY_EV_LINK: on_link(&work); break;
    case AUTHORITY_EV_MESSAGE: authority_session_message(&work); break;
    case AUTHORITY_EV_SAVED: on_saved(&work); break;
    case AUTHORITY_EV_QUIESCED:
        authority->quiescing = false;
        authority->highest = event->highest;
        authority->committed = event->committed;
        break;
    case AUTHORITY_EV_TAIL_MERGED: authority_session_tail_merged(&work); break;
    case AUTHORITY_EV_RECONCILED: authority_session_reconciled(&work); break;
    case AUTHORITY_EV_IN_SYNC: authority_session_in_sync(&work); break;
    case AUTHORITY_EV_VERDICT: on_verdict(&work); break;
    case AUTHORITY_EV_RECORD: on_record(&work); break;
    case AUTHORITY_EV_PEER: on_peer(&work); break;
    case AUTHORITY_EV_LEASE: on_lease(&work); break;
    case AUTHORITY_EV_PEER_LEASE: on_peer_lease(&work); break;
    case AUTHORITY_EV_TIMER: on_timer(&work); break;
    case AUTHORITY_EV_WITNESS: authority->witness_up = event->up; break;
    case AUTHORITY_EV_STORE_FAILED: on_store_failed(&work); break;
    }
    decide(&work);
    announce(&work);
    /* I9 */
    check(!(authority->role == AUTHORITY_SOLE && authority->record.incomplete));
    check(!(authority->role == AUTHORITY_SOLE && authority->record.pending && !authority->saving));
}
