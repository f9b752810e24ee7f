/* The mirror's protocol (docs/protocol.md: R1–R4, R6–R9) for one block, two nodes and a witness, to be searched
 * exhaustively by spin. README.md tells how to read and run it.
 *
 * A number stands for the block's content: the n-th write makes it n. Every step of a node is atomic and is one rule;
 * between any two steps anything may happen: a crash, a lost link noticed by one side only, an answer of the witness that
 * was under way for long. -DWITHOUT_… leaves one rule out: then spin must find what goes wrong. */

#ifndef WRITES
#define WRITES 2
#endif
#ifndef EPOCHS
#define EPOCHS 3
#endif

#define BOTH 3
#define ONLY(i) ((i) + 1)  /* members: bit 0 is node 0, bit 1 node 1 */

mtype = { down, idle, primary, secondary, sole, growing };

typedef Node {
    mtype role;
    /* persisted: survives a crash */
    byte epoch;      /* e */
    byte members;    /* M */
    byte pending;    /* pend: the epoch it proposed in R7.4, or 0 */
    bit incomplete;  /* inc: is being resynced, must not serve */
    byte data;       /* what the block holds here */
    bit dirty;       /* it may differ from the other copy (R3) */
    bit tail;        /* journaled here, its commit is not known (R2) */
    /* lost in a crash */
    bit session;     /* believes in the session with the other node */
    bit lease;       /* R8: may complete requests as primary */
    byte flight;     /* the write under way, 0: none */
    bit stored;      /* … is durable here */
    bit mirrored;    /* … is durable there (sole: nobody to wait for) */
    byte copy;       /* R7.3: content + 1 that is on its way to the target, 0: none */
};
Node node[2];
byte next_write = 1;

/* What the outside world saw. */
byte acknowledged;  /* newest write answered GOOD */
byte observed;      /* newest content that a read returned */

/* The witness: its record, and what is under way to and from it, as sets: requests and answers are delayed, lost and
 * overtaken at will. A request is a kind and the epoch it asks for; an answer is a verdict and W's record. */
byte w_epoch = 1, w_members = BOTH;
#define TAKE_OVER 0 /* (e, both) → (e+1, me)                               R4 */
#define GROW 1      /* (e, me) → (e+1, both)                               R7.5 */
#define IN_DOUBT 2  /* (e, me) or (e+1, both) → (e+2, me)                   R7.6 */
int asked[2], granted[2], refused[2];
#define ASK_BIT(kind, e) (1 << ((kind) * 8 + (e)))
#define ANSWER_BIT(e, m) (1 << ((e) * 4 + (m)))

#define is_authority(i) (node[i].role == primary || node[i].role == growing || node[i].role == sole)
#define in_session(i, j) (node[i].session && node[j].session)
/* R1: the guard at completion */
#define may_serve(i) (node[i].role == sole || ((node[i].role == primary || node[i].role == growing) && node[i].lease))

/* R8: the other node can no longer complete requests under a lease */
#ifdef WITHOUT_LEASE
#define lease_over(j) true
#else
#define lease_over(j) (!((node[j].role == primary || node[j].role == growing) && node[j].lease))
#endif

inline forget_volatile(i) {
    node[i].session = 0; node[i].lease = 0; node[i].flight = 0; node[i].stored = 0; node[i].mirrored = 0; node[i].copy = 0
}

inline acknowledge(i) {
    if :: node[i].flight > acknowledged -> acknowledged = node[i].flight :: else fi;
    node[i].flight = 0; node[i].stored = 0; node[i].mirrored = 0
}

/* R4, R6: W's record makes it the only member; dirty := what was in flight or in the tail */
inline become_sole(i, e) {
    node[i].dirty = (node[i].pending != 0 || node[i].tail || node[i].flight != 0);
    node[i].epoch = e; node[i].members = ONLY(i); node[i].pending = 0; node[i].tail = 0;
    node[i].role = sole; node[i].session = 0;
    node[i].mirrored = (node[i].flight != 0)
}

