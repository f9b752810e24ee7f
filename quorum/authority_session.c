/* The sessions of the authority core: joining equals (R6), return, resync and growth (R7). */
#include "quorum/authority_steps.h"

#define RESYNC_AGAIN_MS 1000u

/* A session that was opened but never written in explains nothing by itself; the one before does. A crash between S's and
 * P's persisting of a new session leaves exactly that difference. */
static const struct id *last_written_session(const struct authority_record *record, uint64_t highest)
{
    return highest ? &record->session : &record->previous_session;
}

bool authority_session_explained(const struct authority_record *own, uint64_t own_highest, uint64_t own_committed,
                                 const struct authority_record *other, uint64_t other_highest, uint64_t other_committed)
{
    if (id_equal(&own->session, &other->session)) /* who has less of it than the other knows to be on both was set back */
        return own_highest >= other_committed && other_highest >= own_committed;
    const struct id *own_base = last_written_session(own, own_highest);
    const struct id *other_base = last_written_session(other, other_highest);
    return id_equal(own_base, other_base) || id_equal(own_base, &other->session) || id_equal(other_base, &own->session);
}

static bool is_explained(const struct authority *a)
{
    return authority_session_explained(&a->record, a->highest, a->committed, &a->peer.record, a->peer.highest,
                                       a->peer.committed);
}

/* Both sides compute the same from the two HELLOs: who was primary, else who has a lease, else the lower node. */
static bool i_am_chosen(const struct authority *a)
{
    if (a->lease_valid != a->peer.lease)
        return a->lease_valid;
    if (a->record.was_primary != a->peer.record.was_primary)
        return a->record.was_primary;
    return a->self == 1;
}

static void with_session(struct authority_record *record, struct authority *a, const struct id *session)
{
    if (a->highest) /* an unwritten session is replaced, not remembered */
        record->previous_session = record->session;
    record->session = *session;
    a->highest = a->committed = 0;
}

void authority_session_try_join(struct authority_work *work)
{
    struct authority *a = work->authority;
    const struct authority_record *peer = &a->peer.record;
    if (a->peer.busy || a->peer.role != AUTHORITY_IDLE || peer->founding != AUTHORITY_FOUNDED)
        return;
    if (peer->epoch > a->record.epoch)
        return; /* R7.1: the lower epoch is the target; the other side acts */
    bool equal = peer->epoch == a->record.epoch && peer->members == AUTHORITY_BOTH && !peer->pending && !peer->incomplete;
    if (!equal) {
        if (peer->epoch < a->record.epoch && !peer->pending && !a->timer_running) {
            a->reason = "the other node's copy is behind; asking the witness to exclude it, then resyncing it";
            a->ask_now = true;
        }
        return;
    }
    if (!i_am_chosen(a)) {
        a->reason = "waiting for the other node to open the session";
        return;
    }
    if (!is_explained(a)) {
        a->reason = "the two copies do not explain each other (one was restored); excluding the other for a full comparison";
        a->ask_now = !a->timer_running;
        return;
    }
    if (!a->lease_valid) {
        a->reason = "waiting for its own lease";
        return;
    }
    authority_enter(a, AUTHORITY_OPENING, "chosen as primary; opening the session");
    a->session = work->event->fresh;
    a->session_generation = a->lease_generation;
    authority_send(work, AUTHORITY_OPEN, a->record.epoch, &a->session);
}

void authority_session_try_resync(struct authority_work *work)
{
    struct authority *a = work->authority;
    if (a->peer.busy || a->peer.role != AUTHORITY_IDLE || a->peer.record.epoch >= a->record.epoch || !a->lease_valid)
        return;
    a->session = work->event->fresh;
    authority_send(work, AUTHORITY_RESYNC, a->record.epoch, &a->session);
}

/* ---- messages ------------------------------------------------------------------------------------------------------ */

static void refuse(struct authority_work *work)
{
    authority_send(work, AUTHORITY_CLOSE, work->authority->record.epoch, &work->event->message.session);
    work->authority->announced.kind = 0; /* a HELLO follows as soon as something can be said */
}

static void on_hello(struct authority_work *work)
{
    struct authority *a = work->authority;
    a->peer = work->event->message;
    a->peer_known = true;
    /* R8: on this very link the other node says that it serves nothing; it could only begin with our consent. */
    if (a->asking_peer_lease && a->peer.role == AUTHORITY_IDLE)
        authority_peer_lease_over(work);
}

