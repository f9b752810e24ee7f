/* The storage engine: one data thread that owns the ring, the pool, the groups, the mirror link and the iSCSI target.
 *
 * It talks to the rest of the daemon through a port (functions that it calls on its thread: what it wants from
 * quorumd, what it tells) and through engine_post and engine_submit (any thread: what quorumd says, what people ask).
 * It knows no JSON and no socket but the link's and the target's. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/site.h"
#include "common/tls.h"
#include "quorum/authority_core.h"
#include "storaged/group/group_blob.h"
#include "storaged/iscsi/iscsi_target.h"
#include "storaged/group/metadata.h"
#include "storaged/mirror/mirror_link.h"
#include "storaged/pool/pool.h"
#include "storaged/ring.h"

struct engine;

/* ---- what the engine wants and tells ------------------------------------------------------------------------------- */

struct engine_cas { /* R4, R7.5: ask W; the answer comes as ENGINE_VERDICT */
    struct id group;
    struct { uint64_t epoch; uint8_t members; } from[2], to;
    unsigned from_count;
    bool was_primary;
};

struct engine_group_state {
    struct id group;
    char name[GROUP_NAME_SIZE];
    enum authority_role role;
    bool serving; /* requests complete here */
    bool local;   /* this node is the group's authority */
    bool gone;    /* the group was deleted */
    uint64_t epoch;
    uint8_t members;
};

struct engine_resync_state {
    struct id group;
    char name[GROUP_NAME_SIZE];
    enum { ENGINE_RESYNC_STARTED, ENGINE_RESYNC_DONE, ENGINE_RESYNC_INTERRUPTED } state;
    bool reconcile; /* both tails before a session of equals (R6), not a copy that was behind (R7) */
    uint64_t bytes_copied;
    double seconds;
};

struct engine_claim { /* storage.claim */
    unsigned primary_count, sole_count;
    struct id primary[POOL_GROUPS_MAX], sole[POOL_GROUPS_MAX];
};

/* Called on the data thread; must not block. Arguments are borrowed for the call. */
struct engine_port {
    void *userdata;
    void (*cas)(void *userdata, const struct engine_cas *cas);
    void (*ask_peer_lease)(void *userdata, const struct id *group); /* answered by ENGINE_PEER_LEASE */
    void (*claim)(void *userdata, const struct engine_claim *claim);
    void (*records_applied)(void *userdata, uint64_t counter);
    void (*group_changed)(void *userdata, const struct engine_group_state *state);
    void (*meta_changed)(void *userdata, const struct id *group, const char *name, uint64_t version);
    void (*link_changed)(void *userdata, bool connected);
    void (*resync_changed)(void *userdata, const struct engine_resync_state *state);
    void (*disk_changed)(void *userdata, const struct pool_disk_info *disk, bool gone); /* gone: out of the pool; its path is "" when another disk is there now. May be NULL */
};

/* ---- what quorumd says ----------------------------------------------------------------------------------------------- */

#define ENGINE_RECORDS_MAX 64u
struct engine_input {
    enum {
        ENGINE_VERDICT,    /* group, verdict, epoch, members, wait_ms, serve_after_ms, reason */
        ENGINE_PEER_LEASE, /* group, wait_ms */
        ENGINE_RECORDS,    /* counter, records */
        ENGINE_PEER,       /* up */
        ENGINE_WITNESS,    /* up */
    } kind;
    struct id group;
    enum authority_verdict verdict;
    uint64_t epoch, counter;
    uint8_t members;
    uint32_t wait_ms, serve_after_ms;
    bool up;
    char reason[256];
    unsigned record_count;
    struct { struct id group; uint64_t epoch; uint8_t members; } records[ENGINE_RECORDS_MAX];
};
/* Copies the input; any thread; in order. */
void engine_post(struct engine *engine, const struct engine_input *input);

/* ---- what people ask ------------------------------------------------------------------------------------------------- */

struct engine_volume_info {
    struct id id;
    char name[GROUP_NAME_SIZE];
    uint64_t size_bytes, used_bytes, lost_bytes;
};