#define fresh_pair(i, j) (node[i].role == idle && node[j].role == idle && !node[i].session && !node[j].session && \
    node[i].epoch == node[j].epoch && node[i].members == BOTH && node[j].members == BOTH && \
    !node[i].pending && !node[j].pending && !node[i].incomplete && !node[j].incomplete && !node[j].flight)

inline open_session(i, j) {
    node[i].role = primary; node[i].session = 1; node[i].lease = 1; node[i].tail = 0;
    node[j].role = secondary; node[j].session = 1; node[j].tail = 0
}

proctype Host(byte i; byte j)
{
end:
    do
    /* ---- crash, start (R6), broken links ---------------------------------------------------------------------- */
    :: d_step { node[i].role != down -> node[i].role = down; forget_volatile(i); granted[i] = 0; refused[i] = 0 }
    :: d_step { node[i].role == down && !(node[i].members == ONLY(i) && !node[i].pending && !node[i].incomplete) ->
        node[i].role = idle }
    :: d_step { node[i].role == down && node[i].members == ONLY(i) && !node[i].pending && !node[i].incomplete &&
        lease_over(j) -> node[i].role = sole; node[i].dirty = node[i].dirty || node[i].tail }
    :: d_step { node[i].session -> /* this side notices that the link is gone */
        node[i].session = 0; node[i].copy = 0;
        if
        :: node[i].role == primary || node[i].role == growing || node[i].role == secondary -> node[i].role = idle; node[i].lease = 0
        :: else
        fi }
    :: d_step { (node[i].role == primary || node[i].role == growing) && node[i].lease &&
        !(node[j].session && (node[j].role == secondary || node[j].role == idle)) -> /* R8: it lapses */
        node[i].lease = 0; node[i].role = idle; node[i].session = 0; node[i].copy = 0 }

    /* ---- a session of equals (R6): tails first ------------------------------------------------------------------- */
    :: d_step { fresh_pair(i, j) && !node[i].flight && (node[i].tail || node[j].tail) ->
#ifdef WITHOUT_TAIL_RECONCILE
        open_session(i, j)
#else
        node[j].data = node[i].data; node[j].tail = 1 /* the chosen primary's content is copied … */
#endif
        }
    :: d_step { fresh_pair(i, j) && !node[i].flight && node[i].data == node[j].data -> /* … and then it serves */
        open_session(i, j) }
    :: d_step { fresh_pair(i, j) && !node[i].flight && !node[i].tail && !node[j].tail -> open_session(i, j) }
    :: d_step { fresh_pair(i, j) && node[i].flight -> /* a held write goes on in the new session: its tails stay */
        node[i].role = primary; node[i].session = 1; node[i].lease = 1; node[i].mirrored = 0;
        node[j].role = secondary; node[j].session = 1 }
    :: d_step { node[i].role == idle && node[i].flight -> node[i].flight = 0; node[i].stored = 0; node[i].mirrored = 0 }

    /* ---- R9: the primary role moves ------------------------------------------------------------------------------ */
    :: d_step { node[i].role == primary && in_session(i, j) && node[j].role == secondary && !node[i].flight ->
        node[i].role = secondary; node[i].lease = 0; node[j].role = primary; node[j].lease = 1 }

    /* ---- writes: R2, R3 ------------------------------------------------------------------------------------------ */
    :: d_step { is_authority(i) && !node[i].flight && next_write <= WRITES ->
        node[i].flight = next_write; next_write++; node[i].stored = 0;
        node[i].mirrored = (node[i].role == sole);
        if
        :: node[i].role == sole ->
#ifndef WITHOUT_DIRTY
            node[i].dirty = 1;
#endif
#ifndef WITHOUT_COPY_GUARD
            node[i].copy = 0
#endif
        :: else
        fi }
    :: d_step { node[i].flight && !node[i].stored && node[i].role != down && node[i].role != secondary ->
        node[i].data = node[i].flight; node[i].stored = 1;
        if :: node[i].role != sole -> node[i].tail = 1 :: else fi }
    :: d_step { node[i].flight && !node[i].mirrored && (node[i].role == primary || node[i].role == growing) &&
        in_session(i, j) && node[j].role == secondary &&
        node[j].epoch == (node[i].role == growing -> node[i].pending : node[i].epoch) ->
        node[i].mirrored = 1; node[j].data = node[i].flight;
#ifndef WITHOUT_TAIL
        node[j].tail = 1
#endif
        }
    :: d_step { node[i].flight && !node[i].mirrored && (node[i].role == primary || node[i].role == growing) && /* the same, its */
        in_session(i, j) && node[j].role == secondary &&                                              /* acknowledgement is lost */
        node[j].epoch == (node[i].role == growing -> node[i].pending : node[i].epoch) ->
        node[j].data = node[i].flight;
#ifndef WITHOUT_TAIL
        node[j].tail = 1
#endif
        }
    :: d_step { node[i].flight && node[i].stored && node[i].mirrored && may_serve(i) ->
        if :: node[i].role != sole -> node[i].tail = 0 :: else fi;
        acknowledge(i) }
    :: d_step { node[i].role == secondary && node[i].tail && in_session(i, j) &&
        (node[j].role == primary || node[j].role == growing) && !node[j].flight -> node[i].tail = 0 } /* commit_upto */
#ifdef WITHOUT_SECOND_COPY
    :: d_step { node[i].role == primary && node[i].flight && node[i].stored -> node[i].tail = 0; acknowledge(i) }
#endif
#ifdef WITHOUT_WITNESS
    :: d_step { node[i].role == idle && node[i].members == BOTH && node[i].flight && node[i].stored -> acknowledge(i) }
#endif

    /* ---- reads: R1, never what is not committed ------------------------------------------------------------------ */
    :: d_step { may_serve(i) && node[i].data > observed &&
#ifdef WITHOUT_READ_GUARD
        true
#else
        !node[i].flight
#endif
        -> observed = node[i].data }

    /* ---- asking the witness: R4, R7.6 ----------------------------------------------------------------------------- */
    :: d_step { node[i].role == idle && node[i].members == BOTH && !node[i].pending && !node[i].incomplete &&
        node[i].epoch < EPOCHS && asked[i] == 0 -> asked[i] = asked[i] | ASK_BIT(TAKE_OVER, node[i].epoch + 1) }
    :: d_step { node[i].role == idle && node[i].pending && node[i].pending < EPOCHS && !node[i].incomplete &&
        !(asked[i] & ASK_BIT(IN_DOUBT, node[i].pending + 1)) -> asked[i] = asked[i] | ASK_BIT(IN_DOUBT, node[i].pending + 1) }
#ifdef WITHOUT_PENDING
    :: d_step { node[i].role == idle && node[i].pending && !node[i].incomplete ->
        node[i].pending = 0; node[i].role = sole; node[i].dirty = node[i].dirty || node[i].tail }
#endif

    /* ---- return, resync, growth: R7 ------------------------------------------------------------------------------ */
    :: d_step { node[i].role == sole && node[j].role == idle && !node[i].session && !node[j].session &&
        node[j].epoch < node[i].epoch && !node[j].flight -> /* R7.1, R7.2 */
        node[i].session = 1; node[j].session = 1; node[j].incomplete = 1;
#ifdef WITHOUT_TAIL_MERGE
        node[i].dirty = node[i].dirty || node[j].pending != 0;
#else
        node[i].dirty = node[i].dirty || node[j].tail || node[j].pending != 0;
#endif
        node[j].tail = 0; node[j].pending = 0 }
    :: d_step { node[i].role == sole && in_session(i, j) && node[j].incomplete && node[i].dirty && !node[i].copy &&
        !node[i].flight -> node[i].copy = node[i].data + 1 } /* R7.3 */
    :: d_step { node[i].role == sole && in_session(i, j) && node[j].incomplete && node[i].copy ->
        node[j].data = node[i].copy - 1; node[i].copy = 0;
        if
#ifdef WITHOUT_COPY_GUARD
        :: true -> node[i].dirty = 0
#else
        :: !node[i].flight -> node[i].dirty = 0 /* I8 */
        :: else
#endif
        fi }
    :: d_step { node[i].role == sole && in_session(i, j) && node[j].incomplete && !node[i].dirty && !node[i].flight &&
        !node[i].copy && node[i].epoch + 1 < EPOCHS + 1 -> /* R7.4 */
        node[i].pending = node[i].epoch + 1; node[i].role = growing; node[i].lease = 1 }
    :: d_step { node[i].role == growing && in_session(i, j) && node[j].incomplete && !node[i].flight ->
        node[j].epoch = node[i].pending; node[j].members = BOTH; node[j].incomplete = 0; node[j].tail = 0;
        node[j].role = secondary }
    :: d_step { node[i].role == growing && in_session(i, j) && node[j].role == secondary &&
        node[j].epoch == node[i].pending && asked[i] == 0 -> /* R7.5 */
        asked[i] = asked[i] | ASK_BIT(GROW, node[i].pending) }
    od
}

