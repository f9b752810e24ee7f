/* Reservations of one logical unit (SPC-4 §5.13, SPC-2 §5.5): who is registered, who holds what, and how each service
 * action changes that. Pure: plain values in, plain values out; no memory, no I/O, no SCSI command. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define RESERVATION_REGISTRANTS_MAX 64u
#define RESERVATION_ISID_SIZE 6u
#define RESERVATION_PORTS 2u /* target ports: one per node, numbered from 1 */

/* An I_T nexus: the initiator port (name and ISID) and the target port group it came by. */
struct reservation_nexus {
    char initiator[224];
    uint8_t isid[RESERVATION_ISID_SIZE];
    uint16_t port_group;
};

struct reservation_registrant {
    struct reservation_nexus nexus;
    uint64_t key; /* never 0 */
    bool all_ports; /* registered with ALL_TG_PT */
};

/* The numbers are those of the CDB, SPC-4 table 62. */
enum reservation_type {
    RESERVATION_NONE = 0,
    RESERVATION_WRITE_EXCLUSIVE = 1,
    RESERVATION_EXCLUSIVE_ACCESS = 3,
    RESERVATION_WRITE_EXCLUSIVE_REGISTRANTS = 5,
    RESERVATION_EXCLUSIVE_ACCESS_REGISTRANTS = 6,
    RESERVATION_WRITE_EXCLUSIVE_ALL = 7,
    RESERVATION_EXCLUSIVE_ACCESS_ALL = 8,
};

/* Service actions of PERSISTENT RESERVE OUT, SPC-4 table 213. */
enum reservation_action {
    RESERVATION_REGISTER,
    RESERVATION_RESERVE,
    RESERVATION_RELEASE,
    RESERVATION_CLEAR,
    RESERVATION_PREEMPT,
    RESERVATION_PREEMPT_AND_ABORT,
    RESERVATION_REGISTER_AND_IGNORE,
    RESERVATION_ACTION_COUNT,
};

struct reservation_state {
    uint64_t serial;     /* one more with every change */
    uint32_t generation; /* PRGENERATION */
    uint8_t type;        /* enum reservation_type */
    int holder;          /* index into registrants; -1: nobody, or (all registrants types) everybody */
    bool aptpl;          /* of the last registration; the state is durable either way */
    unsigned count;
    struct reservation_registrant registrants[RESERVATION_REGISTRANTS_MAX];
    bool reserved; /* by RESERVE (6) or (10), SPC-2 §5.5.1: ends with its nexus */
    struct reservation_nexus reserved_by;
    uint8_t last_action; /* what the last change was, and whose: who is told what follows from it */
    struct reservation_nexus last_actor;
};

struct reservation_request {
    enum reservation_action action;
    struct reservation_nexus nexus;
    uint64_t key, service_key;
    uint8_t type;
    bool aptpl, all_ports;
};

enum reservation_result {
    RESERVATION_CHANGED,     /* to be made durable, then GOOD */
    RESERVATION_UNCHANGED,   /* GOOD */
    RESERVATION_CONFLICT,    /* RESERVATION CONFLICT */
    RESERVATION_BAD_RELEASE, /* 05/26/04 */
    RESERVATION_BAD_KEY,     /* 05/26/00 at the service action key */
    RESERVATION_FULL,        /* 05/55/04 */
};

void reservation_init(struct reservation_state *state);
/* For a state that cannot be known: exclusive access by nobody, until somebody registers and clears it. */
void reservation_lock(struct reservation_state *state);
/* `state` is changed only with RESERVATION_CHANGED. The request's type is a valid one where the action has one. */
enum reservation_result reservation_step(struct reservation_state *state, const struct reservation_request *request);

/* RESERVE and RELEASE (6), among themselves. */
enum reservation_result reservation_reserve_unit(struct reservation_state *state, const struct reservation_nexus *nexus);
enum reservation_result reservation_release_unit(struct reservation_state *state, const struct reservation_nexus *nexus);

bool reservation_type_is_valid(unsigned type);
bool reservation_type_is_all(unsigned type); /* every registrant holds it */
bool reservation_nexus_equal(const struct reservation_nexus *left, const struct reservation_nexus *right);
/* -1: not registered. */
int reservation_find(const struct reservation_state *state, const struct reservation_nexus *nexus);
bool reservation_holds(const struct reservation_state *state, int registrant);
/* May that registrant (-1: none) do what reads, or what counts as a write (SPC-4 table 66)? */
bool reservation_conflicts(const struct reservation_state *state, int registrant, bool writes);

/* The unit attention that this nexus gets by the change from `old` to `now`. */
enum reservation_notice {
    RESERVATION_NOTICE_NONE,
    RESERVATION_NOTICE_PREEMPTED,              /* 2A/03: somebody cleared everything */
    RESERVATION_NOTICE_RELEASED,               /* 2A/04 */
    RESERVATION_NOTICE_REGISTRATION_PREEMPTED, /* 2A/05 */
};
enum reservation_notice reservation_notice(const struct reservation_state *old, const struct reservation_state *now,
                                           const struct reservation_nexus *nexus);
