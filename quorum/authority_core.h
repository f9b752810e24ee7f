/* Who may serve a group: rules R1, R4, R6, R7 and the parts of R8 that concern one group, as a pure state machine.
 *
 * One `struct authority` per group and node. It never blocks, reads a clock, allocates or logs: an event goes in, a list
 * of actions comes out, to be carried out in order by its driver (storaged's group engine; the simulator). Everything
 * a decision needs arrives with the event. Structs are plain values: copying one copies the whole state. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/fsm.h"
#include "common/id.h"

#define AUTHORITY_BOTH 3u /* members A and B: bit 1 is node index 0, bit 2 node index 1 */

/* protocol "Terms and state": what a node persists per group. */
struct authority_record {
    uint64_t epoch;    /* e */
    uint8_t members;   /* M */
    uint64_t pending;  /* pend: the proposed epoch, or 0 */
    bool incomplete;   /* inc: being resynced, must not serve */
    uint8_t founding;  /* AUTHORITY_FOUNDED, _CREATOR, _FOLLOWER: not exported before both nodes and W hold epoch 1 */
    bool was_primary;  /* the role in the last session, or served as sole since (R4 "telling the role", R8) */
    struct id session, previous_session; /* last mirror session, and the one before (explains a half-opened one) */
};
enum { AUTHORITY_FOUNDED = 0, AUTHORITY_CREATOR = 1, AUTHORITY_FOLLOWER = 2 };

enum authority_role {
    AUTHORITY_IDLE,      /* serves nothing: no session and not sole; requests are held */
    AUTHORITY_OPENING,   /* chosen as primary of a session that is not yet serving: tails are being reconciled */
    AUTHORITY_PRIMARY,   /* R1b */
    AUTHORITY_SECONDARY, /* in a session; forwards */
    AUTHORITY_SOLE,      /* R1a; may be the source of a resync */
    AUTHORITY_GROWING,   /* R7.4: pend persisted, dual acknowledgement, waiting for W */
    AUTHORITY_TARGET,    /* inc=1, being resynced; forwards to the source */
    AUTHORITY_ROLE_COUNT,
};
extern const struct fsm_table authority_roles;

/* What the two cores of a group say to each other over the mirror link. The driver carries it unchanged. */
enum authority_message_kind {
    AUTHORITY_HELLO = 1, /* "this is my record": when the link comes up and whenever it changes without a session */
    AUTHORITY_OPEN,      /* chosen primary → other: be my secondary */
    AUTHORITY_ACCEPT,    /* S persisted the session; its tail follows (driver), ended by the driver's own marker */
    AUTHORITY_RECONCILED,/* P → S: both tails were copied, you may forget yours */
    AUTHORITY_RESYNC,    /* sole → other: be my target */
    AUTHORITY_TARGETED,  /* target persisted inc=1; its tail follows */
    AUTHORITY_MERGED,    /* source merged the target's tail durably: forget it (R7.2) */
    AUTHORITY_GROW,      /* R7.4: persist (epoch, both), inc=0 */
    AUTHORITY_GROWN,
    AUTHORITY_CLOSE,     /* this session is over on my side; my HELLO follows when I am ready */
};
struct authority_message {
    uint8_t kind;
    uint64_t epoch;
    struct id session;
    /* HELLO only */
    struct authority_record record;
    uint64_t highest;   /* highest sequence journaled for record.session */
    uint64_t committed; /* highest sequence of it known to be durable on both: who has less was set back (R7.1) */
    uint8_t role;       /* enum authority_role */
    bool busy;          /* a CAS is outstanding, or I/O is draining: do not open now, another HELLO follows */
    bool lease;         /* my own lease is valid: I could serve as primary */
    bool failed;        /* my storage failed: I serve nothing, take the group (R2: with consent) */
};