/* ---- the witness: compare and swap ----------------------------------------------------------------------------------- */

inline judge(i, kind, e, members, holds) {
    asked[i] = asked[i] & ~ASK_BIT(kind, e);
    if
    :: (holds) ->
        if :: e > w_epoch -> w_epoch = e :: else fi;
        w_members = members;
        if :: node[i].role != down -> granted[i] = granted[i] | ANSWER_BIT(e, members) :: else fi
    :: !(holds) && w_epoch == e && w_members == members -> /* a repeated request: the same answer */
        if :: node[i].role != down -> granted[i] = granted[i] | ANSWER_BIT(e, members) :: else fi
    :: else ->
        if :: node[i].role != down -> refused[i] = refused[i] | ANSWER_BIT(w_epoch, w_members) :: else fi
    fi
}

#ifdef WITHOUT_EPOCH_CHECK
#define HOLDS(condition, members) ((condition) || members != BOTH)
#else
#define HOLDS(condition, members) (condition)
#endif

#define WITNESS_HEARS(i, e) \
    :: d_step { asked[i] & ASK_BIT(TAKE_OVER, e) -> judge(i, TAKE_OVER, e, ONLY(i), HOLDS(w_epoch == e - 1 && w_members == BOTH, ONLY(i))) } \
    :: d_step { asked[i] & ASK_BIT(GROW, e) -> judge(i, GROW, e, BOTH, HOLDS(w_epoch == e - 1 && w_members == ONLY(i), BOTH)) } \
    :: d_step { asked[i] & ASK_BIT(IN_DOUBT, e) -> judge(i, IN_DOUBT, e, ONLY(i), \
        HOLDS((w_epoch == e - 2 && w_members == ONLY(i)) || (w_epoch == e - 1 && w_members == BOTH), ONLY(i))) } \
    :: d_step { asked[i] & (ASK_BIT(TAKE_OVER, e) | ASK_BIT(GROW, e) | ASK_BIT(IN_DOUBT, e)) -> /* it was lost */ \
        asked[i] = asked[i] & ~(ASK_BIT(TAKE_OVER, e) | ASK_BIT(GROW, e) | ASK_BIT(IN_DOUBT, e)) }