/* R6, R1b: the peer agrees to be S at the same e. */
static void on_open(struct authority_work *work)
{
    struct authority *a = work->authority;
    const struct authority_message *message = &work->event->message;
    bool joinable = a->role == AUTHORITY_IDLE && authority_is_free(a) && !a->excluded && message->epoch == a->record.epoch &&
                    a->record.members == AUTHORITY_BOTH && !a->record.pending && !a->record.incomplete &&
                    a->record.founding == AUTHORITY_FOUNDED;
    if (!joinable) {
        refuse(work);
        return;
    }
    struct authority_record record = a->record;
    with_session(&record, a, &message->session);
    record.was_primary = false;
    a->session = message->session;
    authority_save(work, &record, AUTHORITY_SAVED_ACCEPT);
}

static void on_accept(struct authority_work *work)
{
    struct authority *a = work->authority;
    if (a->role != AUTHORITY_OPENING || a->opened || a->saving)
        return;
    struct authority_record record = a->record;
    with_session(&record, a, &a->session);
    record.was_primary = true;
    struct authority_action *begin = authority_emit(work, AUTHORITY_ACT_BEGIN);
    begin->session = a->session;
    begin->epoch = a->record.epoch;
    begin->as = AUTHORITY_OPENING;
    authority_save(work, &record, AUTHORITY_SAVED_OPENED);
}

/* R7.1: the lower e is the target and persists inc=1. */
static void on_resync(struct authority_work *work)
{
    struct authority *a = work->authority;
    const struct authority_message *message = &work->event->message;
    if (a->role != AUTHORITY_IDLE || !authority_is_free(a) || message->epoch <= a->record.epoch) {
        refuse(work);
        return;
    }
    authority_emit(work, AUTHORITY_ACT_DROP_HELD); /* ghost writes: what was begun under the old authority is not replayed */
    struct authority_record record = a->record;
    record.incomplete = true;
    record.pending = 0;
    record.founding = AUTHORITY_FOUNDED;
    a->session = message->session;
    a->source_epoch = message->epoch;
    a->asking_peer_lease = false;
    a->known_epoch = 0;
    authority_save(work, &record, AUTHORITY_SAVED_TARGET);
}

static void on_targeted(struct authority_work *work)
{
    struct authority *a = work->authority;
    if (a->role != AUTHORITY_SOLE || a->targeted)
        return;
    a->targeted = true;
    struct authority_action *begin = authority_emit(work, AUTHORITY_ACT_BEGIN);
    begin->session = a->session;
    begin->epoch = a->record.epoch;
    begin->as = AUTHORITY_SOLE;
    begin->everything = !is_explained(a);
}

static void on_grow(struct authority_work *work)
{
    struct authority *a = work->authority;
    if (a->role != AUTHORITY_TARGET || a->saving || work->event->message.epoch <= a->record.epoch)
        return;
    struct authority_record record = a->record;
    record.epoch = work->event->message.epoch;
    record.members = AUTHORITY_BOTH;
    record.incomplete = false;
    record.pending = 0;
    record.was_primary = false;
    with_session(&record, a, &a->session);
    authority_save(work, &record, AUTHORITY_SAVED_GROWN);
}

static void on_grown(struct authority_work *work)
{
    struct authority *a = work->authority;
    if (a->role != AUTHORITY_GROWING || a->opened || work->event->message.epoch != a->record.pending)
        return;
    a->opened = true;
    authority_emit(work, AUTHORITY_ACT_SERVE);
    authority_ask_witness(work, a->record.pending, AUTHORITY_BOTH); /* R7.5 */
}

static void on_close(struct authority_work *work)
{
    struct authority *a = work->authority;
    bool was_primary = a->role == AUTHORITY_PRIMARY;
    authority_lose_session(work, "the other node left the session", false);
    if (was_primary)
        a->ask_now = true; /* R2: any failure of S to store is R4 with S's consent */
    if (a->role == AUTHORITY_SOLE)
        authority_timer(work, RESYNC_AGAIN_MS);
}

