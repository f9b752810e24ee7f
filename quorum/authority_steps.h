/* Private to the authority core: the steps that its files share. */
#pragma once

#include "common/check.h"
#include "quorum/authority_core.h"

/* What a pending ACT_SAVE completes once it is durable. */
enum authority_after_save {
    AUTHORITY_SAVED_NOTHING,
    AUTHORITY_SAVED_FOUNDED,
    AUTHORITY_SAVED_SOLE,    /* (e+1,{X}) granted: serve after R8 */
    AUTHORITY_SAVED_ACCEPT,  /* S: session joined */
    AUTHORITY_SAVED_OPENED,  /* P: session joined */
    AUTHORITY_SAVED_TARGET,  /* inc=1 */
    AUTHORITY_SAVED_PENDING, /* source: pend=e+1 */
    AUTHORITY_SAVED_GROWN,   /* target: (e+1, both), inc=0 */
    AUTHORITY_SAVED_PRIMARY, /* source: W agreed to the growth */
};

/* One step's working set. */
struct authority_work {
    struct authority *authority;
    const struct authority_event *event;
    struct authority_actions *out;
};

struct authority_action *authority_emit(struct authority_work *work, enum authority_action_kind kind);
void authority_enter(struct authority *authority, enum authority_role role, const char *reason);
void authority_save(struct authority_work *work, const struct authority_record *record, enum authority_after_save after);
void authority_send(struct authority_work *work, enum authority_message_kind kind, uint64_t epoch, const struct id *session);
void authority_timer(struct authority_work *work, uint32_t delay_ms);
/* R4, R7.5: CAS of the present record to (to_epoch, to_members), alternatives as R7.6 says. */
void authority_ask_witness(struct authority_work *work, uint64_t to_epoch, uint8_t to_members);
/* R4: the session is over here; `tell` the other side when the link still lives. The role becomes idle (a source stays sole). */
void authority_lose_session(struct authority_work *work, const char *reason, bool tell);
/* R8: may this node, sole by its record, serve already? Serves or asks for the peer's lease. */
void authority_serve_sole_or_wait(struct authority_work *work);
/* R8: the other node can serve the group no longer: serve, when waiting for just that. */
void authority_peer_lease_over(struct authority_work *work);
/* Nothing is under way that a new decision would overtake. */
bool authority_is_free(const struct authority *authority);
static inline bool authority_is_only_member(const struct authority *authority)
{
    return authority->record.members == authority->self;
}

/* authority_session.c: R7 and the joining of equals (R6) */
void authority_session_message(struct authority_work *work);
void authority_session_saved(struct authority_work *work, enum authority_after_save after);
void authority_session_tail_merged(struct authority_work *work);
void authority_session_reconciled(struct authority_work *work);
void authority_session_in_sync(struct authority_work *work);
void authority_session_growth_verdict(struct authority_work *work);
/* Equal epochs: am I the one to open the session, and do the two histories explain each other? */
bool authority_session_explained(const struct authority_record *own, uint64_t own_highest, uint64_t own_committed,
                                 const struct authority_record *other, uint64_t other_highest, uint64_t other_committed);
void authority_session_try_join(struct authority_work *work);
void authority_session_try_resync(struct authority_work *work);