proctype Witness()
{
end:
    do
    WITNESS_HEARS(0, 2)
    WITNESS_HEARS(1, 2)
    WITNESS_HEARS(0, 3)
    WITNESS_HEARS(1, 3)
#if EPOCHS > 3
    WITNESS_HEARS(0, 4)
    WITNESS_HEARS(1, 4)
#endif
    od
}

/* ---- its answers arrive: R4 ------------------------------------------------------------------------------------------- */

#define takes_over(i, e) (node[i].role == idle && ((node[i].members == BOTH && node[i].epoch == (e) - 1 && !node[i].pending && \
    !node[i].incomplete) || (node[i].pending && node[i].pending == (e) - 1)))

inline hear_granted(i, j, e, m) {
    granted[i] = granted[i] & ~ANSWER_BIT(e, m);
    if
    :: m == ONLY(i) && takes_over(i, e) && lease_over(j) -> become_sole(i, e) /* OK */
    :: m == BOTH && node[i].role == growing && node[i].pending == e ->        /* R7.5 */
        node[i].epoch = e; node[i].members = BOTH; node[i].pending = 0; node[i].role = primary
    :: else
    fi
}

inline hear_refused(i, j, e, m) {
    refused[i] = refused[i] & ~ANSWER_BIT(e, m);
    if
    :: m == ONLY(i) && takes_over(i, e) && !node[i].pending && lease_over(j) -> become_sole(i, e) /* ADOPT */
    :: else /* STALE: never serve, wait to be resynced */
    fi
}

