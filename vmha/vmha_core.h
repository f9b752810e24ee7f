/* Decides where guests run: rule R11, pure. step(state, event) -> actions; no system call, clock, allocation or log.
 *
 * Level-triggered: an event only updates what is known, then every guest is looked at and what is due is emitted.
 * The adapter carries the actions out in their order and feeds the answers back as events. Every action that wants an
 * answer gets exactly one, also when it failed or its connection broke. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/fsm.h"
#include "common/id.h"
#include "vmha/record.h"

#define VMHA_GROUPS_MAX 128u    /* groups known here; those without a guest take a place too */
#define VMHA_NAME_MAX 64u       /* with the NUL */
#define VMHA_TEXT_MAX 384u
#define VMHA_ACTIONS_MAX (VMHA_GROUPS_MAX * 8u)
#define VMHA_RESTARTS_MAX 3u    /* restarts of a guest that died by itself … */
#define VMHA_RESTARTS_MS 600000u /* … within so long; then it is failed */
#define VMHA_STOP_MS 20000u     /* a guest asked to shut down is destroyed after so long */
#define VMHA_RETRY_MS 200u      /* a swap that nobody could answer */
#define VMHA_KILL_RETRY_MS 1000u
#define VMHA_START_RETRY_MS 2000u
#define VMHA_SIGN_AGAIN_MS 5000u
#define VMHA_ASK_AGAIN_MS 60000u /* for the peer's lease, at the latest */

/* The life of a guest on this node; the table with the allowed moves is vmha_life_table. */
enum vmha_life {
    VMHA_UNKNOWN,     /* the hypervisor has not listed its domains */
    VMHA_ABSENT,
    VMHA_CLAIMING,
    VMHA_STARTING,
    VMHA_REGISTERING,
    VMHA_RESUMING,
    VMHA_RUNNING,
    VMHA_STOPPING,
    VMHA_FROZEN,
    VMHA_PROVING,
    VMHA_THAWING,
    VMHA_KILLING,
    VMHA_LIVES
};
extern const struct fsm_table vmha_life_table;

enum vmha_swap {
    VMHA_SWAP_NONE,
    VMHA_SWAP_CLAIM,   /* (node, n) -> (self, n+1): R11 iii */
    VMHA_SWAP_PROVE,   /* (self, n) -> the same with thaw+1: R11 iii */
    VMHA_SWAP_STOP,    /* running -> stopped, the node still named until it has verified the end */
    VMHA_SWAP_RELEASE, /* (self, n) -> nobody: verified down, any node may start it */
    VMHA_SWAP_FAIL,
    VMHA_SWAP_REMOVE,
};

enum vmha_event_kind {
    VMHA_EVENT_TICK,
    VMHA_EVENT_STORAGE,        /* up: connection to hci-storaged */
    VMHA_EVENT_QUORUM,         /* up: connection to hci-quorumd */
    VMHA_EVENT_GROUP,          /* group, view */
    VMHA_EVENT_META_CHANGED,   /* group */
    VMHA_EVENT_META,           /* answer to READ: group, ok, meta */
    VMHA_EVENT_SWAPPED,        /* answer to SWAP: group, swap_result, meta (OK: as written; CHANGED: as it is now) */
    VMHA_EVENT_LEASE,          /* lease */
    VMHA_EVENT_PEER_LEASE,     /* answer to ASK_PEER_LEASE: ok, killed_in_ms */
    VMHA_EVENT_PEER_GONE,      /* group, incarnation: the peer signed it */
    VMHA_EVENT_FROZEN,         /* frozen: names borrowed for the call */
    VMHA_EVENT_REGISTERED,     /* answer to REGISTER: ok, serial */
    VMHA_EVENT_THAWED,         /* answer to THAW: group, ok */
    VMHA_EVENT_SIGNED,         /* answer to SIGN_GONE: group, ok, incarnation */
    VMHA_EVENT_LISTING,        /* the hypervisor is connected; DOMAIN_FOUND for each domain, then LISTED */
    VMHA_EVENT_DOMAIN_FOUND,   /* group, name, incarnation, found */
    VMHA_EVENT_LISTED,
    VMHA_EVENT_HYPERVISOR_LOST,
    VMHA_EVENT_STARTED,        /* answer to START: group, incarnation, ok, reason; paused, in its own cgroup */
    VMHA_EVENT_RESUMED,        /* answer to RESUME: group, ok, reason */
    VMHA_EVENT_KILLED,         /* answer to KILL: group, ok (verified: no process of it is left), reason */
    VMHA_EVENT_DOMAIN_ENDED,   /* group, by_guest: its own system shut it down */
    VMHA_EVENT_IO_ERROR,       /* group: paused by error_policy=stop */
    VMHA_EVENT_ASKED_START,    /* name, token */
    VMHA_EVENT_ASKED_STOP,     /* name, token, force */
    VMHA_EVENT_ASKED_REMOVE,   /* name, token */
};