enum authority_verdict { /* W's answers, R4 */
    AUTHORITY_OK, AUTHORITY_STALE, AUTHORITY_ADOPT, AUTHORITY_BEHIND, AUTHORITY_WAIT, AUTHORITY_REFUSED, AUTHORITY_NO_ANSWER,
};

enum authority_event_kind {
    AUTHORITY_EV_START,        /* first event; `record`, `highest`, `committed` as stored */
    AUTHORITY_EV_LINK,         /* `up`: the mirror link to the peer came up or is gone */
    AUTHORITY_EV_MESSAGE,      /* `message` from the peer's core, in the order it was sent */
    AUTHORITY_EV_SAVED,        /* the last ACT_SAVE is durable */
    AUTHORITY_EV_QUIESCED,     /* answer to ACT_QUIESCE; `highest`, `committed` for record.session as in START */
    AUTHORITY_EV_TAIL_MERGED,  /* the other's tail arrived whole and is durably in our dirty set */
    AUTHORITY_EV_RECONCILED,   /* answer to ACT_RECONCILE: dirty=∅ by acknowledged copies */
    AUTHORITY_EV_IN_SYNC,      /* answer to ACT_RESYNC: dirty=∅, new writes are held, no write is un-done */
    AUTHORITY_EV_VERDICT,      /* answer to ACT_CAS */
    AUTHORITY_EV_RECORD,       /* W says (epoch, members): an exclusion this node may not know (R8) */
    AUTHORITY_EV_PEER,         /* `up`: quorumd hears the peer; !up: suspects it */
    AUTHORITY_EV_LEASE,        /* `up`: own lease valid, `generation` */
    AUTHORITY_EV_PEER_LEASE,   /* answer to ACT_ASK_PEER_LEASE: over in `wait_ms` (0: over) */
    AUTHORITY_EV_TIMER,        /* ACT_TIMER's delay passed */
    AUTHORITY_EV_WITNESS,      /* `up`: quorumd reaches W (taken as up until told otherwise); R7.6 */
    AUTHORITY_EV_STORE_FAILED, /* own storage failed: leave the session with consent */
};
struct authority_event {
    enum authority_event_kind kind;
    bool up;
    uint64_t generation;
    uint64_t highest, committed;
    struct authority_record record;
    struct authority_message message;
    enum authority_verdict verdict;
    uint64_t epoch;      /* VERDICT, RECORD: W's record */
    uint8_t members;
    uint32_t wait_ms;    /* VERDICT WAIT; PEER_LEASE */
    uint32_t serve_after_ms; /* VERDICT OK: R8, what may be left of the loser's lease */
    struct id fresh;     /* every event: a new random id, used when a session is opened */
};