void authority_session_message(struct authority_work *work)
{
    struct authority *a = work->authority;
    const struct authority_message *message = &work->event->message;
    if (!a->link_up)
        return;
    switch (message->kind) {
    case AUTHORITY_HELLO: on_hello(work); return;
    case AUTHORITY_OPEN: on_open(work); return;
    case AUTHORITY_RESYNC: on_resync(work); return;
    default: break;
    }
    if (id_is_null(&a->session) || !id_equal(&message->session, &a->session))
        return; /* of a session that is over */
    switch (message->kind) {
    case AUTHORITY_ACCEPT: on_accept(work); break;
    case AUTHORITY_TARGETED: on_targeted(work); break;
    case AUTHORITY_RECONCILED:
        if (a->role == AUTHORITY_SECONDARY)
            authority_emit(work, AUTHORITY_ACT_FORGET_TAIL);
        break;
    case AUTHORITY_MERGED:
        if (a->role == AUTHORITY_TARGET)
            authority_emit(work, AUTHORITY_ACT_FORGET_TAIL); /* R7.2 */
        break;
    case AUTHORITY_GROW: on_grow(work); break;
    case AUTHORITY_GROWN: on_grown(work); break;
    case AUTHORITY_CLOSE: on_close(work); break;
    default: break;
    }
}

/* ---- what was waited for --------------------------------------------------------------------------------------------- */

static void saved_accept(struct authority_work *work)
{
    struct authority *a = work->authority;
    authority_enter(a, AUTHORITY_SECONDARY, "the other node is primary; both copies are kept equal");
    a->ask_now = false;
    struct authority_action *begin = authority_emit(work, AUTHORITY_ACT_BEGIN);
    begin->session = a->session;
    begin->epoch = a->record.epoch;
    begin->as = AUTHORITY_SECONDARY;
    authority_send(work, AUTHORITY_ACCEPT, a->record.epoch, &a->session);
    authority_emit(work, AUTHORITY_ACT_SEND_TAIL);
    authority_emit(work, AUTHORITY_ACT_FORWARD);
}

static void saved_target(struct authority_work *work)
{
    struct authority *a = work->authority;
    authority_enter(a, AUTHORITY_TARGET, "the other node brings this copy up to date");
    a->excluded = false;
    a->ask_now = false;
    struct authority_action *begin = authority_emit(work, AUTHORITY_ACT_BEGIN);
    begin->session = a->session;
    begin->epoch = a->source_epoch;
    begin->as = AUTHORITY_TARGET;
    authority_send(work, AUTHORITY_TARGETED, a->record.epoch, &a->session);
    authority_emit(work, AUTHORITY_ACT_SEND_TAIL);
    authority_emit(work, AUTHORITY_ACT_FORWARD);
}

static void saved_pending(struct authority_work *work)
{
    struct authority *a = work->authority;
    if (a->role != AUTHORITY_SOLE)
        return; /* it left the role meanwhile; R7.6 follows from the record */
    bool session_lives = !id_is_null(&a->session) && id_equal(&a->session, &a->save_session);
    authority_enter(a, session_lives ? AUTHORITY_GROWING : AUTHORITY_IDLE,
                    session_lives ? "the copies are equal; writing to both" : "the session broke while growing");
    if (!session_lives) { /* R7.6: pend≠0 never resumes sole on e */
        a->quiescing = true;
        authority_emit(work, AUTHORITY_ACT_QUIESCE);
        return;
    }
    a->session_generation = a->lease_generation;
    a->opened = false;
    struct authority_action *raise = authority_emit(work, AUTHORITY_ACT_RAISE);
    raise->session = a->session;
    raise->epoch = a->record.pending;
    raise->as = AUTHORITY_GROWING;
    authority_send(work, AUTHORITY_GROW, a->record.pending, &a->session);
    if (!a->lease_valid)
        authority_lose_session(work, "its own lease has lapsed", true);
}

static void saved_grown(struct authority_work *work)
{
    struct authority *a = work->authority;
    authority_enter(a, AUTHORITY_SECONDARY, "its copy is complete again; the other node is primary");
    struct authority_action *raise = authority_emit(work, AUTHORITY_ACT_RAISE);
    raise->session = a->session;
    raise->epoch = a->record.epoch;
    raise->as = AUTHORITY_SECONDARY;
    authority_send(work, AUTHORITY_GROWN, a->record.epoch, &a->session);
}

