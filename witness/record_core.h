/* The judge: who may change a group's record, as a pure state machine for one cluster (rules R4, R5, R8, I5, I12).
 * No clock, no system call, no allocation, no log. The driver makes durable what an answer says to persist *before* it
 * sends the answer; when it cannot, it must not go on with this state. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/id.h"

#define RECORD_GROUPS_MAX 64u
#define RECORD_FROM_MAX 2u
#define RECORD_BOTH 3u

struct record_position {
    uint64_t epoch;
    uint8_t members; /* bit 1: node index 0, bit 2: node index 1 */
};

/* Durable: id, epoch, members, changed. The rest is volatile: this boot's knowledge. */
struct record_group {
    struct id id;
    struct record_position position;
    uint64_t changed;         /* the commit counter of its last change */
    uint64_t claimed_ns[2];   /* when a node last claimed to be its primary; 0: not in this boot */
    uint64_t loser_until_ns;  /* R8: "W's OK to a takeover carries what is left of the loser's lease" */
};

struct record_node {
    uint64_t acknowledged_ns;  /* of its last lease, 0: none in this boot */
    uint32_t promise_ms;       /* durable: the largest G it ever asked for */
};

struct record_cluster {
    uint64_t start_ns;
    uint64_t counter;          /* durable commit counter, raised by every change of a record */
    bool restored;             /* durable: a node has seen more than this store holds (R5) */
    struct record_node nodes[2];
    struct record_group *groups; /* the driver's: as many as it has room for, so that a small cluster stays small */
    unsigned group_count, group_room;
};

enum record_verdict { RECORD_OK = 1, RECORD_STALE, RECORD_ADOPT, RECORD_BEHIND, RECORD_WAIT, RECORD_REFUSED };
enum record_reason {
    RECORD_NONE, RECORD_RESTORED, RECORD_QUOTA, RECORD_EPOCH, RECORD_GROWTH, RECORD_MEMBERS, RECORD_CONFLICT,
};

enum record_event_kind {
    RECORD_EV_LEASE, /* `node` asks for a lease: `promise_ms` (G for its L), `claims`, `claim_count` */
    RECORD_EV_CAS,   /* `node` asks: any of `from` → `to` in `group` */
    RECORD_EV_POLL,  /* `node` asks nothing that is granted (its storage is not alive, or it wants records) */
};
struct record_event {
    enum record_event_kind kind;
    uint64_t now_ns;
    unsigned node;      /* 0 or 1 */
    uint64_t counter;   /* the highest commit counter of W this node ever saw */
    uint32_t promise_ms;
    const struct id *claims; /* borrowed for the call */
    unsigned claim_count;
    struct id group;
    struct record_position from[RECORD_FROM_MAX], to;
    unsigned from_count;
    bool was_primary;   /* the asker's role in the last session (R4) */
};

struct record_answer {
    bool acknowledged;      /* LEASE */
    enum record_verdict verdict;
    enum record_reason reason;
    struct record_position record; /* W's, after the event */
    uint32_t wait_ms;       /* WAIT */
    uint32_t loser_ms;      /* OK, ADOPT */
    /* to be made durable before the answer leaves */
    bool persist_group;     /* groups[group_index] and the counter */
    unsigned group_index;
    bool evicted;           /* a retired group gave up its place: delete `evicted_id` with it */
    struct id evicted_id;
    bool persist_node;      /* nodes[event.node].promise_ms */
    bool persist_restored;  /* and a new incarnation (R5) */
};

/* `groups` (borrowed, `room` of them) may be moved to a larger place between two calls. The durable fields are filled in by
 * the caller afterwards (groups by record_load_group). */
void record_init(struct record_cluster *cluster, struct record_group *groups, unsigned room, uint64_t now_ns);
/* 0, or -ENOSPC: no room. */
int record_load_group(struct record_cluster *cluster, const struct id *id, struct record_position position,
                      uint64_t changed);
/* A CAS needs room for one more group, unless there is room for RECORD_GROUPS_MAX. */
void record_step(struct record_cluster *cluster, const struct record_event *event, struct record_answer *ret);
const struct record_group *record_find(const struct record_cluster *cluster, const struct id *id);
/* Until this boot grants exclusions; 0: it does. */
uint32_t record_guard_left_ms(const struct record_cluster *cluster, uint64_t now_ns);