enum authority_action_kind {
    AUTHORITY_ACT_SAVE,       /* persist `record` (with the group's metadata); EV_SAVED when durable. One at a time. */
    AUTHORITY_ACT_SEND,       /* `message` to the peer's core (dropped when the link is down) */
    AUTHORITY_ACT_CAS,        /* ask W: any of from[] → to; EV_VERDICT. One at a time; an answer that never comes is NO_ANSWER */
    AUTHORITY_ACT_QUIESCE,    /* R4: at once complete nothing more, hold what is in flight; wait until no local I/O runs;
                                 pool_session_end; then EV_QUIESCED. Resync, reconciling and holding stop too. */
    AUTHORITY_ACT_BEGIN,      /* a session begins: `session`, `epoch`; `as` = OPENING, SECONDARY, SOLE (source) or TARGET.
                                 Opener/source then expects the other's tail (EV_TAIL_MERGED). `everything` (source only):
                                 the copies' histories do not explain each other: mark all blocks dirty first (R7.1) */
    AUTHORITY_ACT_END,        /* the source's resync session is over, it goes on as sole: stop copying, release held writes */
    AUTHORITY_ACT_SEND_TAIL,  /* send own dirty set and the end marker, after the message before it */
    AUTHORITY_ACT_RECONCILE,  /* copy every dirty block to the secondary in this session, wait for the acknowledgements */
    AUTHORITY_ACT_RESYNC,     /* R7.3: copy in passes; hold new writes for the last one; EV_IN_SYNC */
    AUTHORITY_ACT_FORGET_TAIL,/* clear own dirty set: the other side holds a superset durably (R7.2) */
    AUTHORITY_ACT_RAISE,      /* the running session goes on at `epoch` (growth): writes from now on are dual-acknowledged and
                                 carry it; for the source with as=GROWING, for the target as=SECONDARY */
    AUTHORITY_ACT_SERVE,      /* go: run held and new requests in the present role (PRIMARY, SOLE, GROWING) */
    AUTHORITY_ACT_FORWARD,    /* not the authority; the peer is: hand requests to it while the session lives */
    AUTHORITY_ACT_DROP_HELD,  /* excluded: close the connections whose commands are held (their initiators retry) */
    AUTHORITY_ACT_TIMER,      /* EV_TIMER after `delay_ms`; replaces the last; 0 cancels */
    AUTHORITY_ACT_ASK_PEER_LEASE,
    AUTHORITY_ACT_FOUNDED,    /* the group is registered everywhere: export it */
};
struct authority_action {
    enum authority_action_kind kind;
    struct authority_record record;
    struct authority_message message;
    struct { uint64_t epoch; uint8_t members; } from[2], to;
    unsigned from_count;
    struct id session;
    uint64_t epoch;
    enum authority_role as;
    bool everything;
    uint32_t delay_ms;
};
#define AUTHORITY_ACTIONS_MAX 12
struct authority_actions {
    unsigned count;
    struct authority_action items[AUTHORITY_ACTIONS_MAX];
};

struct authority {
    uint8_t self;                   /* member bit of this node: 1 or 2 */
    int role;                       /* enum authority_role */
    const char *reason;             /* why it is in this role: a sentence without the full stop, never NULL */
    struct authority_record record; /* as persisted, or being persisted when saving */
    uint64_t highest, committed;    /* of record.session, when its session began or ended */
    struct id session;              /* of the live session; null: none */
    bool link_up, peer_suspect, witness_up, lease_valid;
    uint64_t lease_generation, session_generation;
    bool peer_known;                /* a HELLO came since the link came up and no session used it up */
    struct authority_message peer;  /* that HELLO */
    struct authority_message announced; /* the last HELLO sent on this link; kind 0: none */
    bool saving, cas_outstanding, quiescing;
    bool cas_is_growth;             /* the outstanding CAS is R7.5's, not a takeover */
    bool ask_now;                   /* a takeover may be asked for without waiting for the peer any longer */
    bool timer_running;
    uint64_t source_epoch;          /* as target: the source's e, which the session's messages carry until growth */
    uint32_t serve_after_ms;        /* R8: what W said is left of the loser's lease */
    bool asking_peer_lease;         /* R8: sole, but the other may still serve under its lease */
    bool excluded;                  /* W told us that we are no member: wait to be resynced */
    bool storage_failed;
    bool founded_told;
    bool targeted, tail_merged, opened; /* progress of the session being opened */
    int after_save;                 /* private: what the pending save completes */
    struct id save_session;         /* private: the session for which it was made */
    uint64_t known_epoch;           /* W's record, when newer than ours and making us sole: adopt it when idle */
};

void authority_init(struct authority *authority, uint8_t self);
/* Carries the event out on the state and gives the actions. An event that no longer fits (late answer, message of a
 * closed session) changes nothing. */
void authority_step(struct authority *authority, const struct authority_event *event, struct authority_actions *ret);

/* R1: may a request be *completed* here and now? `lease_valid`, `generation`: as of this moment, from the shared page. */
bool authority_may_serve(const struct authority *authority, bool lease_valid, uint64_t generation);
/* Is this node the authority of the group (primary, sole or growing)? */
bool authority_is_authority(const struct authority *authority);