struct vmha_view {
    char name[VMHA_NAME_MAX];  /* of the group */
    bool serving, local;       /* local: this node is the authority */
    bool member;               /* this node's copy is one of the record's members */
    bool peer_member;
};

struct vmha_meta {
    uint64_t version;
    char name[VMHA_NAME_MAX];  /* of the guest, "" when the group has none */
    bool has_record;
    struct record record;
};

enum vmha_swap_result {
    VMHA_SWAP_OK,
    VMHA_SWAP_CHANGED,     /* not done; meta is what it is now */
    VMHA_SWAP_UNAVAILABLE, /* nobody answered: it may have been done or not */
};

struct vmha_event {
    enum vmha_event_kind kind;
    uint64_t now_ms;           /* CLOCK_BOOTTIME, never falls */
    struct id group;
    char name[VMHA_NAME_MAX];
    uint64_t incarnation;
    uint64_t serial;
    uint64_t token;            /* of a command: comes back in its ANSWER */
    uint64_t killed_in_ms;
    bool ok, up, force, by_guest;
    char reason[RECORD_REASON_MAX];
    struct vmha_view view;
    struct vmha_meta meta;
    enum vmha_swap_result swap_result;
    struct { bool valid; uint64_t generation; } lease;
    struct { bool paused, frozen; } found;
    struct { const char *const *names; unsigned count; } frozen;
};

enum vmha_action_kind {
    VMHA_ACTION_READ,           /* group: meta.get */
    VMHA_ACTION_SWAP,           /* group, swap, expected, record (text filled by the adapter with record_format) */
    VMHA_ACTION_ASK_PEER_LEASE,
    VMHA_ACTION_REGISTER,       /* serial: guests.set with every guest for which vmha_core_registers is true */
    VMHA_ACTION_START,          /* group, name, incarnation: start paused, move to its cgroup */
    VMHA_ACTION_RESUME,         /* group, name */
    VMHA_ACTION_SHUTDOWN,       /* group, name: ask the guest's system; no answer */
    VMHA_ACTION_KILL,           /* group, name: kill its processes, destroy the domain, verify */
    VMHA_ACTION_THAW,           /* group, name */
    VMHA_ACTION_SIGN_GONE,      /* group, name, incarnation */
    VMHA_ACTION_ANSWER,         /* token, ok, code, text */
    VMHA_ACTION_PUBLISH,        /* group: what people see of this guest changed */
    VMHA_ACTION_NOTE,           /* text: for the log */
};

struct vmha_action {
    enum vmha_action_kind kind;
    struct id group;
    char name[VMHA_NAME_MAX];
    uint64_t incarnation, serial, token;
    uint64_t generation; /* THAW: of the lease when the record was proved */
    enum vmha_swap swap;
    bool ok;
    char code[24];
    char expected[RECORD_TEXT_MAX];
    struct record record;
    char text[VMHA_TEXT_MAX];
};

struct vmha_actions {
    unsigned count;
    struct vmha_action list[VMHA_ACTIONS_MAX];
};