struct engine_group_info {
    struct engine_group_state state;
    char reason[256];
    uint64_t meta_version, behind_bytes;
    unsigned volume_count;
    struct engine_volume_info volumes[GROUP_VOLUMES_MAX];
    bool resync_active;
    uint64_t resync_copied, resync_compared, resync_left;
    unsigned held; /* requests that wait */
};

struct engine_snapshot {
    bool has_pool, link_up, lease_valid, peer_suspect;
    struct err pool_error; /* why there is no pool */
    struct pool_stats pool;
    unsigned disk_count;
    struct pool_disk_info disks[POOL_DISKS_MAX];
    int64_t disk_since_s[POOL_DISKS_MAX]; /* when its state was seen to change, seconds since 1970; 0: before this start */
    int pool_failure;
    struct mirror_link_stats link;
    struct iscsi_target_stats target;
    unsigned group_count;
    struct engine_group_info groups[POOL_GROUPS_MAX];
};

#define ENGINE_SESSIONS_MAX 64u /* told of one target */
struct engine_session_info {
    char initiator[224], address[64];
};

struct engine_call {
    enum {
        ENGINE_POOL_OPEN,     /* paths, lost_disks */
        ENGINE_SNAPSHOT,      /* → snapshot */
        ENGINE_VOLUME_CREATE, /* name, group_name ("": its own), size_bytes → group, volume */
        ENGINE_VOLUME_DELETE, /* name */
        ENGINE_META_GET,      /* group_name (name or id) → group, metadata */
        ENGINE_META_SWAP,     /* group_name, changes → version; -ESTALE with metadata: the current entries */
        ENGINE_VOLUME_GROW,   /* name, size_bytes → group, volume; on both nodes */
        ENGINE_TARGET,        /* name of a volume → group, group_name, volume, metadata, sessions */
        ENGINE_DISK_ADD,      /* prepared (taken, also on failure) */
        ENGINE_DISK_REMOVE,   /* disk_name (id or path), lost → disk; done when draining has begun, or it is out already */
    } kind;
    char name[GROUP_NAME_SIZE], group_name[GROUP_NAME_SIZE];
    uint64_t size_bytes;
    unsigned path_count;
    const char *const *paths; /* borrowed until done */
    unsigned lost_count;
    struct id lost_disks[POOL_DISKS_MAX];
    struct pool_disk_prepared *prepared;
    char disk_name[256];
    bool lost;
    struct metadata_changes changes;

    int result; /* 0, or a negative errno with err */
    struct err err;
    struct id group, volume, disk;
    uint64_t version;
    struct metadata metadata;
    struct engine_session_info *sessions; /* the caller's, ENGINE_SESSIONS_MAX of them; filled */
    unsigned session_count;
    struct engine_snapshot *snapshot; /* the caller's; filled */

    void (*done)(struct engine_call *call); /* on the data thread, exactly once */
    void *userdata;
    struct ring_mail mail; /* private */
    struct list link;
    uint64_t deadline_ms;
    struct engine *engine;
};
/* Any thread. The caller keeps the call until `done`; changes and metadata are the caller's to clear. */
void engine_submit(struct engine *engine, struct engine_call *call);

/* ---- life -------------------------------------------------------------------------------------------------------------- */

struct engine_options {
    const struct site *site; /* borrowed, like the identity */
    const struct tls_identity *identity;
    struct engine_port port;
    size_t arena_bytes;      /* initiators' data; 0: 128 MiB */
    bool no_portals;         /* tests: no iSCSI target */
};

int engine_new(const struct engine_options *options, struct engine **ret, struct err *err);
/* The disks that the next opening of the pool shall do without: a person gave them up. Before engine_run. */
void engine_give_up_disks(struct engine *engine, const struct id *lost, unsigned count);
/* Blocking; before engine_run (later: ENGINE_POOL_OPEN). The reason of a failure is kept for status. */
int engine_open_pool(struct engine *engine, const char *const *paths, unsigned path_count, struct err *err);
/* Runs the data thread's loop until engine_stop; then everything is drained and the pool has a checkpoint. */
int engine_run(struct engine *engine);
/* Any thread. */
void engine_stop(struct engine *engine);
void engine_free(struct engine *engine);
/* For tests, on the data thread. */
struct lun_table *engine_luns(struct engine *engine);
struct ring *engine_ring(struct engine *engine);