#define ANSWERS_OF(i, j, e, m) \
    :: d_step { granted[i] & ANSWER_BIT(e, m) -> hear_granted(i, j, e, m) } \
    :: d_step { refused[i] & ANSWER_BIT(e, m) -> hear_refused(i, j, e, m) } \
    :: d_step { (granted[i] | refused[i]) & ANSWER_BIT(e, m) -> /* lost, or overtaken */ \
        granted[i] = granted[i] & ~ANSWER_BIT(e, m); refused[i] = refused[i] & ~ANSWER_BIT(e, m) }
#define ANSWERS(i, j, e) ANSWERS_OF(i, j, e, 1) ANSWERS_OF(i, j, e, 2) ANSWERS_OF(i, j, e, 3)

proctype Network()
{
end:
    do
    ANSWERS(0, 1, 1) ANSWERS(1, 0, 1)
    ANSWERS(0, 1, 2) ANSWERS(1, 0, 2)
    ANSWERS(0, 1, 3) ANSWERS(1, 0, 3)
#if EPOCHS > 3
    ANSWERS(0, 1, 4) ANSWERS(1, 0, 4)
#endif
    od
}

/* ---- the invariants ------------------------------------------------------------------------------------------------------ */

#define I1 (!(node[0].role == sole && node[1].role == sole))
/* I2: whoever may serve holds every acknowledged write */
#define I2_of(i) (!(may_serve(i) && !node[i].flight && node[i].data < acknowledged))
/* I3: a read would return nothing older than what was acknowledged or read before */
#define I3_of(i) (!(may_serve(i) && !node[i].flight && node[i].data < observed))
/* I6: members of a live session are equal but for what is in flight */
#define I6_of(i, j) (!(node[i].role == primary && node[j].role == secondary && in_session(i, j) && !node[i].flight && \
    node[i].data != node[j].data))
/* I9 */
#define I9_of(i) (!(node[i].role == sole && (node[i].incomplete || node[i].pending)))

active proctype Monitor()
{
end:
    do
    :: atomic { !I1 -> assert(I1) }
    :: atomic { !(I2_of(0) && I2_of(1)) -> assert(I2_of(0) && I2_of(1)) }
    :: atomic { !(I3_of(0) && I3_of(1)) -> assert(I3_of(0) && I3_of(1)) }
    :: atomic { !(I6_of(0, 1) && I6_of(1, 0)) -> assert(I6_of(0, 1) && I6_of(1, 0)) }
    :: atomic { !(I9_of(0) && I9_of(1)) -> assert(I9_of(0) && I9_of(1)) }
    od
}

init {
    atomic {
        node[0].role = idle; node[0].epoch = 1; node[0].members = BOTH;
        node[1].role = idle; node[1].epoch = 1; node[1].members = BOTH;
        run Host(0, 1); run Host(1, 0); run Witness(); run Network()
    }
}
