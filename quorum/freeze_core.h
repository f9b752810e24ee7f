/* What becomes of this node's guests and of its watchdog when the lease ends (rule R11), as a pure state machine.
 * No clock, no system call, no allocation, no log: the adapter writes cgroup.freeze, reads back what it says, and feeds
 * the watchdog only while told to. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/id.h"

#define FREEZE_GUESTS_MAX 64u
#define FREEZE_GROUPS_MAX 64u
#define FREEZE_NAME_SIZE 64u
#define FREEZE_PATH_SIZE 256u

/* R11: what a guest of this node lives on. */
enum freeze_basis {
    FREEZE_ON_SOLE,       /* this node holds its group alone: nobody else can start it */
    FREEZE_ON_LEASE,      /* this node claims to be its group's primary: the node's lease, the peer's or W's */
    FREEZE_ON_PEER_LEASE, /* served elsewhere, or by nobody: the peer may restart it, and counts only its own promise */
};

enum freeze_state {
    FREEZE_RUNNING,
    FREEZE_FREEZING, /* ordered, not verified */
    FREEZE_FROZEN,   /* verified: cgroup.events said "frozen 1" */
    FREEZE_GONE,     /* its cgroup is gone, or it is signed gone */
};

struct freeze_guest {
    char name[FREEZE_NAME_SIZE];
    struct id group;
    uint64_t incarnation;
    char cgroup[FREEZE_PATH_SIZE]; /* for the adapter */
    enum freeze_state state;
    bool signed_gone; /* vmhad said so: final for this incarnation, not looked at again */
};

struct freeze_config {
    uint32_t start_grace_ms; /* after start nothing is frozen for so long: daemons are still finding each other */
    uint32_t sole_grace_ms;  /* storaged went away: its sole groups' guests are not frozen for so long (it restarts) */
};

enum freeze_event_kind {
    FREEZE_EV_TICK,
    FREEZE_EV_LEASE,        /* `valid` */
    FREEZE_EV_GUESTS,       /* vmhad's full list: `guests`, `count` (≤ FREEZE_GUESTS_MAX), borrowed for the call */
    FREEZE_EV_CLAIMS,       /* storaged's roles: `serves_primary`, `groups`, `count` sole groups (≤ FREEZE_GROUPS_MAX),
                               `primary`, `primary_count` (≤ FREEZE_GROUPS_MAX) */
    FREEZE_EV_STORAGE_GONE, /* storaged's connection closed: it claims nothing */
    FREEZE_EV_RESULT,       /* the adapter read back `result` for guest `index` */
    FREEZE_EV_THAW,         /* somebody asks to thaw guest `name` */
    FREEZE_EV_GUEST_GONE,   /* vmhad says that guest `name` of `incarnation` has no process any more */
};
struct freeze_event {
    enum freeze_event_kind kind;
    uint64_t now_ns;
    bool peer_valid; /* with every event: the lease that the peer acknowledged is not over at `now_ns` */
    bool valid;
    bool serves_primary;
    const struct freeze_guest *guests;
    const struct id *groups, *primary;
    unsigned count, primary_count;
    unsigned index;
    enum freeze_state result;
    const char *name;
    uint64_t incarnation;
    bool stale; /* THAW: the record was proved before a lease ended; counts for a guest that needs one */
};

/* In this order: freeze, then thaw, then the watchdog. */
struct freeze_actions {
    uint64_t freeze;      /* bit i: write 1 for guests[i] and read back (again on every tick until verified) */
    uint64_t verify;      /* bit i: read back: believed frozen or gone, and the watchdog is fed on the strength of it;
                             or ordered to freeze, and what it lives on came back before that was seen */
    int thaw;             /* index to thaw, or -1 */
    bool thaw_refused;    /* THAW without what the guest lives on: */
    enum freeze_basis thaw_needs;
    bool thaw_unknown;    /* THAW of a guest not registered */
    bool feed;            /* the watchdog may be fed until the next step */
    bool frozen_changed;  /* the set of frozen guests changed */
};

struct freeze {
    struct freeze_config config;
    uint64_t start_ns, now_ns;
    bool lease_valid, peer_valid;
    bool serves_primary;
    struct id sole[FREEZE_GROUPS_MAX], primary[FREEZE_GROUPS_MAX];
    unsigned sole_count, primary_count;
    bool storage_gone; /* then nothing is primary, and a sole claim counts only against freezing, for sole_grace_ms */
    uint64_t storage_gone_ns;
    struct freeze_guest guests[FREEZE_GUESTS_MAX];
    unsigned guest_count;
};

void freeze_init(struct freeze *freeze, const struct freeze_config *config, uint64_t now_ns);
void freeze_step(struct freeze *freeze, const struct freeze_event *event, struct freeze_actions *ret);
/* R11: "the watchdog is fed only while …". */
bool freeze_may_feed(const struct freeze *freeze);
/* A clean stop: the same, once nobody renews any lease. */
bool freeze_may_disarm(const struct freeze *freeze);
enum freeze_basis freeze_basis_of(const struct freeze *freeze, const struct freeze_guest *guest);
/* "sole", "lease", "peer lease". */
const char *freeze_basis_name(enum freeze_basis basis);
