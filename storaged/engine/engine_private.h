/* The engine's own state, shared by engine*.c and the groups. */
#pragma once

#include "quorum/page.h"
#include "storaged/group/group.h"

struct peer_call; /* engine_peer.c */

struct engine {
    struct engine_options options;
    const struct site *site;
    struct id boot;
    struct ring *ring;
    struct iobuf_arena *arena;   /* initiators' requests: the target's */
    struct iobuf_arena *work;    /* whole blocks of unaligned requests, resync runs, reads for the other node */
    struct iobuf_arena *receive; /* what the mirror link receives */
    struct pool *pool;           /* NULL: none yet */
    struct err pool_error;
    struct lun_table *luns;
    struct iscsi_target *target; /* NULL without portals */
    struct mirror_link *link;
    bool link_up;  /* both sides have told their groups */
    bool draining; /* the old connection's business is not over yet */
    bool peer_suspect, witness_up;

    struct list groups;
    unsigned group_count;
    struct operation *operations;
    struct list free_operations;
    uint64_t operation_serial;
    struct list starved; /* of lun_request: no operation was free */
    struct receipt *receipts;
    struct list free_receipts;
    uint64_t forward_bytes; /* out at the other node */
    unsigned forward_count;
    uint64_t tags;

    char quorum_path[160], storage_path[160];
    const struct quorum_page *quorum_page; /* NULL: quorumd is not there, no lease */
    struct storage_page *storage_page;
    bool lease_valid;
    uint64_t lapses; /* seen here: part of the generation */
    uint64_t lease_boot, lease_generation;
    struct ring_mail lease_mail;
    bool lease_mailed;
    struct ring_timer tick;
    unsigned ticks;
    bool claim_changed;
    struct ring_mail claim_mail;

    struct list peer_calls; /* of struct peer_call */
    struct engine_call *creating; /* one volume at a time */
    struct group *creating_group;
    struct group_volume *creating_volume;
    struct engine_call *growing; /* one at a time, too */
    unsigned disk_count; /* as last told: engine_disks.c */
    struct pool_disk_info disks[POOL_DISKS_MAX];
    int64_t disk_since_s[POOL_DISKS_MAX];
    struct list removals; /* of disks */
    uint64_t disks_checked_ms;
    struct id lost_disks[POOL_DISKS_MAX]; /* for the next pool_open */
    unsigned lost_count;
    struct list state_swaps; /* group_state.c: of volumes' texts, waiting for somebody to serve their group */
    bool stopping, stopped_cleanly;
    struct ring_mail stop_mail;
    struct ring_timer stop_timer;
    uint64_t stop_deadline_ms;
};

/* ---- engine.c ---- */
/* R8: this node's lease at this moment. A lapse that only we saw counts, too. */
void engine_lease(struct engine *engine, bool *ret_valid, uint64_t *ret_generation);
struct group *engine_find_group(struct engine *engine, const struct id *id);
struct group *engine_find_group_by_name(struct engine *engine, const char *name_or_id);
struct group_volume *engine_find_volume(struct engine *engine, const char *name);
void engine_roles_changed(struct engine *engine); /* claims follow at the end of the batch's tick */
void engine_check_drained(struct engine *engine);
static inline const char *engine_node_name(const struct engine *engine, unsigned index) { return engine->site->nodes[index].name; }
static inline uint8_t engine_self_bit(const struct engine *engine) { return engine->site->self == 0 ? 1 : 2; }

/* ---- engine_peer.c: the link's events, and questions to the other node ---- */
extern const struct mirror_link_callbacks engine_link_callbacks;
typedef void peer_answer(struct engine *engine, void *userdata, int result, uint64_t version, const uint8_t *data, uint32_t size);
/* `message`: SWAP, CREATE or REMOVE; its tag is set here. `answer` always comes; -ENOTCONN when the link broke. */
void engine_ask_peer(struct engine *engine, struct mirror_message *message, const void *data, peer_answer *answer, void *userdata);
void engine_answer_peer(struct engine *engine, uint64_t tag, int result, uint64_t version, const void *data, uint32_t size);

/* ---- engine_volumes.c: creating and deleting ---- */
void volumes_create(struct engine *engine, struct engine_call *call);
void volumes_delete(struct engine *engine, struct engine_call *call);
void volumes_founded(struct group *group);
void volumes_tick(struct engine *engine, uint64_t now_ms);
void volumes_peer_create(struct engine *engine, const struct mirror_message *message);
void volumes_peer_remove(struct engine *engine, const struct mirror_message *message);
void volumes_delete_group(struct group *group, const char *why);
bool volume_name_is_text(const char *name);
const char *volume_explain(const struct engine *engine, int result); /* why the other node did not */
/* ---- engine_grow.c ---- */
void grow_call(struct engine *engine, struct engine_call *call);
void grow_peer(struct engine *engine, const struct mirror_message *message); /* the other node's GROW */
/* ---- engine_disks.c ---- */
void disks_opened(struct engine *engine);
void disks_add(struct engine *engine, struct engine_call *call);
void disks_remove(struct engine *engine, struct engine_call *call);
void disks_tick(struct engine *engine, uint64_t now_ms);
void disks_snapshot(struct engine *engine, struct engine_snapshot *ret);
/* ---- engine_calls.c ---- */
void calls_run(struct engine *engine, struct engine_call *call);
void call_fail(struct engine_call *call, int result, const char *code, const char *format, ...) __attribute__((format(printf, 4, 5)));
void call_done(struct engine_call *call);
void engine_snapshot_fill(struct engine *engine, struct engine_snapshot *ret);