enum vmha_command { VMHA_COMMAND_NONE, VMHA_COMMAND_START, VMHA_COMMAND_STOP, VMHA_COMMAND_REMOVE };

struct vmha_guest {
    bool used;
    struct id group;
    /* What hci-storaged says. */
    bool view_known;
    struct vmha_view view;
    bool meta_known, read_wanted, reading;
    bool doubted; /* an older version was answered: asked once more */
    uint64_t version;
    bool defined;                 /* the group has a guest */
    char name[VMHA_NAME_MAX];     /* "" while the group has no guest and none is here */
    struct record record;         /* the newest known */
    enum vmha_swap swap;          /* in flight */
    struct record swap_record;
    /* What is here. */
    int life;
    uint64_t here_incarnation;    /* of the domain here, being started or being killed; 0: none */
    uint64_t granted;             /* named by our own successful claim and not yet started; 0: none (R11 iii) */
    uint64_t generation;          /* of the lease when the record was last proved by a swap (a lapse raises it) */
    bool found, start_outstanding, kill_outstanding, kill_again, resume_outstanding;
    bool registered, register_acked, needs_resume, frozen, io_paused, ended_by_guest;
    uint64_t register_serial;     /* of the first REGISTER that holds it */
    uint64_t crashes_ms[VMHA_RESTARTS_MAX + 1]; /* newest first, 0: none */
    bool give_up;                 /* the next record says why */
    char reason[RECORD_REASON_MAX];
    uint64_t retry_at_ms, resume_at_ms, stop_at_ms;
    /* What is signed. */
    uint64_t peer_gone;           /* highest incarnation the peer signed gone; 0: none */
    uint64_t sign_incarnation;    /* to be signed by us; 0: none */
    bool sign_outstanding;
    uint64_t signed_incarnation, sign_again_at_ms;
    /* What people asked. */
    enum vmha_command command;
    bool command_force;
    uint64_t token;
    /* What was published last. */
    bool published_down;          /* the record names this node, and nothing runs here */
    int published_life;
    enum record_state published_state;
    uint64_t published_incarnation;
    struct id published_node;
};

struct vmha_core {
    struct id self, peer;
    char self_name[VMHA_NAME_MAX], peer_name[VMHA_NAME_MAX];
    uint64_t now_ms;
    bool storage_up, quorum_up, hypervisor_up;
    bool lease_valid;
    uint64_t generation;
    /* R11 ii: true only within the step that brought the answer; a later use asks again. */
    bool peer_killed;
    bool peer_lease_wanted, peer_lease_outstanding;
    uint64_t peer_lease_at_ms;
    bool register_dirty, register_outstanding;
    uint64_t register_serial, register_at_ms;
    struct vmha_guest guests[VMHA_GROUPS_MAX];
    struct vmha_actions *out;      /* of the running step */
};

/* The core is the caller's memory; nothing is to be freed. */
void vmha_core_init(struct vmha_core *core, const struct id *self, const char *self_name, const struct id *peer,
                    const char *peer_name);
/* `ret` is overwritten. */
void vmha_core_step(struct vmha_core *core, const struct vmha_event *event, struct vmha_actions *ret);
/* When the next TICK is due: UINT64_MAX for never. */
uint64_t vmha_core_deadline_ms(const struct vmha_core *core);

/* NULL when there is none. */
const struct vmha_guest *vmha_core_by_group(const struct vmha_core *core, const struct id *group);
const struct vmha_guest *vmha_core_by_name(const struct vmha_core *core, const char *name);
/* Does this guest belong in guests.set (it has, or had until verified dead, a QEMU in its own cgroup here)? */
bool vmha_core_registers(const struct vmha_guest *guest);
/* "running", "starting", "frozen", … here, or the record's word when it is not here. */
const char *vmha_core_state_name(const struct vmha_guest *guest);
/* "b", or "" when nobody. */
const char *vmha_core_node_name(const struct vmha_core *core, const struct vmha_guest *guest);