static void reconcile_when_ready(struct authority_work *work)
{
    struct authority *a = work->authority;
    if (a->role == AUTHORITY_OPENING && a->opened && a->tail_merged)
        authority_emit(work, AUTHORITY_ACT_RECONCILE); /* R6: both tails are copied before it serves */
}

void authority_session_saved(struct authority_work *work, enum authority_after_save after)
{
    struct authority *a = work->authority;
    bool session_lives = !id_is_null(&a->session) && id_equal(&a->session, &a->save_session);
    switch (after) {
    case AUTHORITY_SAVED_PENDING:
        saved_pending(work);
        return;
    case AUTHORITY_SAVED_ACCEPT:
        if (session_lives && a->role == AUTHORITY_IDLE && !a->excluded)
            saved_accept(work);
        else if (session_lives && a->role == AUTHORITY_IDLE) /* excluded while it was being stored */
            authority_lose_session(work, a->reason, true);
        return;
    case AUTHORITY_SAVED_TARGET:
        if (session_lives && a->role == AUTHORITY_IDLE)
            saved_target(work);
        return;
    case AUTHORITY_SAVED_OPENED:
        if (session_lives && a->role == AUTHORITY_OPENING) {
            a->opened = true;
            reconcile_when_ready(work);
        }
        return;
    case AUTHORITY_SAVED_GROWN:
        if (session_lives && a->role == AUTHORITY_TARGET)
            saved_grown(work);
        return;
    case AUTHORITY_SAVED_PRIMARY:
        if (session_lives && a->role == AUTHORITY_GROWING)
            authority_enter(a, AUTHORITY_PRIMARY, "both copies are current and the witness knows");
        return;
    default:
        check(!"a save that completes nothing known");
    }
}

void authority_session_tail_merged(struct authority_work *work)
{
    struct authority *a = work->authority;
    if (a->tail_merged)
        return;
    if (a->role == AUTHORITY_OPENING) {
        a->tail_merged = true;
        reconcile_when_ready(work);
    } else if (a->role == AUTHORITY_SOLE && a->targeted) {
        a->tail_merged = true;
        authority_send(work, AUTHORITY_MERGED, a->record.epoch, &a->session);
        authority_emit(work, AUTHORITY_ACT_RESYNC);
    }
}

void authority_session_reconciled(struct authority_work *work)
{
    struct authority *a = work->authority;
    if (a->role != AUTHORITY_OPENING || !a->opened || !a->tail_merged)
        return;
    authority_send(work, AUTHORITY_RECONCILED, a->record.epoch, &a->session);
    authority_enter(a, AUTHORITY_PRIMARY, "both copies are current");
    authority_emit(work, AUTHORITY_ACT_SERVE);
}

/* R7.4: dirty=∅. The source persists pend=e+1 and switches to dual acknowledgement before anything else. */
void authority_session_in_sync(struct authority_work *work)
{
    struct authority *a = work->authority;
    if (a->role != AUTHORITY_SOLE || !a->tail_merged || a->saving)
        return;
    if (!a->lease_valid || !a->witness_up) { /* R7.6: stay sole, with the other as an in-sync shadow */
        a->reason = a->lease_valid ? "the copies are equal, but the witness cannot be reached to say so"
                                   : "the copies are equal, but it has no lease";
        authority_lose_session(work, a->reason, true);
        authority_timer(work, RESYNC_AGAIN_MS);
        return;
    }
    struct authority_record record = a->record;
    record.pending = record.epoch + 1;
    record.was_primary = true; /* it served as sole: nobody else could since */
    a->highest = 1; /* the session that ends here was served alone: whatever it was, it is the one before */
    with_session(&record, a, &a->session);
    authority_save(work, &record, AUTHORITY_SAVED_PENDING);
}

void authority_session_growth_verdict(struct authority_work *work)
{
    struct authority *a = work->authority;
    if (work->event->verdict == AUTHORITY_OK && !a->saving) {
        struct authority_record record = a->record;
        record.epoch = record.pending;
        record.members = AUTHORITY_BOTH;
        record.pending = 0;
        record.was_primary = true;
        authority_save(work, &record, AUTHORITY_SAVED_PRIMARY);
        return;
    }
    a->reason = "the copies are equal; the witness has not confirmed yet";
    authority_timer(work, RESYNC_AGAIN_MS);
}
