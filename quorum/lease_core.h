/* Leases of one node (rule R8), both sides, as a pure state machine: what this node may still do, and what it promised
 * its peer. No clock, no system call, no allocation, no log: time and random ids come in with the event.
 *
 * As asker: requests outstanding, deadlines acknowledged by the peer and by W, generation.
 * As responder: the promise given to the peer, the start guard, suspicion of the peer. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/id.h"

#define LEASE_OUTSTANDING_MAX 512u /* 4 links × a heartbeat each 100 ms × 12 s */
#define LEASE_PENDING_MAX 8u
#define LEASE_MS_MAX 60000u        /* a request for more is not acknowledged */
#define LEASE_PROMISE_MS_MAX 120000u
#define LEASE_FENCES_MAX 64u       /* more than the groups of a node */
#define LEASE_FENCE_KEPT_MS 2000u  /* so long after its end a fence is answered "over" instead of begun anew */

enum lease_responder { LEASE_FROM_PEER = 0, LEASE_FROM_WITNESS = 1, LEASE_RESPONDERS = 2 };

/* protocol "Timing profiles" */
struct lease_config {
    uint32_t lease_ms;   /* L */
    uint32_t promise_ms; /* G >= L(1+2ρ)+ε */
    uint32_t suspect_ms;
};

enum lease_event_kind {
    LEASE_EV_TICK,      /* time passed; any other event does the same first */
    LEASE_EV_BEAT,      /* storaged's page was looked at: `present`, `boot`, `beat` */
    LEASE_EV_SEND,      /* a datagram with `id` is about to be sent to `responder`: may it ask for the lease? */
    LEASE_EV_ACK,       /* `responder` acknowledged `id`; `counter`: W's commit counter */
    LEASE_EV_APPLIED,   /* storaged has applied every record up to `counter` */
    LEASE_EV_FORGOTTEN, /* storaged restarted: nothing is known to be applied */
    LEASE_EV_HEARD,     /* an authentic, fresh datagram of the peer */
    LEASE_EV_REQUEST,   /* the peer asks us: `lease_ms`, `promise_ms` as its request carries */
    LEASE_EV_TAKE_OVER, /* W made this node the only member of `group`, and the peer may serve it for `least_ms` more: a
                           fence begins, nothing more is acknowledged to the peer until all that is over
                           (docs/decisions/fence-while-taking-over.md) */
    LEASE_EV_FENCE,     /* may `group` be served alone? Begins its fence when there is none */
};
struct lease_event {
    enum lease_event_kind kind;
    uint64_t now_ns;
    enum lease_responder responder;
    struct id id;
    uint64_t counter;
    bool present;
    uint64_t boot, beat;
    uint32_t lease_ms, promise_ms;
    struct id group;
    uint32_t least_ms;
};

/* What changed, and the answers to SEND, REQUEST, TAKE_OVER and FENCE. */
struct lease_actions {
    bool ask;            /* SEND: the datagram asks for the lease; it is outstanding now */
    bool acknowledge;    /* REQUEST: acknowledge; the promise was noted before */
    uint64_t fence_ms;   /* TAKE_OVER, FENCE: until the group's fence is over, rounded up; 0: over */
    bool obtained;       /* the lease became valid */
    bool peer_lapsed;    /* the part acknowledged by the peer ended */
    bool lapsed;         /* the lease ended; the generation was raised */
    bool publish;        /* deadlines or generation changed: generation first, then the deadlines, into the page */
    bool peer_changed;   /* alive ↔ suspect */
    bool storage_changed; /* storage alive ↔ not */
};

struct lease_outstanding {
    struct id id;
    uint64_t sent_ns;
    uint8_t responder;
    bool used;
};
struct lease_pending { /* W acknowledged, but exclusions up to `counter` are not applied yet */
    uint64_t counter, until_ns;
};

struct lease_fence {
    struct id group;   /* null: a free place */
    uint64_t until_ns; /* no acknowledgement to the peer before */
};

struct lease {
    struct lease_config config;
    uint64_t start_ns, now_ns;
    /* asker */
    struct lease_outstanding outstanding[LEASE_OUTSTANDING_MAX];
    unsigned next_outstanding;
    struct lease_pending pending[LEASE_PENDING_MAX];
    unsigned pending_count;
    uint64_t until_ns[LEASE_RESPONDERS]; /* 0: never acknowledged */
    uint64_t applied;
    uint64_t generation;
    bool valid;
    bool peer_valid;       /* the part of it that the peer acknowledged */
    uint64_t peer_lapses;  /* how often that part ended: a proof made before such an end does not thaw a guest (R11) */
    /* R8: X asks only while its storage lives */
    bool storage_seen, storage_alive;
    uint64_t storage_boot, storage_beat, storage_advanced_ns;
    /* responder */
    uint64_t promise_until_ns; /* to the peer; 0: none since start */
    struct lease_fence fences[LEASE_FENCES_MAX];
    uint64_t heard_ns;         /* last sign of the peer, 0: none since start */
    bool peer_suspect;
};

void lease_init(struct lease *lease, const struct lease_config *config, uint64_t now_ns);
void lease_step(struct lease *lease, const struct lease_event *event, struct lease_actions *ret);

/* G for a request that carries (lease_ms, promise_ms): what it asks for, at least L(1+2ρ)+ε with ρ = 1 %, ε = 200 ms. */
uint32_t lease_promise_for(uint32_t lease_ms, uint32_t promise_ms);
/* Until this node's own lease is over, ms rounded up; 0: not valid. */
uint64_t lease_left_ms(const struct lease *lease, uint64_t now_ns);
/* R8, I12: until the peer's lease from us is surely over, start guard included; ms rounded up, 0: over. */
uint64_t lease_peer_over_in_ms(const struct lease *lease, uint64_t now_ns);
/* R11 (ii): until T_kill has passed since then. */
uint64_t lease_peer_killed_in_ms(const struct lease *lease, uint32_t t_kill_ms, uint64_t now_ns);
/* The earliest time at which a TICK would change something; UINT64_MAX: none. */
uint64_t lease_next_ns(const struct lease *lease);
